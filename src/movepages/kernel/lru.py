"""LRU lists and the per-CPU batches in front of them (mm/swap.c, mm/vmscan.c).

A page that is put on the LRU first waits in a batch of its CPU and has no LRU flag: it cannot be
isolated there. `lru_add_drain_all` empties all batches. The lists themselves are the LRU flag, the
ACTIVE flag and a stamp that rises with each addition: the oldest page has the lowest stamp.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from movepages.kernel.frames import PageFlag
from movepages.kernel.positions import all_differ, as_run, first_of_each

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from movepages.kernel.frames import Frames

    Folios = NDArray[np.int64]

_STAMP_LIMIT = (1 << 31) - 1


class Lru:
    """The LRU lists of all nodes, over the frames' flags and stamps."""

    def __init__(self, frames: Frames, batch_pages: int) -> None:
        """`batch_pages` is how many pages a CPU keeps before it adds them (PAGEVEC_SIZE)."""
        self._frames = frames
        self._batch_pages = batch_pages
        self._batches: dict[int, list[int]] = {}
        self._stamp = 0
        self._disabled = 0

    def add(self, folios: Folios, cpu: int) -> None:
        """Put new folios on the LRU by way of a CPU's batch (lru_cache_add).

        Large folios do not wait, and take with them what does.
        """
        waiting = self._batches.setdefault(cpu, [])
        large = bool(self._frames.order[folios].any())
        if self._disabled or large:
            self._add_now(np.array(waiting, dtype=np.int64))
            waiting.clear()
            self._add_now(folios)
            return
        total = len(waiting) + len(folios)
        kept = total % self._batch_pages
        through = len(folios) - min(kept, len(folios))
        if total >= self._batch_pages:
            self._add_now(np.array(waiting, dtype=np.int64))
            waiting.clear()
        self._add_now(folios[:through])
        waiting.extend(folios[through:].tolist())

    def drain_all(self) -> None:
        """Empty the batches of all CPUs (lru_add_drain_all)."""
        for waiting in self._batches.values():
            self._add_now(np.array(waiting, dtype=np.int64))
            waiting.clear()

    def disable_cache(self) -> None:
        """Empty the batches and let pages pass them by from now on (lru_cache_disable)."""
        self._disabled += 1
        self.drain_all()

    def enable_cache(self) -> None:
        """Undo one disable_cache (lru_cache_enable)."""
        self._disabled -= 1

    def isolate(self, folios: Folios) -> NDArray[np.bool_]:
        """Take folios off the LRU, with a reference each; False for those not on it.

        A folio named twice is isolated once: the second is not on the LRU any more
        (isolate_lru_page).
        """
        frames = self._frames
        isolated = frames.has(folios, PageFlag.LRU)
        taken = folios if isolated.all() else folios[isolated]
        if not all_differ(taken):
            first = first_of_each(taken)
            again = np.ones(len(taken), dtype=np.bool_)
            again[first] = False
            isolated[np.flatnonzero(isolated)[again]] = False
            taken = taken[first]
        at = as_run(taken)
        frames.flags[at] ^= np.uint32(PageFlag.LRU | PageFlag.ISOLATED)
        frames.references[at] += 1
        return isolated

    def putback(self, folios: Folios) -> None:
        """Put isolated folios back and drop the reference of isolation (move_to_lru).

        A folio that nobody else refers to is freed.
        """
        frames = self._frames
        frames.clear(folios, PageFlag.ISOLATED)
        wanted = folios[frames.references[folios] > 1]
        self._add_now(wanted)
        frames.put(folios)

    def add_moved(self, folios: Folios) -> None:
        """Put folios that took the place of others on the LRU at once, past the batches."""
        self._add_now(folios)

    def forget(self, folios: Folios) -> None:
        """Take folios off lists and batches for good: they are about to be freed."""
        self._frames.clear(folios, PageFlag.LRU)
        for waiting in self._batches.values():
            if waiting:
                gone = set(waiting).intersection(folios.tolist())
                waiting[:] = [folio for folio in waiting if folio not in gone]

    def waiting(self) -> Folios:
        """Return the folios that are in some CPU's batch."""
        return np.array([f for batch in self._batches.values() for f in batch], dtype=np.int64)

    def oldest(self, node: int, count: int) -> Folios:
        """Return the coldest folios of a node's lists: inactive before active, oldest first."""
        frames = self._frames
        memory = frames.nodes[node]
        pfns = np.arange(memory.first, memory.end)
        pfns = pfns[frames.has(pfns, PageFlag.LRU)]
        order = np.lexsort([frames.lru_stamp[pfns], frames.has(pfns, PageFlag.ACTIVE)])
        return pfns[order[:count]]

    def _add_now(self, folios: Folios) -> None:
        count = len(folios)
        if not count:
            return
        if self._stamp + count > _STAMP_LIMIT:
            self._renumber()
        at = as_run(folios)
        self._frames.flags[at] |= np.uint32(PageFlag.LRU)
        self._frames.lru_stamp[at] = np.arange(self._stamp, self._stamp + count)
        self._stamp += count

    def _renumber(self) -> None:
        """Give the pages on the lists new stamps from 0 on, in the same order."""
        listed = np.flatnonzero(self._frames.flags & np.uint32(PageFlag.LRU))
        order = np.argsort(self._frames.lru_stamp[listed], kind="stable")
        self._frames.lru_stamp[listed[order]] = np.arange(len(listed))
        self._stamp = len(listed)

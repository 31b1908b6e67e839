"""Swap space: where reclaim puts anonymous pages of a full node (mm/swapfile.c, mm/vmscan.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from movepages.kernel.frames import PageFlag
from movepages.kernel.page_tables import swap_entry, swap_slot

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from movepages.kernel.memory import Memory

    Indices = NDArray[np.int64]

_SCANNED_FOR_EACH = 4
"""Pages that reclaim looks at for each that it wants, before it gives up."""


class Swap:
    """Swap slots with their contents and how many entries refer to each."""

    def __init__(self, memory: Memory, pages: int) -> None:
        """Make that many slots, all free; 0 is a machine without swap."""
        self._memory = memory
        self.users = np.zeros(pages, dtype=np.int32)
        self._content = np.zeros(pages, dtype=np.uint64)
        self._data: dict[int, NDArray[np.uint8]] = {}

    @property
    def free_pages(self) -> int:
        """Slots that are free."""
        return int((self.users == 0).sum())

    def read(self, entries: Indices, heads: Indices) -> None:
        """Copy what swap entries hold into frames."""
        slots = swap_slot(entries)
        self._memory.frames.content[heads] = self._content[slots]
        if self._memory.frames.data is not None:
            for slot, head in zip(slots.tolist(), heads.tolist(), strict=True):
                self._memory.frames.data[head] = self._data[slot]

    def drop(self, entries: Indices) -> None:
        """Give up one use of each swap entry."""
        if len(entries):
            np.subtract.at(self.users, swap_slot(entries), 1)

    def duplicate(self, entries: Indices) -> None:
        """Add a use of each swap entry, as fork does."""
        if len(entries):
            np.add.at(self.users, swap_slot(entries), 1)

    def reclaim(self, node: int, wanted: int) -> int:
        """Write the coldest anonymous pages of a node to swap; return how many frames that freed.

        Pages that are shared, pinned or mlocked stay (a simplification of shrink_lruvec).
        """
        memory, frames = self._memory, self._memory.frames
        free = np.flatnonzero(self.users == 0)
        if not len(free):
            return 0
        cold = memory.lru.oldest(node, wanted * _SCANNED_FOR_EACH)
        fit = frames.has(cold, PageFlag.ANON) & ~frames.has(cold, PageFlag.KSM)
        fit &= (frames.order[cold] == 0) & (frames.mapcount[cold] == 1)
        fit &= (frames.references[cold] == 1) & ~memory.is_locked(cold)
        victims = cold[fit][: min(wanted, len(free))]
        if not len(victims):
            return 0
        slots = free[: len(victims)]
        self._write(victims, slots)
        mapped = memory.rmap.walk(victims)
        memory.tables.entry[mapped.slot] = swap_entry(slots[mapped.owner])
        self.users[slots] = 1
        frames.mapcount[victims] = 0
        memory.lru.forget(victims)
        frames.put(victims)
        return len(victims)

    def _write(self, pfns: Indices, slots: Indices) -> None:
        self._content[slots] = self._memory.frames.content[pfns]
        if self._memory.frames.data is not None:
            for slot, pfn in zip(slots.tolist(), pfns.tolist(), strict=True):
                self._data[slot] = self._memory.frames.data[pfn].copy()

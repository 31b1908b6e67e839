"""Physical memory as the system calls see it: the model's side of the `Frames` port.

Joins the frames, the LRU and the reverse mapping. What a move does between allocation and putback
is in `move_to_new_page`.
"""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from movepages.kernel.frames import PageFlag
from movepages.kernel.huge_memory import find_partially_mapped, guess_mapcounts, split_folios
from movepages.kernel.hugetlb import HugePools
from movepages.kernel.lru import Lru
from movepages.kernel.mappings import Mappings
from movepages.kernel.move_to_new_page import may_fail, move_to_new_pages
from movepages.kernel.mpol_alloc import Preference, allocate_by
from movepages.kernel.page_tables import PageTables
from movepages.kernel.ports import LATER, NONE
from movepages.kernel.positions import as_run, distinct
from movepages.kernel.rmap import ReverseMap
from movepages.kernel.swap import Swap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from movepages.kernel.frames import Frames
    from movepages.kernel.semantics import Semantics

    Handles = NDArray[np.int64]
    Nodes = NDArray[np.int32]


class Memory:
    """All of a machine's memory: frames, who maps them, and how they age."""

    def __init__(self, frames: Frames, semantics: Semantics, swap_pages: int = 0) -> None:
        """Begin with nothing mapped."""
        self.frames = frames
        self.semantics = semantics
        self.tables = PageTables()
        self.mappings = Mappings()
        self.lru = Lru(frames, semantics.lru_batch_pages)
        self.rmap = ReverseMap(frames, self.mappings, self.tables)
        self.pools = HugePools(frames)
        self.swap = Swap(self, swap_pages)
        self.on_pass: list[Callable[[int], None]] = []
        """Called when a pass over a page list begins: for faults made on purpose."""
        self.refuses_allocation: Callable[[], bool] | None = None
        """Asked before each allocation for a move, by faults made on purpose."""
        self.on_drain: list[Callable[[], None]] = []
        """Called when all LRU batches have been emptied: for faults made on purpose."""
        self.pins: Counter[int] = Counter()
        """Folio to the references that nothing in the model stands for: I/O in flight, the kernel.

        They are among `frames.references`; a recount needs to know of them.
        """

    def pin(self, heads: Handles) -> None:
        """Take a reference on folios that keeps them from moving until `unpin` (get_page)."""
        np.add.at(self.frames.references, heads, 1)
        self.pins.update(heads.tolist())

    def unpin(self, heads: Handles) -> None:
        """Drop references that `pin` took; folios that nobody else holds are freed (put_page)."""
        self.pins.subtract(heads.tolist())
        for head in set(heads.tolist()):
            if not self.pins[head]:
                del self.pins[head]
        np.subtract.at(self.frames.references, heads, 1)
        self.free_unused(np.unique(heads))

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Keep faults made on purpose out of what the kernel does of its own accord."""
        hooks, self.on_pass = self.on_pass, []
        refuses, self.refuses_allocation = self.refuses_allocation, None
        try:
            yield
        finally:
            self.on_pass, self.refuses_allocation = hooks, refuses

    def free_unused(self, heads: Handles) -> None:
        """Free those of some folios that nobody holds any more, wherever they wait."""
        gone = heads[self.frames.references[heads] == 0]
        self.lru.forget(gone)
        self.frames.free_unused(gone)

    # -- the Frames port ----------------------------------------------------------------------

    def node(self, pages: Handles) -> Nodes:
        """Return the node of each page."""
        return self.frames.node[as_run(pages)].astype(np.int32)

    def mapcount(self, pages: Handles) -> Handles:
        """Return how many times each page is mapped; for a THP what today's kernel guesses."""
        counts = self.frames.mapcount[as_run(pages)].astype(np.int64)
        if self.frames.had_large:
            several = np.flatnonzero((counts > 1) & self.frames.has(pages, PageFlag.THP))
            if len(several):
                counts[several] = guess_mapcounts(self, pages[several])
        return counts

    def processes(self, pages: Handles) -> Handles:
        """Return how many address spaces map each page."""
        return self.rmap.processes(pages)

    def is_zero_page(self, pages: Handles) -> NDArray[np.bool_]:
        """Tell which are the zero page or otherwise reserved."""
        return self.frames.has(pages, PageFlag.RESERVED)

    def is_locked(self, pages: Handles) -> NDArray[np.bool_]:
        """Tell which are mapped by an mlocked area."""
        return self.rmap.is_locked(pages)

    def drain(self) -> None:
        """Put pages that wait in per-CPU batches on the LRU."""
        self.lru.drain_all()
        self._drained()

    def disable_lru_cache(self) -> None:
        """Drain, and let no page wait until enable_lru_cache."""
        self.lru.disable_cache()
        self._drained()

    def enable_lru_cache(self) -> None:
        """End what disable_lru_cache began."""
        self.lru.enable_cache()

    def _drained(self) -> None:
        for hook in list(self.on_drain):
            hook()

    def on_lru(self, pages: Handles) -> NDArray[np.bool_]:
        """Tell which pages could be isolated now."""
        return self.frames.has(pages, PageFlag.LRU)

    def isolate(self, pages: Handles) -> NDArray[np.bool_]:
        """Take pages off the LRU, with a reference each."""
        return self.lru.isolate(pages)

    def putback(self, pages: Handles) -> None:
        """Put isolated pages back; one that nobody else refers to is freed."""
        self.lru.putback(pages)

    def surely_moves(self, pages: Handles) -> NDArray[np.bool_]:
        """Tell which isolated pages nothing but want of memory could keep from moving now."""
        if self.on_pass or self.refuses_allocation:
            return np.zeros(len(pages), dtype=np.bool_)
        return ~may_fail(self, pages)

    def begin_pass(self, number: int) -> bool:
        """Let faults made on purpose happen before a pass; True if there is none to happen."""
        for hook in list(self.on_pass):
            hook(number)
        return not self.on_pass and self.refuses_allocation is None

    def migrate(self, old: Handles, new: Handles, *, force: bool) -> NDArray[np.int32]:
        """Move isolated pages into new ones; 0 or a negative errno for each."""
        return move_to_new_pages(self, old, new, force=force)

    def partially_mapped(self, pages: Handles) -> NDArray[np.bool_]:
        """Tell which are THPs with pages that nobody maps any more, beside mapped ones."""
        return find_partially_mapped(self, pages)

    def split_isolated(self, page: int, *, force: bool) -> Handles | None:
        """Split an isolated THP into isolated pages; None if it is none, or is held by somebody."""
        frames, head = self.frames, np.array([page], dtype=np.int64)
        size = 1 << int(frames.order[page])
        if force:  # waits until whoever holds the lock, or writes, is done
            frames.clear(head, PageFlag.LOCKED | PageFlag.WRITEBACK)
        held = frames.references[page] != frames.mapcount[page] + 1
        busy = PageFlag.LOCKED | PageFlag.WRITEBACK | PageFlag.HUGETLB
        if size == 1 or held or frames.has(head, busy)[0]:
            return None
        split_folios(self, head)
        members = np.arange(page, page + size)
        return members[frames.has(members, PageFlag.ISOLATED)]

    def free_pages(self, pages: Handles) -> None:
        """Free pages that were allocated and not used."""
        self.frames.put(pages)

    def allocate(self, like: Handles, nodes: Nodes, *, exact: bool) -> Handles:
        """Allocate a page for each of `like`, of its size, on its node, or near it if not `exact`.

        NONE where there is no memory; LATER from where memory that the pages before give up by
        moving could make a difference.
        """
        if self.refuses_allocation is not None:
            return self._allocate_one(like, nodes, exact=exact)
        new = self._allocate_exact(like, nodes)
        short = np.flatnonzero(new == NONE)
        if not len(short):
            return new
        if exact:
            self._postpone(new, self._first_helped(like, nodes, new, short))
        elif short[0] > 0:
            self._postpone(new, int(short[0]))
        else:
            self._postpone(new, 1)
            self._allocate_nearby(new, like, nodes)
        return new

    def allocate_by(self, like: Handles, wants: Preference) -> Handles:
        """Allocate for the first pages of a list, those of one size, by lists of nodes.

        NONE and LATER as `allocate`; LATER for the rest of the list.
        """
        new = np.full(len(like), LATER, dtype=np.int64)
        order, hugetlb = self.order(like), self.frames.has(like, PageFlag.HUGETLB)
        other = (order != order[0]) | (hugetlb != hugetlb[0])
        count = int(np.argmax(other)) if other.any() else len(like)
        if self.refuses_allocation is not None:
            if self.refuses_allocation():
                new[0] = NONE
                return new
            count = 1

        def take(node: int, number: int) -> Handles:
            if hugetlb[0]:
                return self.pools.take_for_migration(node, number, int(order[0]))
            return self.frames.allocate(node, number, int(order[0]))

        def reclaim(node: int, number: int) -> int:
            return 0 if order[0] else self.swap.reclaim(node, number)

        wants = Preference(wants.lists, wants.which[:count])
        sources = self.frames.node[like[:count]].astype(np.int64)
        new[:count] = allocate_by(wants, take, self.frames.put, reclaim, sources)
        return new

    def interleave_index(self, pages: Handles) -> Handles:
        """Return the place of each page by which it is interleaved."""
        mappings, which = np.unique(self.frames.mapping[pages], return_inverse=True)
        bases = np.array([self.mappings[number].base for number in mappings.tolist()])
        ilx: Handles = (self.frames.index[pages] + bases[which]) >> self.order(pages)
        return ilx

    def order(self, pages: Handles) -> Handles:
        """Return the order of each folio."""
        return self.frames.order[pages].astype(np.int64)

    def _allocate_one(self, like: Handles, nodes: Nodes, *, exact: bool) -> Handles:
        """Decide only the first page, so that a fault made on purpose hits the right one."""
        new = np.full(len(like), LATER, dtype=np.int64)
        new[0] = NONE
        if self.refuses_allocation is not None and self.refuses_allocation():
            return new
        new[:1] = self._allocate_exact(like[:1], nodes[:1])
        if new[0] == NONE and not exact:
            self._allocate_nearby(new, like, nodes)
        return new

    def _allocate_exact(self, like: Handles, nodes: Nodes) -> Handles:
        """Allocate each page on its node, the first of the list first; NONE where it is full."""
        there_are = distinct(nodes)
        large = self.frames.had_large and self.frames.order[like].any()
        if len(there_are) == 1 and not large:
            found = self._take(there_are[0], len(like), 0, hugetlb=False)
            if len(found) == len(like):
                return found
            return np.append(found, np.full(len(like) - len(found), NONE))
        new = np.full(len(like), NONE, dtype=np.int64)
        kinds = None
        if large:
            order = self.frames.order[like].astype(np.int64)
            kinds = (order << 1) | self.frames.has(like, PageFlag.HUGETLB)
        for node in there_are:
            there = nodes == node
            for kind in (0,) if kinds is None else np.unique(kinds[there]).tolist():
                wanted = np.flatnonzero(there if kinds is None else there & (kinds == kind))
                found = self._take(node, len(wanted), kind >> 1, hugetlb=bool(kind & 1))
                new[wanted[: len(found)]] = found
        return new

    def _take(self, node: int, count: int, order: int, *, hugetlb: bool) -> Handles:
        if hugetlb:
            return self.pools.take_for_migration(node, count, order)
        found = self.frames.allocate(node, count, order)
        missing = count - len(found)
        if missing and not order and self.swap.reclaim(node, missing):
            found = np.concatenate([found, self.frames.allocate(node, missing)])
        return found

    def _first_helped(self, like: Handles, nodes: Nodes, new: Handles, short: Handles) -> int:
        """Return the first page without memory to which a page before it may give some.

        One that moves gives what it leaves, one that fails what it was to move into. The number of
        pages if there is none.
        """
        doubtful = np.flatnonzero(may_fail(self, like) & (new != NONE))
        earliest = np.full(max(self.frames.nodes) + 1, len(like))
        np.minimum.at(earliest, self.frames.node[like], np.arange(len(like)))
        np.minimum.at(earliest, nodes[doubtful], doubtful)
        helped = earliest[nodes[short]] < short
        return int(short[helped][0]) if helped.any() else len(like)

    def _postpone(self, new: Handles, first: int) -> None:
        """Take back what was allocated from a position on, to be asked for again."""
        tail = new[first:]
        self.frames.put(tail[tail != NONE])
        tail[:] = LATER

    def _allocate_nearby(self, new: Handles, like: Handles, nodes: Nodes) -> None:
        """Give the first page memory from the nearest node that has some, and others likewise.

        Those right after it that go the same way: to the same full node, with no page among them
        that makes room nearer by.
        """
        target, order = int(nodes[0]), int(self.frames.order[like[0]])
        alike = (nodes == target) & (self.frames.order[like] == order)
        alike[1:] &= new[1:] == LATER
        run = len(alike) if alike.all() else int(np.argmin(alike))
        passed: list[int] = []
        for node in self.frames.zonelists[target]:
            sources = set(np.unique(self.frames.node[like[:run]]).tolist())
            count = 1 if sources.intersection(passed) else run
            found = self.frames.allocate(node, count, order)
            if len(found):
                new[: len(found)] = found
                return
            passed.append(node)

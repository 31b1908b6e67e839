"""Page frames: struct page as a structure of arrays, indexed by page frame number.

40 bytes a frame. A folio of several frames (THP, hugetlb) is naturally aligned; all its frames
carry its order, and what counts for the folio (mapcount, references, flags, mapping) stands at its
head. `slot` is the page-table slot that maps the frame, right as long as exactly one does: it saves
the reverse-mapping walk for pages that nobody shares.

References are counted as the kernel does: one for each mapping, one for the LRU list's isolation,
one for the page cache, and one for whoever else holds the page (a pin).
"""

from __future__ import annotations

from enum import IntFlag
from typing import TYPE_CHECKING

import numpy as np

from movepages.kernel.positions import as_run, distinct

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from movepages.kernel.nodes import NodeMemory

    Pfns = NDArray[np.int64]

NO_MAPPING = 0
NO_SLOT = -1
ZERO_PFN = 0
"""The zero page: frame 0 of the machine, reserved, never freed."""


class PageFlag(IntFlag):
    """PG_*: the page flags that migration looks at."""

    LOCKED = 1 << 0
    REFERENCED = 1 << 1
    UPTODATE = 1 << 2
    DIRTY = 1 << 3
    LRU = 1 << 4
    ACTIVE = 1 << 5
    PRIVATE = 1 << 6
    WRITEBACK = 1 << 7
    RESERVED = 1 << 8
    SWAPBACKED = 1 << 9
    SWAPCACHE = 1 << 10
    UNEVICTABLE = 1 << 11
    ANON = 1 << 12
    KSM = 1 << 13
    HUGETLB = 1 << 14
    THP = 1 << 15
    PAGE_CACHE = 1 << 16
    ISOLATED = 1 << 17


class Frames:
    """All page frames of a machine, and the allocator over its nodes."""

    def __init__(
        self,
        nodes: Sequence[NodeMemory],
        zonelists: Mapping[int, Sequence[int]],
        page_size_bytes: int,
        *,
        real_bytes: bool = False,
    ) -> None:
        """Make the frames of the nodes, all free; frame 0 becomes the zero page.

        `zonelists` says for each node where to allocate from, the nearest first. With `real_bytes`
        every frame has its contents as bytes as well, not only a tag.
        """
        count = max(node.end for node in nodes)
        self.nodes = {node.id: node for node in nodes}
        self.zonelists = zonelists
        self.page_size_bytes = page_size_bytes
        self.node = np.full(count, -1, dtype=np.int16)
        self.flags = np.zeros(count, dtype=np.uint32)
        self.mapcount = np.zeros(count, dtype=np.int32)
        self.references = np.zeros(count, dtype=np.int32)
        self.mapping = np.zeros(count, dtype=np.int32)
        self.index = np.zeros(count, dtype=np.int32)
        self.order = np.zeros(count, dtype=np.int8)
        self.content = np.zeros(count, dtype=np.uint64)
        self.lru_stamp = np.zeros(count, dtype=np.int32)
        self.slot = np.full(count, NO_SLOT, dtype=np.int32)
        self.free = np.zeros(count, dtype=np.bool_)
        self.data = np.zeros((count, page_size_bytes), dtype=np.uint8) if real_bytes else None
        self.had_large = False
        """Whether there was ever a folio of several frames: most machines never have one."""
        self.free_hugetlb: Callable[[Pfns], None] = self.release
        """Where hugetlb pages without a reference go: set by the pools."""
        for node in nodes:
            self.node[node.first : node.end] = node.id
            self.free[node.first : node.end] = True
        self._make_zero_page()

    def __len__(self) -> int:
        """Count the frames."""
        return len(self.node)

    @property
    def bytes_per_frame(self) -> float:
        """Memory that the arrays take, in bytes for each frame, contents as bytes left out."""
        arrays = (a for n, a in vars(self).items() if isinstance(a, np.ndarray) and n != "data")
        return sum(array.nbytes for array in arrays) / len(self)

    def head(self, pfns: Pfns) -> Pfns:
        """Return the head frame of the folio that each frame is in."""
        order = self.order[pfns]
        if not order.any():
            return pfns
        return pfns >> order << order

    def heads_of_present(self, pfns: Pfns) -> Pfns:
        """Return the heads of frames; a negative number, which stands for no page, stays."""
        if not self.had_large:
            return pfns
        heads = pfns.copy()
        there = pfns >= 0
        heads[there] = self.head(pfns[there])
        return heads

    def allocate(self, node: int, count: int, order: int = 0) -> Pfns:
        """Allocate up to `count` folios on one node (alloc_pages with GFP_THISNODE).

        Return the heads, int64[n], n <= count, each with one reference and no flag.
        """
        memory = self.nodes.get(node)
        if memory is None or not memory.has_memory:
            return np.empty(0, dtype=np.int64)
        if not order:
            heads = memory.take(self.free, count)
        else:
            heads = memory.take_blocks(self.free, count, 1 << order)
            self.order[self.members(heads, order)] = order
            self.had_large = True
        self.references[heads] = 1
        return heads

    def members(self, heads: Pfns, order: int) -> Pfns:
        """Return all frames of folios of one order, folio by folio."""
        if not order:
            return heads
        return (heads[:, None] + np.arange(1 << order)).ravel()

    def put(self, heads: Pfns) -> None:
        """Drop a reference of each folio; free those that had their last one (put_page)."""
        at = as_run(heads)
        left = self.references[at] - 1
        self.references[at] = left
        unused = left == 0
        if unused.all():
            self.free_unused(heads)
        elif unused.any():
            self.free_unused(heads[unused])

    def free_unused(self, heads: Pfns) -> None:
        """Free folios without a reference: hugetlb pages go back to their pool."""
        if self.had_large:
            pooled = self.has(heads, PageFlag.HUGETLB)
            self.free_hugetlb(heads[pooled])
            heads = heads[~pooled]
        self.release(heads)

    def release(self, heads: Pfns) -> None:
        """Give folios to the free memory of their nodes, order and all (free_pages)."""
        orders = self.order[heads] if self.had_large else self.order[:0]
        if not orders.any():
            self._give_back(heads)
            return
        for order in np.unique(orders).tolist():
            frames = self.members(heads[orders == order], order)
            self.order[frames] = 0
            self._give_back(frames)

    def _give_back(self, frames: Pfns) -> None:
        self.reset(frames)
        nodes = self.node[as_run(frames)]
        there = distinct(nodes)
        for node in there:
            mine = frames if len(there) == 1 else frames[nodes == node]
            self.nodes[node].give_back(self.free, mine)

    def reset(self, frames: Pfns) -> None:
        """Forget all about some frames but their order."""
        at = as_run(frames)
        for array in (self.flags, self.mapcount, self.references, self.mapping, self.index):
            array[at] = 0
        self.content[at] = 0
        self.slot[at] = NO_SLOT
        if self.data is not None:
            self.data[at] = 0

    def has(self, pfns: Pfns, flag: PageFlag) -> NDArray[np.bool_]:
        """Tell which frames have a flag."""
        having: NDArray[np.bool_] = (self.flags[as_run(pfns)] & np.uint32(flag)) != 0
        return having

    def set(self, pfns: Pfns, flag: PageFlag) -> None:
        """Set a flag of frames."""
        self.flags[as_run(pfns)] |= np.uint32(flag)

    def clear(self, pfns: Pfns, flag: PageFlag) -> None:
        """Clear a flag of frames."""
        self.flags[as_run(pfns)] &= ~np.uint32(flag)

    def copy(self, old: Pfns, new: Pfns, order: int) -> None:
        """Copy the contents of folios."""
        source, target = as_run(self.members(old, order)), as_run(self.members(new, order))
        self.content[target] = self.content[source]
        if self.data is not None:
            self.data[target] = self.data[source]

    def _make_zero_page(self) -> None:
        first = self.nodes[int(self.node[ZERO_PFN])]
        first.take(self.free, 1)
        self.references[ZERO_PFN] = 1
        self.set(np.array([ZERO_PFN]), PageFlag.RESERVED)

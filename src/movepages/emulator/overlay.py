"""On which node each page is said to be: sparse arrays over the page numbers of one object.

An object is what pages belong to: the anonymous memory of an address space, by virtual page number,
or a file, by page of the file. Pages come in chunks of arrays; a chunk without a page that anyone
has asked for is not there. 11 bytes a page.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    Pages = NDArray[np.int64]

CHUNK_SHIFT = 12
CHUNK_PAGES = 1 << CHUNK_SHIFT
NOT_PLACED = -1
MAX_NODES = 128
"""Nodes are kept in a byte: one more than the highest number there can be."""
EXCLUSIVE = 1
"""Mapped once, as pagemap says."""
ISOLATED = 2
INHERITED = 4
"""Counted for the process that this one was forked from."""
GROUPED = 8
"""Of a huge page that is mapped page by page."""
SPLIT = 16
"""Of a huge page that was split here, and is one folio still for the host."""
ZEROED = 32
"""Full of zeroes when its huge page was split here."""


def _array(value: int, dtype: str) -> Callable[[], NDArray[Any]]:
    return partial(np.full, CHUNK_PAGES, value, dtype=dtype)


@dataclass(slots=True, eq=False)
class _Chunk:
    node: NDArray[np.int8] = field(default_factory=_array(NOT_PLACED, "i1"))
    order: NDArray[np.int8] = field(default_factory=_array(0, "i1"))
    flags: NDArray[np.uint8] = field(default_factory=_array(0, "u1"))
    frame: NDArray[np.int64] = field(default_factory=_array(0, "i8"))

    def copy(self) -> _Chunk:
        return _Chunk(self.node.copy(), self.order.copy(), self.flags.copy(), self.frame.copy())


class Overlay:
    """The pages of one object that have a node. Page numbers are int64[n], in any order."""

    def __init__(self) -> None:
        """Begin with none."""
        self._chunks: dict[int, _Chunk] = {}

    def copy(self) -> Overlay:
        """Return another with the same pages, which are counted here and now shared (fork)."""
        other = Overlay()
        for number, chunk in self._chunks.items():
            chunk.flags &= np.uint8(~EXCLUSIVE & 0xFF)
            other._chunks[number] = inherited = chunk.copy()
            inherited.flags[inherited.node != NOT_PLACED] |= np.uint8(INHERITED)
        return other

    def adopt(self, source: Overlay, pages: Pages) -> None:
        """Take over what another says of some pages; they are counted there."""
        self.set_nodes(pages, source.nodes(pages))
        none = np.zeros(len(pages), dtype=np.bool_)
        self.observe(pages, source.frames(pages), source.orders(pages), none)
        self.mark(pages, INHERITED)
        for flag in (GROUPED, SPLIT):
            self.mark(pages[source.has(pages, flag)], flag)

    def nodes(self, pages: Pages) -> NDArray[np.int8]:
        """Return the node of each page, or NOT_PLACED."""
        return self._gather("node", pages, np.full(len(pages), NOT_PLACED, dtype=np.int8))

    def orders(self, pages: Pages) -> NDArray[np.int8]:
        """Return the order of the folio that begins at each page."""
        return self._gather("order", pages, np.zeros(len(pages), dtype=np.int8))

    def frames(self, pages: Pages) -> Pages:
        """Return the page frame that each page had when it was last seen, 0 for unknown."""
        return self._gather("frame", pages, np.zeros(len(pages), dtype=np.int64))

    def has(self, pages: Pages, flag: int) -> NDArray[np.bool_]:
        """Tell which pages have a flag."""
        flags = self._gather("flags", pages, np.zeros(len(pages), dtype=np.uint8))
        there: NDArray[np.bool_] = (flags & np.uint8(flag)) != 0
        return there

    def unchanged(
        self, pages: Pages, frames: Pages, exclusive: NDArray[np.bool_]
    ) -> NDArray[np.bool_]:
        """Tell which are pages of their own that have a node and look as when last observed."""
        same = np.zeros(len(pages), dtype=np.bool_)
        for number, part in runs(pages >> CHUNK_SHIFT):
            chunk = self._chunks.get(number)
            if chunk is None:
                continue
            at = _inside(pages[part])
            alike = chunk.frame[at] == frames[part]
            alike &= chunk.node[at] != NOT_PLACED
            alike &= chunk.order[at] == 0
            alike &= chunk.flags[at] & np.uint8(EXCLUSIVE | GROUPED) == exclusive[part]
            same[part] = alike
        return same

    def set_nodes(self, pages: Pages, nodes: NDArray[np.integer]) -> None:
        """Say where pages are from now on."""
        for chunk, at, part in self._pieces(pages):
            chunk.node[at] = nodes[part]

    def observe(
        self,
        pages: Pages,
        frames: NDArray[np.integer],
        orders: NDArray[np.integer],
        exclusive: NDArray[np.bool_],
    ) -> None:
        """Note what pagemap says of pages that are present."""
        for chunk, at, part in self._pieces(pages):
            chunk.frame[at] = frames[part]
            chunk.order[at] = orders[part]
            kept = chunk.flags[at] & np.uint8(~EXCLUSIVE & 0xFF)
            chunk.flags[at] = kept | exclusive[part].astype(np.uint8)

    def mark(self, pages: Pages, flag: int) -> None:
        """Set a flag of pages."""
        for chunk, at, _ in self._pieces(pages):
            chunk.flags[at] |= np.uint8(flag)

    def unmark(self, pages: Pages, flag: int) -> None:
        """Clear a flag of pages."""
        for chunk, at, _ in self._pieces(pages):
            chunk.flags[at] &= np.uint8(~flag & 0xFF)

    def forget(self, start: int, end: int) -> NDArray[np.int64]:
        """Forget pages `start` to `end`; return how many of each node were counted here.

        Of a folio that lies in the range only in part the rest stays, as pages of their own.
        """
        self._split_at(start)
        self._split_at(end)
        gone = np.zeros(MAX_NODES, dtype=np.int64)
        first, last = start >> CHUNK_SHIFT, (end - 1) >> CHUNK_SHIFT
        wanted = range(first, last + 1) if last - first < len(self._chunks) else list(self._chunks)
        for number in wanted:
            chunk = self._chunks.get(number)
            if chunk is None or not first <= number <= last:
                continue
            low = max(start - (number << CHUNK_SHIFT), 0)
            high = min(end - (number << CHUNK_SHIFT), CHUNK_PAGES)
            gone += _counted(chunk, slice(low, high))
            if high - low == CHUNK_PAGES:
                del self._chunks[number]
                continue
            chunk.node[low:high] = NOT_PLACED
            chunk.order[low:high] = 0
            chunk.flags[low:high] = 0
            chunk.frame[low:high] = 0
        return gone

    def move(self, start: int, end: int, to: int) -> None:
        """Take what is known of pages `start` to `end` along to `to`, where nothing is known.

        A folio that would not be aligned there goes in single pages.
        """
        self._split_at(start)
        self._split_at(end)
        heads = self.placed(start, end)
        orders = self.orders(heads).astype(np.int64)
        unaligned = (to - start) % np.left_shift(1, orders) != 0
        for order, part in runs(orders[unaligned]):
            self.split(heads[unaligned][part], order)
        pages = self.placed(start, end)
        nodes, frames, kept_orders = self.nodes(pages), self.frames(pages), self.orders(pages)
        exclusive = self.has(pages, EXCLUSIVE)
        kept = {flag: self.has(pages, flag) for flag in (INHERITED, GROUPED, SPLIT)}
        self.forget(start, end)
        pages += to - start
        self.set_nodes(pages, nodes)
        self.observe(pages, frames, kept_orders, exclusive)
        for flag, having in kept.items():
            self.mark(pages[having], flag)

    def split(self, heads: Pages, order: int) -> None:
        """Take folios of an order, none larger than a chunk, for GROUPED pages on the same node."""
        inside = np.arange(1 << order)
        pages = (heads[:, None] + inside).ravel()
        frames = self.frames(heads)[:, None]
        frames = np.where(frames != 0, frames + inside, 0).ravel()
        inherited = np.repeat(self.has(heads, INHERITED), len(inside))
        exclusive = np.repeat(self.has(heads, EXCLUSIVE), len(inside))
        self.set_nodes(pages, np.repeat(self.nodes(heads), len(inside)))
        self.observe(pages, frames, np.zeros(len(pages), dtype=np.int8), exclusive)
        self.unmark(pages, INHERITED | SPLIT | ZEROED)
        self.mark(pages, GROUPED)
        self.mark(pages[inherited], INHERITED)

    def _split_at(self, page: int) -> None:
        """Split the folio, if any, that a page lies in and does not begin."""
        chunk = self._chunks.get(page >> CHUNK_SHIFT)
        if chunk is None:
            return
        inside = page & (CHUNK_PAGES - 1)
        before = np.flatnonzero(chunk.order[:inside])
        if not len(before):
            return
        head = int(before[-1])
        order = int(chunk.order[head])
        if inside < head + (1 << order) <= CHUNK_PAGES:
            self.split(np.array([page - inside + head]), order)

    def replace(self, pages: Pages) -> NDArray[np.int64]:
        """Take pages for new ones of their own; return how many of each node were counted here."""
        own = pages[~self.has(pages, INHERITED)]
        self.unmark(pages, INHERITED)
        return count_pages(self.nodes(own), self.orders(own))

    def placed(self, start: int = 0, end: int = 1 << 62) -> Pages:
        """Return the pages of a range that have a node, rising; by default all."""
        found = [
            np.flatnonzero(chunk.node != NOT_PLACED) + (number << CHUNK_SHIFT)
            for number, chunk in sorted(self._chunks.items())
            if start >> CHUNK_SHIFT <= number <= end >> CHUNK_SHIFT
        ]
        pages = np.concatenate(found) if found else np.empty(0, dtype=np.int64)
        return pages[(pages >= start) & (pages < end)]

    def _gather(self, name: str, pages: Pages, out: NDArray[Any]) -> NDArray[Any]:
        for number, part in runs(pages >> CHUNK_SHIFT):
            chunk = self._chunks.get(number)
            if chunk is not None:
                out[part] = getattr(chunk, name)[_inside(pages[part])]
        return out

    def _pieces(self, pages: Pages) -> Iterator[tuple[_Chunk, Pages | slice, Pages | slice]]:
        """Go through chunks: the chunk, indices into it, and which of the pages they are."""
        for number, part in runs(pages >> CHUNK_SHIFT):
            chunk = self._chunks.get(number)
            if chunk is None:
                chunk = self._chunks[number] = _Chunk()
            yield chunk, _inside(pages[part]), part


def _inside(pages: Pages) -> Pages | slice:
    """Return indices into a chunk, as a slice where the pages lie side by side."""
    first = int(pages[0]) & (CHUNK_PAGES - 1)
    if len(pages) == 1:
        return slice(first, first + 1)
    last = int(pages[-1]) & (CHUNK_PAGES - 1)
    if last - first == len(pages) - 1 and (len(pages) < 3 or (np.diff(pages) == 1).all()):
        return slice(first, last + 1)
    return pages & (CHUNK_PAGES - 1)


def runs(keys: Pages) -> Iterator[tuple[int, Pages | slice]]:
    """Go through the distinct values of an array: each value, and where it is."""
    if not len(keys):
        return
    if len(keys) == 1 or (keys[0] == keys[-1] and (keys == keys[0]).all()):
        yield int(keys[0]), slice(0, len(keys))
        return
    order: Pages | None = None
    if (keys[1:] < keys[:-1]).any():
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
    bounds = [0, *(np.flatnonzero(keys[1:] != keys[:-1]) + 1).tolist(), len(keys)]
    for low, high in pairwise(bounds):
        yield int(keys[low]), slice(low, high) if order is None else order[low:high]


def distinct(values: NDArray[Any]) -> NDArray[Any]:
    """Return the distinct values of an array, rising.

    As np.unique does, which for that imports numpy.ma: a tenth of the time that a start takes.
    """
    rising: NDArray[Any] = np.sort(values)
    first = np.ones(len(rising), dtype=np.bool_)
    first[1:] = rising[1:] != rising[:-1]
    return rising[first]


def count_pages(nodes: NDArray[np.integer], orders: NDArray[np.integer]) -> NDArray[np.int64]:
    """Count the pages of folios by node: int64[MAX_NODES]."""
    sizes = np.left_shift(1, orders.astype(np.int64))
    counts: NDArray[np.int64] = np.bincount(nodes, sizes, MAX_NODES).astype(np.int64)
    return counts


def _counted(chunk: _Chunk, part: slice) -> NDArray[np.int64]:
    node, flags = chunk.node[part], chunk.flags[part]
    own = (node != NOT_PLACED) & ((flags & np.uint8(INHERITED)) == 0)
    return count_pages(node[own], chunk.order[part][own])

"""Pages of live processes behind the `Frames` port: nothing moves but what is said of a page.

What the host's kernel does with page frames is its own affair. A page is isolated, is given a page
on another node, moves and is put back as far as this side of the port can tell. What a live process
does not show, pins and pages busy under I/O, never keeps a page here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from movepages.abi import Errno
from movepages.emulator.objects import (
    NEW_PAGES,
    PAGE_BITS,
    ZERO_PAGE,
    object_numbers,
    page_numbers,
)
from movepages.emulator.overlay import EXCLUSIVE, ISOLATED, distinct, runs
from movepages.kernel.mpol_alloc import allocate_by
from movepages.kernel.ports import LATER, NONE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from movepages.emulator.capacity import Capacity
    from movepages.emulator.objects import Objects, PageObject
    from movepages.emulator.processes import Mm, Processes
    from movepages.kernel.mpol_alloc import Preference

    Handles = NDArray[np.int64]
    Nodes = NDArray[np.int32]

_NODE_SHIFT, _ORDER_SHIFT = 33, 27
_ORDER_MASK = (1 << _NODE_SHIFT - _ORDER_SHIFT) - 1
_SERIAL_MASK = (1 << _ORDER_SHIFT) - 1


class LiveFrames:
    """All pages of the program and of the files it maps."""

    def __init__(
        self,
        objects: Objects,
        processes: Processes,
        capacity: Capacity,
        zonelists: Mapping[int, Sequence[int]],
    ) -> None:
        """Join what pages belong to, who maps them, how much memory nodes have, who is near."""
        self._objects, self._processes = objects, processes
        self._capacity, self._zonelists = capacity, zonelists
        self._serial = 0
        self.moved = 0
        """Pages that have been moved so far."""

    def node(self, pages: Handles) -> Nodes:
        """Return the node of each page; the zero page is on node 0."""
        nodes = np.zeros(len(pages), dtype=np.int32)
        for thing, numbers, part in self._by_object(pages):
            nodes[part] = thing.pages.nodes(numbers)
        new = np.flatnonzero(object_numbers(pages) == NEW_PAGES)
        nodes[new] = _node_of_new(pages[new])
        return nodes

    def mapcount(self, pages: Handles) -> Handles:
        """Return 1 for a page that is mapped once, 2 for one that is mapped more often."""
        counts = np.full(len(pages), 2, dtype=np.int64)
        for thing, numbers, part in self._by_object(pages):
            counts[part] -= thing.pages.has(numbers, EXCLUSIVE)
        return counts

    def processes(self, pages: Handles) -> Handles:
        """Return 1 for a page that one process maps, 2 for one of several, as far as is known."""
        return self.mapcount(pages)

    def is_zero_page(self, pages: Handles) -> NDArray[np.bool_]:
        """Tell which are the zero page."""
        zero: NDArray[np.bool_] = pages == ZERO_PAGE
        return zero

    def is_locked(self, pages: Handles) -> NDArray[np.bool_]:
        """Tell which are mlocked: that is not known, and none is said to be."""
        return np.zeros(len(pages), dtype=np.bool_)

    def drain(self) -> None:
        """No page waits in a batch."""

    def disable_lru_cache(self) -> None:
        """No page waits in a batch."""

    def enable_lru_cache(self) -> None:
        """No page waits in a batch."""

    def on_lru(self, pages: Handles) -> NDArray[np.bool_]:
        """Tell which pages could be isolated: those that are not."""
        there = np.zeros(len(pages), dtype=np.bool_)
        for thing, numbers, part in self._by_object(pages):
            there[part] = ~thing.pages.has(numbers, ISOLATED)
        return there

    def surely_moves(self, pages: Handles) -> NDArray[np.bool_]:
        """Tell which pages do not refuse to move: nothing else keeps one here."""
        moves = np.ones(len(pages), dtype=np.bool_)
        for thing, _, part in self._by_object(pages):
            moves[part] = thing.movable
        return moves

    def isolate(self, pages: Handles) -> NDArray[np.bool_]:
        """Isolate pages; False for one that cannot be, and for a page's second mention."""
        free = self.on_lru(pages)
        if len(pages) > 1 and not (pages[1:] > pages[:-1]).all():
            first = np.zeros(len(pages), dtype=np.bool_)
            first[np.unique(pages, return_index=True)[1]] = True
            free &= first
        for thing, numbers, _ in self._by_object(pages[free]):
            thing.pages.mark(numbers, ISOLATED)
        return free

    def putback(self, pages: Handles) -> None:
        """Put isolated pages back."""
        for thing, numbers, _ in self._by_object(pages):
            thing.pages.unmark(numbers, ISOLATED)

    def order(self, pages: Handles) -> Handles:
        """Return the order of each folio."""
        orders = np.zeros(len(pages), dtype=np.int64)
        for thing, numbers, part in self._by_object(pages):
            orders[part] = thing.pages.orders(numbers)
        return orders

    def interleave_index(self, pages: Handles) -> Handles:
        """Return the place of each page in its object, in folios."""
        index: Handles = page_numbers(pages) >> self.order(pages)
        return index

    # -- moving -------------------------------------------------------------------------------

    def allocate(self, like: Handles, nodes: Nodes, *, exact: bool) -> Handles:
        """Take room for each page on its node, or near it if not `exact`.

        NONE where there is none; LATER from where pages before give some up by moving.
        """
        new = np.full(len(like), NONE, dtype=np.int64)
        order = self.order(like)
        for node, part in runs(nodes.astype(np.int64)):
            for size, inner in runs(order[part]):
                wanted = np.arange(len(like))[part][inner]
                found = self._capacity.take(node, len(wanted), size)
                new[wanted[:found]] = self._new_pages(node, found, size)
        short = np.flatnonzero(new == NONE)
        if not len(short):
            return new
        if not exact:
            return self._nearby(new, order, nodes)
        sources = self.node(like)
        leaves = {int(node): int(np.argmax(sources == node)) for node in distinct(sources)}
        helped = [at for at in short.tolist() if leaves.get(int(nodes[at]), at) < at]
        if helped:
            self.free_pages(new[helped[0] :])
            new[helped[0] :] = LATER
        return new

    def allocate_by(self, like: Handles, wants: Preference) -> Handles:
        """Take room for the first pages, those of one size, by lists of nodes; LATER for others."""
        order = self.order(like)
        other = order != order[0]
        count = int(np.argmax(other)) if other.any() else len(like)
        new = np.full(len(like), LATER, dtype=np.int64)
        size = int(order[0])

        def take(node: int, number: int) -> Handles:
            return self._new_pages(node, self._capacity.take(node, number, size), size)

        wants = type(wants)(wants.lists, wants.which[:count])
        sources = self.node(like[:count]).astype(np.int64)
        new[:count] = allocate_by(wants, take, self.free_pages, lambda _node, _count: 0, sources)
        return new

    def begin_pass(self, number: int) -> bool:
        """Nothing changes a page between two passes: its process waits for the call to end."""
        del number
        return True

    def migrate(self, old: Handles, new: Handles, *, force: bool) -> NDArray[np.int32]:
        """Say of each page that it is on the node of its new page, for all who share it.

        -EBUSY for one that refuses.
        """
        del force
        results = np.where(self.surely_moves(old), 0, -Errno.EBUSY).astype(np.int32)
        old, new = old[results == 0], new[results == 0]
        sizes = np.left_shift(1, self.order(old))
        nodes, sources = _node_of_new(new), self.node(old)
        for thing, numbers, part in self._by_object(old):
            self._tell_relatives(thing, numbers, nodes[part])
            thing.pages.set_nodes(numbers, nodes[part])
        counts = np.bincount(sources, sizes, len(self._capacity.used))
        self._capacity.release(counts.astype(np.int64))
        self.putback(old)
        self.moved += int(sizes.sum())
        return results

    def split_isolated(self, page: int) -> Handles:
        """No page needs to be split to be moved."""
        del page
        return np.empty(0, dtype=np.int64)

    def free_pages(self, pages: Handles) -> None:
        """Give back room that was taken and not used."""
        new = pages[pages >= 0]
        frames = np.left_shift(1, _order_of_new(new))
        counts = np.bincount(_node_of_new(new), frames, len(self._capacity.used))
        self._capacity.release(counts.astype(np.int64))

    # -- inside -------------------------------------------------------------------------------

    def _by_object(self, pages: Handles) -> Iterator[tuple[PageObject, Handles, Handles | slice]]:
        """Go through the objects of some pages: the object, pages of it, and which they are."""
        for number, part in runs(object_numbers(pages)):
            if number > NEW_PAGES:
                yield self._objects[number], page_numbers(pages[part]), part

    def _new_pages(self, node: int, count: int, order: int) -> Handles:
        serial = np.arange(self._serial, self._serial + count, dtype=np.int64) & _SERIAL_MASK
        self._serial += count
        kind = (NEW_PAGES << PAGE_BITS) | (node << _NODE_SHIFT) | (order << _ORDER_SHIFT)
        return serial | np.int64(kind)

    def _nearby(self, new: Handles, order: Handles, nodes: Nodes) -> Handles:
        """Find room for pages whose node is full on the nearest that has some."""
        full: set[tuple[int, int]] = set()
        for at in np.flatnonzero(new == NONE).tolist():
            size = int(order[at])
            for node in self._zonelists[int(nodes[at])]:
                if (node, size) in full:
                    continue
                if self._capacity.take(node, 1, size):
                    new[at] = self._new_pages(node, 1, size)[0]
                    break
                full.add((node, size))
        return new

    def _tell_relatives(self, thing: PageObject, numbers: Handles, nodes: Handles) -> None:
        """Say the same of pages that other processes share since a fork: those with its frame."""
        shared = ~thing.pages.has(numbers, EXCLUSIVE)
        if not shared.any():
            return
        for mm in self._relatives(thing):
            other = mm.anonymous.pages
            same = other.frames(numbers[shared]) == thing.pages.frames(numbers[shared])
            same &= other.nodes(numbers[shared]) == thing.pages.nodes(numbers[shared])
            other.set_nodes(numbers[shared][same], nodes[shared][same])

    def _relatives(self, thing: PageObject) -> list[Mm]:
        for mm in self._processes.mms():
            if mm.anonymous is thing:
                return [other for other in mm.relatives if other is not mm]
        return []


def _node_of_new(pages: Handles) -> Handles:
    nodes: Handles = page_numbers(pages) >> _NODE_SHIFT
    return nodes


def _order_of_new(pages: Handles) -> Handles:
    orders: Handles = (page_numbers(pages) >> _ORDER_SHIFT) & _ORDER_MASK
    return orders

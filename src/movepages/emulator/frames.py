"""Pages of live processes behind the `Frames` port: nothing moves but what is said of a page.

What the host's kernel does with page frames is its own affair. A page is isolated, is given a page
on another node, moves and is put back as far as this side of the port can tell. What a live process
does not show, pins and pages busy under I/O, never keeps a page here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from movepages.abi import Errno
from movepages.emulator.large_folios import count_alone
from movepages.emulator.objects import (
    NEW_PAGES,
    PAGE_BITS,
    ZERO_PAGE,
    object_numbers,
    page_numbers,
)
from movepages.emulator.overlay import (
    EXCLUSIVE,
    GROUPED,
    ISOLATED,
    count_pages,
    distinct,
    runs,
)
from movepages.emulator.relatives import Relatives
from movepages.kernel.mpol_alloc import allocate_by
from movepages.kernel.ports import LATER, NONE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from movepages.emulator.large_folios import LargeFolios
    from movepages.emulator.objects import Objects, PageObject
    from movepages.emulator.pools import Hstates
    from movepages.emulator.processes import Processes
    from movepages.kernel.mpol_alloc import Preference

    Handles = NDArray[np.int64]
    Nodes = NDArray[np.int32]

_NODE_SHIFT, _POOLED_SHIFT, _ORDER_SHIFT = 33, 32, 27
_ORDER_MASK = (1 << _POOLED_SHIFT - _ORDER_SHIFT) - 1
_SERIAL_MASK = (1 << _ORDER_SHIFT) - 1


class LiveFrames:
    """All pages of the program and of the files it maps."""

    def __init__(
        self,
        objects: Objects,
        processes: Processes,
        large_folios: LargeFolios,
        pools: Hstates,
        zonelists: Mapping[int, Sequence[int]],
    ) -> None:
        """Join what pages belong to, who maps them, what room nodes have for them, who is near."""
        self._objects, self._large = objects, large_folios
        self._relatives = Relatives(processes, large_folios)
        self._pools, self._zonelists = pools, zonelists
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
            huge = np.flatnonzero(self._relatives.are_huge(thing, numbers))
            if len(huge):
                shared = [self._large.is_shared(thing, page) for page in numbers[huge].tolist()]
                counts[np.arange(len(pages))[part][huge]] = np.array(shared) + 1
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
        """Tell which pages neither refuse to move nor may be split for it."""
        moves = np.ones(len(pages), dtype=np.bool_)
        for thing, numbers, part in self._by_object(pages):
            moves[part] = thing.movable & ~thing.pages.has(numbers, GROUPED)
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
            orders[part] = self._orders(thing, numbers)
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
        kinds = self._kinds(like)
        for node, part in runs(nodes.astype(np.int64)):
            for kind, inner in runs(kinds[part]):
                wanted = np.arange(len(like))[part][inner]
                found = self._take(node, len(wanted), kind)
                new[wanted[: len(found)]] = found
        short = np.flatnonzero(new == NONE)
        if not len(short):
            return new
        if not exact:
            return self._nearby(new, kinds, nodes)
        sources = self.node(like)
        leaves = {int(node): int(np.argmax(sources == node)) for node in distinct(sources)}
        helped = [at for at in short.tolist() if leaves.get(int(nodes[at]), at) < at]
        if helped:
            self.free_pages(new[helped[0] :])
            new[helped[0] :] = LATER
        return new

    def allocate_by(self, like: Handles, wants: Preference) -> Handles:
        """Take room for the first pages, those of one kind, by lists of nodes; LATER for others."""
        kinds = self._kinds(like)
        other = kinds != kinds[0]
        count = int(np.argmax(other)) if other.any() else len(like)
        new = np.full(len(like), LATER, dtype=np.int64)

        def take(node: int, number: int) -> Handles:
            return self._take(node, number, int(kinds[0]))

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
        results = np.zeros(len(old), dtype=np.int32)
        for thing, _, part in self._by_object(old):
            results[part] = 0 if thing.movable else -Errno.EBUSY
        old, new = old[results == 0], new[results == 0]
        sizes = np.left_shift(1, self.order(old))
        nodes, sources = _node_of_new(new), self.node(old)
        for thing, numbers, part in self._by_object(old):
            self._relatives.tell(thing, numbers, nodes[part])
            thing.pages.set_nodes(numbers, nodes[part])
            for at in np.flatnonzero(thing.pages.has(numbers, GROUPED)).tolist():
                self._move_group(thing, int(numbers[at]), int(sources[part][at]))
            self._leave(thing.pool_order, sources[part], new[part])
        self.putback(old)
        self.moved += int(sizes.sum())
        return results

    def partially_mapped(self, pages: Handles) -> NDArray[np.bool_]:
        """Tell which are huge pages of which some pages are mapped by nobody any more."""
        partly = np.zeros(len(pages), dtype=np.bool_)
        for thing, numbers, part in self._by_object(pages):
            grouped = np.flatnonzero(thing.pages.has(numbers, GROUPED))
            for at in grouped.tolist():
                found = self._large.is_partially_mapped(thing, int(numbers[at]))
                partly[np.arange(len(pages))[part][at]] = found
        return partly

    def split_isolated(self, page: int, *, force: bool) -> Handles | None:
        """Split a huge page that is mapped page by page; None for one that is mapped whole."""
        del force
        handle = np.array([page])
        thing, numbers, _ = next(self._by_object(handle))
        if not thing.pages.has(numbers, GROUPED)[0]:
            return None
        thing.pages.unmark(numbers, ISOLATED)
        kept: list[Handles] = []
        for overlay, pages, zeroes in self._large.split(thing, int(numbers[0])):
            kept.append(pages)
            self._large.unplace(overlay, zeroes, self._pools.room(0))
        thing.pages.mark(kept[0], ISOLATED)
        return thing.handles(kept[0])

    def free_pages(self, pages: Handles) -> None:
        """Give back room that was taken and not used."""
        new = pages[pages >= 0]
        rooms = np.where(_is_pooled(new), _order_of_new(new), 0)
        for pool_order, part in runs(rooms):
            freed = count_pages(_node_of_new(new[part]), _order_of_new(new[part]))
            self._pools.room(pool_order).release(freed)

    # -- inside -------------------------------------------------------------------------------

    def _by_object(self, pages: Handles) -> Iterator[tuple[PageObject, Handles, Handles | slice]]:
        """Go through the objects of some pages: the object, pages of it, and which they are."""
        for number, part in runs(object_numbers(pages)):
            if number > NEW_PAGES:
                yield self._objects[number], page_numbers(pages[part]), part

    def _kinds(self, pages: Handles) -> Handles:
        """Return what decides which room each page takes: its order twice, 1 more if of a pool."""
        kinds = np.zeros(len(pages), dtype=np.int64)
        for thing, numbers, part in self._by_object(pages):
            kinds[part] = (self._orders(thing, numbers) << 1) + (thing.pool_order > 0)
        return kinds

    def _take(self, node: int, count: int, kind: int) -> Handles:
        """Take room for up to so many pages of a kind; return the new pages."""
        order = kind >> 1
        if not kind & 1:
            return self._new_pages(node, self._pools.room(0).take(node, count, order), order)
        pooled, made = self._pools[order].take_for_migration(node, count)
        new = self._new_pages(node, pooled + made, order)
        new[:pooled] |= np.int64(1 << _POOLED_SHIFT)
        return new

    def _leave(self, pool_order: int, sources: Nodes, new: Handles) -> None:
        """Give up the room that pages of one object had, for they are in their new pages now."""
        if pool_order:
            nodes = _node_of_new(new)
            self._pools[pool_order].moved(sources.astype(np.int64), nodes, _is_pooled(new))
        else:
            self._pools.room(0).release(count_pages(sources, _order_of_new(new)))

    def _new_pages(self, node: int, count: int, order: int) -> Handles:
        serial = np.arange(self._serial, self._serial + count, dtype=np.int64) & _SERIAL_MASK
        self._serial += count
        kind = (NEW_PAGES << PAGE_BITS) | (node << _NODE_SHIFT) | (order << _ORDER_SHIFT)
        return serial | np.int64(kind)

    def _nearby(self, new: Handles, kinds: Handles, nodes: Nodes) -> Handles:
        """Find room for pages whose node is full on the nearest that has some."""
        full: set[tuple[int, int]] = set()
        for at in np.flatnonzero(new == NONE).tolist():
            kind = int(kinds[at])
            for node in self._zonelists[int(nodes[at])]:
                if (node, kind) in full:
                    continue
                found = self._take(node, 1, kind)
                if len(found):
                    new[at] = found[0]
                    break
                full.add((node, kind))
        return new

    def _orders(self, thing: PageObject, numbers: Handles) -> Handles:
        """Return the orders of folios of one object."""
        orders = thing.pages.orders(numbers).astype(np.int64)
        orders[thing.pages.has(numbers, GROUPED)] = self._large.order
        return orders

    def _move_group(self, thing: PageObject, page: int, source: int) -> None:
        """Let all pages of a huge page be where the first is, and count those that are known."""
        known = self._large.known(thing.pages, page)
        node = thing.pages.nodes(np.array([page]))
        thing.pages.set_nodes(known, np.repeat(node, len(known)))
        uncounted = self._large.pages - len(known)
        self._pools.room(0).charge(count_alone(np.repeat(source, uncounted)))
        self._pools.room(0).release(count_alone(np.repeat(node, uncounted)))


def _node_of_new(pages: Handles) -> Handles:
    nodes: Handles = page_numbers(pages) >> _NODE_SHIFT
    return nodes


def _is_pooled(pages: Handles) -> NDArray[np.bool_]:
    pooled: NDArray[np.bool_] = (page_numbers(pages) >> _POOLED_SHIFT & 1) != 0
    return pooled


def _order_of_new(pages: Handles) -> Handles:
    orders: Handles = (page_numbers(pages) >> _ORDER_SHIFT) & _ORDER_MASK
    return orders

"""The address space of a live process behind the `AddressSpace` port.

Areas come from the kernel's own maps, pages from pagemap. A page that is seen for the first time is
given a node here, by who touched it (`first_touch`); so is one whose frame has changed because it
was copied on write.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from dataclasses import dataclass, field
from operator import itemgetter
from typing import TYPE_CHECKING

import numpy as np

from movepages.abi.pagemap import PagemapBit
from movepages.abi.procmap import VmaFlag
from movepages.emulator.first_touch import place
from movepages.emulator.live_area import read_area
from movepages.emulator.objects import ZERO_PAGE
from movepages.emulator.overlay import EXCLUSIVE, GROUPED, NOT_PLACED, distinct, runs
from movepages.emulator.seen import Seen, present_pages, read_present_pages
from movepages.errors import no_such_process
from movepages.kernel.ports import NONE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from movepages.emulator.first_touch import Touch
    from movepages.emulator.live_area import LiveArea
    from movepages.emulator.machine import EmulatedMachine
    from movepages.emulator.mm import Mm
    from movepages.emulator.objects import PageObject
    from movepages.emulator.processes import LiveTask
    from movepages.linux.page_facts import PageFacts

    Addresses = NDArray[np.uint64]
    Handles = NDArray[np.int64]

_PRESENT = np.uint64(1 << PagemapBit.PRESENT)
_OF_PRESENT_OWN = np.uint64(1 << PagemapBit.PRESENT | 1 << PagemapBit.FILE_OR_SHARED)


@dataclass(slots=True, eq=False)
class LiveAddressSpace:
    """An address space while one call looks at it."""

    machine: EmulatedMachine
    task: LiveTask
    mm: Mm
    touches: Callable[[LiveTask, Handles, int], Iterator[tuple[Touch, Handles]]]
    """Who touched pages first."""
    _areas: list[LiveArea] = field(default_factory=list)
    _by_start: list[tuple[int, int]] = field(default_factory=list)
    """The first page of each area, and its index; rising."""
    _merging: bool | None = None
    """Whether KSM has merged any page, once that was asked."""

    @classmethod
    def of(cls, machine: EmulatedMachine, task: LiveTask, mm: Mm) -> LiveAddressSpace:
        """Return the address space of a task."""
        return cls(machine, task, mm, machine.touchers.all_of)

    # -- the port -----------------------------------------------------------------------------

    def find_vma(self, addresses: Addresses) -> Handles:
        """Return the first area that ends above each address, or NONE."""
        pages = self._pages(addresses)
        if _is_rising(pages):
            return self._find(pages)
        order = np.argsort(pages, kind="stable")
        found = np.empty_like(pages)
        found[order] = self._find(pages[order])
        return found

    def _find(self, rising: Handles) -> Handles:
        """Return the first area that ends above each of some rising pages, or NONE."""
        found = np.full(len(rising), NONE, dtype=np.int64)
        at = 0
        while at < len(rising):
            index = self._area_index(int(rising[at]))
            if index == NONE:
                break
            until = int(np.searchsorted(rising, self._areas[index].end))
            found[at:until] = index
            at = until
        return found

    def contains(self, areas: Handles, addresses: Addresses) -> NDArray[np.bool_]:
        """Tell which areas contain their address."""
        return self._contain(areas, self._pages(addresses))

    def migratable(self, areas: Handles) -> NDArray[np.bool_]:
        """Tell which areas have pages that may be migrated."""
        allowed = np.array([not area.device for area in self._areas], dtype=np.bool_)
        return allowed[areas]

    def follow_page(self, areas: Handles, addresses: Addresses) -> Handles:
        """Return the page at each address, or NONE."""
        return self._look(areas, self._pages(addresses))

    def areas(self, start: int, end: int) -> Sequence[LiveArea]:
        """Return the areas that have a page in a range of pages."""
        found = []
        while start < end:
            index = self._area_index(start)
            if index == NONE or self._areas[index].start >= end:
                break
            found.append(self._areas[index])
            start = found[-1].end
        return found

    def has_area_from(self, page: int) -> bool:
        """Tell whether an area ends above a page."""
        return self._area_index(page) != NONE

    def folios(self, start: int, end: int) -> Handles:
        """Return the folios that a range of pages of one area maps, in order; no zero page."""
        handles = self.page_handles(start, end)
        again = np.zeros(len(handles), dtype=np.bool_)
        again[1:] = handles[1:] == handles[:-1]
        return handles[~again]

    # -- beside it ----------------------------------------------------------------------------

    def page_handles(self, start: int, end: int) -> Handles:
        """Return the folio of each page that a range of one area maps; no zero page."""
        pages = self.present(start, end)
        handles = self._look(np.full(len(pages), self._area_index(start)), pages)
        return handles[handles > ZERO_PAGE]

    def present(self, start: int, end: int) -> Handles:
        """Return the numbers of the pages of a range that are present.

        Raises NoSuchProcessError, also for a process that ends meanwhile.
        """
        shift = self.machine.page_shift
        try:
            if self.machine.page_facts.scans:
                return present_pages(self.mm.pagemap, start, end, shift)
            areas = self.areas(start, end)
            mapped = [(max(start, area.start), min(end, area.end)) for area in areas]
            return read_present_pages(self.mm.pagemap, mapped, shift)
        except EOFError:
            raise no_such_process(self.mm.pid, "emulate") from None

    def settle(self, start: int, end: int) -> None:
        """Place the pages of a range that have been touched, before what decides it changes.

        Those of which it is not certain who has touched them wait for whoever asks about them.
        """
        certain = LiveAddressSpace(self.machine, self.task, self.mm, self.machine.touchers.certain)
        certain.place(start, end)

    def place(self, start: int, end: int) -> None:
        """Place the pages of a range, as if they were asked about."""
        pages = self.present(start, min(end, self.machine.user_pages))
        unknown = pages[self._glance(pages)[1]]
        areas = self._find(unknown)
        inside = self._contain(areas, unknown)
        areas, unknown = areas[inside], unknown[inside]
        movable = self.migratable(areas)
        self._look(areas[movable], unknown[movable])

    def fault_in(self, address: int) -> bool:
        """Read a byte, so that its page is there; tell whether the process may read it.

        By way of /proc/PID/mem: process_vm_readv(2) pins the page, and the kernel gives a process
        its own copy of a shared page before it is pinned (gup_must_unshare). That file does not ask
        for protections, so they are looked at here.
        """
        vma = self.mm.areas.covering(address)
        if vma is None or not vma.flags & VmaFlag.READABLE:
            return False
        try:
            with (self.mm.directory / "mem").open("rb", 0) as memory:
                memory.seek(address)
                return len(memory.read(1)) == 1
        except OSError:  # nothing behind it, such as beyond the end of a file
            return False

    def area_at(self, page: int) -> LiveArea | None:
        """Return the area that a page lies in."""
        index = self._area_index(page)
        if index == NONE or self._areas[index].start > page:
            return None
        return self._areas[index]

    def _pages(self, addresses: Addresses) -> Handles:
        return (addresses >> np.uint64(self.machine.page_shift)).astype(np.int64)

    def _area_index(self, page: int) -> int:
        """Return the index of the first area that ends above a page, asked for if need be."""
        below = bisect_right(self._by_start, page, key=itemgetter(0))
        if below:
            _, index = self._by_start[below - 1]
            if page < self._areas[index].end:
                return index
        vma = self.mm.areas.find(page << self.machine.page_shift)
        if vma is None:
            return NONE
        area = read_area(vma, self.mm.through, self.machine.files, self.machine.page_shift)
        insort(self._by_start, (area.start, len(self._areas)))
        self._areas.append(area)
        return len(self._areas) - 1

    def _contain(self, areas: Handles, pages: Handles) -> NDArray[np.bool_]:
        """Tell which areas contain their page."""
        starts = np.array([area.start for area in self._areas] or [0], dtype=np.int64)
        inside: NDArray[np.bool_] = (areas != NONE) & (pages >= starts[areas])
        return inside

    # -- looking at pages ---------------------------------------------------------------------

    def _look(self, areas: Handles, pages: Handles) -> Handles:
        """Return the handle of each page, all of which lie in their areas; place new ones."""
        handles = self.mm.anonymous.handles(pages)
        entries, unknown = self._glance(pages)
        if not len(unknown):
            return handles
        areas, pages = areas[unknown], pages[unknown]
        facts = self._describe(pages, entries[unknown])
        closer = np.full(len(pages), NONE, dtype=np.int64)
        closer[facts.zero] = ZERO_PAGE
        seen = Seen(pages, facts.entries, facts.huge)
        for index, there in runs(np.where(facts.present & ~facts.zero, areas, NONE)):
            if index != NONE:
                closer[there] = self._in_area(self._areas[index], seen.at(there))
        handles[unknown] = closer
        return handles

    def _glance(self, pages: Handles) -> tuple[Addresses, Handles]:
        """Return the entries of pages, and which need a closer look, as indices.

        A page of the process's own that has a node and looks as when it was last observed does not:
        what has another meaning now, as the zero page or a part of a huge one, has another frame.
        """
        entries = self.machine.page_facts.read_entries(self.mm.pagemap, pages.view(np.uint64))
        seen = Seen(pages, entries, np.zeros(len(pages), dtype=np.bool_))
        frames, exclusive = seen.frames, seen.exclusive
        known = self.mm.anonymous.pages.unchanged(pages, frames, exclusive)
        known &= (entries & _OF_PRESENT_OWN) == _PRESENT
        known &= frames != 0
        if not (exclusive | ~known).all() and self._ksm_merges():
            known &= exclusive
        return entries, np.flatnonzero(~known)

    def _describe(self, pages: Handles, entries: Addresses) -> PageFacts:
        return self.machine.page_facts.describe(self.mm.pagemap, pages.view(np.uint64), entries)

    def _in_area(self, area: LiveArea, seen: Seen) -> Handles:
        """Return the handles of pages of an area, which may be the file's or the process's own."""
        if area.file is None:
            return self._anonymous(area, seen)
        in_file = seen.has(PagemapBit.FILE_OR_SHARED)
        if in_file.all():
            return self._of_file(area, area.file, seen)
        if not in_file.any():
            return self._anonymous(area, seen)
        handles = np.empty(len(in_file), dtype=np.int64)
        handles[~in_file] = self._anonymous(area, seen.at(~in_file))
        handles[in_file] = self._of_file(area, area.file, seen.at(in_file))
        return handles

    def _anonymous(self, area: LiveArea, seen: Seen) -> Handles:
        thing = self.machine.processes.own_pages(self.mm, area.order)
        if area.order:
            return self._observe(area, thing, seen.pages, seen)
        parts = self.machine.large_folios.parts(thing.pages, seen)
        zero = self.machine.large_folios.zeroes(self.mm, seen, parts)
        others = ~(parts | zero)
        if others.all():
            return self._single(area, thing, seen)
        handles = np.full(len(others), ZERO_PAGE, dtype=np.int64)
        handles[parts] = self._of_parts(area, thing, seen.at(parts))
        handles[others] = self._single(area, thing, seen.at(others))
        return handles

    def _single(self, area: LiveArea, thing: PageObject, seen: Seen) -> Handles:
        """Return the handles of pages of the process's own that are mapped as what they are."""
        handles = self._observe(area, thing, seen.pages, seen)
        if not seen.exclusive.all() and self._ksm_merges():
            merged = self.machine.merged_pages.among(seen)
            nodes = thing.pages.nodes(seen.pages[merged])
            handles[merged] = self.machine.merged_pages.handles(seen.frames[merged], nodes)
        return handles

    def _of_parts(self, area: LiveArea, thing: PageObject, seen: Seen) -> Handles:
        """Return the handles of pages of huge pages that are mapped page by page."""
        large, firsts = self.machine.large_folios, np.empty_like(seen.pages)
        room = self.machine.pools.room(0)

        def place(page: Handles) -> None:
            self._place(area, thing, page, page, np.full(1, large.order))

        for _, there in runs(seen.pages & -large.pages):
            one = seen.at(there)
            mapped = large.look(self.mm, int(one.pages[0]), int(one.frames[0]))
            firsts[there] = large.gather(thing.pages, mapped, room, place)
        return thing.handles(firsts)

    def _ksm_merges(self) -> bool:
        if self._merging is None:
            self._merging = self.machine.merged_pages.has_any()
        return self._merging

    def _of_file(self, area: LiveArea, file: PageObject, seen: Seen) -> Handles:
        numbers = seen.pages - area.start + area.file_page
        file.pages.unmark(numbers[file.pages.has(numbers, GROUPED)], GROUPED)
        return self._observe(area, file, numbers, seen)

    def _observe(self, area: LiveArea, thing: PageObject, numbers: Handles, seen: Seen) -> Handles:
        """Note what pages of an object look like now, and return their folios' handles."""
        if not area.order:
            self._split(thing, numbers[~seen.huge])
        frames, exclusive = seen.frames, seen.exclusive
        orders = np.where(seen.huge, self.machine.thp_order, 0)
        if area.order:
            orders = np.full(len(numbers), area.order)
        heads = numbers
        if orders.any():
            heads = numbers & -np.left_shift(1, orders)
            frames = np.where(frames, frames - (numbers - heads), 0)
        elif thing.pages.unchanged(numbers, frames, exclusive).all():
            return thing.handles(numbers)
        nodes = thing.pages.nodes(heads)
        new = nodes == NOT_PLACED
        # One without a node yet, for nobody was known to have touched it, is counted nowhere.
        copied = self._copied(thing, heads, seen.pages, frames, exclusive) & ~new
        if copied.any():
            room = self.machine.pools.room(thing.pool_order)
            room.release(thing.pages.replace(distinct(heads[copied])))
            new |= copied
        if new.any():
            self._place(area, thing, heads[new], seen.pages[new], orders[new])
        thing.pages.observe(heads, frames, orders, exclusive)
        return thing.handles(heads)

    def _split(self, thing: PageObject, numbers: Handles) -> None:
        """Take huge pages that are no longer mapped as one for single ones on the same node."""
        order = self.machine.thp_order
        heads = distinct(numbers & -(1 << order))
        heads = heads[thing.pages.orders(heads) == order]
        if len(heads):
            thing.pages.split(heads, order)
            thing.pages.unmark(numbers, GROUPED)

    def _copied(
        self,
        thing: PageObject,
        heads: Handles,
        pages: Handles,
        frames: Handles,
        exclusive: NDArray[np.bool_],
    ) -> NDArray[np.bool_]:
        """Tell which pages were copied on write since they were last seen.

        Another frame where it was shared before, now mapped here alone or known to be touched here.
        A frame that changes otherwise was changed by the kernel (compaction, swap), and the page
        keeps its node.
        """
        before = thing.pages.frames(heads)
        changed: NDArray[np.bool_] = (before != 0) & (frames != 0) & (before != frames)
        if not changed.any():
            return changed
        changed &= ~thing.pages.has(heads, EXCLUSIVE)
        changed &= exclusive | self.machine.touchers.touched(self.task, pages)
        return changed

    def _place(
        self, area: LiveArea, thing: PageObject, heads: Handles, pages: Handles, orders: Handles
    ) -> None:
        """Give new pages a node, by who touched them."""
        unique, first = np.unique(heads, return_index=True)
        for order, part in runs(orders[first]):
            folios, touched = unique[part], pages[first][part]
            policed, number = self.machine.policed(self.mm, area, area.start)
            shift = number - (area.file_page if thing is area.file else area.start)
            for touch, which in self.touches(self.task, touched, order):
                nodes = place(
                    touch,
                    policed.policies,
                    folios[which] + shift,
                    order,
                    self.machine.pools.room(thing.pool_order),
                    cached=area.page_cache and thing is area.file,
                    first=area.start - area.file_page if area.order else 0,
                )
                thing.pages.set_nodes(folios[which], nodes)


def _is_rising(pages: Handles) -> bool:
    return len(pages) < 2 or bool((pages[1:] >= pages[:-1]).all())

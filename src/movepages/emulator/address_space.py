"""The address space of a live process behind the `AddressSpace` port.

Areas come from the kernel's own maps, pages from pagemap. A page that is seen for the first time is
given a node here, by who touched it (`first_touch`); so is one whose frame has changed because it
was copied on write.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from movepages.abi.pagemap import PageFlag, PageRegion
from movepages.abi.procmap import VmaFlag
from movepages.emulator.first_touch import place
from movepages.emulator.objects import ZERO_PAGE
from movepages.emulator.overlay import EXCLUSIVE, NOT_PLACED, distinct, runs
from movepages.kernel.address_space import VmFlag
from movepages.kernel.ports import NONE
from movepages.linux.kpageflags import has, read_flags
from movepages.linux.pagemap import scan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from movepages.emulator.first_touch import Touch
    from movepages.emulator.machine import EmulatedMachine
    from movepages.emulator.objects import FileKey, PageObject
    from movepages.emulator.processes import LiveTask, Mm
    from movepages.linux.page_facts import PageFacts
    from movepages.linux.procmap import Vma

    Addresses = NDArray[np.uint64]
    Handles = NDArray[np.int64]

_DEVICES = ("[vvar", "/dev/")
_SPECIAL = ("[vdso]", "[vvar", "[uprobes]")
_MEMORY_IN_DEV = ("/dev/zero", "/dev/shm/", "/dev/hugepages/")  # noqa: S108 - as maps name them
_MEMORY_FILES = (*_MEMORY_IN_DEV, "/memfd:", "/SYSV", "/anon_hugepage", "/secretmem")
_REFUSES = ("/secretmem",)


@dataclass(frozen=True, slots=True, eq=False)
class LiveArea:
    """An area: pages `start` to `end`, what it is, and which object its pages are of."""

    start: int
    end: int
    flags: VmFlag
    order: int
    """Of the pages of a hugetlb area; else 0."""
    file: PageObject | None
    file_page: int
    """The page of the file that `start` shows."""
    page_cache: bool
    """Whether the file is an ordinary one, whose pages no area's policy rules."""
    special: bool = False
    """Whether it is one of the kernel's own, which cannot be split (special_mapping_split)."""

    @property
    def shared(self) -> bool:
        """Whether writes go to the file itself."""
        return bool(self.flags & VmFlag.SHARED)


@dataclass(slots=True, eq=False)
class LiveAddressSpace:
    """An address space while one call looks at it."""

    machine: EmulatedMachine
    task: LiveTask
    mm: Mm
    touches: Callable[[LiveTask, Handles, int], Iterator[tuple[Touch, Handles]]]
    """Who touched pages first."""
    _areas: list[LiveArea] = field(default_factory=list)

    @classmethod
    def of(cls, machine: EmulatedMachine, task: LiveTask, mm: Mm) -> LiveAddressSpace:
        """Return the address space of a task."""
        return cls(machine, task, mm, machine.touchers.all_of)

    # -- the port -----------------------------------------------------------------------------

    def find_vma(self, addresses: Addresses) -> Handles:
        """Return the first area that ends above each address, or NONE."""
        pages = self._pages(addresses)
        order = None if _is_rising(pages) else np.argsort(pages, kind="stable")
        rising = pages if order is None else pages[order]
        found = np.full(len(pages), NONE, dtype=np.int64)
        at = 0
        while at < len(rising):
            index = self._area_index(int(rising[at]))
            if index == NONE:
                break
            until = int(np.searchsorted(rising, self._areas[index].end))
            found[at:until] = index
            at = until
        if order is None:
            return found
        unsorted = np.empty_like(found)
        unsorted[order] = found
        return unsorted

    def contains(self, areas: Handles, addresses: Addresses) -> NDArray[np.bool_]:
        """Tell which areas contain their address."""
        starts = np.array([area.start for area in self._areas] or [0], dtype=np.int64)
        inside: NDArray[np.bool_] = (areas != NONE) & (self._pages(addresses) >= starts[areas])
        return inside

    def migratable(self, areas: Handles) -> NDArray[np.bool_]:
        """Tell which areas have pages that may be migrated."""
        device = VmFlag.IO | VmFlag.PFNMAP
        allowed = np.array([not area.flags & device for area in self._areas], dtype=np.bool_)
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
        pages = self.present(start, end)
        index = self._area_index(start)
        handles = self._look(np.full(len(pages), index), pages)
        handles = handles[handles > ZERO_PAGE]
        again = np.zeros(len(handles), dtype=np.bool_)
        again[1:] = handles[1:] == handles[:-1]
        return handles[~again]

    # -- beside it ----------------------------------------------------------------------------

    def present(self, start: int, end: int) -> Handles:
        """Return the numbers of the pages of a range that are present."""
        return present_pages(self.mm.pagemap, start, end, self.machine.page_shift)

    def settle(self, start: int, end: int) -> None:
        """Place the pages of a range that have been touched, before what decides it changes."""
        looking = replace(self, touches=self.machine.touchers.certain, _areas=[])
        for area in looking.areas(start, end):
            if not area.flags & (VmFlag.IO | VmFlag.PFNMAP):
                looking.folios(max(start, area.start), min(end, area.end))

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
            with (self.machine.processes.proc / str(self.mm.pid) / "mem").open("rb", 0) as memory:
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
        for index, area in enumerate(self._areas):
            if area.start <= page < area.end:
                return index
        vma = self.mm.areas.find(page << self.machine.page_shift)
        if vma is None:
            return NONE
        self._areas.append(self._live_area(vma))
        return len(self._areas) - 1

    def _live_area(self, vma: Vma) -> LiveArea:
        shift = self.machine.page_shift
        flags = VmFlag.SHARED if vma.flags & VmaFlag.SHARED else VmFlag(0)
        if _is_device(vma.name):
            flags |= VmFlag.IO | VmFlag.PFNMAP
        order = max(0, (vma.page_size_bytes or 0).bit_length() - 1 - shift)
        if order:
            flags |= VmFlag.HUGETLB
        memory = vma.name.startswith(_MEMORY_FILES)
        file = None
        if vma.inode:
            file = self.machine.objects.file(
                file_key(vma),
                movable=not vma.name.startswith(_REFUSES),
                vanishes=vma.name.endswith("(deleted)"),
            )
        return LiveArea(
            vma.start >> shift,
            vma.end >> shift,
            flags,
            order,
            file,
            vma.offset >> shift,
            page_cache=file is not None and not memory and not order,
            special=vma.name.startswith(_SPECIAL),
        )

    # -- looking at pages ---------------------------------------------------------------------

    def _look(self, areas: Handles, pages: Handles) -> Handles:
        """Return the handle of each page, all of which lie in their areas; place new ones."""
        facts = self.machine.page_facts.read(self.mm.pagemap, pages.astype(np.uint64))
        handles = np.full(len(pages), NONE, dtype=np.int64)
        handles[facts.zero] = ZERO_PAGE
        there = np.flatnonzero(facts.present & ~facts.zero)
        for index, part in runs(areas[there]):
            chosen = there[part]
            area = self._areas[index]
            in_file = facts.file_or_shared[chosen] if area.file is not None else None
            if in_file is None or not in_file.any():
                handles[chosen] = self._anonymous(area, pages, chosen, facts)
            elif in_file.all():
                handles[chosen] = self._of_file(area, area.file, pages, chosen, facts)
            else:
                ours, theirs = chosen[~in_file], chosen[in_file]
                handles[ours] = self._anonymous(area, pages, ours, facts)
                handles[theirs] = self._of_file(area, area.file, pages, theirs, facts)
        return handles

    def _anonymous(
        self, area: LiveArea, pages: Handles, chosen: Handles, facts: PageFacts
    ) -> Handles:
        ours = self.mm.anonymous
        handles = self._observe(area, ours, pages[chosen], pages[chosen], facts, chosen)
        merged = self._merged(facts, chosen)
        if len(merged):
            handles[merged] = self._of_ksm(
                pages[chosen[merged]], facts.pfn[chosen[merged]].astype(np.int64)
            )
        return handles

    def _merged(self, facts: PageFacts, chosen: Handles) -> Handles:
        """Return which pages KSM has merged, as indices; none where frames may not be seen."""
        frames = facts.pfn[chosen]
        shared = np.flatnonzero(~facts.exclusive[chosen] & (frames != 0))
        if not len(shared):
            return shared
        try:
            flags = read_flags(frames[shared])
        except PermissionError:
            return shared[:0]
        return shared[has(flags, PageFlag.KSM)]

    def _of_ksm(self, pages: Handles, frames: Handles) -> Handles:
        """Return the handles of merged pages: one for a frame, wherever it is mapped."""
        ksm, ours = self.machine.ksm.pages, self.mm.anonymous.pages
        new = ksm.nodes(frames) == NOT_PLACED
        ksm.set_nodes(frames[new], ours.nodes(pages[new]))
        none = np.zeros(len(frames), dtype=np.int64)
        ksm.observe(frames, frames, none, none != 0)
        return self.machine.ksm.handles(frames)

    def _of_file(
        self,
        area: LiveArea,
        file: PageObject | None,
        pages: Handles,
        chosen: Handles,
        facts: PageFacts,
    ) -> Handles:
        assert file is not None  # noqa: S101 - whose pages these are
        numbers = pages[chosen] - area.start + area.file_page
        return self._observe(area, file, numbers, pages[chosen], facts, chosen)

    def _observe(
        self,
        area: LiveArea,
        thing: PageObject,
        numbers: Handles,
        pages: Handles,
        facts: PageFacts,
        chosen: Handles,
    ) -> Handles:
        """Note what pages of an object look like now, and return their folios' handles."""
        orders = np.where(facts.huge[chosen], self.machine.thp_order, 0)
        if area.order:
            orders = np.full(len(chosen), area.order)
        frames, exclusive = facts.pfn[chosen].astype(np.int64), facts.exclusive[chosen]
        heads = numbers
        if orders.any():
            heads = numbers & -np.left_shift(1, orders)
            frames = np.where(frames, frames - (numbers - heads), 0)
        nodes = thing.pages.nodes(heads)
        new = nodes == NOT_PLACED
        # One without a node yet, for nobody was known to have touched it, is counted nowhere.
        copied = self._copied(thing, heads, pages, frames, exclusive) & ~new
        if copied.any():
            self.machine.capacity.release(thing.pages.replace(distinct(heads[copied])))
            new |= copied
        if new.any():
            adopted = self.mm.limbo.take(np.where(new, frames, 0))
            thing.pages.set_nodes(heads[adopted >= 0], adopted[adopted >= 0])
            new &= adopted < 0
            self._place(area, thing, heads[new], pages[new], orders[new])
        thing.pages.observe(heads, frames, orders, exclusive)
        return thing.handles(heads)

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
            for touch, which in self.touches(self.task, touched, order):
                nodes = place(
                    touch,
                    thing,
                    folios[which],
                    order,
                    self.machine.capacity,
                    cached=area.page_cache and thing is area.file,
                )
                thing.pages.set_nodes(folios[which], nodes)


def present_pages(pagemap: int, start: int, end: int, page_shift: int) -> Handles:
    """Return the numbers of the present pages of a range, int64[n], rising.

    Raises UnsupportedError where the kernel has no PAGEMAP_SCAN, EOFError when the process is gone.
    """
    regions = scan(pagemap, start << page_shift, end << page_shift, require=PageRegion.PRESENT)
    first = (regions[:, 0] >> np.uint64(page_shift)).astype(np.int64)
    counts = (regions[:, 1] >> np.uint64(page_shift)).astype(np.int64) - first
    before = np.cumsum(counts) - counts
    pages: Handles = np.repeat(first - before, counts) + np.arange(int(counts.sum()))
    return pages


def file_key(vma: Vma) -> FileKey:
    """Return what tells the file of an area from others."""
    major, minor = vma.device
    return (major << 20 | minor, vma.inode, 0)


def _is_rising(pages: Handles) -> bool:
    return len(pages) < 2 or bool((pages[1:] >= pages[:-1]).all())


def _is_device(path: str) -> bool:
    """Tell whether an area maps a device: its pages are none that could move."""
    return path.startswith(_DEVICES) and not path.startswith(_MEMORY_IN_DEV)

"""Address spaces: areas (VMAs) over page-table slots (mm/mmap.c, mm/memory.c).

Everything here works on batches of addresses: `find_vma` and `follow_page` are gathers over arrays
that are made once for a layout of areas and thrown away when it changes.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field, replace
from enum import IntFlag
from typing import TYPE_CHECKING

import numpy as np

from movepages.errors import ArgumentError
from movepages.kernel.page_tables import PteFlag

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from movepages.kernel.mappings import AddressSpaceMapping, File
    from movepages.kernel.mempolicy import MemPolicy
    from movepages.kernel.page_tables import PageTables

    Addresses = NDArray[np.uint64]
    Indices = NDArray[np.int64]

TASK_SIZE = 1 << 47
MMAP_BASE = 0x7F00_0000_0000
NO_VMA = -1
NO_PAGE = -1


class Prot(IntFlag):
    """PROT_*: what a mapping allows."""

    NONE = 0
    READ = 1
    WRITE = 2
    EXEC = 4


class VmFlag(IntFlag):
    """VM_*: what a mapping is."""

    SHARED = 1 << 0
    LOCKED = 1 << 1
    IO = 1 << 2
    PFNMAP = 1 << 3
    HUGETLB = 1 << 4
    HUGEPAGE = 1 << 5
    MERGEABLE = 1 << 6


@dataclass(slots=True, eq=False)
class Vma:
    """An area: pages `start` to `end` of an address space (in pages), on slots from `slot` on.

    `offset` is the page of the mapping that `start` shows: of the file, or of anonymous memory
    where the area was first made. `anon` is there once an anonymous page is (anon_vma).
    """

    mm: Mm
    start: int
    end: int
    slot: int
    prot: Prot
    flags: VmFlag
    offset: int
    file: File | None = None
    anon: AddressSpaceMapping | None = None
    policy: MemPolicy | None = None

    @property
    def pages(self) -> int:
        """Length in pages."""
        return self.end - self.start

    @property
    def slots(self) -> slice:
        """Its page-table slots."""
        return slice(self.slot, self.slot + self.pages)

    @property
    def shared(self) -> bool:
        """Whether writes go to the file or shared memory itself."""
        return bool(self.flags & VmFlag.SHARED)

    @property
    def locked(self) -> bool:
        """Whether its pages stay in memory (mlock)."""
        return bool(self.flags & VmFlag.LOCKED)

    def slots_of(self, offsets: Indices) -> tuple[Indices, NDArray[np.bool_]]:
        """Return the slots that would map pages of the mapping, and which of them are inside."""
        slots = offsets - self.offset + self.slot
        return slots, (slots >= self.slot) & (slots < self.slot + self.pages)


@dataclass(frozen=True, slots=True, eq=False)
class _Layout:
    """The areas of an address space as arrays, in rising order; pages and slots, int64[n]."""

    start: Indices
    end: Indices
    slot: Indices


@dataclass(slots=True, eq=False)
class Mm:
    """An address space (mm_struct)."""

    tables: PageTables
    page_shift: int
    areas: list[Vma] = field(default_factory=list)
    users: int = 1
    """Tasks that share it."""
    _layout: _Layout | None = None

    # -- looking up, in batches ---------------------------------------------------------------

    def find_vma(self, addresses: Addresses) -> Indices:
        """Return the index of the first area that ends above each address, or NO_VMA.

        As in the kernel the address may lie below that area, in a hole: see `contains`.
        """
        layout = self._arrays()
        if len(layout.end) == 1:  # no search where there is but one area
            return np.where(self._pages(addresses) < layout.end[0], 0, NO_VMA)
        found = np.searchsorted(layout.end, self._pages(addresses), side="right")
        found[found == len(layout.end)] = NO_VMA
        return found

    def contains(self, vma: Indices, addresses: Addresses) -> NDArray[np.bool_]:
        """Tell which areas, as found by find_vma, really contain their address."""
        layout = self._arrays()
        if not len(layout.start):
            return np.zeros(len(vma), dtype=np.bool_)
        inside: NDArray[np.bool_] = self._pages(addresses) >= layout.start[vma]
        inside &= vma != NO_VMA
        return inside

    def migratable(self, vma: Indices) -> NDArray[np.bool_]:
        """Tell which areas have pages that may be migrated (vma_migratable)."""
        device = VmFlag.IO | VmFlag.PFNMAP
        allowed = np.array([not area.flags & device for area in self.areas], dtype=np.bool_)
        return allowed[vma]

    def slots(self, vma: Indices, addresses: Addresses) -> Indices:
        """Return the page-table slot of each address; every one must lie in its area."""
        layout = self._arrays()
        shift = layout.slot - layout.start
        slots: Indices = self._pages(addresses) + (shift[0] if len(shift) == 1 else shift[vma])
        return slots

    def follow_page(self, vma: Indices, addresses: Addresses) -> Indices:
        """Return the frame that each address maps, or NO_PAGE: int64[n]."""
        entries = self.tables.entry[self.slots(vma, addresses)].astype(np.int64)
        entries[entries < 0] = NO_PAGE
        return entries

    def _pages(self, addresses: Addresses) -> Indices:
        return (addresses >> np.uint64(self.page_shift)).view(np.int64)

    def _arrays(self) -> _Layout:
        if self._layout is None:
            self._layout = _Layout(
                np.array([vma.start for vma in self.areas], dtype=np.int64),
                np.array([vma.end for vma in self.areas], dtype=np.int64),
                np.array([vma.slot for vma in self.areas], dtype=np.int64),
            )
        return self._layout

    # -- the layout of areas ------------------------------------------------------------------

    def find_free(self, pages: int, align_pages: int) -> int:
        """Return the first page of a gap that is large enough, from MMAP_BASE on."""
        at = MMAP_BASE >> self.page_shift
        for vma in self.areas:
            at = -(-at // align_pages) * align_pages
            if vma.start - at >= pages:
                break
            at = max(at, vma.end)
        at = -(-at // align_pages) * align_pages
        if at + pages > TASK_SIZE >> self.page_shift:
            raise ArgumentError(f"no room for {pages} pages below the end of the address space")
        return at

    def insert(self, vma: Vma) -> None:
        """Add an area; it must not overlap another. Raises ArgumentError."""
        if vma.start >= vma.end or vma.end > TASK_SIZE >> self.page_shift:
            raise ArgumentError("an area must have a page, and end below the end of user space")
        if any(True for _ in self.overlapping(vma.start, vma.end)):
            raise ArgumentError(f"page {vma.start:#x} and on are mapped already")
        at = bisect_right([area.start for area in self.areas], vma.start)
        self.areas.insert(at, vma)
        self._layout = None
        for mapping in (vma.file, vma.anon):
            if mapping is not None:
                mapping.areas.append(vma)

    def remove(self, vma: Vma) -> None:
        """Take an area out; its slots must be zapped, and are given back."""
        self.areas.remove(vma)
        self._layout = None
        for mapping in (vma.file, vma.anon):
            if mapping is not None:
                mapping.areas.remove(vma)
        self.tables.free(vma.slot, vma.pages)

    def overlapping(self, start: int, end: int) -> Iterator[Vma]:
        """Go through the areas that have a page in a range of pages."""
        for vma in list(self.areas):
            if vma.start < end and vma.end > start:
                yield vma

    def split(self, page: int) -> None:
        """Cut the area that a page is inside of, so that one begins there (split_vma).

        A huge page that is cut loses its mapping as a whole: its frames stay mapped one by one.
        """
        for vma in self.areas:
            if vma.start < page < vma.end:
                break
        else:
            return
        before = page - vma.start
        upper = replace(vma, start=page, slot=vma.slot + before, offset=vma.offset + before)
        vma.end = page
        self.areas.insert(self.areas.index(vma) + 1, upper)
        self._layout = None
        for mapping in (vma.file, vma.anon):
            if mapping is not None:
                mapping.areas.append(upper)

    def absorb(self, lower: Vma, upper: Vma) -> None:
        """Let an area take in the one above, whose slots follow its own."""
        lower.end = upper.end
        self.areas.remove(upper)
        self._layout = None
        for mapping in (upper.file, upper.anon):
            if mapping is not None:
                mapping.areas.remove(upper)

    def isolate_range(self, start: int, end: int) -> list[Vma]:
        """Return the areas that make up a range of pages, cut at its ends."""
        self.split(start)
        self.split(end)
        return list(self.overlapping(start, end))

    def covers(self, start: int, end: int) -> bool:
        """Tell whether a range of pages is mapped from end to end."""
        at = start
        for vma in self.overlapping(start, end):
            if vma.start > at:
                return False
            at = vma.end
        return at >= end

    def attach_anon(self, vma: Vma, mapping: AddressSpaceMapping) -> None:
        """Give an area its anon_vma (anon_vma_prepare)."""
        vma.anon = mapping
        mapping.areas.append(vma)

    def set_locked(self, vma: Vma, *, locked: bool) -> None:
        """Set or clear VM_LOCKED of an area, and the bit that repeats it in its entries."""
        flags = self.tables.flags[vma.slots]
        if locked:
            vma.flags |= VmFlag.LOCKED
            flags |= np.uint8(PteFlag.LOCKED)
        else:
            vma.flags &= ~VmFlag.LOCKED
            flags &= ~np.uint8(PteFlag.LOCKED)

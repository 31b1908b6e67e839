"""What a process does to its address space: mmap, munmap, mprotect, mremap, madvise, mlock, fork.

Ranges are in pages. Counterparts of mm/mmap.c, mprotect.c, mremap.c, madvise.c, mlock.c and of
dup_mmap() in kernel/fork.c.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from movepages.errors import ArgumentError
from movepages.kernel.address_space import Mm, Prot, Vma, VmFlag
from movepages.kernel.frames import PageFlag
from movepages.kernel.mappings import NOT_CACHED, KsmNode
from movepages.kernel.page_tables import PteFlag, is_swap
from movepages.kernel.vma_merge import merge_areas, relocate

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from movepages.kernel.faults import Faults
    from movepages.kernel.mappings import File
    from movepages.kernel.memory import Memory

    Indices = NDArray[np.int64]


def map_area(
    memory: Memory,
    mm: Mm,
    pages: int,
    *,
    start: int | None,
    align_pages: int,
    prot: Prot,
    flags: VmFlag,
    file: File | None,
    offset: int,
) -> Vma:
    """Add an area of that many pages, at a page number or where there is room (mmap)."""
    if pages <= 0:
        raise ArgumentError(f"a mapping must have at least one page, not {pages}")
    at = mm.find_free(pages, align_pages) if start is None else start
    if at < 0 or offset < 0:
        raise ArgumentError("a mapping must have an address and an offset of 0 or more")
    if flags & VmFlag.HUGETLB and (at | offset | pages) % align_pages:
        raise ArgumentError("a hugetlb mapping must begin and end at huge pages")
    if any(True for _ in mm.overlapping(at, at + pages)):
        raise ArgumentError(f"page {at:#x} and on are mapped already; unmap them first")
    vma = Vma(mm, at, at + pages, 0, prot, flags, offset if file else at, file)
    if vma.end << mm.page_shift > 1 << 47:
        raise ArgumentError("the mapping would reach beyond the end of user space")
    vma.slot = memory.tables.allocate(pages)
    mm.insert(vma)
    return vma


def unmap_range(faults: Faults, mm: Mm, start: int, end: int) -> None:
    """Unmap a range; holes in it are allowed (munmap). Raises ArgumentError for an empty one."""
    if start >= end:
        raise ArgumentError(f"pages {start:#x} to {end:#x} are no range to unmap")
    for vma in cut_range(faults, mm, start, end):
        drop_area(faults, mm, vma)


def drop_area(faults: Faults, mm: Mm, vma: Vma) -> None:
    """Unmap an area; a file without a name goes with its last mapping."""
    faults.zap(vma, np.arange(vma.start, vma.end))
    mm.remove(vma)
    file = vma.file
    if file is not None and file.vanishes and not file.areas:
        faults.drop_cache(file, np.flatnonzero(file.cache != NOT_CACHED))


def protect_range(faults: Faults, mm: Mm, start: int, end: int, prot: Prot) -> None:
    """Change what a range allows (mprotect). Raises ArgumentError for a hole."""
    _require_mapped(mm, start, end)

    def change(vma: Vma) -> None:
        vma.prot = prot
        if not prot & Prot.WRITE:
            flags = mm.tables.flags[vma.slots]
            flags &= ~np.uint8(PteFlag.WRITE)

    modify_range(faults, mm, start, end, lambda vma: vma.prot != prot, change)


def discard_range(faults: Faults, mm: Mm, start: int, end: int) -> None:
    """Let go of the pages of a range: untouched again, or from the file (MADV_DONTNEED)."""
    _require_mapped(mm, start, end)
    _require_whole_huge_pages(faults, mm, start, end)
    for vma in list(mm.overlapping(start, end)):
        faults.zap(vma, np.arange(max(start, vma.start), min(end, vma.end)))


def advise_range(faults: Faults, mm: Mm, start: int, end: int, flag: VmFlag) -> None:
    """Set a flag of a range's areas (MADV_HUGEPAGE, MADV_MERGEABLE)."""
    _require_mapped(mm, start, end)

    def change(vma: Vma) -> None:
        vma.flags |= flag

    modify_range(faults, mm, start, end, lambda vma: not vma.flags & flag, change)


def lock_range(faults: Faults, mm: Mm, start: int, end: int, *, locked: bool) -> None:
    """Set or clear VM_LOCKED; the caller has to fault the pages in (mlock)."""
    _require_mapped(mm, start, end)

    def change(vma: Vma) -> None:
        mm.set_locked(vma, locked=locked)

    modify_range(faults, mm, start, end, lambda vma: vma.locked != locked, change)


def move_range(faults: Faults, mm: Mm, start: int, pages: int) -> int:
    """Move the mapping of a range elsewhere, pages and all; return its new first page (mremap)."""
    _require_mapped(mm, start, start + pages)
    areas = cut_range(faults, mm, start, start + pages)
    size = 1 << faults.thp_order
    if start % size:  # THPs must be aligned: at an odd distance they are mapped page by page
        for vma in areas:
            faults.split_all_thps(vma)
    target = mm.find_free(pages, 1 if start % size else size)
    for vma in areas:
        slot = faults.memory.tables.allocate(vma.pages)
        relocate(faults.memory, mm, vma, start=target + vma.start - start, slot=slot)
    return target


def fork_areas(memory: Memory, parent: Mm) -> Mm:
    """Return a copy of an address space that shares all pages, private ones to be copied on write.

    Areas that map a file shared stay writable in both. Where a fault will bring the pages back, as
    in an area without anonymous pages, none are copied (vma_needs_copy).
    """
    child = Mm(memory.tables, parent.page_shift)
    frames, tables = memory.frames, memory.tables
    for vma in parent.areas:
        copy = replace(vma, mm=child, slot=tables.allocate(vma.pages), flags=_inherited(vma.flags))
        child.insert(copy)
        if vma.anon is None:
            continue
        if not vma.shared:
            flags = tables.flags[vma.slots]
            flags &= ~np.uint8(PteFlag.WRITE | PteFlag.EXCLUSIVE)
        tables.entry[copy.slots] = tables.entry[vma.slots]
        tables.flags[copy.slots] = tables.flags[vma.slots] & ~np.uint8(PteFlag.LOCKED)
        entries = tables.entry[copy.slots].astype(np.int64)
        memory.swap.duplicate(entries[is_swap(tables.entry[copy.slots])])
        heads, slots = _heads_mapped(memory, copy, entries)
        np.add.at(frames.mapcount, heads, 1)
        np.add.at(frames.references, heads, 1)
        _copy_merged(memory, copy, heads, slots)
    return child


def _inherited(flags: VmFlag) -> VmFlag:
    """Locks are not inherited (mlock(2))."""
    return flags & ~VmFlag.LOCKED


def _heads_mapped(memory: Memory, vma: Vma, entries: Indices) -> tuple[Indices, Indices]:
    """Return a head for each mapping of a folio in an area, and the slot of each."""
    frames, tables = memory.frames, memory.tables
    at = np.flatnonzero(entries >= 0)
    at = at[~frames.has(entries[at], PageFlag.RESERVED)]
    slots = at + vma.slot
    huge = (tables.flags[slots] & np.uint8(PteFlag.HUGE)) != 0
    first = ~huge | (frames.head(entries[at]) == entries[at])
    return frames.head(entries[at[first]]), slots[first]


def _copy_merged(memory: Memory, vma: Vma, heads: Indices, slots: Indices) -> None:
    for index in np.flatnonzero(memory.frames.has(heads, PageFlag.KSM)).tolist():
        node = memory.mappings[int(memory.frames.mapping[heads[index]])]
        assert isinstance(node, KsmNode)  # noqa: S101 - what the KSM flag says
        node.mappers[int(heads[index])].append((vma.mm, int(slots[index])))


def modify_range(
    faults: Faults,
    mm: Mm,
    start: int,
    end: int,
    differs: Callable[[Vma], bool],
    change: Callable[[Vma], None],
) -> None:
    """Change those areas of a range that differ from what they are to be (vma_modify).

    They are cut out of what lies around, and merged with it where they are alike now; others are
    neither cut nor merged. Raises ArgumentError for an end inside a hugetlb page.
    """
    for whole in list(mm.overlapping(start, end)):
        if not differs(whole):
            continue
        first, last = max(start, whole.start), min(end, whole.end)
        for vma in cut_range(faults, mm, first, last):
            change(vma)
        merge_areas(faults.memory, mm, first, last)


def cut_range(faults: Faults, mm: Mm, start: int, end: int) -> list[Vma]:
    """Cut the areas at the ends of a range, and return them.

    THPs that lie across an end are mapped page by page from then on (vma_adjust_trans_huge).

    Raises ArgumentError for an end inside a hugetlb page.
    """
    _require_whole_huge_pages(faults, mm, start, end)
    for page in (start, end):
        for vma in mm.overlapping(page, page + 1):
            if vma.start < page and page % (1 << faults.thp_order):
                faults.split_thps(vma, np.array([page]))
    return mm.isolate_range(start, end)


def _require_whole_huge_pages(faults: Faults, mm: Mm, start: int, end: int) -> None:
    size = 1 << faults.thp_order
    for page in (start, end):
        for vma in mm.overlapping(page, page + 1):
            if vma.flags & VmFlag.HUGETLB and page % size:
                raise ArgumentError(f"page {page:#x} lies inside a hugetlb page")


def _require_mapped(mm: Mm, start: int, end: int) -> None:
    if start >= end or not mm.covers(start, end):
        raise ArgumentError(f"pages {start:#x} to {end:#x} are not mapped from end to end")

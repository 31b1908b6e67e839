"""Areas that have become alike are one again: vma_merge() of mm/vma.c.

Only calls that change what is mapped merge here. An area mapped beside another stays one of its
own, where the kernel may extend its neighbour: what can be seen of that is a line of maps.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from movepages.kernel.address_space import VmFlag
from movepages.kernel.frames import PageFlag
from movepages.kernel.mappings import KsmNode
from movepages.kernel.page_tables import EMPTY

if TYPE_CHECKING:
    from movepages.kernel.address_space import Mm, Vma
    from movepages.kernel.memory import Memory

_SPECIAL = VmFlag.IO | VmFlag.PFNMAP | VmFlag.HUGETLB
"""What is never merged (VM_SPECIAL; hugetlb areas may not be expanded)."""


def merge_areas(memory: Memory, mm: Mm, start: int, end: int) -> None:
    """Merge the areas of a range of pages and those beside it, where they are alike."""
    lower: Vma | None = None
    for vma in list(mm.overlapping(start - 1, end + 1)):
        if lower is None or not _are_alike(lower, vma):
            lower = vma
            continue
        lower = _merge(memory, mm, lower, vma)


def relocate(memory: Memory, mm: Mm, vma: Vma, *, start: int, slot: int) -> Vma:
    """Let an area begin at another page and on other slots, entries and all (move_page_tables)."""
    moved = replace(vma, start=start, end=start + vma.pages, slot=slot)
    frames, tables = memory.frames, memory.tables
    tables.entry[moved.slots] = tables.entry[vma.slots]
    tables.flags[moved.slots] = tables.flags[vma.slots]
    tables.entry[vma.slots] = EMPTY
    entries = tables.entry[moved.slots].astype(np.int64)
    there = np.flatnonzero(entries > 0)
    frames.slot[frames.head(entries[there])] = there + slot
    for index in there[frames.has(entries[there], PageFlag.KSM)].tolist():
        node = memory.mappings[int(frames.mapping[entries[index]])]
        assert isinstance(node, KsmNode)  # noqa: S101 - what the KSM flag says
        mappers = node.mappers[int(entries[index])]
        mappers[mappers.index((mm, vma.slot + index))] = (mm, slot + index)
    mm.remove(vma)
    mm.insert(moved)
    return moved


def _are_alike(lower: Vma, upper: Vma) -> bool:
    """Tell whether two areas differ in nothing but where they are (can_vma_merge_after)."""
    return (
        lower.end == upper.start
        and (lower.prot, lower.flags, lower.policy) == (upper.prot, upper.flags, upper.policy)
        and lower.file is upper.file
        and lower.offset + lower.pages == upper.offset
        and not lower.flags & _SPECIAL
        and (lower.anon is upper.anon or lower.anon is None or upper.anon is None)
    )


def _merge(memory: Memory, mm: Mm, lower: Vma, upper: Vma) -> Vma:
    """Make one area of two neighbours; their slots are brought side by side if they are not."""
    if lower.slot + lower.pages != upper.slot:
        slot = memory.tables.allocate(lower.pages + upper.pages)
        lower = relocate(memory, mm, lower, start=lower.start, slot=slot)
        upper = relocate(memory, mm, upper, start=upper.start, slot=slot + lower.pages)
    if lower.anon is None and upper.anon is not None:
        mm.attach_anon(lower, upper.anon)
    mm.absorb(lower, upper)
    return lower

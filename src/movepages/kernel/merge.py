"""Merging of equal pages: KSM (mm/ksm.c), one scan over all MERGEABLE mappings at a time.

Of equal anonymous pages one is kept, write-protected, and mapped in place of the others. It is
shared from then on: a write to it makes a copy, and move_pages moves it for all or not at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from movepages.kernel.address_space import VmFlag
from movepages.kernel.frames import PageFlag
from movepages.kernel.huge_memory import split_folios
from movepages.kernel.page_tables import PteFlag

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from movepages.kernel.address_space import Mm
    from movepages.kernel.memory import Memory

    Indices = NDArray[np.int64]


def merge_pages(memory: Memory, mms: Sequence[Mm]) -> int:
    """Merge equal pages of MERGEABLE areas; return how many frames that freed.

    Pages that someone holds besides those that map them are left alone.
    """
    memory.lru.drain_all()
    before = sum(node.free_pages for node in memory.frames.nodes.values())
    kept, slots = _equal_pages(memory, mms)
    if _split(memory, np.concatenate([kept, memory.tables.entry[slots].astype(np.int64)])):
        kept, slots = _equal_pages(memory, mms)
    if len(slots):
        _make_shared(memory, mms, np.unique(kept))
        _replace(memory, mms, slots, kept)
    return sum(node.free_pages for node in memory.frames.nodes.values()) - before


def _equal_pages(memory: Memory, mms: Iterable[Mm]) -> tuple[Indices, Indices]:
    """Return the slots of pages that equal another one, and for each slot that other, to be kept.

    Of equal pages a merged one is kept, else that of the lowest number.
    """
    frames, tables = memory.frames, memory.tables
    mergeable = [
        np.arange(vma.slot, vma.slot + vma.pages)
        for mm in mms
        for vma in mm.areas
        if vma.flags & VmFlag.MERGEABLE and not vma.flags & VmFlag.HUGETLB
    ]
    slots = np.concatenate([np.empty(0, dtype=np.int64), *mergeable])
    slots = slots[tables.entry[slots] >= 0]
    pfns = tables.entry[slots].astype(np.int64)
    heads = frames.head(pfns)
    fit = frames.has(heads, PageFlag.ANON) & ~frames.has(heads, PageFlag.LOCKED)
    fit &= frames.references[heads] == frames.mapcount[heads]
    slots, pfns = slots[fit], pfns[fit]

    pages, position = np.unique(pfns, return_inverse=True)
    kind = _kinds_of_content(memory, pages)
    merged = frames.has(frames.head(pages), PageFlag.KSM)
    order = np.lexsort([pages, ~merged, kind])
    _, first = np.unique(kind[order], return_index=True)
    keep = pages[order[first]][kind]
    other = (keep != pages) & ~merged
    chosen = other[position]
    return keep[position][chosen], slots[chosen]


def _kinds_of_content(memory: Memory, pages: Indices) -> Indices:
    """Number the contents of pages: equal pages have equal numbers, from 0 on."""
    frames = memory.frames
    contents = frames.content[pages][:, None].view(np.uint8)
    if frames.data is not None:
        contents = np.concatenate([contents, frames.data[pages]], axis=1)
    if not len(pages):
        return np.empty(0, dtype=np.int64)
    _, kind = np.unique(contents, axis=0, return_inverse=True)
    return kind.reshape(-1)


def _split(memory: Memory, pages: Indices) -> bool:
    """Split the THPs that some pages are in; tell whether there was one."""
    heads = np.unique(memory.frames.head(pages))
    heads = heads[memory.frames.order[heads] > 0]
    split_folios(memory, heads)
    return bool(len(heads))


def _make_shared(memory: Memory, mms: Sequence[Mm], kept: Indices) -> None:
    """Turn pages into merged ones, mapped where they are now, and write-protected."""
    frames = memory.frames
    new = kept[~frames.has(kept, PageFlag.KSM)]
    mapped = memory.rmap.walk(new)
    node = memory.mappings.ksm_node()
    frames.set(new, PageFlag.KSM)
    frames.mapping[new] = node.id
    frames.index[new] = 0
    memory.tables.flags[mapped.slot] &= ~np.uint8(PteFlag.WRITE | PteFlag.EXCLUSIVE)
    _add_mappers(memory, mms, mapped.slot, new[mapped.owner])


def _replace(memory: Memory, mms: Sequence[Mm], slots: Indices, kept: Indices) -> None:
    """Let slots map the pages that are kept in place of their own."""
    frames, tables = memory.frames, memory.tables
    old = tables.entry[slots].astype(np.int64)
    tables.entry[slots] = kept
    tables.flags[slots] &= ~np.uint8(PteFlag.WRITE | PteFlag.EXCLUSIVE)
    for counts in (frames.mapcount, frames.references):
        np.subtract.at(counts, old, 1)
        np.add.at(counts, kept, 1)
    _add_mappers(memory, mms, slots, kept)
    memory.free_unused(np.unique(old))


def _add_mappers(memory: Memory, mms: Sequence[Mm], slots: Indices, pages: Indices) -> None:
    """Write down who maps merged pages (rmap items)."""
    starts, owners = _owners(mms)
    node = memory.mappings.ksm_node()
    found = np.searchsorted(starts, slots, side="right") - 1
    for page, slot, owner in zip(pages.tolist(), slots.tolist(), found.tolist(), strict=True):
        node.mappers.setdefault(page, []).append((owners[owner], slot))


def _owners(mms: Sequence[Mm]) -> tuple[Indices, list[Mm]]:
    """Return the first slot of each area, rising, and the address space it belongs to."""
    areas = sorted((vma for mm in mms for vma in mm.areas), key=lambda vma: vma.slot)
    return np.array([vma.slot for vma in areas], dtype=np.int64), [vma.mm for vma in areas]

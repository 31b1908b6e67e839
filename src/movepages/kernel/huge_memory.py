"""Transparent huge pages that are mapped in part, and how they are split (mm/huge_memory.c).

Who unmaps a part of a THP, or gives a part other rights, has its own mapping replaced by one of
each page; the folio stays one, and moves as one. A folio with pages that nobody maps any more is
split when it is to move. The split frees what it finds unused: those pages, and pages full of
zeroes, in whose place the zero page is mapped.

A folio's mapcount, at its head, counts each huge mapping and each mapping of a single page once
(`_large_mapcount`), and so do its references.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from movepages.kernel.frames import NO_SLOT, ZERO_PFN, PageFlag
from movepages.kernel.page_tables import PteFlag

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from movepages.kernel.memory import Memory

    Indices = NDArray[np.int64]


def first_slots(memory: Memory, slots: Indices) -> Indices:
    """Return for slots that map parts of large folios those that would map their heads."""
    pfns = memory.tables.entry[slots].astype(np.int64)
    return slots - (pfns - memory.frames.head(pfns))


def split_huge_pmds(memory: Memory, firsts: Indices) -> None:
    """Map the THPs of some huge mappings, given by their first slots, page by page there.

    Their folios stay whole (__split_huge_pmd).
    """
    frames, tables = memory.frames, memory.tables
    for first in firsts.tolist():
        head = int(tables.entry[first])
        size = 1 << int(frames.order[head])
        flags = tables.flags[first : first + size]
        flags &= ~np.uint8(PteFlag.HUGE)
        frames.mapcount[head] += size - 1
        frames.references[head] += size - 1


def guess_mapcounts(memory: Memory, heads: Indices) -> Indices:
    """Return how often THPs are mapped, int64[n], as far as today's kernel looks.

    Where no huge mapping and no more mappings than pages are left, it goes by the first page
    (folio_likely_mapped_shared). At least 1.
    """
    frames, tables = memory.frames, memory.tables
    counts = frames.mapcount[heads].astype(np.int64)
    mapped = memory.rmap.walk(heads)
    huge = (tables.flags[mapped.slot] & np.uint8(PteFlag.HUGE)) != 0
    sure = np.bincount(mapped.owner, huge, len(heads)) > 0
    sure |= counts > np.left_shift(1, frames.order[heads].astype(np.int64))
    of_first = tables.entry[mapped.slot] == heads[mapped.owner]
    firsts = np.bincount(mapped.owner[of_first], minlength=len(heads))
    return np.where(sure, counts, np.maximum(firsts, 1))


def find_partially_mapped(memory: Memory, folios: Indices) -> NDArray[np.bool_]:
    """Tell which folios are THPs with a page that nobody maps, beside others that are mapped."""
    frames, tables = memory.frames, memory.tables
    partly = np.zeros(len(folios), dtype=np.bool_)
    if not frames.had_large:
        return partly
    at = np.flatnonzero(frames.has(folios, PageFlag.THP))
    slots = frames.slot[folios[at]]
    huge = (tables.flags[slots] & np.uint8(PteFlag.HUGE)) != 0
    huge &= frames.head(np.maximum(tables.entry[slots], 0).astype(np.int64)) == folios[at]
    at = at[~huge & (frames.mapcount[folios[at]] > 0)]  # a huge mapping maps every page
    if not len(at):
        return partly
    mapped = memory.rmap.walk(folios[at])
    pages = np.unique(tables.entry[mapped.slot].astype(np.int64))
    heads, counts = np.unique(frames.head(pages), return_counts=True)
    short = heads[counts < np.left_shift(1, frames.order[heads].astype(np.int64))]
    partly[at] = np.isin(folios[at], short)
    return partly


def split_folios(memory: Memory, heads: Indices) -> None:
    """Split THPs that nobody but their mappings holds, and isolation (split_huge_page).

    Pages that stay in use are mapped one by one where they were, and isolated if the THP was.
    """
    for head in heads.tolist():
        _split_folio(memory, head)


def _split_folio(memory: Memory, head: int) -> None:
    frames, tables = memory.frames, memory.tables
    members = np.arange(head, head + (1 << int(frames.order[head])))
    slots = memory.rmap.walk(members[:1]).slot
    slots = _without_zeroes(memory, members, slots)
    pfns = tables.entry[slots].astype(np.int64)
    tables.flags[slots] &= ~np.uint8(PteFlag.HUGE)
    isolated = int(frames.has(members[:1], PageFlag.ISOLATED)[0])

    frames.order[members] = 0
    frames.flags[members] = frames.flags[head] & ~np.uint32(PageFlag.THP)
    frames.mapping[members] = frames.mapping[head]
    frames.index[members] = frames.index[head] + np.arange(len(members))
    frames.lru_stamp[members] = frames.lru_stamp[head]
    frames.mapcount[members] = np.bincount(pfns - head, minlength=len(members))
    frames.references[members] = frames.mapcount[members] + isolated
    frames.slot[members] = NO_SLOT
    frames.slot[pfns] = slots

    unused = members[frames.mapcount[members] == 0]
    frames.clear(unused, PageFlag.ISOLATED)
    frames.references[unused] = 0
    memory.free_unused(unused)


def _without_zeroes(memory: Memory, members: Indices, slots: Indices) -> Indices:
    """Map the zero page for pages full of zeroes; return the slots that map others.

    Memory that is locked stays (try_to_map_unused_to_zeropage).
    """
    frames, tables = memory.frames, memory.tables
    offset = tables.entry[slots] - members[0]
    flags = tables.flags[slots]
    written = np.bincount(offset, flags & np.uint8(PteFlag.WRITTEN), len(members)) > 0
    zeroes = ~written & (frames.content[members] == 0)
    if frames.data is not None:
        zeroes &= ~frames.data[members].any(axis=1)
    unused = zeroes[offset] & ((flags & np.uint8(PteFlag.LOCKED)) == 0)
    tables.entry[slots[unused]] = ZERO_PFN
    tables.flags[slots[unused]] = 0
    kept: Indices = slots[~unused]
    return kept

"""Recounts a machine the slow way: everything it keeps in counters, from the page tables alone.

Page tables, page caches, pools, batches and pins say who holds which frame. All else (mapcounts,
references, flags, free lists, the reverse mapping, swap users) must follow from them. A frame must
be free, held, or in a pool, never two of these and never none.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from movepages.errors import MovePagesError
from movepages.kernel.address_space import Mm, Vma, VmFlag
from movepages.kernel.frames import NO_MAPPING, NO_SLOT, ZERO_PFN, PageFlag
from movepages.kernel.mappings import NOT_CACHED, Backing, KsmNode
from movepages.kernel.page_tables import PteFlag, is_migration, is_swap, swap_slot

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from movepages.kernel.machine import SimulatedMachine
    from movepages.kernel.memory import Memory

    Indices = NDArray[np.int64]
    Mask = NDArray[np.bool_]


class ModelError(MovePagesError, AssertionError):
    """The model disagrees with itself: a defect of the model, never of its user."""


@dataclass(frozen=True, slots=True, eq=False)
class _Tables:
    """All page-table slots that are in use: slot, entry, flags, and the area of each."""

    areas: list[Vma]
    slot: Indices
    entry: Indices
    flags: NDArray[np.uint8]
    area: Indices

    @classmethod
    def of(cls, memory: Memory, mms: list[Mm]) -> _Tables:
        areas = [vma for mm in mms for vma in mm.areas]
        ranges = [np.arange(vma.slot, vma.slot + vma.pages) for vma in areas]
        slot = np.concatenate([np.empty(0, dtype=np.int64), *ranges])
        area = np.repeat(np.arange(len(areas)), [vma.pages for vma in areas])
        tables = memory.tables
        return cls(areas, slot, tables.entry[slot].astype(np.int64), tables.flags[slot], area)

    @property
    def mapping(self) -> Mask:
        """Which slots map a frame, the zero page left out."""
        chosen: Mask = (self.entry >= 0) & (self.entry != ZERO_PFN)
        return chosen

    def has(self, chosen: Indices | Mask, flag: PteFlag) -> Mask:
        """Tell which of some slots have a flag."""
        having: Mask = (self.flags[chosen] & np.uint8(flag)) != 0
        return having

    def where(self, slot_position: int) -> str:
        """Name a slot for a message."""
        vma = self.areas[int(self.area[slot_position])]
        page = vma.start + int(self.slot[slot_position]) - vma.slot
        return f"page {page:#x} (slot {int(self.slot[slot_position])})"


def check_machine(machine: SimulatedMachine) -> None:
    """Recount everything. Raises ModelError, which names the frame or slot and what disagrees."""
    memory, mms = machine.memory, machine.mms()
    _check_areas(memory, mms)
    tables = _Tables.of(memory, mms)
    _check_entries(memory, tables)
    _check_folios(memory)
    mapped = _check_mapcounts(memory, tables)
    cached = _check_page_caches(memory)
    _check_references(memory, mapped, cached)
    _check_free(memory)
    _check_pools(memory)
    _check_lru(memory)
    _check_reverse_map(memory, tables)
    _check_merged(memory, tables)
    _check_swap(memory, tables)


def _require(right: Mask, frames: Indices, problem: str) -> None:
    if not right.all():
        wrong = np.flatnonzero(~right)
        raise ModelError(f"frame {int(frames[wrong[0]])}: {problem} ({len(wrong)} such frames)")


def _require_equal(counted: Indices, kept: Indices, what: str) -> None:
    wrong = np.flatnonzero(counted != kept)
    if len(wrong):
        pfn = int(wrong[0])
        raise ModelError(
            f"frame {pfn}: its {what} is {int(kept[pfn])}, but {int(counted[pfn])} by count "
            f"({len(wrong)} such frames)"
        )


# -- address spaces ---------------------------------------------------------------------------


def _check_areas(memory: Memory, mms: list[Mm]) -> None:
    """Areas rise, do not overlap, own slots of their own, and are known to their mappings."""
    for mm in mms:
        for before, after in pairwise(mm.areas):
            if before.end > after.start:
                raise ModelError(f"areas overlap at page {after.start:#x}")
        for vma in mm.areas:
            if vma.mm is not mm:
                raise ModelError(f"the area at page {vma.start:#x} names another address space")
    areas = [vma for mm in mms for vma in mm.areas]
    _check_slots(memory, areas)
    _check_mappings(memory, areas)


def _check_slots(memory: Memory, areas: list[Vma]) -> None:
    at = 0
    spans = [(vma.slot, vma.pages) for vma in areas]
    for first, count in sorted(spans + memory.tables.holes):
        if first != at:
            raise ModelError(f"slot {min(first, at)}: it belongs to two areas, or to none")
        at = first + count
    if at != memory.tables.used_slots:
        raise ModelError(f"slot {at}: it is in use, but belongs to no area")


def _check_mappings(memory: Memory, areas: list[Vma]) -> None:
    known: dict[int, list[Vma]] = {}
    for vma in areas:
        for mapping in (vma.file, vma.anon):
            if mapping is not None:
                known.setdefault(mapping.id, []).append(vma)
    for mapping in memory.mappings:
        expected = {id(vma) for vma in known.get(mapping.id, [])}
        if {id(vma) for vma in mapping.areas} != expected or len(mapping.areas) != len(expected):
            raise ModelError(f"mapping {mapping.id} does not know exactly the areas that map it")


def _check_entries(memory: Memory, tables: _Tables) -> None:
    """Entries name frames in use, or swap; none stands for a page that is being moved."""
    frames = memory.frames
    left = np.flatnonzero(is_migration(tables.entry))
    if len(left):
        raise ModelError(f"{tables.where(int(left[0]))}: a migration entry was left there")
    at = np.flatnonzero(tables.mapping)
    pfns = tables.entry[at]
    if len(pfns) and pfns.max() >= len(frames):
        raise ModelError(f"{tables.where(int(at[pfns.argmax()]))}: it maps no frame of the machine")
    _require(~frames.free[pfns], pfns, "it is mapped, and free")
    _require(~frames.has(pfns, PageFlag.RESERVED), pfns, "a reserved frame is mapped")
    by_page = ~tables.has(at, PteFlag.HUGE)
    hugetlb = frames.has(frames.head(pfns), PageFlag.HUGETLB)
    _require(~by_page | ~hugetlb, pfns, "a part of a hugetlb page is mapped by itself")
    locked = np.array([bool(vma.flags & VmFlag.LOCKED) for vma in tables.areas], dtype=np.bool_)
    repeats = tables.has(at, PteFlag.LOCKED)
    _require(repeats == locked[tables.area[at]], pfns, "its entry and its area differ on mlock")


def _check_folios(memory: Memory) -> None:
    """Large folios are aligned and whole; only their heads have counts and flags."""
    frames = memory.frames
    pfns = np.arange(len(frames))
    head = frames.head(pfns)
    _require(frames.order[head] == frames.order, pfns, "its folio has another order")
    tail = head != pfns
    for name in ("mapcount", "references", "flags", "mapping"):
        _require(~tail | (getattr(frames, name) == 0), pfns, f"a tail page has {name}")
    _require(~tail | (frames.free == frames.free[head]), pfns, "its folio is half free")


def _check_mapcounts(memory: Memory, tables: _Tables) -> Indices:
    """Return how often each folio is mapped, by count; a huge mapping is one.

    What is EXCLUSIVE is mapped nowhere else.
    """
    frames, pages = memory.frames, len(memory.frames)
    at = tables.mapping
    pfns, huge = tables.entry[at], tables.has(at, PteFlag.HUGE)
    size = np.left_shift(1, frames.order.astype(np.int64))
    slots = np.bincount(frames.head(pfns[huge]), minlength=pages)
    _require(slots % size == 0, np.arange(pages), "a huge mapping of it is not whole")
    mapped = slots // size + np.bincount(frames.head(pfns[~huge]), minlength=pages)
    _require_equal(mapped, frames.mapcount.astype(np.int64), "mapcount")
    exclusive = pfns[tables.has(at, PteFlag.EXCLUSIVE)]
    alone = np.bincount(pfns, minlength=pages)[exclusive] == 1
    _require(alone, exclusive, "it is exclusive to one entry, and mapped by others")
    return mapped


def _check_page_caches(memory: Memory) -> Indices:
    """Return how often each folio is in a page cache: 1 for those that say so, else 0."""
    frames = memory.frames
    cached = np.zeros(len(frames), dtype=np.int64)
    for file in memory.mappings.files():
        index = np.flatnonzero(file.cache != NOT_CACHED)
        pfns = file.cache[index].astype(np.int64)
        heads = frames.head(pfns)
        _require(frames.mapping[heads] == file.id, pfns, f"{file.name} has it, but is not its file")
        _require(frames.index[heads] + pfns - heads == index, pfns, f"{file.name} has it elsewhere")
        if file.backing is not Backing.DEVICE:
            np.add.at(cached, heads[heads == pfns], 1)
    flagged = (frames.flags & np.uint32(PageFlag.PAGE_CACHE)) != 0
    _require_equal(cached, flagged.astype(np.int64), "presence in the page cache")
    return cached


# -- frames -----------------------------------------------------------------------------------


def _check_references(memory: Memory, mapped: Indices, cached: Indices) -> None:
    """One for each mapping, the page cache, buffers, the swap cache, isolation, and each pin."""
    frames = memory.frames
    expected = mapped + cached
    for flag in (PageFlag.PRIVATE, PageFlag.SWAPCACHE, PageFlag.ISOLATED, PageFlag.RESERVED):
        expected += (frames.flags & np.uint32(flag)) != 0
    for pfn, count in memory.pins.items():
        expected[pfn] += count
    _require_equal(expected, frames.references.astype(np.int64), "references")


def _check_free(memory: Memory) -> None:
    """Nodes count their free frames rightly; free frames are nobody's, others somebody's."""
    frames = memory.frames
    pfns = np.arange(len(frames))
    for name, empty in (
        ("flags", 0),
        ("mapcount", 0),
        ("references", 0),
        ("mapping", NO_MAPPING),
        ("order", 0),
        ("content", 0),
        ("slot", NO_SLOT),
    ):
        _require(~frames.free | (getattr(frames, name) == empty), pfns, f"it is free, with {name}")
    for node in frames.nodes.values():
        free = frames.free[node.first : node.end]
        if int(free.sum()) != node.free_pages:
            raise ModelError(f"node {node.id} has {int(free.sum())} free, not {node.free_pages}")
        if free[: max(0, node.lowest_free - node.first)].any():
            raise ModelError(f"node {node.id} has a free frame below {node.lowest_free}")
    pooled = np.zeros(len(frames), dtype=np.bool_)
    pooled[[head for pool in memory.pools.pools().values() for head in pool.free]] = True
    head = frames.head(pfns)
    held = (frames.references[head] > 0) | pooled[head]
    _require(frames.free | held, pfns, "it is lost: neither free nor held by anyone")
    if frames.content[ZERO_PFN] or (frames.data is not None and frames.data[ZERO_PFN].any()):
        raise ModelError(f"frame {ZERO_PFN}: the zero page is not all zeroes")


def _check_pools(memory: Memory) -> None:
    """Pools count their pages rightly; what is free in one is of its node and size, and unused."""
    frames = memory.frames
    huge = np.flatnonzero(frames.flags & np.uint32(PageFlag.HUGETLB))
    temporary = np.array(sorted(memory.pools.temporary()), dtype=np.int64)
    _require(frames.has(temporary, PageFlag.HUGETLB), temporary, "it is no hugetlb page any more")
    huge = huge[~np.isin(huge, temporary)]
    for (node, order), pool in memory.pools.pools().items():
        members = huge[(frames.node[huge] == node) & (frames.order[huge] == order)]
        if len(members) != pool.total:
            raise ModelError(f"the pool of node {node} has {len(members)} pages, not {pool.total}")
        free = np.array(pool.free, dtype=np.int64)
        if len(np.unique(free)) != len(free) or not np.isin(free, members).all():
            raise ModelError(f"the pool of node {node} has a page twice, or one of another's")
        _require(frames.references[free] == 0, free, "it is free in its pool, and held")
        huge = huge[~np.isin(huge, members)]
    _require(np.zeros(len(huge), dtype=np.bool_), huge, "it is a hugetlb page of no pool")


def _check_lru(memory: Memory) -> None:
    """A folio in use is on the LRU, in one batch, or isolated: exactly one of these."""
    frames = memory.frames
    waiting = memory.lru.waiting()
    places = np.bincount(waiting, minlength=len(frames))
    for flag in (PageFlag.LRU, PageFlag.ISOLATED):
        places += (frames.flags & np.uint32(flag)) != 0
    pfns = np.arange(len(frames))
    never = [file.id for file in memory.mappings.files() if file.backing is Backing.DEVICE]
    backed = (frames.mapping != NO_MAPPING) & ~np.isin(frames.mapping, never)
    _require(
        ~(backed & (frames.mapcount > 0)) | (places == 1),
        pfns,
        "it is in use, but not in exactly one of LRU, a batch and isolation",
    )
    _require(places <= 1, pfns, "it is on the LRU twice")
    _require(~frames.free[waiting], waiting, "it waits in a batch, and is free")


def _check_reverse_map(memory: Memory, tables: _Tables) -> None:
    """The reverse map finds exactly the slots that map a folio."""
    frames = memory.frames
    at = np.flatnonzero(tables.mapping)
    heads = frames.head(tables.entry[at])
    folios = np.unique(heads)
    found = memory.rmap.walk(folios)
    expected = np.sort(tables.slot[at])
    slots = np.sort(found.slot)
    if not np.array_equal(slots, expected):
        odd = np.setxor1d(slots, expected)
        slot = int(odd[0]) if len(odd) else int(slots[np.flatnonzero(slots[1:] == slots[:-1])[0]])
        pfn = int(memory.tables.entry[slot])
        raise ModelError(f"frame {pfn}: the reverse map is wrong about slot {slot}")
    entries = frames.head(memory.tables.entry[found.slot].astype(np.int64))
    _require(entries == folios[found.owner], entries, "the reverse map takes it for another")


def _check_merged(memory: Memory, tables: _Tables) -> None:
    """Merged pages are in the list of those who map them, and no other page is."""
    frames = memory.frames
    merged = np.flatnonzero(frames.flags & np.uint32(PageFlag.KSM))
    nodes = [mapping for mapping in memory.mappings if isinstance(mapping, KsmNode)]
    listed = {pfn: mappers for node in nodes for pfn, mappers in node.mappers.items()}
    if set(listed) != set(merged.tolist()):
        odd = min(set(listed) ^ set(merged.tolist()))
        raise ModelError(f"frame {odd}: its flag and the list of merged pages disagree")
    owner = {int(slot): tables.areas[area].mm for slot, area in _slots_of(tables, merged)}
    for pfn, mappers in listed.items():
        for mm, slot in mappers:
            if owner.get(slot) is not mm:
                raise ModelError(f"frame {pfn}: slot {slot} is not the one that maps it")


def _slots_of(tables: _Tables, pfns: Indices) -> list[tuple[int, int]]:
    chosen = np.isin(tables.entry, pfns) & tables.mapping
    return list(zip(tables.slot[chosen].tolist(), tables.area[chosen].tolist(), strict=True))


def _check_swap(memory: Memory, tables: _Tables) -> None:
    """Each swap slot has as many users as entries name it."""
    entries = tables.entry[is_swap(tables.entry)]
    users = np.bincount(swap_slot(entries), minlength=len(memory.swap.users))
    wrong = np.flatnonzero(users != memory.swap.users)
    if len(wrong):
        slot = int(wrong[0])
        kept = int(memory.swap.users[slot])
        raise ModelError(f"swap slot {slot} has {kept} users, but {int(users[slot])} by count")

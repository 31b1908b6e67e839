"""The reverse mapping: from a folio to the page-table slots that map it (mm/rmap.c).

A folio knows its mapping and its place in it; the mapping knows its areas; an area's slot at that
place either maps the folio or does not. The walk goes once over the areas of each mapping with the
whole batch. Folios of one frame that are mapped once skip it: `Frames.slot` says where.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from movepages.kernel.frames import NO_MAPPING, NO_SLOT
from movepages.kernel.mappings import KsmNode
from movepages.kernel.page_tables import PteFlag, migration_entry
from movepages.kernel.positions import as_run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from movepages.kernel.address_space import Mm
    from movepages.kernel.frames import Frames
    from movepages.kernel.mappings import Mappings
    from movepages.kernel.page_tables import PageTables

    Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Mapped:
    """Slots that map folios: `slot` int64[m], and the position in the batch of the folio each maps.

    For a folio of several frames every frame's slot is in it.
    """

    slot: Indices
    owner: Indices
    one_to_one: bool = False
    """Each folio is one page with one slot, in the order of the batch."""


class ReverseMap:
    """Finds, unmaps and maps again the slots of folios."""

    def __init__(self, frames: Frames, mappings: Mappings, tables: PageTables) -> None:
        """Join the three."""
        self._frames, self._mappings, self._tables = frames, mappings, tables

    def walk(self, folios: Indices) -> Mapped:
        """Return all slots that map some folios, given by their heads (rmap_walk)."""
        frames = self._frames
        at = as_run(folios)
        slot = frames.slot[at].astype(np.int64)
        alone = (frames.mapcount[at] == 1) & (slot != NO_SLOT)
        if frames.had_large:
            alone &= frames.order[at] == 0
        if len(folios) and alone.all() and (self._tables.entry[as_run(slot)] == folios).all():
            return Mapped(slot, np.arange(len(folios)), one_to_one=True)
        alone[alone] = self._tables.entry[slot[alone]] == folios[alone]
        quick = np.flatnonzero(alone)
        rest = np.flatnonzero(~alone & (frames.mapcount[folios] > 0))
        slots, owners = [slot[quick]], [quick]
        for mapping in np.unique(frames.mapping[folios[rest]]).tolist():
            if mapping == NO_MAPPING:
                continue
            chosen = rest[frames.mapping[folios[rest]] == mapping]
            for _, found, owner in self._by_area(mapping, folios, chosen):
                slots.append(found)
                owners.append(owner)
        return Mapped(np.concatenate(slots), np.concatenate(owners))

    def page_mapcounts(self, pages: Indices) -> Indices:
        """Count the entries that map each page, int64[n]; a huge mapping is one for each page."""
        frames = self._frames
        heads = frames.head(pages)
        counts = frames.mapcount[heads].astype(np.int64)
        several = np.flatnonzero((frames.order[pages] > 0) & (counts > 1))
        if len(several):
            entries = self._tables.entry[self.walk(np.unique(heads[several])).slot]
            found, times = np.unique(entries, return_counts=True)
            at = np.minimum(np.searchsorted(found, pages[several]), len(found) - 1)
            counts[several] = np.where(found[at] == pages[several], times[at], 0)
        return counts

    def processes(self, folios: Indices) -> Indices:
        """Count the address spaces that map each folio, int64[n]."""
        counts = np.zeros(len(folios), dtype=np.int64)
        shared = np.flatnonzero(self._frames.mapcount[folios] > 0)
        counts[shared] = 1
        several = shared[self._frames.mapcount[folios[shared]] > 1]
        if not len(several):
            return counts
        counts[several] = 0
        for mapping in np.unique(self._frames.mapping[folios[several]]).tolist():
            chosen = several[self._frames.mapping[folios[several]] == mapping]
            owners_of: dict[Mm, list[Indices]] = {}
            for mm, _, owner in self._by_area(mapping, folios, chosen):
                owners_of.setdefault(mm, []).append(owner)
            for owners in owners_of.values():
                counts[np.unique(np.concatenate(owners))] += 1
        return counts

    def try_to_unmap(self, folios: Indices) -> Mapped:
        """Put migration entries in place of all entries of some folios; return the slots.

        Each mapping of a folio gives up its reference. Folios must be locked, and none be named
        twice.
        """
        mapped = self.walk(folios)
        frames, tables = self._frames, self._tables
        slot, at = as_run(mapped.slot), as_run(folios)
        tables.entry[slot] = migration_entry(tables.entry[slot].astype(np.int64))
        frames.references[at] -= frames.mapcount[at]
        frames.mapcount[at] = 0
        return mapped

    def remove_migration_ptes(self, mapped: Mapped, old: Indices, new: Indices) -> None:
        """Let the slots of unmapped folios map their new ones, or the old ones again.

        `old` and `new` are by position in the batch that was unmapped. Entries come back not young,
        as the kernel makes them.
        """
        frames, tables = self._frames, self._tables
        slot = as_run(mapped.slot)
        tables.flags[slot] &= ~np.uint8(PteFlag.YOUNG)
        if mapped.one_to_one:
            at = as_run(new)
            tables.entry[slot] = new
            frames.mapcount[at] = 1
            frames.references[at] += 1
            frames.slot[at] = mapped.slot
            return
        entry = tables.entry[mapped.slot].astype(np.int64)
        pfns = (-3 - entry) // 2
        tables.entry[mapped.slot] = pfns - old[mapped.owner] + new[mapped.owner]
        huge = (tables.flags[mapped.slot] & np.uint8(PteFlag.HUGE)) != 0
        mappings = np.bincount(mapped.owner[huge], minlength=len(new)) >> frames.order[new]
        mappings += np.bincount(mapped.owner[~huge], minlength=len(new))
        frames.mapcount[new] += mappings.astype(np.int32)
        frames.references[new] += mappings.astype(np.int32)
        frames.slot[new[mapped.owner]] = mapped.slot

    def is_locked(self, folios: Indices) -> NDArray[np.bool_]:
        """Tell which folios a VM_LOCKED area maps (try_to_unmap_one of 2006 gives those up)."""
        mapped = self.walk(folios)
        bits = self._tables.flags[mapped.slot] & np.uint8(PteFlag.LOCKED)
        return np.bincount(mapped.owner, bits, minlength=len(folios)) > 0

    def _by_area(
        self, mapping_id: int, folios: Indices, chosen: Indices
    ) -> Iterator[tuple[Mm, Indices, Indices]]:
        """Go through the areas of a mapping that map some of the chosen folios.

        Yield the address space, the slots, and the position in `folios` of what each maps.
        """
        mapping = self._mappings[mapping_id]
        pfns, owner = self._members(folios, chosen)
        if isinstance(mapping, KsmNode):
            yield from mapping.items_of(pfns, owner)
            return
        index = self._frames.index[folios[owner]] + (pfns - folios[owner]) + mapping.base
        for area in mapping.areas:
            slots, inside = area.slots_of(index)
            at = np.flatnonzero(inside)
            at = at[self._tables.entry[slots[at]] == pfns[at]]
            if len(at):
                yield area.mm, slots[at], owner[at]

    def _members(self, folios: Indices, chosen: Indices) -> tuple[Indices, Indices]:
        """Return all frames of the chosen folios, and the position of the folio of each."""
        pages = np.left_shift(1, self._frames.order[folios[chosen]].astype(np.int64))
        if (pages == 1).all():
            return folios[chosen], chosen
        owner = np.repeat(chosen, pages)
        offset = np.arange(len(owner)) - np.repeat(np.cumsum(pages) - pages, pages)
        return folios[owner] + offset, owner

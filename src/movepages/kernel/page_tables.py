"""Page-table entries of all address spaces, in one pool of slots.

A mapping owns a run of slots, one for each of its pages, so that any set of addresses becomes one
gather over one array, whichever mappings they lie in. 5 bytes a slot.

An entry is a frame (0 and more), EMPTY, a swap entry or a migration entry. The latter two are
negative: -2 - 2*n for swap slot n, -3 - 2*n for the frame n that is being migrated.
"""

from __future__ import annotations

from enum import IntFlag
from typing import TYPE_CHECKING, Any

import numpy as np

from movepages.errors import ArgumentError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Slots = NDArray[np.int64]

EMPTY = -1
MAX_FRAMES = (1 << 30) - 1
"""Frames, and swap slots, that an entry can name."""
MAX_SLOTS = (1 << 31) - 1
"""Slots that a frame can name (`Frames.slot`)."""
_LEAST_GROWTH_SLOTS = 1 << 12


class PteFlag(IntFlag):
    """Bits of an entry. LOCKED repeats VM_LOCKED of the mapping, for try_to_unmap to see.

    HUGE is an entry of a huge mapping, which all pages of a folio share. EXCLUSIVE is an anonymous
    page that only this entry has ever mapped (PageAnonExclusive). WRITTEN is one that was written
    to: it is not full of zeroes, whatever its tag.
    """

    WRITE = 1 << 0
    DIRTY = 1 << 1
    YOUNG = 1 << 2
    LOCKED = 1 << 3
    HUGE = 1 << 4
    EXCLUSIVE = 1 << 5
    WRITTEN = 1 << 6


class PageTables:
    """The pool of page-table slots."""

    def __init__(self) -> None:
        """Start with no slot."""
        self.entry = np.empty(0, dtype=np.int32)
        self.flags = np.empty(0, dtype=np.uint8)
        self._used = 0
        self._holes: list[tuple[int, int]] = []

    def allocate(self, count: int) -> int:
        """Return the first of `count` slots in a row, all EMPTY. Raises ArgumentError."""
        first = self._from_hole(count)
        if first is None:
            if self._used + count > MAX_SLOTS:
                raise ArgumentError(
                    f"{count} more pages to map: a machine has {MAX_SLOTS} page-table slots"
                )
            first = self._used
            self._used += count
            if self._used > len(self.entry):
                self._grow(self._used)
        self.entry[first : first + count] = EMPTY
        self.flags[first : first + count] = 0
        return first

    @property
    def used_slots(self) -> int:
        """Slots up to the last that is in use."""
        return self._used

    @property
    def holes(self) -> list[tuple[int, int]]:
        """Runs of slots below that are not in use, as (first, count)."""
        return list(self._holes)

    def free(self, first: int, count: int) -> None:
        """Give slots back; their entries must have been zapped."""
        if first + count == self._used:
            self._used = first
        elif count:
            self._holes.append((first, count))

    def _from_hole(self, count: int) -> int | None:
        for index, (first, size) in enumerate(self._holes):
            if size < count:
                continue
            if size == count:
                del self._holes[index]
            else:
                self._holes[index] = (first + count, size - count)
            return first
        return None

    def _grow(self, needed: int) -> None:
        size = max(needed, len(self.entry) + _LEAST_GROWTH_SLOTS)
        for name, fill in (("entry", EMPTY), ("flags", 0)):
            old = getattr(self, name)
            new = np.full(size, fill, dtype=old.dtype)
            new[: len(old)] = old
            setattr(self, name, new)


def is_swap(entries: NDArray[np.signedinteger[Any]]) -> NDArray[np.bool_]:
    """Tell which entries are swap entries."""
    swap: NDArray[np.bool_] = (entries < EMPTY) & (entries % 2 == 0)
    return swap


def is_migration(entries: NDArray[np.signedinteger[Any]]) -> NDArray[np.bool_]:
    """Tell which entries are migration entries."""
    migration: NDArray[np.bool_] = (entries < EMPTY) & (entries % 2 != 0)
    return migration


def swap_entry(swap_slots: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the entries for swap slots."""
    return -2 - 2 * swap_slots


def swap_slot(entries: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the swap slots of swap entries."""
    return (-2 - entries) // 2


def migration_entry(pfns: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the entries that stand for frames while they are migrated."""
    return -3 - 2 * pfns

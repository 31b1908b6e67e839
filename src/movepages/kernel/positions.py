"""Where values stand in a batch: the look-ups that would be loops over a list in C.

Handles that lie close together, as page frames of a machine do, are looked up in a table by value;
others by sorting, which costs about ten times as much. Values that follow one another make a slice:
NumPy copies that ten times as fast as it gathers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Values = NDArray[np.int64]

_MOST_TABLE = 64
"""A table has at most this many elements for each value. Only those that are used cost memory."""
_LEAST_TABLE = 1 << 12
PART = 1 << 14
"""Handles in a part of a batch: eight bytes each, and a core's cache has about a megabyte."""


def parts(count: int) -> Iterator[slice]:
    """Cut a batch into parts small enough for what is computed of one to stay in the cache."""
    for first in range(0, count, PART):
        yield slice(first, min(first + PART, count))


def all_differ(values: Values) -> bool:
    """Tell whether no value is twice in a batch."""
    if is_rising(values):
        return True
    low, size = _span(values)
    if not _fits_table(size, len(values)):
        return len(np.unique(values)) == len(values)
    seen = np.zeros(size, dtype=np.bool_)
    for part in parts(len(values)):
        seen[values[part] - low] = True
    return int(np.count_nonzero(seen)) == len(values)


def first_of_each(values: Values) -> Values:
    """Return the positions, rising, of the first of each value in a batch."""
    if is_rising(values):
        return np.arange(len(values))
    low, size = _span(values)
    if not _fits_table(size, len(values)):
        return np.sort(np.unique(values, return_index=True)[1])
    positions = np.arange(len(values))
    table = np.empty(size, dtype=np.int32)
    table[values[::-1] - low] = positions[::-1]  # the last to be stored stays
    return np.flatnonzero(table[values - low] == positions)


def is_rising(values: Values) -> bool:
    """Tell whether each value is greater than the one before."""
    return bool((values[1:] > values[:-1]).all())


def as_run(values: Values) -> slice | Values:
    """Return values as a slice if each is one more than the one before and none is negative.

    Both mean the same elements of an array; those of a slice are a view, not a copy.
    """
    if not len(values):
        return values
    first, end = int(values[0]), int(values[-1]) + 1
    if first < 0 or end - first != len(values) or not is_rising(values):
        return values
    return slice(first, end)


class Positions:
    """Finds where each of some values is in a list without duplicates."""

    def __init__(self, known: Values) -> None:
        """Take the list; how it is best searched is found out at the first question."""
        self._known = known
        self._next = 0
        self._order: Values | None = None
        self._sorted: Values | None = None

    def of(self, wanted: Values) -> Values:
        """Return the position of each value; for a part of a THP that was split, its head's."""
        count, first = len(wanted), self._next
        if np.array_equal(self._known[first : first + count], wanted):
            self._next += count  # most often they are asked for in turn
            return np.arange(first, first + count)
        if self._sorted is None:
            if is_rising(self._known):
                self._sorted = self._known
            else:
                self._order = np.argsort(self._known, kind="stable")
                self._sorted = self._known[self._order]
        found = np.searchsorted(self._sorted, wanted, side="right") - 1
        return found if self._order is None else self._order[found]


def distinct(values: NDArray[np.int8] | NDArray[np.int16] | NDArray[np.int32]) -> list[int]:
    """Return the values of a batch of small numbers, none negative, each once and rising."""
    if not len(values):
        return []
    low = int(values.min())
    if low == values.max():
        return [low]
    return np.flatnonzero(np.bincount(values)).tolist()


def _fits_table(size: int, values: int) -> bool:
    return size <= max(_MOST_TABLE * values, _LEAST_TABLE)


def _span(values: Values) -> tuple[int, int]:
    low = int(values.min())
    return low, int(values.max()) - low + 1

"""The pages of a plan by their row: what each is, without a list of all of them.

A row is the number of a page in the plan's order. Rows are named by a slice, which costs nothing,
or by an array int64[n], for pages here and there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from movepages.values import PageRuns

    Rows: TypeAlias = slice | NDArray[np.int64]


def count(rows: Rows) -> int:
    """Count rows."""
    if isinstance(rows, slice):
        return int(rows.stop) - int(rows.start)
    return len(rows)


def part(rows: Rows, low: int, high: int) -> Rows:
    """Return rows `low` to `high` of some rows."""
    if isinstance(rows, slice):
        return slice(rows.start + low, rows.start + high)
    return rows[low:high]


def chosen(rows: Rows, which: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return those of some rows that are chosen, bool[count(rows)]."""
    at: NDArray[np.int64] = np.flatnonzero(which)
    return at + rows.start if isinstance(rows, slice) else rows[at]


class RowIndex:
    """Addresses and sizes by row; `whole` is all rows."""

    def __init__(self, runs: PageRuns) -> None:
        """Sum the runs up; the cost is that of runs, not of pages."""
        self._sizes = runs.page_size_bytes
        self._ends = np.cumsum(runs.pages)
        self._firsts = self._ends - runs.pages
        # the address of a row is that of its run's row 0, if it went back so far, plus row * size
        self._zero = runs.start - (self._firsts * self._sizes).view(np.uint64)
        self._bytes_before = np.cumsum(runs.pages * self._sizes) - runs.pages * self._sizes
        self.whole = slice(0, int(self._ends[-1]) if len(self._ends) else 0)

    def addresses(self, rows: Rows) -> NDArray[np.uint64]:
        """Return the address of each page, uint64[n]."""
        if not isinstance(rows, slice):
            run = self._run_of(rows)
            return self._zero[run] + (rows * self._sizes[run]).view(np.uint64)
        number = np.arange(rows.start, rows.stop, dtype=np.int64)
        low, high = self._runs_of(rows)
        if high - low == 1:
            number *= self._sizes[low]
            number += self._zero[low].astype(np.int64)
            return number.view(np.uint64)
        lengths = self._lengths(rows, low, high)
        number *= np.repeat(self._sizes[low:high], lengths)
        number += np.repeat(self._zero[low:high].view(np.int64), lengths)
        return number.view(np.uint64)

    def last_parts(self, rows: Rows, page_size_bytes: int) -> NDArray[np.uint64]:
        """Return the address of the last base page of each page, uint64[n]."""
        addresses = self.addresses(rows)
        addresses += (self.sizes(rows) - page_size_bytes).view(np.uint64)
        return addresses

    def sizes(self, rows: Rows) -> NDArray[np.int64]:
        """Return the size of each page in bytes, int64[n]."""
        if not isinstance(rows, slice):
            return self._sizes[self._run_of(rows)]
        low, high = self._runs_of(rows)
        return np.repeat(self._sizes[low:high], self._lengths(rows, low, high))

    def total_bytes(self, rows: Rows) -> int:
        """Return how many bytes some pages are."""
        if isinstance(rows, slice):
            return self._bytes_until(rows.stop) - self._bytes_until(rows.start)
        return int(self.sizes(rows).sum())

    def fitting(self, rows: Rows, size_bytes: int) -> int:
        """Return how many of some pages, from the first on, are so many bytes: at least one."""
        if isinstance(rows, slice):
            limit = self._bytes_until(rows.start) + size_bytes
            run = int(np.searchsorted(self._bytes_before, limit, side="right")) - 1
            whole = (limit - int(self._bytes_before[run])) // int(self._sizes[run])
            row = min(int(self._firsts[run]) + whole, int(self._ends[run]))
            return max(1, min(row, int(rows.stop)) - int(rows.start))
        # no page is smaller than the smallest: look at no more rows than could fit
        most = min(len(rows), size_bytes // int(self._sizes.min()) + 1)
        ends = np.cumsum(self.sizes(rows[:most]))
        return max(1, int(np.searchsorted(ends, size_bytes, side="right")))

    def _bytes_until(self, row: int) -> int:
        """Return how many bytes the pages before a row are."""
        if not len(self._ends):
            return 0
        run = min(int(np.searchsorted(self._ends, row, side="right")), len(self._ends) - 1)
        return int(self._bytes_before[run]) + (row - int(self._firsts[run])) * int(self._sizes[run])

    def _run_of(self, rows: NDArray[np.int64]) -> NDArray[np.intp]:
        return np.searchsorted(self._ends, rows, side="right")

    def _runs_of(self, rows: slice) -> tuple[int, int]:
        """Return the first run of a slice, and the one behind its last."""
        if rows.stop <= rows.start:
            return 0, 0
        low, high = np.searchsorted(self._ends, [rows.start, rows.stop - 1], side="right")
        return int(low), int(high) + 1

    def _lengths(self, rows: slice, low: int, high: int) -> NDArray[np.int64]:
        begins = np.maximum(self._firsts[low:high], rows.start)
        lengths: NDArray[np.int64] = np.minimum(self._ends[low:high], rows.stop) - begins
        return lengths

"""Pages of a live process as pagemap shows them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from movepages.abi.pagemap import PagemapBit, PageRegion
from movepages.linux.pagemap import chunks, frames, open_pagemap, present, read_entries, scan

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

    Addresses = NDArray[np.uint64]
    Handles = NDArray[np.int64]

_ADDRESS_BITS = 56, 52, 48, 47, 42, 39, 38
"""Of user space, by architecture and how many levels its page tables have."""


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """Present pages as pagemap shows them: numbers, entries, and which are of a huge page."""

    pages: Handles
    entries: Addresses
    huge: NDArray[np.bool_]

    def at(self, chosen: Handles | NDArray[np.bool_] | slice) -> Seen:
        """Return some of them."""
        return Seen(self.pages[chosen], self.entries[chosen], self.huge[chosen])

    @property
    def frames(self) -> Handles:
        """Their page frames, 0 where these may not be seen."""
        return frames(self.entries).view(np.int64)

    @property
    def exclusive(self) -> NDArray[np.bool_]:
        """Which are mapped exactly once."""
        return self.has(PagemapBit.EXCLUSIVE)

    def has(self, bit: PagemapBit) -> NDArray[np.bool_]:
        """Tell which have a bit."""
        having: NDArray[np.bool_] = (self.entries & np.uint64(1 << bit)) != 0
        return having


def present_pages(pagemap: int, start: int, end: int, page_shift: int) -> Handles:
    """Return the numbers of the present pages of a range, int64[n], rising.

    Raises UnsupportedError where the kernel has no PAGEMAP_SCAN, EOFError when the process is gone.
    """
    regions = scan(pagemap, start << page_shift, end << page_shift, require=PageRegion.PRESENT)
    first = (regions[:, 0] >> np.uint64(page_shift)).astype(np.int64)
    counts = (regions[:, 1] >> np.uint64(page_shift)).astype(np.int64) - first
    before = np.cumsum(counts) - counts
    pages: Handles = np.repeat(first - before, counts) + np.arange(int(counts.sum()))
    return pages


def read_present_pages(pagemap: int, ranges: Iterable[tuple[int, int]], page_shift: int) -> Handles:
    """Return the numbers of the present pages of ranges, where the kernel has no PAGEMAP_SCAN.

    Each page of the ranges is read, so they should be mapped. Raises EOFError as `present_pages`.
    """
    found = [np.empty(0, dtype=np.int64)]
    for start, end in ranges:
        pieces = chunks(pagemap, start << page_shift, end << page_shift, 1 << page_shift)
        found += [
            np.flatnonzero(present(entries)) + (address >> page_shift)
            for address, entries in pieces
        ]
    return np.concatenate(found)


def find_user_pages(page_size_bytes: int, root: Path) -> int:
    """Return how many pages user space has, but for its last: as far as PAGEMAP_SCAN may look."""
    entry = np.empty(1, dtype=np.uint64)
    with open_pagemap(0, root) as pagemap:
        for bits in _ADDRESS_BITS:
            pages = (1 << bits) // page_size_bytes - 1
            if len(read_entries(pagemap, pages - 1, entry)):  # beyond the last, there are none
                return pages
    return (1 << _ADDRESS_BITS[-1]) // page_size_bytes

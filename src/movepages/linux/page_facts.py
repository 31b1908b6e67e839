"""What can be known of given pages of a process without asking the kernel to move them.

From pagemap: present or swapped out, whether a file or shared memory is behind the page, whether it
is mapped by one process alone, its frame. From PAGEMAP_SCAN (Linux 6.7): whether it is mapped as
part of a huge page, and whether it is the zero page. All this but the frame needs no privilege.

Without PAGEMAP_SCAN, who may see frames compares them with those of the zero page, and looks up in
kpageflags what lies as a huge page would. Anyone else does not know: `knows_huge`, `knows_zero`.

A process that has ended, or an address beyond the address space, has no pages: all is False.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from movepages.abi.pagemap import PAGEMAP_ENTRY_BYTES, PageFlag, PagemapBit, PageRegion
from movepages.errors import ArgumentError, UnsupportedError
from movepages.linux import kpageflags, pagemap
from movepages.linux.limits import read_thp_size_bytes
from movepages.linux.page_frames import read_zero_frames
from movepages.linux.reading import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    Pages = NDArray[np.uint64]
    Truth = NDArray[np.bool_]

_GAP_PAGES = 128
"""Reading as many entries that nobody asked for costs less than one more system call."""

_LAST_PAGE = (1 << 63) // PAGEMAP_ENTRY_BYTES - 1  # file offsets are signed
_SPECIAL = PageRegion.HUGE | PageRegion.PFNZERO


@dataclass(frozen=True, slots=True, eq=False)
class PageFacts:
    """Facts about n pages, in the order in which they were asked for; bool[n] unless said.

    `entries` is uint64[n], as in abi.pagemap.PagemapBit. `huge`: mapped as part of a huge page, a
    transparent one or hugetlb. `zero`: it is the zero page, or a part of the huge one. Where
    `knows_huge` or `knows_zero` is False, these are False and mean nothing.
    """

    entries: NDArray[np.uint64]
    huge: Truth
    zero: Truth
    knows_huge: bool
    knows_zero: bool

    def __len__(self) -> int:
        """Count the pages."""
        return len(self.entries)

    @property
    def present(self) -> Truth:
        """Which pages are in memory and mapped."""
        return pagemap.present(self.entries)

    @property
    def swapped(self) -> Truth:
        """Which pages are swapped out, or are just being migrated; guard pages are not."""
        return self._has(PagemapBit.SWAPPED) & ~self._has(PagemapBit.GUARD)

    @property
    def file_or_shared(self) -> Truth:
        """Which pages are of a file or of shared memory, not private to the process."""
        return self._has(PagemapBit.FILE_OR_SHARED)

    @property
    def exclusive(self) -> Truth:
        """Which pages are mapped exactly once."""
        return self._has(PagemapBit.EXCLUSIVE)

    @property
    def pfn(self) -> NDArray[np.uint64]:
        """The page frame numbers, uint64[n]; 0 if absent, and without CAP_SYS_ADMIN."""
        return np.where(self.present, pagemap.frames(self.entries), np.uint64(0))

    def _has(self, bit: PagemapBit) -> Truth:
        having: Truth = (self.entries & np.uint64(1 << bit)) != 0
        return having


@dataclass(frozen=True, slots=True)
class PageFactReader:
    """How page facts are had here. `zero_frames` is None where frames are not to be seen."""

    page_size_bytes: int
    scans: bool
    zero_frames: tuple[int, ...] | None
    root: Path = ROOT

    def read(self, descriptor: int, pages: Pages) -> PageFacts:
        """Return the facts about pages (address / page size), uint64[n], in any order.

        `descriptor` is an open pagemap; see pagemap.open_pagemap. Raises ArgumentError for a page
        that no address has.
        """
        return self.describe(descriptor, pages, self.read_entries(descriptor, pages))

    def read_entries(self, descriptor: int, pages: Pages) -> NDArray[np.uint64]:
        """Return what pagemap alone tells of pages, uint64[n]; raises as `read` does."""
        order = _order(pages)
        if order is not None:
            pages = pages[order]
        if len(pages) and pages[-1] > _LAST_PAGE:
            raise ArgumentError(f"no address has page {pages[-1]}; divide it by the page size")
        entries = np.zeros(len(pages), dtype=np.uint64)
        for first, last in _runs(pages):
            _read_run(descriptor, pages[first:last], entries[first:last])
        return entries if order is None else entries[_places(order)]

    def describe(self, descriptor: int, pages: Pages, entries: NDArray[np.uint64]) -> PageFacts:
        """Return the facts about pages whose entries were just read."""
        order = _order(pages)
        if order is None:
            return self._describe_rising(descriptor, pages, entries)
        facts = self._describe_rising(descriptor, pages[order], entries[order])
        return _put_back(facts, _places(order))

    def _describe_rising(
        self, descriptor: int, pages: Pages, entries: NDArray[np.uint64]
    ) -> PageFacts:
        nothing = np.zeros(len(pages), dtype=np.bool_)
        known = self.scans or self.zero_frames is not None
        facts = PageFacts(entries, nothing, nothing, knows_huge=known, knows_zero=known)
        if self.scans:
            return self._scanned(descriptor, pages, _runs(pages), facts)
        if self.zero_frames is not None:
            return self._looked_up(pages, facts)
        return facts

    def _scanned(
        self, descriptor: int, pages: Pages, runs: list[tuple[int, int]], facts: PageFacts
    ) -> PageFacts:
        """Add what PAGEMAP_SCAN tells, of runs of pages in which some are present."""
        size = self.page_size_bytes
        found = []
        for first, last in runs:
            there = pagemap.present(facts.entries[first:last]).nonzero()[0]
            if not len(there):
                continue
            low, high = int(pages[first + there[0]]), int(pages[first + there[-1]]) + 1
            try:
                regions = _scan(descriptor, low * size, high * size)
            except EOFError:
                break
            if len(regions):
                found.append(regions)
        if not found:
            return facts
        regions = np.concatenate(found)
        borders = np.searchsorted(pages, regions[:, :2] // np.uint64(size))
        huge = _covered(borders, regions[:, 2], PageRegion.HUGE, len(pages))
        zero = _covered(borders, regions[:, 2], PageRegion.PFNZERO, len(pages))
        return replace(facts, huge=huge, zero=zero)

    def _looked_up(self, pages: Pages, facts: PageFacts) -> PageFacts:
        """Add what frames tell."""
        frames = facts.pfn
        zero = np.isin(frames, np.array(self.zero_frames, dtype=np.uint64)) & facts.present
        thp_bytes = read_thp_size_bytes(self.root) or self.page_size_bytes
        within = np.uint64(thp_bytes // self.page_size_bytes - 1)
        huge = facts.present & ((frames ^ pages) & within == 0)
        heads, of_page = np.unique(frames[huge] & ~within, return_inverse=True)
        flags = kpageflags.read_flags(heads, self.root)
        large = kpageflags.has(flags, PageFlag.THP) | kpageflags.has(flags, PageFlag.HUGE)
        huge[huge] = large[of_page]
        return replace(facts, huge=huge, zero=zero)


def find_reader(page_size_bytes: int, root: Path = ROOT) -> PageFactReader:
    """Return the best way to read page facts here, found by trying on this process."""
    with pagemap.open_pagemap(0, root) as descriptor:
        try:
            _scan(descriptor, page_size_bytes, 2 * page_size_bytes)
        except UnsupportedError:
            zero_frames = read_zero_frames(page_size_bytes, root)
            return PageFactReader(page_size_bytes, scans=False, zero_frames=zero_frames, root=root)
    return PageFactReader(page_size_bytes, scans=True, zero_frames=None, root=root)


def _scan(descriptor: int, start: int, end: int) -> NDArray[np.uint64]:
    return pagemap.scan(
        descriptor, start, end, require=PageRegion.PRESENT, any_of=_SPECIAL, tell=_SPECIAL
    )


def _runs(pages: Pages) -> list[tuple[int, int]]:
    """Divide rising pages where it pays not to read on: indices of each run's first and end."""
    if not len(pages):
        return []
    if int(pages[-1]) - int(pages[0]) <= _GAP_PAGES:
        return [(0, len(pages))]
    cuts = np.flatnonzero(pages[1:] - pages[:-1] > _GAP_PAGES) + 1
    return list(pairwise([0, *cuts.tolist(), len(pages)]))


def _read_run(descriptor: int, pages: Pages, out: NDArray[np.uint64]) -> None:
    """Read the entries of rising pages that lie near each other."""
    first, last = int(pages[0]), int(pages[-1])
    together = last - first == len(pages) - 1
    if together and (len(pages) == 1 or (pages[1:] - pages[:-1] == 1).all()):
        pagemap.read_entries(descriptor, first, out)
        return
    buffer = np.empty(min(last + 1 - first, pagemap.CHUNK_PAGES), dtype=np.uint64)
    for chunk in range(first, last + 1, len(buffer)):
        entries = pagemap.read_entries(descriptor, chunk, buffer[: last + 1 - chunk])
        low, high = np.searchsorted(pages, np.array([chunk, chunk + len(entries)], np.uint64))
        out[low:high] = entries[(pages[low:high] - np.uint64(chunk)).view(np.int64)]


def _covered(
    borders: NDArray[np.intp], categories: NDArray[np.uint64], category: PageRegion, count: int
) -> Truth:
    """Tell which of `count` pages lie in regions of a category, given by indices of pages."""
    chosen = borders[(categories & np.uint64(category)) != 0]
    steps = np.zeros(count + 1, dtype=np.int8)
    np.add.at(steps, chosen[:, 0], 1)
    np.subtract.at(steps, chosen[:, 1], 1)
    covered: Truth = np.cumsum(steps[:count], dtype=np.int8).view(np.bool_)
    return covered


def _order(pages: Pages) -> NDArray[np.intp] | None:
    """Return what sorts pages, None for rising ones."""
    if len(pages) < 2 or not (pages[1:] < pages[:-1]).any():
        return None
    return np.argsort(pages, kind="stable")


def _places(order: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return where each page has come to by sorting."""
    places = np.empty_like(order)
    places[order] = np.arange(len(order))
    return places


def _put_back(facts: PageFacts, place: NDArray[np.intp]) -> PageFacts:
    """Return facts of sorted pages in the order in which those were asked for."""
    return replace(
        facts, entries=facts.entries[place], huge=facts.huge[place], zero=facts.zero[place]
    )

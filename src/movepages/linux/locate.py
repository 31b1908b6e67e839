"""On which node each page of a process is, the fastest way that is right.

The ways, fastest first; all agree, and which ones were used is part of the result:

- `numa_maps`: the pages of a mapping whose line names one node are known without looking at them.
- `pfn`: the page frame number from pagemap, looked up in the nodes' memory blocks. Needs the right
  to see PFNs (CAP_SYS_ADMIN). About five times faster than asking.
- `scan`: PAGEMAP_SCAN says which pages are present; those are queried, one query for a folio.
- `query`: move_pages(2) without nodes for every page of every mapping.

What would make the PFN way wrong, and what is done about it: a memory block linked under two nodes
or under none tells nothing, so its pages are queried; the zero page is known by its frame; mappings
of devices are queried; and 64 of the pages found are queried as well, the way being abandoned on
any difference. Huge pages are queried in every way: one query for 2M costs less than reading their
entries, and it knows the huge zero page.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from movepages.abi import Errno
from movepages.errors import ArgumentError, call_error, no_such_process
from movepages.linux import intervals, pagemap, presence
from movepages.linux.limits import read_thp_size_bytes
from movepages.linux.mappings import read_mappings
from movepages.linux.maps import read_maps
from movepages.linux.numa_maps import read_hugetlb_sizes
from movepages.linux.page_frames import (
    UNKNOWN,
    read_frame_nodes,
    read_node_runs,
    sees_frames,
)
from movepages.linux.presence import NO_NODE, Regions, Spans
from movepages.linux.reading import ROOT, living_program, read_process_record
from movepages.values import PageRuns, Placement

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

ALL_WAYS = ("numa_maps", "pfn", "scan", "query")
_CHECKED_PAGES = 64
_QUERY_PAGES = 1 << 16


@dataclass(frozen=True, slots=True, eq=False)
class Locator:
    """Locates the pages of one process. `query` asks the kernel for the statuses of addresses."""

    pid: int
    query: Callable[[NDArray[np.uint64]], NDArray[np.int32]]
    page_size_bytes: int
    root: Path = ROOT
    ways: Sequence[str] = ALL_WAYS

    def locate(self, ranges: Sequence[tuple[int, int]] | None = None) -> Placement:
        """Return the placement of the present pages in some ranges, or in all mappings.

        A folio that a range only touches counts whole. Raises CallError, ArgumentError.
        """
        with self._steady():
            return _joined(list(self._parts(_whole_pages(ranges, self.page_size_bytes))))

    def present(self, ranges: Sequence[tuple[int, int]] | None = None) -> PageRuns:
        """Return which pages are present, and how large each is. Raises as locate does."""
        with self._steady():
            spans = self._spans(_whole_pages(ranges, self.page_size_bytes))
            if not len(spans):  # so with kernel threads, which have no pagemap
                return PageRuns(spans.start, spans.resident_bytes, spans.page_size_bytes)
            with pagemap.open_pagemap(self.pid, self.root) as descriptor:
                regions = presence.present_regions(descriptor, spans, self.page_size_bytes)
            return self._runs(regions, spans)

    @contextmanager
    def _steady(self) -> Iterator[None]:
        """Look at the process, and make sure that it, and its program, was there to the end."""
        before = living_program(self.pid, self.root)
        try:
            yield
        except EOFError:
            self._require_same(before)
            raise no_such_process(self.pid, "read pagemap") from None
        self._require_same(before)

    def _require_same(self, before: tuple[str, ...]) -> None:
        after = living_program(self.pid, self.root)
        if after[0] != before[0]:
            raise no_such_process(self.pid, "read pagemap")
        if after != before:
            raise call_error(
                -Errno.ESRCH,
                "read pagemap",
                detail=f"process {self.pid} started another program meanwhile; look at it again",
                pid=self.pid,
            )

    def _parts(self, ranges: Sequence[tuple[int, int]] | None) -> Iterator[Placement]:
        if ranges is None and "numa_maps" in self.ways:
            mappings = read_mappings(self.pid, self.root)
            spans = presence.spans_of(mappings, None, self.page_size_bytes)
            spans = spans.where(spans.resident_bytes != 0)
        else:
            spans = self._spans(ranges)
        if not len(spans):  # so with kernel threads, which have no pagemap
            return
        with pagemap.open_pagemap(self.pid, self.root) as descriptor:
            if (spans.node != NO_NODE).any():
                placed, spans = self._by_numa_maps(descriptor, spans)
                yield placed
            by_frames = self._by_frames(descriptor, spans) if "pfn" in self.ways else None
            if by_frames is not None:
                yield by_frames
                spans = spans.where(spans.device)
                if not len(spans):
                    return
            if "scan" in self.ways:
                regions = presence.present_regions(descriptor, spans, self.page_size_bytes)
                yield self._asked(self._runs(regions, spans), "scan")
                return
        everything = Regions(spans.start, spans.end, spans.page_size_bytes > self.page_size_bytes)
        yield self._asked(self._runs(everything, spans), "query")

    def _spans(self, ranges: Sequence[tuple[int, int]] | None) -> Spans:
        lines = read_maps(self.pid, self.root)
        return presence.spans_of(lines, ranges, self.page_size_bytes)

    def _by_numa_maps(self, descriptor: int, spans: Spans) -> tuple[Placement, Spans]:
        """Place the spans that numa_maps puts on one node; return the others as well.

        What is resident must add up, or the mapping changed meanwhile and is looked at by page.
        """
        single = spans.where(spans.node != NO_NODE)
        full = single.resident_bytes == single.size_bytes
        page_size = self.page_size_bytes
        regions = (
            presence.all_regions(descriptor, single.where(full), page_size),
            presence.present_regions(descriptor, single.where(~full), page_size),
        )
        runs = [self._runs(found, single) for found in regions]
        start = np.concatenate([found.start for found in runs])
        pages = np.concatenate([found.pages for found in runs])
        size = np.concatenate([found.page_size_bytes for found in runs])
        owner = intervals.find(single.start, single.end, start)  # -1: grown together meanwhile
        sums = np.bincount(owner + 1, pages * size, minlength=len(single) + 1)[1:]
        right = sums == single.resident_bytes
        nodes = np.append(np.where(right, single.node, NO_NODE), NO_NODE)[owner]
        placed = _placed(PageRuns(start, pages, size), nodes, "numa_maps")
        return placed, spans.where(~np.isin(spans.start, single.start[right]))

    def _by_frames(self, descriptor: int, spans: Spans) -> Placement | None:
        """Place base pages by their frames, huge ones by query; None if that cannot be trusted."""
        if not sees_frames(self.page_size_bytes, self.root):
            return None
        spans = spans.where(~spans.device)
        look = presence.all_regions if self._mostly_resident(spans) else presence.present_regions
        regions = look(descriptor, spans, self.page_size_bytes)
        base = self._frame_runs(descriptor, regions.where(~regions.huge))
        if base is None:
            return None
        known = _where(base, base.node != UNKNOWN)
        if not self._confirmed(known):
            return None
        huge = self._runs(regions.where(regions.huge), spans)
        unknown = _where(base, base.node == UNKNOWN).page_runs()
        return _joined([known, self._asked(huge, "pfn"), self._asked(unknown, "pfn")])

    def _mostly_resident(self, spans: Spans) -> bool:
        """Guess from statm, which costs nothing, whether reading every entry is worth it."""
        statm = read_process_record(self.pid, "statm", self.root).split()
        return int(statm[1]) * self.page_size_bytes * 2 >= int(spans.size_bytes.sum())

    def _frame_runs(self, descriptor: int, regions: Regions) -> Placement | None:
        """Place the pages of regions by their frames; None where memory blocks tell nothing."""
        if not len(regions.start):
            return _joined([])  # with huge pages alone, no need for the table of memory blocks
        size = self.page_size_bytes
        frame_nodes = read_frame_nodes(size, self.root)
        if frame_nodes is None:
            return None
        wanted = (regions.start, regions.end)
        start, end, node = read_node_runs(descriptor, wanted, frame_nodes, size)
        pages = ((end - start) // np.uint64(size)).astype(np.int64)
        return Placement(start, pages, np.full(len(start), size, dtype=np.int64), node, "pfn")

    def _confirmed(self, placement: Placement) -> bool:
        """Ask the kernel about pages spread over a placement; False on any difference."""
        ends = np.cumsum(placement.pages)
        if not len(ends):
            return True
        total = int(ends[-1])
        chosen = np.unique(np.linspace(0, total - 1, _CHECKED_PAGES).astype(np.int64))
        run = np.searchsorted(ends, chosen, side="right")
        offset = (chosen - (ends - placement.pages)[run]) * placement.page_size_bytes[run]
        said = self.query(placement.start[run] + offset.view(np.uint64))
        return bool((said == placement.node[run]).all())

    def _runs(self, regions: Regions, spans: Spans) -> PageRuns:
        """Turn regions into runs of pages. Maps alone does not say how large hugetlb pages are."""
        owner = intervals.find(spans.start, spans.end, regions.start)
        if (regions.huge & spans.backed[owner] & (spans.resident_bytes[owner] < 0)).any():
            spans = presence.with_hugetlb_sizes(spans, read_hugetlb_sizes(self.pid, self.root))
        thp_size_bytes = read_thp_size_bytes(self.root) or self.page_size_bytes
        return presence.runs_of(regions, spans, self.page_size_bytes, thp_size_bytes)

    def _asked(self, runs: PageRuns, way: str) -> Placement:
        """Ask for the node of every page of the runs, many at a time."""
        return _joined(
            [_answered(batch, self.query(batch.addresses()), way) for batch in _batches(runs)]
        )


def _whole_pages(
    ranges: Sequence[tuple[int, int]] | None, page_size_bytes: int
) -> list[tuple[int, int]] | None:
    """Round ranges to pages, sort them, and join those that meet. Raises ArgumentError."""
    if ranges is None:
        return None
    joined: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if not 0 <= start < end:
            raise ArgumentError(f"range {start:#x}-{end:#x} is empty, reversed or negative")
        first = start // page_size_bytes * page_size_bytes
        last = -(-end // page_size_bytes) * page_size_bytes
        if joined and first <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    return joined


def _batches(runs: PageRuns) -> Iterator[PageRuns]:
    """Divide runs into batches of at most _QUERY_PAGES pages."""
    ends = np.cumsum(runs.pages)
    total = int(ends[-1]) if len(ends) else 0
    for low in range(0, total, _QUERY_PAGES):
        high = min(low + _QUERY_PAGES, total)
        first = int(np.searchsorted(ends, low, side="right"))
        last = int(np.searchsorted(ends, high, side="left")) + 1
        begins = ends[first:last] - runs.pages[first:last]
        skipped = np.maximum(low - begins, 0)
        pages = np.minimum(ends[first:last], high) - begins - skipped
        size = runs.page_size_bytes[first:last]
        yield PageRuns(runs.start[first:last] + (skipped * size).view(np.uint64), pages, size)


def _answered(runs: PageRuns, status: NDArray[np.int32], way: str) -> Placement:
    """Cut runs where the status of their pages changes, and keep the parts that have a node."""
    begins = np.cumsum(runs.pages) - runs.pages
    new = np.empty(len(status), dtype=np.bool_)
    np.not_equal(status[1:], status[:-1], out=new[1:])
    new[begins] = True
    first = np.flatnonzero(new)
    pages = np.diff(first, append=len(status))
    there = status[first] >= 0
    first, pages = first[there], pages[there]
    run = np.searchsorted(begins, first, side="right") - 1
    size = runs.page_size_bytes[run]
    start = runs.start[run] + ((first - begins[run]) * size).view(np.uint64)
    return Placement(start, pages, size, status[first], way)


def _placed(runs: PageRuns, nodes: NDArray[np.int32], way: str) -> Placement:
    placement = Placement(runs.start, runs.pages, runs.page_size_bytes, nodes, way)
    return _where(placement, nodes != NO_NODE)


def _where(placement: Placement, chosen: NDArray[np.bool_]) -> Placement:
    return Placement(
        placement.start[chosen],
        placement.pages[chosen],
        placement.page_size_bytes[chosen],
        placement.node[chosen],
        placement.way,
    )


def _joined(parts: Sequence[Placement]) -> Placement:
    """Put placements together in rising order, and say all the ways that found something."""
    filled = [part for part in parts if len(part)]
    if not filled:
        nothing = np.empty(0, dtype=np.int64)
        return Placement(
            nothing.view(np.uint64), nothing, nothing, nothing.astype(np.int32), _ways(parts)
        )
    start = np.concatenate([part.start for part in filled])
    order = np.argsort(start, kind="stable")
    return _merged(
        Placement(
            start[order],
            np.concatenate([part.pages for part in filled])[order],
            np.concatenate([part.page_size_bytes for part in filled])[order],
            np.concatenate([part.node for part in filled])[order],
            _ways(filled),
        )
    )


def _ways(parts: Sequence[Placement]) -> str:
    return "+".join(dict.fromkeys(part.way for part in parts if part.way))


def _merged(placement: Placement) -> Placement:
    """Join runs that follow each other and are alike."""
    start, pages, size, node = (
        placement.start,
        placement.pages,
        placement.page_size_bytes,
        placement.node,
    )
    if len(start) < 2:
        return placement
    end = start + (pages * size).view(np.uint64)
    new = (start[1:] != end[:-1]) | (size[1:] != size[:-1]) | (node[1:] != node[:-1])
    first = np.flatnonzero(np.append(True, new))
    return Placement(
        start[first], np.add.reduceat(pages, first), size[first], node[first], placement.way
    )

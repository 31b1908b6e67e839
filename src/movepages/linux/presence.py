"""Which pages of a process are present, and how large each is as it is mapped.

PAGEMAP_SCAN answers at once, huge mappings and the zero page included. Without it (before Linux
6.7) the entries of pagemap tell what is present, but not what is huge or zero: the pages of a THP
then count one by one.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import numpy as np

from movepages.abi.pagemap import PageRegion
from movepages.errors import UnsupportedError
from movepages.linux import intervals, pagemap
from movepages.values import PageRuns

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping as MappingOf, Sequence

    from numpy.typing import NDArray

    from movepages.linux.maps import MapsLine
    from movepages.values import Mapping

_KERNEL_OWN = ("[vdso", "[vvar", "[vsyscall", "[uprobes", "[vectors", "[sigpage")
_DEVICES = ("/dev/", "/sys/", "/proc/", "/dmabuf:", "anon_inode:")
_FILES_IN_DEV = ("/dev/shm/", "/dev/zero", "/dev/hugepages/")  # noqa: S108 - names to match
NO_NODE = -1


@dataclass(frozen=True, slots=True, eq=False)
class Spans:
    """Parts of mappings in rising order, an array for each fact.

    `page_size_bytes` is the mapping's own: that of hugetlb, or the base page. `backed`: a file or
    shared memory is behind it, so that it may be hugetlb. `device`: it may map memory that has no
    page behind it. `node` and `resident_bytes` are numa_maps' word for the whole mapping: the one
    node it is on, or NO_NODE, and -1 where numa_maps was not read.
    """

    start: NDArray[np.uint64]
    end: NDArray[np.uint64]
    mapping_start: NDArray[np.uint64]
    page_size_bytes: NDArray[np.int64]
    backed: NDArray[np.bool_]
    device: NDArray[np.bool_]
    node: NDArray[np.int32]
    resident_bytes: NDArray[np.int64]

    def __len__(self) -> int:
        """Count the spans."""
        return len(self.start)

    @property
    def size_bytes(self) -> NDArray[np.int64]:
        """Length of each span, int64[n]."""
        return (self.end - self.start).astype(np.int64)

    def where(self, chosen: NDArray[np.bool_]) -> Spans:
        """Return the spans that are chosen."""
        return Spans(*(getattr(self, field.name)[chosen] for field in fields(self)))


@dataclass(frozen=True, slots=True, eq=False)
class Regions:
    """Intervals of addresses, and whether the pages there are huge."""

    start: NDArray[np.uint64]
    end: NDArray[np.uint64]
    huge: NDArray[np.bool_]

    def where(self, chosen: NDArray[np.bool_]) -> Regions:
        """Return the regions that are chosen."""
        return Regions(self.start[chosen], self.end[chosen], self.huge[chosen])


def spans_of(
    mappings: Iterable[Mapping | MapsLine],
    ranges: Sequence[tuple[int, int]] | None,
    page_size_bytes: int,
) -> Spans:
    """Return the parts of mappings that lie in the ranges (None: all).

    The kernel's own pages (vDSO and its kin) are left out: they have no node to speak of.
    """
    rows = [
        (start, end, mapping)
        for mapping in mappings
        if not mapping.path.startswith(_KERNEL_OWN)
        for start, end in _overlaps(mapping.start, mapping.end, ranges)
    ]
    of = [mapping for _, _, mapping in rows]
    return Spans(
        np.array([start for start, _, _ in rows], dtype=np.uint64),
        np.array([end for _, end, _ in rows], dtype=np.uint64),
        np.array([m.start for m in of], dtype=np.uint64),
        np.array([getattr(m, "page_size_bytes", 0) or page_size_bytes for m in of], dtype=np.int64),
        np.array([m.inode != 0 for m in of], dtype=np.bool_),
        np.array([_is_device(m.path) for m in of], dtype=np.bool_),
        np.array([_only_node(m) for m in of], dtype=np.int32),
        np.array([getattr(m, "resident_bytes", -1) for m in of], dtype=np.int64),
    )


def _overlaps(
    start: int, end: int, ranges: Sequence[tuple[int, int]] | None
) -> Sequence[tuple[int, int]]:
    if ranges is None:
        return ((start, end),)
    return [(max(start, low), min(end, high)) for low, high in ranges if low < end and high > start]


def _is_device(path: str) -> bool:
    return path.startswith(_DEVICES) and not path.startswith(_FILES_IN_DEV)


def _only_node(mapping: Mapping | MapsLine) -> int:
    node = getattr(mapping, "only_node", None)
    return NO_NODE if node is None else node


def with_hugetlb_sizes(spans: Spans, sizes: MappingOf[int, int]) -> Spans:
    """Return the spans with the page sizes of hugetlb mappings, given by start of mapping."""
    page_sizes = spans.page_size_bytes.copy()
    for index in np.flatnonzero(np.isin(spans.mapping_start, list(sizes))).tolist():
        page_sizes[index] = sizes[int(spans.mapping_start[index])]
    return replace(spans, page_size_bytes=page_sizes)


def present_regions(descriptor: int, spans: Spans, page_size_bytes: int) -> Regions:
    """Return the regions of present pages: without zero pages, where PAGEMAP_SCAN knows them."""
    try:
        regions = _scan(descriptor, spans, PageRegion.PRESENT, PageRegion.PFNZERO)
    except UnsupportedError:
        regions = _read_present(descriptor, spans, page_size_bytes)
    return _cut_at_spans(regions, spans, page_size_bytes)


def all_regions(descriptor: int, spans: Spans, page_size_bytes: int) -> Regions:
    """Return the spans as if all their pages were present, with only the huge ones looked up."""
    try:
        huge = _scan(descriptor, spans, PageRegion.PRESENT | PageRegion.HUGE, PageRegion(0))
    except UnsupportedError:
        huge = Regions(spans.start[:0], spans.end[:0], spans.backed[:0])
    start, end = intervals.subtract(spans.start, spans.end, (huge.start, huge.end))
    starts = np.concatenate([start, huge.start])
    order = np.argsort(starts, kind="stable")
    regions = Regions(
        starts[order],
        np.concatenate([end, huge.end])[order],
        np.concatenate([np.zeros(len(start), np.bool_), huge.huge])[order],
    )
    return _cut_at_spans(regions, spans, page_size_bytes)


def _scan(descriptor: int, spans: Spans, require: PageRegion, without: PageRegion) -> Regions:
    found = [
        pagemap.scan(descriptor, low, high, require=require, without=without, tell=PageRegion.HUGE)
        for low, high in stretches(spans)
    ]
    rows = np.concatenate([np.empty((0, 3), dtype=np.uint64), *found])
    huge = (rows[:, 2] & np.uint64(PageRegion.HUGE)) != 0
    return Regions(np.ascontiguousarray(rows[:, 0]), np.ascontiguousarray(rows[:, 1]), huge)


def _read_present(descriptor: int, spans: Spans, page_size_bytes: int) -> Regions:
    starts, ends = [np.empty(0, np.uint64)], [np.empty(0, np.uint64)]
    for low, high in stretches(spans):
        for first, entries in pagemap.chunks(descriptor, low, high, page_size_bytes):
            there = pagemap.present(entries).view(np.int8)
            edges = np.flatnonzero(np.diff(there, prepend=0, append=0)).astype(np.uint64)
            borders = edges * np.uint64(page_size_bytes) + np.uint64(first)
            starts.append(borders[::2])
            ends.append(borders[1::2])
    start, end = np.concatenate(starts), np.concatenate(ends)
    return Regions(start, end, np.zeros(len(start), dtype=np.bool_))


def stretches(spans: Spans) -> list[tuple[int, int]]:
    """Return the spans with those that touch joined, for as few calls as can be."""
    start, end = intervals.join(spans.start, spans.end, 0)
    return list(zip(start.tolist(), end.tolist(), strict=True))


def _cut_at_spans(regions: Regions, spans: Spans, page_size_bytes: int) -> Regions:
    """Cut regions where one span ends and the next begins, for a scan joins equal neighbours."""
    start, end, owner = intervals.cut(regions.start, regions.end, spans.start)
    of_span = intervals.find(spans.start, spans.end, start)
    hugetlb = spans.page_size_bytes[of_span] > page_size_bytes
    return Regions(start, end, regions.huge[owner] | hugetlb)


def runs_of(regions: Regions, spans: Spans, page_size_bytes: int, thp_size_bytes: int) -> PageRuns:
    """Turn regions, each inside one span, into runs of whole pages, huge ones by their own size.

    Two regions may be parts of one huge page, where ranges were asked for: it is there once.
    """
    span_size = spans.page_size_bytes[intervals.find(spans.start, spans.end, regions.start)]
    own_size = span_size > page_size_bytes
    size = np.where(own_size, span_size, np.where(regions.huge, thp_size_bytes, page_size_bytes))
    start = regions.start.view(np.int64) // size * size
    end = -(-regions.end.view(np.int64) // size) * size
    start[1:] = np.maximum(start[1:], np.maximum.accumulate(end)[:-1])
    pages = (end - start) // size
    new = pages > 0
    return PageRuns(start[new].view(np.uint64), pages[new], size[new])

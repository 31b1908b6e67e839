"""Which pages are present: made-up mappings, and real memory by the scan and without it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from guestkit.pages import HUGE_BYTES, HUGE_PAGES, PAGE_BYTES
from hypothesis import given, strategies as st

from movepages.linux import pagemap, presence
from movepages.linux.maps import MapsLine, read_maps
from movepages.linux.presence import NO_NODE, Regions, Spans
from movepages.values import Mapping

OTHER_REQUEST = 0xC0606611  # _IOWR('f', 17, 96 bytes): no ioctl of pagemap


def line(start, end, path="", inode=0):
    """Make a line of maps, of pages."""
    return MapsLine(start * PAGE_BYTES, end * PAGE_BYTES, "rw-p", 0, "00:00", inode, path)


def spans(*rows, page_size=PAGE_BYTES):
    """Make spans of (start, end) in pages, all of one page size."""
    start, end = (np.array([row[i] for row in rows], np.uint64) * np.uint64(4096) for i in (0, 1))
    count = len(rows)
    return Spans(
        start,
        end,
        start,
        np.full(count, page_size, dtype=np.int64),
        np.zeros(count, dtype=np.bool_),
        np.zeros(count, dtype=np.bool_),
        np.full(count, NO_NODE, dtype=np.int32),
        np.full(count, -1, dtype=np.int64),
    )


def regions(*rows):
    """Make regions of (start, end, huge) in pages."""
    start, end = (np.array([row[i] for row in rows], np.uint64) * np.uint64(4096) for i in (0, 1))
    return Regions(start, end, np.array([row[2] for row in rows], dtype=np.bool_))


def in_pages(found):
    """Return spans or regions as (start, end) in pages."""
    return [
        (start // PAGE_BYTES, end // PAGE_BYTES)
        for start, end in zip(found.start.tolist(), found.end.tolist(), strict=True)
    ]


def pages_in(found, base=0):
    """Return the set of page numbers in regions, counted from a base address."""
    return {
        (address - base) // PAGE_BYTES
        for start, end in zip(found.start.tolist(), found.end.tolist(), strict=True)
        for address in range(start, end, PAGE_BYTES)
    }


def looked_at(look, pages, ranges=None):
    """Call `present_regions` or `all_regions` on pages of this process."""
    of_pages = presence.spans_of(read_maps(0), ranges or [pages.range], PAGE_BYTES)
    with pagemap.open_pagemap(0) as descriptor:
        return look(descriptor, of_pages, PAGE_BYTES), of_pages


@pytest.fixture(params=["scan", "entries"])
def way(request, monkeypatch):
    """Both ways to look, the second as on a kernel without PAGEMAP_SCAN."""
    if request.param == "entries":
        monkeypatch.setattr(pagemap, "PAGEMAP_SCAN", OTHER_REQUEST)
    return request.param


def test_all_mappings_are_spans():
    """Without ranges the spans are the mappings."""
    found = presence.spans_of([line(1, 3), line(5, 9)], None, PAGE_BYTES)
    assert in_pages(found) == [(1, 3), (5, 9)]
    assert found.mapping_start.tolist() == found.start.tolist()
    assert found.size_bytes.tolist() == [2 * PAGE_BYTES, 4 * PAGE_BYTES]


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 5)), max_size=6),
    st.lists(st.tuples(st.integers(1, 3), st.integers(1, 5)), max_size=6),
)
def test_ranges_cut_mappings(mapping_gaps, range_gaps):
    """The spans are the parts of mappings that lie in ranges, and know where theirs began."""
    mappings, ranges = [], []
    for gaps, rows in ((mapping_gaps, mappings), (range_gaps, ranges)):
        end = 0
        for gap, length in gaps:
            rows.append((end + gap, end + gap + length))
            end += gap + length
    in_bytes = [(start * PAGE_BYTES, end * PAGE_BYTES) for start, end in ranges]
    found = presence.spans_of([line(*row) for row in mappings], in_bytes, PAGE_BYTES)
    slow = [
        (max(start, low), min(end, high), start)
        for start, end in mappings
        for low, high in ranges
        if max(start, low) < min(end, high)
    ]
    begins = (found.mapping_start // np.uint64(PAGE_BYTES)).tolist()
    assert [(*span, begin) for span, begin in zip(in_pages(found), begins, strict=True)] == slow


def test_ranges_past_all_addresses_hit_nothing():
    """A range up to the last byte of 64 bits, or beyond, is just larger than the mapping."""
    found = presence.spans_of([line(1, 3)], [(0, 2**64 + 4096)], PAGE_BYTES)
    assert in_pages(found) == [(1, 3)]
    assert len(presence.spans_of([line(1, 3)], [(2**63, 2**64)], PAGE_BYTES)) == 0


@pytest.mark.parametrize(
    "path", ["[vdso]", "[vvar]", "[vvar_vclock]", "[vsyscall]", "[uprobes]", "[sigpage]"]
)
def test_the_kernels_own_pages_are_left_out(path):
    """The vDSO and its kin are nobody's to move."""
    assert len(presence.spans_of([line(1, 2, path)], None, PAGE_BYTES)) == 0


@pytest.mark.parametrize(
    ("path", "device"),
    [
        ("", False),
        ("[heap]", False),
        ("/usr/lib/libc.so.6", False),
        ("/dev/shm/ring", False),
        ("/dev/zero (deleted)", False),
        ("/dev/hugepages/pool", False),
        ("/memfd:x (deleted)", False),
        ("/dev/dri/card0", True),
        ("/dev/mem", True),
        ("/sys/devices/pci0000:00/0000:00:02.0/resource0", True),
        ("/proc/bus/pci/00/02.0", True),
        ("/dmabuf:", True),
        ("anon_inode:[perf_event]", True),
        ("anon_inode:i915.gem", True),
    ],
)
def test_mappings_of_devices_are_known_by_their_names(path, device):
    """What may have no page behind it is marked, so that the kernel is asked about it."""
    found = presence.spans_of([line(1, 2, path, inode=5)], None, PAGE_BYTES)
    assert found.device.tolist() == [device]
    assert found.backed.tolist() == [True]


def test_what_numa_maps_knows_comes_along():
    """Page size, the only node and what is resident are taken from a Mapping, if there is one."""
    huge = Mapping(
        0, 4 * HUGE_BYTES, page_size_bytes=HUGE_BYTES, pages_by_node={1: 3}, hugetlb=True
    )
    spread = Mapping(
        4 * HUGE_BYTES, 5 * HUGE_BYTES, page_size_bytes=4096, pages_by_node={0: 1, 1: 1}
    )
    found = presence.spans_of([huge, spread], None, PAGE_BYTES)
    assert found.page_size_bytes.tolist() == [HUGE_BYTES, PAGE_BYTES]
    assert found.node.tolist() == [1, NO_NODE]
    assert found.resident_bytes.tolist() == [3 * HUGE_BYTES, 2 * PAGE_BYTES]


def test_maps_alone_knows_neither_node_nor_residence():
    """A line of maps leaves them open."""
    found = presence.spans_of([line(1, 2)], None, PAGE_BYTES)
    assert (found.node.tolist(), found.resident_bytes.tolist()) == ([NO_NODE], [-1])
    assert found.page_size_bytes.tolist() == [PAGE_BYTES]


def test_hugetlb_sizes_are_given_by_mapping():
    """All parts of a mapping have its page size, the others keep theirs."""
    parts = dataclasses.replace(
        spans((0, 1), (4, 5), (9, 10)),
        mapping_start=np.array([0, 0, 9 * PAGE_BYTES], dtype=np.uint64),
    )
    sized = presence.with_hugetlb_sizes(parts, {0: HUGE_BYTES, 77: 1})
    assert sized.page_size_bytes.tolist() == [HUGE_BYTES, HUGE_BYTES, PAGE_BYTES]
    assert parts.page_size_bytes.tolist() == [PAGE_BYTES] * 3


def test_spans_that_touch_are_one_stretch():
    """Neighbours are looked at in one call."""
    found = presence.stretches(spans((1, 3), (3, 4), (6, 7)))
    assert found == [(PAGE_BYTES, 4 * PAGE_BYTES), (6 * PAGE_BYTES, 7 * PAGE_BYTES)]


def test_spans_and_regions_can_be_chosen_from():
    """All columns keep the chosen rows."""
    chosen = spans((1, 3), (5, 6)).where(np.array([False, True]))
    assert [len(getattr(chosen, field.name)) for field in dataclasses.fields(Spans)] == [1] * 8
    assert in_pages(chosen) == [(5, 6)]
    assert in_pages(regions((1, 3, False), (5, 6, True)).where(np.array([False, True]))) == [(5, 6)]


@pytest.mark.parametrize(
    ("found", "runs"),
    [
        ([], []),
        ([(3, 5, False)], [(3, 2, PAGE_BYTES)]),
        ([(0, 512, True)], [(0, 1, HUGE_BYTES)]),
        ([(0, 1024, True)], [(0, 2, HUGE_BYTES)]),
        ([(3, 4, True)], [(0, 1, HUGE_BYTES)]),
        ([(511, 513, True)], [(0, 2, HUGE_BYTES)]),
        ([(3, 4, True), (7, 9, True)], [(0, 1, HUGE_BYTES)]),
        (
            [(3, 4, True), (7, 9, True), (500, 600, True)],
            [(0, 1, HUGE_BYTES), (512, 1, HUGE_BYTES)],
        ),
        ([(3, 4, True), (512, 514, False)], [(0, 1, HUGE_BYTES), (512, 2, PAGE_BYTES)]),
        ([(1, 3, False), (512, 513, True)], [(1, 2, PAGE_BYTES), (512, 1, HUGE_BYTES)]),
    ],
)
def test_runs_have_whole_pages_once(found, runs):
    """A huge page that a region only touches counts whole, and once for all its regions."""
    made = presence.runs_of(regions(*found), spans((0, 4096)), PAGE_BYTES, HUGE_BYTES)
    columns = (made.start // np.uint64(PAGE_BYTES), made.pages, made.page_size_bytes)
    assert list(zip(*(column.tolist() for column in columns), strict=True)) == runs


def test_runs_of_hugetlb_have_the_size_of_their_mapping():
    """The page size of a hugetlb mapping goes before that of transparent huge pages."""
    of_64k = spans((0, 4096), page_size=65536)
    made = presence.runs_of(regions((16, 48, True)), of_64k, PAGE_BYTES, HUGE_BYTES)
    assert (made.start.tolist(), made.pages.tolist()) == ([65536], [2])
    assert made.page_size_bytes.tolist() == [65536]


@pytest.mark.host
@pytest.mark.usefixtures("way")
def test_present_pages_are_found(memory):
    """Touched pages are present, untouched ones are not; neighbours are one region."""
    pages = memory.private(12)
    for touched in (slice(0, 2), slice(5, 6), slice(10, 12)):
        pages[touched].touch()
    found, _ = looked_at(presence.present_regions, pages)
    assert [(a - pages.start // 4096, b - pages.start // 4096) for a, b in in_pages(found)] == [
        (0, 2),
        (5, 6),
        (10, 12),
    ]
    assert not found.huge.any()


@pytest.mark.host
@pytest.mark.usefixtures("way")
def test_regions_end_where_their_span_does(memory):
    """Pages of two ranges that touch are two regions, though a scan makes them one."""
    pages = memory.private(8).touch()
    middle = pages.start + 3 * PAGE_BYTES
    ranges = [(pages.start, middle), (middle, pages.range[1])]
    found, of_pages = looked_at(presence.present_regions, pages, ranges)
    assert in_pages(found) == in_pages(of_pages)


@pytest.mark.host
@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("look", [presence.present_regions, presence.all_regions])
def test_nothing_present_is_no_region(memory, look):
    """Untouched memory has no present regions, and no huge ones."""
    pages = memory.private(8)
    found, _ = looked_at(look, pages)
    expected = set() if look is presence.present_regions else set(range(8))
    assert pages_in(found, pages.start) == expected


@pytest.mark.host
@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("look", [presence.present_regions, presence.all_regions])
def test_no_spans_have_no_regions(look):
    """Nothing to look at is nothing found."""
    with pagemap.open_pagemap(0) as descriptor:
        assert in_pages(look(descriptor, spans(), PAGE_BYTES)) == []


@pytest.mark.host
@pytest.mark.usefixtures("scanning")
def test_zero_pages_are_not_present_to_a_scan(memory, way):
    """The scan knows the zero page; the entries alone do not."""
    pages = memory.private(4)
    assert not pages[:2].data.any()
    pages[3:].touch()
    found, _ = looked_at(presence.present_regions, pages)
    assert pages_in(found, pages.start) == ({3} if way == "scan" else {0, 1, 3})


@pytest.mark.host
@pytest.mark.usefixtures("scanning", "thp")
def test_huge_pages_are_known_to_a_scan(memory, way):
    """Both looks tell the huge pages apart, and cover all that is present."""
    pages = memory.thp(2)
    pages[:HUGE_PAGES].touch()
    found, _ = looked_at(presence.present_regions, pages)
    assert pages_in(found, pages.start) == set(range(HUGE_PAGES))
    everything, _ = looked_at(presence.all_regions, pages)
    assert pages_in(everything, pages.start) == set(range(2 * HUGE_PAGES))
    knows = way == "scan"
    assert found.huge.tolist() == [knows]
    assert everything.huge.any() == knows

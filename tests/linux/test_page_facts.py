"""Facts about single pages of real processes."""

from __future__ import annotations

import ctypes
import mmap
from dataclasses import replace

import numpy as np
import pytest
from guestkit.memory import PROT_NONE, unmap
from guestkit.pages import HUGE_PAGES, PAGE_BYTES

from movepages.abi.pagemap import PagemapBit
from movepages.errors import ArgumentError
from movepages.linux import pagemap
from movepages.linux.page_facts import PageFactReader, PageFacts, find_reader
from movepages.linux.page_frames import read_zero_frames

pytestmark = pytest.mark.host

MADV_GUARD_INSTALL = 102  # Linux 6.13, include/uapi/asm-generic/mman-common.h
MADV_NOHUGEPAGE = 15


@pytest.fixture(params=["PAGEMAP_SCAN", "frames"])
def reader(request):
    """Both ways of knowing huge pages and the zero page, the second as root has it before 6.7."""
    found = find_reader(PAGE_BYTES)
    if request.param == "PAGEMAP_SCAN":
        if not found.scans:
            pytest.skip("this kernel has no PAGEMAP_SCAN (Linux 6.7)")
        return found
    zero_frames = read_zero_frames(PAGE_BYTES)
    if zero_frames is None:
        pytest.skip("needs the right to see page frames and their flags")
    return replace(found, scans=False, zero_frames=zero_frames)


def numbers(pages):
    """Return the page numbers of pages."""
    return pages.addresses // np.uint64(PAGE_BYTES)


def facts_of(pages, reader=None, pid=0):
    """Return the facts of pages of a process."""
    with pagemap.open_pagemap(pid) as descriptor:
        return (reader or find_reader(PAGE_BYTES)).read(descriptor, numbers(pages))


def told(facts):
    """Write the facts of each page: letters of those that hold."""
    columns = {
        "p": facts.present,
        "s": facts.swapped,
        "f": facts.file_or_shared,
        "x": facts.exclusive,
        "h": facts.huge,
        "z": facts.zero,
    }
    return ["".join(letter for letter in columns if columns[letter][i]) for i in range(len(facts))]


def test_untouched_touched_and_read_pages(memory, reader):
    """A touched page is present and ours alone; one that was only read is the zero page."""
    pages = memory.private(4)
    pages[:1].touch()
    pages[2:3].touch()
    assert not pages[1:2].data.any()
    facts = facts_of(pages, reader)
    assert told(facts) == ["px", "pz", "px", ""]
    assert facts.knows_huge
    assert facts.knows_zero


def test_a_page_that_is_written_after_it_was_read(memory, reader):
    """It is the zero page no longer."""
    pages = memory.private(1)
    assert not pages.data.any()
    assert told(facts_of(pages, reader)) == ["pz"]
    pages.touch()
    assert told(facts_of(pages, reader)) == ["px"]


def test_holes_have_no_facts(memory, reader):
    """Where nothing is mapped, nothing is present, among pages that are."""
    pages = memory.private(5).touch()
    unmap(pages[1:4])
    assert told(facts_of(pages, reader)) == ["px", "", "", "", "px"]


def test_a_forked_page_is_shared_until_one_writes(fork, memory, reader):
    """Both map it, so none has it alone; a write gives the writer a page of its own."""
    pages = memory.private(2).touch()

    def body():
        yield
        pages[:1].touch()
        yield

    child = fork(body)
    child.step()
    assert told(facts_of(pages, reader, child.pid)) == ["p", "p"]
    child.step()
    assert told(facts_of(pages, reader, child.pid)) == ["px", "p"]
    assert told(facts_of(pages, reader)) == ["px", "p"]


def test_shared_memory_and_files(fork, memory, reader, tmp_path):
    """Both are told from private memory; a private copy of a file's page is private."""
    path = tmp_path / "file"
    path.write_bytes(bytes(2 * PAGE_BYTES))
    with path.open("r+b") as file:
        of_file = memory.shared_file(file.fileno(), 2).touch()
        private = mmap.mmap(file.fileno(), PAGE_BYTES, flags=mmap.MAP_PRIVATE)
    private[0] = 1
    shared = memory.shared(2)
    shared[:1].touch()
    assert told(facts_of(shared, reader)) == ["pfx", ""]
    assert told(facts_of(of_file, reader)) == ["pfx", "pfx"]
    array = np.frombuffer(private, dtype=np.uint8)
    page = np.array([array.ctypes.data // PAGE_BYTES], dtype=np.uint64)
    with pagemap.open_pagemap(0) as descriptor:
        assert told(reader.read(descriptor, page)) == ["px"]
    child = fork(lambda: iter([int(shared.data[0, 0])]))
    child.step()
    assert told(facts_of(shared, reader)) == ["pf", ""]


def test_memory_without_access(memory, reader):
    """PROT_NONE hides the page from its process, not from pagemap."""
    pages = memory.private(3)
    pages[:2].touch()
    ctypes.CDLL(None).mprotect(
        ctypes.c_void_p(pages.start), ctypes.c_size_t(pages.size_bytes), PROT_NONE
    )
    assert told(facts_of(pages, reader)) == ["px", "px", ""]


@pytest.mark.usefixtures("thp")
def test_a_huge_page_is_huge_in_all_its_pages(memory, reader):
    """Any page of it is told, alone or among others; base pages beside it are not."""
    huge = memory.thp(1).touch()
    base = memory.private(2).touch()
    assert set(told(facts_of(huge, reader))) == {"pxh"}
    assert told(facts_of(huge[137:138], reader)) == ["pxh"]
    assert told(facts_of(huge[HUGE_PAGES - 1 :], reader)) == ["pxh"]
    assert told(facts_of(base, reader)) == ["px", "px"]


@pytest.mark.usefixtures("scanning", "thp")
def test_a_huge_page_that_was_split_is_not_huge(memory):
    """When a part has protection of its own, its pages are mapped one by one."""
    pages = memory.thp(1).touch()
    ctypes.CDLL(None).mprotect(ctypes.c_void_p(pages.start), ctypes.c_size_t(PAGE_BYTES), 1)
    assert set(told(facts_of(pages))) == {"px"}


@pytest.mark.usefixtures("scanning", "thp")
def test_where_the_base_pages_of_a_huge_mapping_begin(memory):
    """One huge page, then base pages, then a huge one: the borders are exact."""
    pages = memory.thp(3)
    middle = pages[HUGE_PAGES : 2 * HUGE_PAGES]
    ctypes.CDLL(None).madvise(
        ctypes.c_void_p(middle.start), ctypes.c_size_t(middle.size_bytes), MADV_NOHUGEPAGE
    )
    pages.touch()
    huge = facts_of(pages).huge
    assert np.flatnonzero(np.diff(huge.astype(int))).tolist() == [
        HUGE_PAGES - 1,
        2 * HUGE_PAGES - 1,
    ]
    assert huge[0]


def test_guard_pages_are_not_swapped_out(memory, reader):
    """A guard marker looks like swap in the page table, and has a bit of its own."""
    pages = memory.private(3).touch()
    advised = ctypes.CDLL(None).madvise(
        ctypes.c_void_p(pages.start + PAGE_BYTES), ctypes.c_size_t(PAGE_BYTES), MADV_GUARD_INSTALL
    )
    if advised:
        pytest.skip("this kernel has no guard pages (Linux 6.13)")
    assert told(facts_of(pages, reader)) == ["px", "", "px"]


def test_a_swapped_page_is_told_by_its_bit():
    """Bit 62 is a page in swap, whatever the lower bits hold; it has no frame."""
    entry = 1 << PagemapBit.SWAPPED | 12345
    nothing = np.zeros(1, dtype=np.bool_)
    facts = PageFacts(
        np.array([entry], np.uint64), nothing, nothing, knows_huge=True, knows_zero=True
    )
    assert told(facts) == ["s"]
    assert facts.pfn.tolist() == [0]


@pytest.mark.usefixtures("root")
def test_frames_are_those_of_pagemap(memory):
    """Root sees a frame for each present page, and 0 for the others."""
    pages = memory.private(3)
    pages[:2].touch()
    first, second, third = facts_of(pages).pfn.tolist()
    assert first != second
    assert first
    assert second
    assert third == 0


def test_without_privilege_all_but_the_frame_is_known(memory, unprivileged):
    """An ordinary user sees the same facts of his own process; the frames are 0."""
    pages = memory.private(3)

    def look():
        pages[:1].touch()
        assert not pages[1:2].data.any()
        facts = facts_of(pages)
        return facts.knows_zero, told(facts), facts.pfn.tolist()

    knows_zero, facts, frames = unprivileged(look)
    assert facts == ["px", "pz" if knows_zero else "p", ""]
    assert frames == [0, 0, 0]


def test_who_can_neither_scan_nor_see_frames_does_not_know(memory):
    """Without both ways the facts say that they know neither huge pages nor the zero page."""
    pages = memory.private(2)
    pages[:1].touch()
    assert not pages[1:].data.any()
    facts = facts_of(pages, PageFactReader(PAGE_BYTES, scans=False, zero_frames=None))
    assert told(facts) == ["px", "p"]
    assert not facts.knows_huge
    assert not facts.knows_zero


@pytest.mark.parametrize("gap", [0, 1, 127, 128, 129, 10_000])
@pytest.mark.parametrize("chunk_pages", [1, 7, 1 << 16])
def test_pages_far_and_near(memory, monkeypatch, reader, gap, chunk_pages):
    """However far apart pages lie, and however they are read, each has its own entry."""
    monkeypatch.setattr(pagemap, "CHUNK_PAGES", chunk_pages if gap < 10_000 else 1 << 16)
    pages = memory.private(3 * (gap + 1) + 2)
    chosen = pages[:: gap + 1]
    for page in (chosen[:1], chosen[2:3]):
        page.touch()
    assert not chosen[1:2].data.any()
    expected = ["px", "pz", "px", *[""] * (len(chosen) - 3)]
    assert told(facts_of(chosen, reader)) == expected


def test_any_order_and_pages_asked_for_twice(memory, reader):
    """The facts come in the order of the question."""
    pages = memory.private(6)
    pages[::2].touch()
    assert not pages[3:4].data.any()
    in_order = facts_of(pages, reader)
    order = [5, 0, 3, 3, 1, 0, 4, 2, 5]
    mixed = facts_of(type(pages)(pages.addresses[order]), reader)
    assert told(mixed) == [told(in_order)[index] for index in order]
    assert mixed.entries.tolist() == in_order.entries[order].tolist()


def test_pages_of_which_every_other_is_zero(memory, reader):
    """Thousands of regions of one page are told apart."""
    pages = memory.private(6000)
    pages.data[::2, 0] = 1
    assert not pages.data[1::2, 0].any()
    facts = facts_of(pages, reader)
    assert facts.zero.tolist() == [False, True] * 3000
    assert facts.exclusive.tolist() == [True, False] * 3000


def test_no_pages(reader):
    """Facts about nothing are empty arrays."""
    with pagemap.open_pagemap(0) as descriptor:
        facts = reader.read(descriptor, np.empty(0, dtype=np.uint64))
    assert len(facts) == 0
    assert told(facts) == []


def test_addresses_beyond_the_address_space(memory, reader):
    """The last page that an address can name is absent; what no address can name is an error."""
    pages = memory.private(1).touch()
    last = np.append(numbers(pages), [np.uint64((1 << 64) // PAGE_BYTES - 1)]).astype(np.uint64)
    with pagemap.open_pagemap(0) as descriptor:
        assert told(reader.read(descriptor, last)) == ["px", ""]
        with pytest.raises(ArgumentError, match="divide it by the page size"):
            reader.read(descriptor, np.array([1, 1 << 62], dtype=np.uint64))


def test_a_process_that_has_ended_has_no_pages(fork, memory, reader):
    """Behind an open pagemap nothing is present any more; who asks looks at the process himself."""
    pages = memory.private(2).touch()
    child = fork()
    with pagemap.open_pagemap(child.pid) as descriptor:
        child.kill()
        assert told(reader.read(descriptor, numbers(pages))) == ["", ""]


def test_the_kernel_is_tried_and_not_its_version(monkeypatch):
    """Where the scan is refused, the frames of the zero page are looked for."""
    monkeypatch.setattr(pagemap, "PAGEMAP_SCAN", 0xC0606611)
    found = find_reader(PAGE_BYTES)
    assert not found.scans
    assert found.zero_frames == read_zero_frames(PAGE_BYTES)

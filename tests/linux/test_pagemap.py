"""Reading the page tables of real processes."""

from __future__ import annotations

import ctypes
import mmap
import os
from contextlib import suppress

import numpy as np
import pytest
from guestkit.pages import PAGE_BYTES

from movepages.abi.pagemap import PageRegion
from movepages.errors import (
    CallError,
    InvalidCallError,
    NoSuchProcessError,
    NotPermittedError,
    UnsupportedError,
)
from movepages.linux import pagemap

pytestmark = pytest.mark.host

OTHER_REQUEST = 0xC0606611
"""_IOWR('f', 17, 96 bytes): an ioctl that no pagemap has, so the kernel says ENOTTY."""


@pytest.fixture
def descriptor():
    """The open pagemap of this process."""
    with pagemap.open_pagemap(0) as opened:
        yield opened


def entries_of(descriptor, pages):
    """Return the entries of pages that lie side by side."""
    return pagemap.read_entries(
        descriptor, pages.start // PAGE_BYTES, np.empty(len(pages), dtype=np.uint64)
    )


def ended(fork):
    """Return the open pagemap of a process, as a context, and end the process behind it."""
    child = fork()
    opened = pagemap.open_pagemap(child.pid)
    descriptor = opened.__enter__()
    child.kill()
    return opened, descriptor


def test_present_pages_are_told_from_the_others(descriptor, memory):
    """Touched and read pages are present, untouched ones are not."""
    pages = memory.private(4)
    pages[:1].touch()
    pages[3:].touch()
    assert not pages[1:2].data.any()
    there = pagemap.present(entries_of(descriptor, pages))
    assert there.tolist() == [True, True, False, True]


@pytest.mark.usefixtures("root")
def test_root_sees_the_frames(descriptor, memory):
    """Different pages have different frames; all pages of zeros have one."""
    pages = memory.private(6)
    pages[:3].touch()
    assert not pages[3:].data.any()
    frames = pagemap.frames(entries_of(descriptor, pages)).tolist()
    assert len(set(frames[:3])) == 3
    assert 0 not in frames
    assert len(set(frames)) == 4


def test_others_see_that_pages_are_present_but_not_where(memory, unprivileged):
    """Without CAP_SYS_ADMIN the frames are 0, and all else is as for root."""
    pages = memory.private(2)
    pages[:1].touch()

    def read():
        with pagemap.open_pagemap(0) as opened:
            entries = entries_of(opened, pages)
        return pagemap.present(entries).tolist(), pagemap.frames(entries).tolist()

    assert unprivileged(read) == ([True, False], [0, 0])


def test_the_file_is_closed_again():
    """Whatever happens inside, no descriptor is left open."""
    with suppress(KeyError), pagemap.open_pagemap(0) as opened:
        raise KeyError
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(opened)


def test_a_process_that_is_not_there_is_named(no_pid):
    """Opening the pagemap of nobody is an error with the pid."""
    with pytest.raises(NoSuchProcessError, match=f"no process {no_pid}") as caught:
        pagemap.open_pagemap(no_pid).__enter__()
    assert caught.value.pid == no_pid


@pytest.mark.usefixtures("root")
def test_another_users_process_is_off_limits(fork, unprivileged):
    """A process of root is not an ordinary user's to look at."""
    other = fork().pid

    def look():
        try:
            pagemap.open_pagemap(other).__enter__()
        except CallError as error:
            return error

    refused = unprivileged(look)
    assert type(refused) is NotPermittedError
    assert refused.pid == other


@pytest.mark.usefixtures("root")
def test_a_kernel_thread_has_no_pagemap(kernel_threads):
    """A task without memory is no missing process; to older kernels its file is an empty one."""
    for pid in kernel_threads:
        with suppress(InvalidCallError), pagemap.open_pagemap(pid) as opened:
            assert len(pagemap.read_entries(opened, 0, np.empty(1, dtype=np.uint64))) == 0


def test_reading_behind_the_last_address_finds_nothing(descriptor):
    """Behind the end of the address space there are no entries."""
    out = np.empty(4, dtype=np.uint64)
    assert len(pagemap.read_entries(descriptor, 1 << 51, out)) == 0


def test_reading_across_the_last_address_is_cut_short(descriptor):
    """Of four pages of which two are behind the end of the address space, two have entries."""
    out = np.empty(4, dtype=np.uint64)
    there, behind = 0, 1 << 51
    while behind - there > 1:
        page = (there + behind) // 2
        if len(pagemap.read_entries(descriptor, page, out[:1])):
            there = page
        else:
            behind = page
    assert len(pagemap.read_entries(descriptor, behind - 2, out)) == 2
    with pytest.raises(EOFError):
        list(pagemap.chunks(descriptor, there * PAGE_BYTES, (behind + 1) * PAGE_BYTES, PAGE_BYTES))


@pytest.mark.parametrize("chunk_pages", [1, 3, 4, 16])
def test_chunks_go_through_a_range(descriptor, memory, monkeypatch, chunk_pages):
    """Each chunk has its address and its entries; together they are those of one read."""
    monkeypatch.setattr(pagemap, "CHUNK_PAGES", chunk_pages)
    pages = memory.private(10)
    pages[2:5].touch()
    whole = entries_of(descriptor, pages).tolist()
    seen = []
    for address, entries in pagemap.chunks(descriptor, *pages.range, PAGE_BYTES):
        assert address == pages.start + len(seen) * PAGE_BYTES
        assert 1 <= len(entries) <= chunk_pages
        seen += entries.tolist()
    assert seen == whole


def test_a_process_that_has_ended_ends_the_reading(fork):
    """Behind an open pagemap the address space is gone: that is no answer about its pages."""
    opened, descriptor = ended(fork)
    with pytest.raises(EOFError):
        list(pagemap.chunks(descriptor, 0x10000, 0x20000, PAGE_BYTES))
    opened.__exit__(None, None, None)


@pytest.mark.usefixtures("scanning")
def test_scan_returns_the_present_regions(descriptor, memory):
    """Neighbouring pages are one region; untouched and zero pages are in none."""
    pages = memory.private(8)
    pages[1:3].touch()
    pages[6:].touch()
    assert not pages[4:5].data.any()
    regions = pagemap.scan(
        descriptor, *pages.range, require=PageRegion.PRESENT, without=PageRegion.PFNZERO
    )
    where = ((regions[:, :2] - np.uint64(pages.start)) // np.uint64(PAGE_BYTES)).tolist()
    assert where == [[1, 3], [6, 8]]
    assert regions[:, 2].tolist() == [0, 0]


@pytest.mark.usefixtures("scanning")
def test_scan_tells_the_categories_that_are_asked_for(descriptor, memory):
    """Zero pages among present ones are a region of their own if told apart."""
    pages = memory.private(3)
    pages[:1].touch()
    pages[2:].touch()
    assert not pages[1:2].data.any()
    regions = pagemap.scan(
        descriptor, *pages.range, require=PageRegion.PRESENT, tell=PageRegion.PFNZERO
    )
    assert regions[:, 2].tolist() == [0, PageRegion.PFNZERO, 0]


@pytest.mark.usefixtures("scanning")
def test_scan_returns_what_has_any_of_some_categories(descriptor, memory):
    """Of present pages, only those with one of the categories are returned."""
    pages = memory.private(3)
    pages[:1].touch()
    assert not pages[1:2].data.any()
    special = PageRegion.PFNZERO | PageRegion.HUGE
    regions = pagemap.scan(
        descriptor, *pages.range, require=PageRegion.PRESENT, any_of=special, tell=special
    )
    assert regions.tolist() == [[*pages[1:2].range, PageRegion.PFNZERO]]


@pytest.mark.usefixtures("scanning")
@pytest.mark.parametrize("at_a_time", [1, 2, 3, 4, 5])
def test_scan_finds_more_regions_than_fit(descriptor, memory, monkeypatch, at_a_time):
    """It goes on where the kernel stopped, without a gap and without a region twice."""
    monkeypatch.setattr(pagemap, "_REGIONS_AT_A_TIME", at_a_time)
    pages = memory.private(9)
    for index in range(0, 9, 2):
        pages[index : index + 1].touch()
    regions = pagemap.scan(descriptor, *pages.range, require=PageRegion.PRESENT)
    starts = ((regions[:, 0] - np.uint64(pages.start)) // np.uint64(PAGE_BYTES)).tolist()
    assert starts == [0, 2, 4, 6, 8]
    assert (regions[:, 1] - regions[:, 0]).tolist() == [PAGE_BYTES] * 5


@pytest.mark.usefixtures("scanning")
@pytest.mark.parametrize("at_a_time", [511, 512, 513, 1024, 4096])
@pytest.mark.parametrize("count", [511, 512, 513, 1024, 1025, 1300])
def test_scan_finds_many_regions_once(descriptor, memory, monkeypatch, at_a_time, count):
    """The kernel works with 512 regions at a time; around that number none is lost or doubled."""
    monkeypatch.setattr(pagemap, "_REGIONS_AT_A_TIME", at_a_time)
    pages = memory.private(2 * count)
    pages.data[::2, 0] = 1
    regions = pagemap.scan(descriptor, *pages.range, require=PageRegion.PRESENT)
    assert regions[:, 0].tolist() == pages.addresses[::2].tolist()
    assert set((regions[:, 1] - regions[:, 0]).tolist()) == {PAGE_BYTES}


@pytest.mark.usefixtures("scanning", "thp")
def test_scan_knows_huge_pages(descriptor, memory):
    """A transparent huge page that is mapped whole is told, and cut at the range's borders."""
    pages = memory.thp(1).touch()
    start = pages.start + 3 * PAGE_BYTES
    regions = pagemap.scan(
        descriptor,
        start,
        start + PAGE_BYTES,
        require=PageRegion.PRESENT,
        tell=PageRegion.HUGE,
    )
    assert regions.tolist() == [[start, start + PAGE_BYTES, PageRegion.HUGE]]


@pytest.mark.usefixtures("scanning")
def test_scan_of_an_empty_range_finds_nothing(descriptor):
    """Where nothing is asked for, nothing is found."""
    regions = pagemap.scan(descriptor, 4096, 4096, require=PageRegion.PRESENT)
    assert regions.shape == (0, 3)


@pytest.mark.usefixtures("scanning")
def test_scan_of_a_process_that_has_ended_finds_nothing(fork):
    """Newer kernels say that it is gone, for older ones nothing is present: callers must look."""
    opened, descriptor = ended(fork)
    with suppress(EOFError):
        assert len(pagemap.scan(descriptor, 0, 1 << 46, require=PageRegion.PRESENT)) == 0
    opened.__exit__(None, None, None)


def test_a_kernel_without_the_scan_is_unsupported(descriptor, monkeypatch):
    """A request that the kernel does not know becomes one clear error, its cause kept."""
    monkeypatch.setattr(pagemap, "PAGEMAP_SCAN", OTHER_REQUEST)
    with pytest.raises(UnsupportedError, match="no PAGEMAP_SCAN") as caught:
        pagemap.scan(descriptor, 0, PAGE_BYTES, require=PageRegion.PRESENT)
    assert isinstance(caught.value.__cause__, OSError)


@pytest.mark.usefixtures("scanning")
def test_other_errors_of_the_scan_are_passed_on(memory):
    """A descriptor that is closed is no kernel without the call."""
    pages = memory.private(1)
    with pytest.raises(OSError, match="Bad file descriptor"):
        pagemap.scan(1 << 20, *pages.range, require=PageRegion.PRESENT)


def test_touched_memory_without_access_is_present(descriptor, memory):
    """PROT_NONE takes the right away, not the pages."""
    pages = memory.private(2).touch()
    ctypes.CDLL(None).mprotect(ctypes.c_void_p(pages.start), mmap.PAGESIZE, 0)
    assert pagemap.present(entries_of(descriptor, pages)).tolist() == [True, True]

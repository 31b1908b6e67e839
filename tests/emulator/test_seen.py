"""Pages of a live process as pagemap shows them, with PAGEMAP_SCAN and without."""

from __future__ import annotations

import mmap
from pathlib import Path

import pytest
from live_machine import ABSENT, PAGE

from movepages.abi import Errno, Mode
from movepages.emulator.seen import find_user_pages, present_pages, read_present_pages
from movepages.linux.page_facts import PageFactReader
from movepages.linux.page_frames import read_zero_frames
from movepages.linux.pagemap import open_pagemap
from movepages.linux.reading import ROOT

pytestmark = pytest.mark.emulator

SHIFT = mmap.PAGESIZE.bit_length() - 1


@pytest.fixture
def old(emulate):
    """A machine on a kernel before 6.7, as far as that can be told."""
    zero_frames = read_zero_frames(mmap.PAGESIZE)
    reader = PageFactReader(mmap.PAGESIZE, scans=False, zero_frames=zero_frames)
    return emulate(page_facts=reader)


def test_present_pages_are_the_same_either_way(live):
    """What the entries tell of a range is what the scan finds there, at its borders as well."""
    process = live.world.process()
    start = process.mmap(70_000) // PAGE
    for page in (0, 1, 500, 65_535, 65_536, 69_999):
        process.write((start + page) * PAGE)
    with open_pagemap(process.pid) as pagemap:
        for first, end in ((0, 70_000), (1, 69_999), (2, 500), (2, 501), (7, 7)):
            span = start + first, start + end
            found = read_present_pages(pagemap, [span], SHIFT)
            assert found.tolist() == present_pages(pagemap, *span, SHIFT).tolist()
        assert read_present_pages(pagemap, [], SHIFT).tolist() == []


def test_user_space_ends_where_the_last_area_may_be():
    """The stack lies below the end; the next larger address space would be twice as large."""
    pages = find_user_pages(mmap.PAGESIZE, ROOT)
    lines = Path("/proc/self/maps").read_text().splitlines()
    stack = next(line for line in lines if line.endswith("[stack]"))
    end = int(stack.split()[0].split("-")[1], 16) >> SHIFT
    assert end <= pages + 1
    assert (pages + 1).bit_count() == 1


def test_machine_without_the_scan_answers_the_same(old):
    """Policies, moves, forks and changes of the map hold; absent, zero and huge pages are told."""
    process = old.world.process()
    start = process.mmap(8)
    assert old.set_mempolicy(process.pid, Mode.BIND, [2]) == 0
    process.write(start, 4)
    process.read(start + 5 * PAGE)
    assert old.set_mempolicy(process.pid, Mode.BIND, [1]) == 0
    process.write(start + 4 * PAGE)
    assert old.where(process.pid, start, 7) == [2, 2, 2, 2, 1, -Errno.EFAULT, ABSENT]
    old.put(process.pid, start, [3, 3])
    child = process.fork()
    child.write(start)
    assert old.where(child.pid, start, 3) == [1, 3, 2]
    old.lets_through("munmap", process.pid, start, 2 * PAGE)
    process.madvise(start, 2, "dontneed")
    process.write(start)
    assert old.where(process.pid, start, 3) == [1, ABSENT, 2]
    assert old.machine.page_facts.scans is False


def test_huge_page_is_told_without_the_scan(old):
    """Whoever sees frames finds a huge page as one."""
    process = old.world.process()
    start = process.mmap(512)
    process.madvise(start, 512, "hugepage")
    process.write(start)
    assert len(old.space(process.pid).folios(start // PAGE, start // PAGE + 512)) == 1


def test_who_has_ended_has_no_pages_to_read(old):
    """Reading on from a process that ends is as asking for one that is not there."""
    process = old.world.process()
    space = old.space(process.pid)
    assert len(space.present(0, old.machine.user_pages))
    process.exit()
    with pytest.raises(ProcessLookupError):
        space.present(0, old.machine.user_pages)

"""Huge pages that are mapped page by page: which pages are of one, who shares it, what is split."""

from __future__ import annotations

import numpy as np
import pytest
from live_machine import PAGE

from movepages.abi import Errno, MoveFlag
from movepages.emulator.overlay import GROUPED, NOT_PLACED, SPLIT, ZEROED

pytestmark = [pytest.mark.emulator, pytest.mark.usefixtures("root")]

HUGE = 512


@pytest.fixture
def process(live):
    """A process."""
    return live.world.process()


def huge(process, *, written=HUGE):
    """Return the address of a huge page, of which so many pages are written."""
    start = process.mmap(HUGE)
    process.madvise(start, HUGE, "hugepage")
    process.write(start, written)
    return start


def overlay(live, process):
    """Return what is known of the process's own pages."""
    return live.machine.processes.task(process.pid).mm.anonymous.pages


def numbers(start, *pages):
    """Return page numbers."""
    return start // PAGE + np.array(pages)


def test_what_was_never_seen_whole_is_known_by_its_frames(live, process):
    """Looked at by one page only, all that are mapped are placed, with the node of the one."""
    start = huge(process)
    process.munmap(start + 10 * PAGE, 2)
    before = sum(live.used())
    live.where(process.pid, start + 100 * PAGE)
    known = overlay(live, process)
    assert known.has(numbers(start, 0, 9, 10, 11, 12, 511), GROUPED).tolist() == [
        *(True, True, False, False, True, True)
    ]
    assert sum(live.used()) - before == HUGE - 2


def test_pages_that_only_lie_as_in_a_huge_page_are_single(live, process):
    """Base pages are single pages, wherever their frames happen to be."""
    start = process.mmap(2 * HUGE)
    process.write(start, 2 * HUGE)
    live.where(process.pid, start, HUGE)
    pages = numbers(start, *range(HUGE))
    assert not overlay(live, process).has(pages, GROUPED).any()
    live.put(process.pid, start, [1])
    assert live.where(process.pid, start, 2)[0] == 1


def test_what_is_written_in_a_gap_is_no_part(live, process):
    """A page that took the place of one that was dropped is a page of its own."""
    start = huge(process)
    process.madvise(start + 4 * PAGE, 2, "dontneed")
    process.write(start + 4 * PAGE)
    live.where(process.pid, start, HUGE)
    grouped = overlay(live, process).has(numbers(start, 3, 4, 5, 6), GROUPED)
    assert grouped.tolist() == [True, False, False, True]


def test_a_split_huge_page_stays_split(live, process):
    """Looked at once more, after a fork too, its pages are single still."""
    start = huge(process, written=4)
    process.munmap(start + 10 * PAGE, 2)
    live.put(process.pid, start, [1])
    known = overlay(live, process)
    pages = numbers(start, 0, 3, 4, 511)
    assert known.has(pages, SPLIT).all()
    assert known.has(pages, ZEROED).tolist() == [False, False, True, True]
    assert (known.nodes(pages) == NOT_PLACED).tolist() == [False, False, True, True]
    child = process.fork()
    assert live.where(child.pid, start, 5) == [1, 1, 1, 1, -Errno.EFAULT]
    assert live.move(child.pid, [start], [2], MoveFlag.MOVE_ALL) == (0, [2])
    assert live.where(process.pid, start, 4) == [2, 1, 1, 1]


def test_a_page_that_is_read_only_is_looked_at_for_zeroes(live, process):
    """Whether a page is full of zeroes does not depend on what its process may read."""
    start = huge(process, written=1)
    process.mprotect(start + PAGE, 8, "")
    process.munmap(start + 10 * PAGE, 1)
    live.put(process.pid, start, [1])
    assert live.where(process.pid, start, 3) == [1, -Errno.EFAULT, -Errno.EFAULT]

"""Huge pages that processes share since a fork, each whole, in part, or page by page."""

from __future__ import annotations

import numpy as np
import pytest
from live_machine import PAGE

from movepages.abi import Errno, MoveFlag
from movepages.emulator.overlay import SPLIT

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


def test_who_maps_all_of_it_follows_who_maps_a_part(live, process):
    """A child that maps one page moves the whole for its parent, and for a sister page by page."""
    start = huge(process)
    child, sister = process.fork(), process.fork()
    sister.mprotect(start, 8, "r")
    child.munmap(start, HUGE - 1)
    last = start + 511 * PAGE
    for one in (child, sister):
        live.where(one.pid, last)
    assert live.move(child.pid, [last], [2], MoveFlag.MOVE_ALL) == (0, [2])
    for one in (process, sister):
        assert live.where(one.pid, start, HUGE) == [2] * HUGE


def test_who_maps_a_page_of_it_shares_it(live, process):
    """Whole here, in part there: MOVE leaves it alone, by whichever page it is named."""
    start = huge(process)
    child = process.fork()
    child.munmap(start, HUGE - 1)
    live.where(child.pid, start + 511 * PAGE)
    for page in (0, 511):
        address = start + page * PAGE
        assert live.move(process.pid, [address], [1], MoveFlag.MOVE) == (0, [-Errno.EACCES])
    assert live.move(process.pid, [start], [1], MoveFlag.MOVE_ALL) == (0, [1])
    assert live.where(child.pid, start + 511 * PAGE) == [1]


def test_a_split_is_one_for_all_who_map_the_page(live, process):
    """What a child maps of it is split too, and is where it is for the parent."""
    start = huge(process, written=8)
    process.mprotect(start, 4, "r")
    child = process.fork()
    live.where(child.pid, start, 4)
    for one in (process, child):
        one.munmap(start + 100 * PAGE, 4)
    assert live.move(process.pid, [start], [3], MoveFlag.MOVE_ALL) == (0, [3])
    assert live.where(child.pid, start, 9) == [3] * 8 + [-Errno.EFAULT]
    overlay = live.machine.processes.task(child.pid).mm.anonymous.pages
    assert overlay.has(start // PAGE + np.array([0, 8]), SPLIT).all()

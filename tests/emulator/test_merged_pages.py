"""Pages that KSM has merged."""

from __future__ import annotations

import pytest

from movepages.abi import MoveFlag

pytestmark = pytest.mark.emulator


@pytest.fixture
def merged(live):
    """Two processes with a page each that KSM has made one; it was on node 1, and on node 2."""
    found = []
    for node in (1, 2):
        process = live.world.process()
        start = process.mmap(1)
        process.madvise(start, 1, "mergeable")
        process.write(start)
        process.poke(start, [77])
        live.put(process.pid, start, [node])
        found.append((process, start))
    live.world.merge()
    return found


def test_merged_page_is_one_for_all_who_map_it(live, merged):
    """Both see it on one node; only MOVE_ALL moves it, for both."""
    machine = live.machine
    assert machine.merged_pages.has_any()
    (one, mine), (other, theirs) = merged
    (node,) = live.where(one.pid, mine)
    assert node in {1, 2}
    assert live.where(other.pid, theirs) == [node]
    live.put(one.pid, mine, [3], MoveFlag.MOVE_ALL)
    assert live.where(other.pid, theirs) == [3]


def test_page_frames_that_are_merged_no_more_are_forgotten(live, merged):
    """A frame is kept while it is a merged page, and dropped once each has its own again."""
    pages = live.machine.merged_pages.thing.pages
    for process, start in merged:
        live.where(process.pid, start)
    (frame,) = pages.placed().tolist()
    live.machine.reclaim()
    assert live.machine.merged_pages.thing.pages.placed().tolist() == [frame]
    assert live.machine.merged_pages.thing.pages is pages
    for process, start in merged:
        process.write(start)
    live.machine.reclaim()
    assert live.machine.merged_pages.thing.pages.placed().tolist() == []

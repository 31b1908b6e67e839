"""The pages of live processes behind the `Frames` port: moves, room for them, and who is told."""

from __future__ import annotations

import numpy as np
import pytest
from live_machine import PAGE

from movepages.abi import Errno, MoveFlag
from movepages.emulator.objects import ZERO_PAGE
from movepages.kernel.ports import LATER, NONE

pytestmark = pytest.mark.host

ALL = MoveFlag.MOVE_ALL


@pytest.fixture
def small(emulate):
    """Nodes 0 to 2 with 64, 32 and 64 pages."""
    return emulate("1x(0cpu,256K) + 1x(0cpu,128K) + 1x(0cpu,256K)")


def folios(live, process, start, count):
    """Return the handles of touched pages, which are placed by that."""
    return live.space(process.pid).folios(start // PAGE, start // PAGE + count)


def touched(live, count, node=0):
    """Return a process, the address of its pages, and their handles, all on one node."""
    process = live.world.process()
    start = process.mmap(count)
    process.write(start, count)
    live.put(process.pid, start, [node] * count)
    return process, start, folios(live, process, start, count)


def test_moved_page_is_said_to_be_elsewhere_and_keeps_its_data(live):
    """Each page has its own node after a move; what the program wrote is still there."""
    process = live.world.process()
    start = process.mmap(4)
    process.poke(start, [5, 6, 7, 8])
    live.put(process.pid, start, [3, 1, 2, 0])
    assert live.where(process.pid, start, 4) == [3, 1, 2, 0]
    assert process.peek([start + at * PAGE for at in range(4)]) == [5, 6, 7, 8]
    assert live.machine.frames.moved >= 3


def test_page_is_isolated_once_until_it_is_put_back(live):
    """A second mention in one batch, and a page that is isolated already, are refused."""
    _, _, pages = touched(live, 3)
    frames = live.machine.frames
    assert frames.isolate(pages[[0, 1, 0]]).tolist() == [True, True, False]
    assert frames.isolate(pages).tolist() == [False, False, True]
    assert frames.on_lru(pages).tolist() == [False] * 3
    frames.putback(pages)
    assert frames.isolate(pages).tolist() == [True] * 3


def test_zero_page_is_shared_by_all_and_moves_nowhere(live):
    """It is on node 0, mapped more than once, and cannot be isolated."""
    frames, zero = live.machine.frames, np.array([ZERO_PAGE])
    assert frames.is_zero_page(zero).tolist() == [True]
    assert (frames.node(zero)[0], frames.mapcount(zero)[0], frames.on_lru(zero)[0]) == (0, 2, False)


@pytest.mark.parametrize(("free", "expected"), [(4, 0), (3, -Errno.ENOMEM)])
def test_page_that_does_not_fit_makes_the_call_fail(small, free, expected):
    """With room for all four pages they move; with one less the fourth stays: -ENOMEM."""
    process, start, _ = touched(small, 4)
    capacity = small.machine.capacity
    capacity.take(1, 32 - free)
    ret, _ = small.move(process.pid, [start + at * PAGE for at in range(4)], [1] * 4)
    assert ret == expected
    assert small.where(process.pid, start, 4) == [1] * free + [0] * (4 - free)
    assert small.used() == [4 - free, 32, 0]


def test_pages_that_leave_a_full_node_make_room_there(small):
    """A page may take the place of one that the same call moves away before it."""
    process, start, _ = touched(small, 2, node=1)
    small.put(process.pid, start + PAGE, [0])
    small.machine.capacity.take(1, 31)
    assert small.machine.capacity.free(1) == 0
    assert small.move(process.pid, [start, start + PAGE], [2, 1]) == (0, [2, 1])


def test_room_is_given_back_when_it_is_not_used(small):
    """What was allocated for a move and freed again is free; NONE and LATER free nothing."""
    _, _, pages = touched(small, 4)
    frames, before = small.machine.frames, small.used()
    new = frames.allocate(pages, np.array([1, 2, 2, 1]), exact=True)
    assert frames.node(new).tolist() == [1, 2, 2, 1]
    assert small.used() == [before[0], before[1] + 2, before[2] + 2]
    frames.free_pages(np.append(new, [NONE, LATER]))
    assert small.used() == before


def test_exact_allocation_ends_where_the_node_does(small):
    """Pages that do not fit have none, and the rest have the node that they asked for."""
    _, _, pages = touched(small, 4)
    small.machine.capacity.take(1, 30)
    new = small.machine.frames.allocate(pages, np.array([1, 1, 1, 2]), exact=True)
    assert new[2] == NONE
    assert small.machine.frames.node(new[[0, 1, 3]]).tolist() == [1, 1, 2]


def test_inexact_allocation_spills_to_the_nearest_node(emulate):
    """What a full node does not have comes from the nearest node, and then from the one after."""
    near = emulate(
        "[[nodes]]\ncpus = 0\nmemory = '256K'\ndistances = [10, 30, 20]\n"
        "[[nodes]]\ncpus = 0\nmemory = '256K'\ndistances = [30, 10, 20]\n"
        "[[nodes]]\ncpus = 0\nmemory = '256K'\ndistances = [20, 20, 10]\n"
    )
    _, _, pages = touched(near, 6, node=1)
    capacity = near.machine.capacity
    capacity.take(0, 62)
    capacity.take(2, 61)
    new = near.machine.frames.allocate(pages, np.zeros(6, dtype=np.int32), exact=False)
    assert near.machine.frames.node(new).tolist() == [0, 0, 2, 2, 2, 1]


def test_full_machine_is_searched_once(small):
    """However many pages find no room, what is gone is looked for once for each node."""
    _, _, pages = touched(small, 8)
    capacity, searches = small.machine.capacity, []
    for node in range(3):
        capacity.take(node, capacity.free(node))
    capacity._reclaim = lambda: searches.append(True)
    new = small.machine.frames.allocate(pages, np.ones(8, dtype=np.int32), exact=False)
    assert new.tolist() == [NONE] * 8
    assert len(searches) <= 1 + 3


def test_inexact_allocation_has_an_end(small):
    """When no node has a page left, there is none."""
    _, _, pages = touched(small, 2)
    for node in range(3):
        small.machine.capacity.take(node, small.machine.capacity.free(node) - (node == 2))
    new = small.machine.frames.allocate(pages, np.array([1, 1]), exact=False)
    assert small.machine.frames.node(new[:1]).tolist() == [2]
    assert new[1] == NONE


def test_shared_page_moves_for_all_who_share_it(live):
    """After MOVE_ALL by one, all who came of a fork see the page on its new node."""
    process = live.world.process()
    start = process.mmap(2)
    process.write(start, 2)
    live.put(process.pid, start, [1, 1])
    child = process.fork()
    grandchild = child.fork()
    addresses = [start, start + PAGE]
    assert live.move(child.pid, addresses, [2, 2]) == (0, [-Errno.EACCES] * 2)
    live.put(child.pid, start, [2, 3], flags=ALL)
    for one in (process, child, grandchild):
        assert live.where(one.pid, start, 2) == [2, 3]


def test_own_copy_is_not_told_of_the_others_move(live):
    """A page that the child has written is its own: MOVE_ALL of the parent's leaves it."""
    process = live.world.process()
    start = process.mmap(2)
    process.write(start, 2)
    live.put(process.pid, start, [1, 1])
    child = process.fork()
    assert live.where(child.pid, start, 2) == [1, 1]
    child.write(start)
    live.put(child.pid, start, [3])
    live.put(process.pid, start, [2, 2], flags=ALL)
    assert live.where(child.pid, start, 2) == [3, 2]


def test_shared_file_has_one_node_for_all(live):
    """A page of shared memory is where it was moved to, whoever maps it."""
    file = live.world.shmem(4)
    one, other = live.world.process(), live.world.process()
    mine, theirs = one.mmap(4, shared=True, file=file), other.mmap(4, shared=True, file=file)
    one.write(mine, 4)
    other.read(theirs, 4)
    live.put(one.pid, mine, [1, 2, 3, 0], flags=ALL)
    assert live.where(other.pid, theirs, 4) == [1, 2, 3, 0]


def test_secret_memory_does_not_move(live):
    """What the kernel itself cannot see refuses with -EBUSY or worse, and stays."""
    file = live.world.secret(2)
    process = live.world.process()
    start = process.mmap(2, shared=True, file=file)
    process.write(start, 2)
    before = live.where(process.pid, start, 2)
    pages = folios(live, process, start, 2)
    if len(pages):
        assert not live.machine.frames.surely_moves(pages).any()
    assert live.where(process.pid, start, 2) == before


def test_huge_page_moves_whole_and_takes_its_size(emulate):
    """One address moves 512 pages; the node that they leave has as many more free."""
    live = emulate("2x(0cpu,16M)")
    process = live.world.process()
    start = process.mmap(1024)
    process.madvise(start, 1024, "hugepage")
    process.write(start, 1024)
    status = live.where(process.pid, start, 1)
    before = live.used()
    other = 1 - status[0]
    live.put(process.pid, start, [other])
    assert live.where(process.pid, start, 512) == [other] * 512
    moved = live.used()
    assert moved[other] - before[other] == 512
    assert before[status[0]] - moved[status[0]] == 512

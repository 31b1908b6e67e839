"""Memory and nodes that come and go."""

from __future__ import annotations

import errno

import pytest

from movepages.abi import MoveFlag
from movepages.errors import ArgumentError
from movepages.kernel import (
    DOCUMENTED_2006,
    LINUX_2_6_18,
    LINUX_6_12,
    PATCH_2006,
    SimulatedMachine,
)
from movepages.kernel.inject import LruBusy, Pin

MOVE = int(MoveFlag.MOVE)
THREE = "1x(2cpu,8M) + 1x(0cpu,8M) + 1x(0cpu,16M)"


def start(semantics=LINUX_6_12, node=1, pages=4):
    """Return a machine, a process, and where its pages are, moved to a node."""
    machine = SimulatedMachine(THREE, semantics=semantics)
    p = machine.spawn()
    a = p.mmap(pages)
    p.poke(a, range(1, pages + 1))
    p.move_pages(0, p.addresses(a, pages), [node] * pages, MOVE)
    return machine, p, a


def test_pages_leave_before_memory_goes_offline():
    """Offline moves all pages to the next in the node's zonelist, contents intact."""
    machine, p, a = start()
    nearest = machine.memory.frames.zonelists[1][1]
    assert machine.offline(1) == 0
    assert p.nodes(a, 4).tolist() == [nearest] * 4
    assert p.peek(a, 4).tolist() == [1, 2, 3, 4]
    assert machine.free_bytes()[1] == 0
    machine.check()


def test_a_node_without_memory_is_still_online():
    """Its memory off, a node is in the topology, without memory, and CPUs as before."""
    machine, _, _ = start()
    machine.offline(1)
    topology = machine.topology()
    assert str(topology.online) == "0-2"
    assert str(topology.with_memory) == "0,2"
    assert topology.node(1).memory_bytes == 0


def test_today_a_node_without_memory_is_no_target():
    """-ENODEV on 6.12, with what came before it done (decision table)."""
    machine, p, a = start()
    machine.offline(2)
    ret, status = p.move_pages(0, p.addresses(a, 2), [0, 2], MOVE)
    assert ret == -errno.ENODEV
    assert status.tolist()[0] == 0
    machine.check()


@pytest.mark.parametrize("semantics", [PATCH_2006, LINUX_2_6_18], ids=lambda s: s.name)
def test_in_2006_a_node_without_memory_falls_back(semantics):
    """An online node without memory is accepted, and pages land where there is some (D7, D23)."""
    machine, p, a = start(semantics)
    machine.offline(2)
    ret, status = p.move_pages(0, p.addresses(a, 4), [2] * 4, MOVE)
    assert ret == 0
    assert set(status.tolist()) <= {0, 1}
    machine.check()


def test_by_the_text_of_2006_there_is_no_memory_there():
    """An allowed target without memory is -ENOMEM per page, for allocation is node-exact."""
    machine, p, a = start(DOCUMENTED_2006)
    machine.offline(2)
    ret, status = p.move_pages(0, p.addresses(a, 4), [2] * 4, MOVE)
    assert (ret, status.tolist()) == (0, [-errno.ENOMEM] * 4)
    machine.check()


@pytest.mark.parametrize("semantics", [PATCH_2006, LINUX_6_12], ids=lambda s: s.name)
def test_a_removed_node_is_no_target_anywhere(semantics):
    """A node that is not online is -ENODEV in every kernel."""
    machine, p, a = start(semantics)
    machine.offline(2)
    machine.remove_node(2)
    assert p.move_pages(0, p.addresses(a, 1), [2], MOVE)[0] == -errno.ENODEV
    assert str(machine.topology().online) == "0-1"
    assert set(machine.topology().node(0).distances) == {0, 1}
    assert 2 not in machine.free_bytes()
    machine.check()


def test_memory_comes_back_empty_and_usable():
    """Removed, added and online again, a node is a target with all its memory free."""
    machine, p, a = start()
    machine.offline(2)
    machine.remove_node(2)
    machine.add_node(2)
    assert not machine.topology().node(2).has_memory
    machine.online(2)
    assert machine.free_bytes()[2] == 16 << 20
    assert p.move_pages(0, p.addresses(a, 4), [2] * 4, MOVE)[1].tolist() == [2] * 4
    machine.check()


@pytest.mark.parametrize("fault", [Pin, LruBusy])
def test_memory_stays_while_a_page_on_it_cannot_leave(fault):
    """A pinned or isolated page keeps the memory online; released, it goes."""
    machine, p, a = start()
    with machine.inject(fault(p, a)):
        assert machine.offline(1) == 1
        assert p.nodes(a, 4).tolist() == [1, 2, 2, 2]
        assert machine.topology().node(1).has_memory
        machine.check()
    assert machine.offline(1) == 0
    machine.check()


def test_the_kernels_own_memory_stays():
    """Node 0 has the zero page, which does not move: its memory stays online."""
    machine, _, _ = start()
    assert machine.offline(0) >= 1
    assert machine.topology().node(0).has_memory


def test_memory_stays_when_there_is_no_room_elsewhere():
    """More pages than the other nodes can take: the rest stays, and so does the memory."""
    machine = SimulatedMachine("1x(1cpu,64K) + 1x(0cpu,64K)")
    p = machine.spawn()
    a = p.mmap(20)
    p.write(a, 20)
    left = machine.offline(1)
    assert left == 5
    assert machine.topology().node(1).has_memory
    machine.check()


def test_large_pages_and_pools_leave_too():
    """THPs and hugetlb pages move, and free pool pages of the node are dissolved."""
    machine, p, _ = start()
    t = p.mmap(512)
    p.madvise(t, 512, "hugepage")
    p.poke(t, [5])
    machine.resize_pool(0, 1)
    h = p.mmap(512, huge=True)
    p.poke(h, [6])
    assert p.move_pages(0, [t, h], [2, 2], MOVE)[1].tolist() == [2, 2]
    machine.resize_pool(2, 3)
    assert machine.offline(2) == 0
    assert 2 not in {int(p.nodes(t, 1)[0]), int(p.nodes(h, 1)[0])}
    assert (p.peek(t).tolist(), p.peek(h).tolist()) == ([5], [6])
    assert machine.memory.pools.pool(2, 9).total == 0
    machine.check()


def test_page_cache_that_nobody_maps_leaves_too():
    """Cached pages of a file move off the node, and are found again."""
    machine, p, _ = start()
    file = machine.file("/f", 3)
    b = p.mmap(3, file=file, shared=True)
    p.poke(b, [1, 2, 3])
    p.move_pages(0, p.addresses(b, 3), [1] * 3, MOVE)
    p.munmap(b, 3)
    assert machine.offline(1) == 0
    b = p.mmap(3, file=file, shared=True)
    assert p.peek(b, 3).tolist() == [1, 2, 3]
    machine.check()


def test_changes_that_make_no_sense_are_refused():
    """Twice off, on without memory, removal in use, unknown nodes: errors that say so."""
    machine = SimulatedMachine("2x(1cpu,8M) + 1x(0cpu,8M)")
    p = machine.spawn(cpu=1)
    machine.offline(1)
    for action, problem in (
        (lambda: machine.offline(1), "could go offline"),
        (lambda: machine.online(2), "could come online"),
        (lambda: machine.remove_node(2), "offline first"),
        (lambda: machine.remove_node(1), f"task {p.pid} runs on it"),
        (lambda: machine.add_node(2), "is in the machine"),
        (lambda: machine.offline(7), "no node 7"),
    ):
        with pytest.raises(ArgumentError, match=problem):
            action()
    p.exit()
    machine.remove_node(1)
    with pytest.raises(ArgumentError, match="no CPU 1"):
        machine.spawn(cpu=1)
    with pytest.raises(ArgumentError, match="could come online"):
        machine.online(1)
    machine.check()

"""Cpusets: who may be where, and what follows when their mems are written."""

from __future__ import annotations

from collections import Counter

import pytest

from movepages.abi import Errno, Mode, MoveFlag
from movepages.errors import ArgumentError
from movepages.kernel.machine import SimulatedMachine
from movepages.kernel.semantics import ALL_SEMANTICS, LINUX_2_6_18, LINUX_6_12
from movepages.nodeset import NodeSet

FOUR_NODES = "2x(1cpu,16M) + 2x(0cpu,16M)"
MOVE = MoveFlag.MOVE


def by_name(value):
    """Name a semantics in the id of a test."""
    return getattr(value, "name", None)


def member(machine, mems, pages=4, **kind):
    """Start a process in a cpuset of its own, and have it touch pages; return all three."""
    cpuset = machine.new_cpuset(mems, **kind)
    p = machine.spawn(cpuset=cpuset)
    a = p.mmap(pages)
    p.write(a, pages)
    return cpuset, p, a


def placed(task, address, pages):
    """Count the pages of a range by node."""
    return dict(Counter(task.nodes(address, pages).tolist()))


@pytest.mark.parametrize(
    ("nodes", "ret", "status", "where"),
    [
        pytest.param([1] * 8, 0, [1] * 8, [1] * 8, id="cpuset 0-1: move -> 1"),
        pytest.param([2] * 8, -Errno.EACCES, [99] * 8, [0] * 8, id="cpuset 0-1: move -> 2"),
        pytest.param(
            [1, 0, 1, 2, 1, 1, 1, 1],
            -Errno.EACCES,
            [1, 0, 1, 99, 99, 99, 99, 99],
            [1, 0, 1, 0, 0, 0, 0, 0],
            id="cpuset 0-1: move -> [1,0,1,2,1..]",
        ),
    ],
)
def test_moves_inside_a_cpuset_as_observed(nodes, ret, status, where):
    """A target node outside the cpuset stops the call with -EACCES; what was before it is done."""
    machine = SimulatedMachine(FOUR_NODES)
    _, p, a = member(machine, [0, 1], 8)
    got, statuses = p.move_pages(0, p.addresses(a, 8), nodes, MOVE)
    written = [99 if value == -(2**31) else value for value in statuses.tolist()]
    assert (got, written, p.nodes(a, 8).tolist()) == (ret, status, where)


def test_root_outside_moves_limited_pid():
    """`root outside moves limited pid -> 2`: the target's cpuset counts, even for root."""
    machine = SimulatedMachine(FOUR_NODES)
    _, p, a = member(machine, [0, 1])
    ret, _ = machine.shell.move_pages(p.pid, p.addresses(a, 4), [2] * 4, MoveFlag.MOVE_ALL)
    assert ret == -Errno.EACCES


def test_a_limited_task_moves_an_unlimited_ones_pages():
    """`cpuset 0-1: move parent's (unlimited) pages -> 2`: the parent's cpuset allows it.

    The pages are shared with the child that asks, so their status is -EACCES.
    """
    machine = SimulatedMachine(FOUR_NODES)
    parent = machine.spawn()
    a = parent.mmap(4)
    parent.write(a, 4)
    child = parent.fork()
    child.attach(machine.new_cpuset([0, 1]))
    ret, status = child.move_pages(parent.pid, parent.addresses(a, 4), [2] * 4, MOVE)
    assert (ret, status.tolist()) == (0, [-Errno.EACCES] * 4)


def test_mems_allowed_list():
    """`cpuset mems=0-1: Mems_allowed_list`: 0-1."""
    machine = SimulatedMachine(FOUR_NODES)
    _, p, _ = member(machine, [0, 1])
    assert str(p.get_mempolicy(0, 4)[2]) == "0-1"


def test_writing_mems_as_observed():
    """`cpuset.mems 0-1 -> 3: pages of member`: all four are on node 3 then."""
    machine = SimulatedMachine(FOUR_NODES)
    cpuset, p, a = member(machine, [0, 1])
    machine.set_cpuset_mems(cpuset, [3])
    assert placed(p, a, 4) == {3: 4}
    machine.check()


def test_relative_places_are_kept():
    """Mems 0-1 to 2-3: what was on the second node goes to the second."""
    machine = SimulatedMachine(FOUR_NODES)
    cpuset, p, a = member(machine, [0, 1])
    p.move_pages(0, p.addresses(a, 4), [0, 1, 0, 1], MOVE)
    machine.set_cpuset_mems(cpuset, [2, 3])
    assert p.nodes(a, 4).tolist() == [2, 3, 2, 3]


@pytest.mark.parametrize("semantics", ALL_SEMANTICS, ids=by_name)
@pytest.mark.parametrize("memory_migrate", [None, True, False])
def test_who_migrates(semantics, memory_migrate):
    """Cgroup v2 always migrates; in 2006 a cpuset does if its memory_migrate is set."""
    machine = SimulatedMachine(FOUR_NODES, semantics=semantics)
    cpuset, p, a = member(machine, [0, 1], memory_migrate=memory_migrate)
    machine.set_cpuset_mems(cpuset, [3])
    migrates = semantics is LINUX_6_12 if memory_migrate is None else memory_migrate
    assert placed(p, a, 4) == {3 if migrates else 0: 4}
    b = p.mmap(1)
    p.write(b, 1)
    assert placed(p, b, 1) == {3: 1}, "new pages come from the new mems in any case"


def test_shared_pages_follow_too():
    """A cpuset migrates with MOVE_ALL: pages shared with a process outside move for both."""
    machine = SimulatedMachine(FOUR_NODES)
    cpuset, p, a = member(machine, [0])
    child = p.fork()
    child.attach(machine.new_cpuset([0], memory_migrate=False))
    machine.set_cpuset_mems(cpuset, [2])
    assert placed(child, a, 4) == {2: 4}
    machine.check()


def test_policies_of_all_members_follow():
    """Thread and area policies are remapped; those of another cpuset are not."""
    machine = SimulatedMachine(FOUR_NODES)
    cpuset, p, a = member(machine, [0, 1])
    thread, other = p.thread(), machine.spawn()
    for task in (p, thread, other):
        assert task.set_mempolicy(Mode.BIND, [1]) == 0
    assert p.mbind(a, 4, Mode.INTERLEAVE, [0, 1]) == 0
    machine.set_cpuset_mems(cpuset, [2, 3])
    assert [str(task.get_mempolicy()[2]) for task in (p, thread, other)] == ["3", "3", "1"]
    assert p.get_mempolicy(a, 2)[2] == NodeSet([2, 3])


def test_attach_takes_pages_and_policies_along():
    """Joining a cpuset that migrates moves the pages of a process; a thread's joining does not."""
    machine = SimulatedMachine(FOUR_NODES)
    _, p, a = member(machine, [0, 1])
    assert p.set_mempolicy(Mode.BIND, [1]) == 0
    there = machine.new_cpuset([2, 3])
    p.thread().attach(there)
    assert placed(p, a, 4) == {0: 4}
    p.attach(there)
    assert placed(p, a, 4) == {2: 4}
    assert p.get_mempolicy()[2] == NodeSet([3])
    machine.check()


def test_attach_without_memory_migrate():
    """Pages stay where they are, on nodes that the process may not allocate on any more."""
    machine = SimulatedMachine(FOUR_NODES, semantics=LINUX_2_6_18)
    _, p, a = member(machine, [0, 1])
    p.attach(machine.new_cpuset([2]))
    assert placed(p, a, 4) == {0: 4}


def test_what_cannot_move_stays_in_silence():
    """A full target or a pinned page is no error: the mems are written all the same."""
    machine = SimulatedMachine("3 x 1M")
    cpuset, p, a = member(machine, [0])
    hog = machine.spawn(cpuset=machine.new_cpuset([2]))
    free = machine.memory.frames.nodes[2].available_pages
    hog.write(hog.mmap(free - 1), free - 1)
    machine.set_cpuset_mems(cpuset, [2])
    assert placed(p, a, 4) == {2: 1, 0: 3}
    assert cpuset.mems == NodeSet([2])
    machine.check()


def test_2006_falls_back_within_the_new_mems():
    """While a cpuset migrates, the writer's mems are the new ones: no page goes elsewhere."""
    machine = SimulatedMachine("4 x 1M", semantics=LINUX_2_6_18)
    cpuset, p, a = member(machine, [0, 1], memory_migrate=True)
    hog = machine.spawn(cpuset=machine.new_cpuset([2]))
    free = machine.memory.frames.nodes[2].available_pages
    hog.write(hog.mmap(free - 1), free - 1)
    machine.set_cpuset_mems(cpuset, [2, 3])
    assert placed(p, a, 4) == {2: 1, 3: 3}


def test_an_ended_member_is_passed_over():
    """A zombie in a cpuset has no pages to follow."""
    machine = SimulatedMachine(FOUR_NODES)
    cpuset, p, a = member(machine, [0, 1])
    p.fork().exit()
    machine.set_cpuset_mems(cpuset, [3])
    assert placed(p, a, 4) == {3: 4}


@pytest.mark.parametrize("mems", [[], [9], [0, 9]], ids=["none", "unknown", "one of two unknown"])
def test_mems_that_make_no_sense(mems):
    """A cpuset needs nodes with memory, when made and when written; it stays as it was."""
    machine = SimulatedMachine(FOUR_NODES)
    cpuset = machine.new_cpuset([1])
    with pytest.raises(ArgumentError, match="needs nodes with memory"):
        machine.new_cpuset(mems)
    with pytest.raises(ArgumentError, match="needs nodes with memory"):
        machine.set_cpuset_mems(cpuset, mems)
    assert cpuset.mems == NodeSet([1])


def test_the_same_mems_again():
    """Writing mems that are there already changes no policy and moves no page."""
    machine = SimulatedMachine(FOUR_NODES)
    cpuset, p, a = member(machine, [0, 1])
    assert p.set_mempolicy(Mode.BIND, [1]) == 0
    policy = p.struct.policy
    machine.set_cpuset_mems(cpuset, [0, 1])
    assert p.struct.policy is policy
    assert placed(p, a, 4) == {0: 4}


def test_a_zombie_can_be_attached():
    """It has no memory left to follow it."""
    machine = SimulatedMachine(FOUR_NODES)
    parent = machine.spawn()
    child = parent.fork()
    child.exit()
    there = machine.new_cpuset([3])
    child.attach(there)
    assert child.struct.cpuset is there

"""Pages come near to where threads run; what is near already, or might be, stays."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, strategies as st

from movepages.errors import ArgumentError, NoSuchProcessError
from movepages.kernel import SimulatedMachine
from movepages.kernel.tasks import Cpuset
from movepages.nodeset import NodeSet
from movepages.placement import Options, execute, select
from movepages.placement.follow import follow_nodes, plan_follow, saved_distance
from movepages.placement.running import Running, running
from movepages.topology import declared_topology
from movepages.values import NO_NODE, Placement

PAGE, HUGE = 4096, 2 << 20
QUICK = Options(backoff_s=0.0)
SOCKETS = ([10, 12, 21, 21], [12, 10, 21, 21], [21, 21, 10, 12], [21, 21, 12, 10])
"""Two sockets of two clusters each, as with sub-NUMA clustering."""
SECOND = 10**9


def machine_of(*groups):
    """Return a model of (CPUs, memory in MiB, distances) for each node."""
    return SimulatedMachine(
        declared_topology([(cpus, mib << 20, row) for cpus, mib, row in groups])
    )


def sockets(mib=32):
    """Return a model of two sockets, with a CPU of its node's number on each node."""
    return machine_of(*((1, mib, row) for row in SOCKETS))


def process(machine, *pages_on_nodes):
    """Return a process with so many pages on each node, each with a mark, and their address."""
    task = machine.spawn()
    total = sum(pages_on_nodes)
    first = task.mmap(total)
    task.poke(first, range(1, total + 1))
    nodes = np.repeat(np.arange(len(pages_on_nodes), dtype=np.int32), pages_on_nodes)
    machine.move_pages(task.pid, task.addresses(first, total), nodes, 2)
    return task, first


def followed(machine, task, *, before=None, **settings):
    """Plan, carry out, and return pages by node after it, and the ledger; nothing is lost."""
    found = running(machine.threads(task.pid), machine.topology(), before)
    plan = plan_follow(machine, machine.task(task.pid), select.everything(), found, **settings)
    ledger = execute(plan, machine, QUICK)
    machine.check()
    where = machine.locate(task.pid)
    return dict(Counter(where.page_nodes().tolist())), ledger


def test_to_the_node_of_its_thread():
    """All pages come to the node where the only thread ran, with the reason; no mark is wrong."""
    machine = sockets()
    task, first = process(machine, 5, 0, 3)
    task.run(2, SECOND)
    pages, ledger = followed(machine, task)
    assert pages == {2: 8}
    assert (ledger.moved_pages, ledger.already_there) == (5, 3)
    assert ledger.plan.reasons[ledger.plan.reason[0]] == "threads ran 100% on node 2"
    assert task.peek(first, 8).tolist() == list(range(1, 9))


def test_what_is_near_enough_stays():
    """Pages in the other cluster of the socket, at 12, stay, unless less is called near."""
    machine = sockets()
    task, _ = process(machine, 2, 3, 4)
    task.run(0, SECOND)
    assert followed(machine, task, near_distance=12)[0] == {0: 6, 1: 3}
    assert followed(machine, task, near_distance=11)[0] == {0: 9}


def test_lately_counts():
    """Ten seconds on node 0 long ago are outweighed by what it ran since the first look."""
    machine = sockets()
    task, _ = process(machine, 6)
    task.run(0, 10 * SECOND)
    before = machine.threads(task.pid)
    task.run(3, SECOND // 100)
    assert followed(machine, task, before=before)[0] == {3: 6}


def test_a_process_that_has_not_run():
    """It is where it ran last, and the reason says so."""
    machine = sockets()
    task, _ = process(machine, 4)
    task.run(2)
    threads = machine.threads(task.pid)
    pages, ledger = followed(machine, task, before=threads)
    assert pages == {2: 4}
    assert ledger.plan.reasons[0] == "last ran on node 2"


def test_threads_on_several_nodes():
    """Pages on either node stay, whichever has more; those far from both come by their shares."""
    machine = sockets()
    task, _ = process(machine, 10, 0, 1, 12)
    other = task.thread(cpu=2)
    task.run(0, 3 * SECOND)
    other.run(2, SECOND)
    pages, ledger = followed(machine, task, near_distance=10)
    assert pages == {0: 10 + 9, 2: 1 + 3}
    plan = ledger.plan
    reasons = {plan.reasons[reason] for reason in plan.reason.tolist()}
    assert reasons == {"threads ran 75% on node 0", "threads ran 25% on node 2"}


def test_a_node_without_memory():
    """Threads on a node of CPUs alone have their pages on the nearest node with memory."""
    rows = ([10, 20, 40], [20, 10, 20], [40, 20, 10])
    machine = machine_of((1, 16, rows[0]), (1, 0, rows[1]), (1, 16, rows[2]))
    task, _ = process(machine, 5)
    task.run(1, SECOND)
    pages, ledger = followed(machine, task)
    assert (pages, ledger.already_there) == ({0: 5}, 5), "at 20 there is none nearer"
    far = machine_of((1, 16, [10, 40, 40]), (1, 0, [40, 10, 20]), (1, 16, [40, 20, 10]))
    task, _ = process(far, 5)
    task.run(1, SECOND)
    pages, ledger = followed(far, task)
    assert pages == {2: 5}
    assert ledger.plan.reasons[1] == "threads ran 100% on node 1: nearest with room"


def test_the_cpuset_bounds_the_choice():
    """Threads run on node 3, but the cpuset allows memory of node 2 at best."""
    machine = sockets()
    task, _ = process(machine, 6)
    task.attach(Cpuset(NodeSet([0, 2]), migrates=False))
    task.run(3, SECOND)
    assert followed(machine, task)[0] == {2: 6}


def test_as_far_as_there_is_room():
    """What has no room on the node goes to its neighbour; what none has room for is told."""
    machine = sockets(mib=1)
    task, _ = process(machine, 200)
    task.run(3, SECOND)
    info = machine.task(task.pid)
    found = Running({3: 1.0}, ran=True)
    free = {0: 0, 1: 0, 2: 50 * PAGE, 3: 100 * PAGE}
    plan = plan_follow(machine, info, select.everything(), found, free=free)
    assert plan.bytes_by_target == {2: 50 * PAGE, 3: 100 * PAGE}
    assert (plan.crowded_pages, plan.crowded_bytes) == (50, 50 * PAGE)
    ledger = execute(plan, machine, QUICK)
    assert (ledger.asked, ledger.moved_pages, ledger.complete) == (200, 150, False)
    machine.check()


def test_huge_pages_go_whole():
    """A huge page is one page of the plan; where there is room for none of it, it stays."""
    machine = sockets(mib=8)
    task = machine.spawn()
    first = task.mmap(1024)
    task.madvise(first, 1024, "hugepage")
    task.write(first, 1024)
    task.run(2, SECOND)
    info, found = machine.task(task.pid), Running({2: 1.0}, ran=True)
    sizes = machine.locate(task.pid).page_size_bytes
    assert set(sizes.tolist()) == {HUGE}
    free = {2: HUGE + HUGE // 2, 3: HUGE - PAGE}
    plan = plan_follow(machine, info, select.everything(), found, free=free)
    assert (plan.page_count, plan.crowded_pages) == (1, 1)
    assert followed(machine, task)[0] == {2: 2}


def test_runs_stay_runs():
    """A gigabyte that has room is one run, not a row for each page."""
    pages = 1 << 18
    where = Placement(
        np.zeros(1, np.uint64), np.array([pages]), np.array([PAGE]), np.zeros(1, np.int32)
    )
    topology = sockets().topology()
    moved, to, user = follow_nodes(where, {2: 1.0}, topology, NodeSet(range(4)), {2: pages * PAGE})
    assert (len(moved), to.tolist(), user.tolist()) == (1, [2], [2])
    moved, to, _ = follow_nodes(where, {2: 1.0}, topology, NodeSet(range(4)), {2: PAGE, 3: PAGE})
    assert Counter(to.tolist()) == {0: pages - 2, 2: 1, 3: 1}


@given(
    st.lists(st.integers(0, 3), max_size=30),
    st.dictionaries(st.integers(0, 3), st.integers(1, 9), min_size=1),
    st.sampled_from([10, 15, 21]),
)
def test_nothing_comes_farther_and_nothing_far_is_left(nodes, weights, near):
    """With room for all, every page ends near to a node with threads; those near before stayed."""
    topology = sockets().topology()
    whole = sum(weights.values())
    shares = {node: weight / whole for node, weight in weights.items()}
    start = np.arange(len(nodes), dtype=np.uint64) * np.uint64(PAGE)
    ones = np.ones(len(nodes), np.int64)
    where = Placement(start, ones, ones * PAGE, np.array(nodes, np.int32))
    free = dict.fromkeys(range(4), 1 << 30)
    pages, to, user = follow_nodes(where, shares, topology, NodeSet(range(4)), free, near)
    assert sorted(pages.start.tolist()) == start.tolist()
    for before, after, of in zip(pages.node.tolist(), to.tolist(), user.tolist(), strict=True):
        was_near = min(SOCKETS[node][before] for node in shares) <= near
        assert (of == NO_NODE) is was_near
        assert after == (before if was_near else of)


@pytest.mark.parametrize("near", [9, 0, -1])
def test_nothing_is_nearer_than_local(near):
    """A distance below 10 is refused."""
    machine = sockets()
    task, _ = process(machine, 1)
    with pytest.raises(ArgumentError, match="give 10 or more"):
        followed(machine, task, near_distance=near)


def test_running_that_is_not_known():
    """Of threads on CPUs of no node nothing follows, and a process may have no page at all."""
    machine = sockets()
    task, _ = process(machine, 3)
    info = machine.task(task.pid)
    for found in (Running({}, ran=False), Running({0: 1.0}, ran=True)):
        assert len(plan_follow(machine, info, select.everything(), found)) == 0
    assert len(plan_follow(machine, info, select.stack(), Running({2: 1.0}, ran=True))) == 0
    task.exit()
    with pytest.raises(NoSuchProcessError):
        plan_follow(machine, info, select.everything(), Running({2: 1.0}, ran=True))


def test_what_a_plan_gains():
    """Bytes times distance, in local distances: from 21 to 10 is 1.1, to 12 is 0.9."""
    machine = sockets()
    task, _ = process(machine, 10)
    info, topology = machine.task(task.pid), machine.topology()
    plan = plan_follow(machine, info, select.everything(), Running({2: 1.0}, ran=True))
    assert saved_distance(plan, {2: 1.0}, topology) == pytest.approx(1.1 * 10 * PAGE)
    assert saved_distance(plan, {3: 1.0}, topology) == pytest.approx(0.9 * 10 * PAGE)
    assert saved_distance(plan, {2: 0.5, 0: 0.5}, topology) == 0
    four = np.array([4])
    assert saved_distance(plan, {2: 1.0}, topology, four) == pytest.approx(1.1 * 4 * PAGE)

from __future__ import annotations

import pytest

from movepages.placement.locality import Locality, locality, running_by_node
from movepages.topology import parse_topology
from movepages.values import ThreadInfo

MACHINE = parse_topology("2x(2cpu,1G) + 1x(0cpu,4G)")
"""CPUs 0 and 1 on node 0, 2 and 3 on node 1; 10 near, 20 far."""


def thread(cpu, time_ns=1):
    """Return a thread that ran last on a CPU."""
    return ThreadInfo(tid=100 + cpu, name="worker", cpu=cpu, cpu_time_ns=time_ns)


def test_threads_weigh_by_their_cpu_time():
    """A thread that has run three times as long weighs three times as much."""
    assert running_by_node([thread(0, 3000), thread(3, 1000)], MACHINE) == {0: 0.75, 1: 0.25}


def test_threads_that_never_ran_weigh_nothing_beside_one_that_did():
    """Idle threads on another node do not count as running there."""
    assert running_by_node([thread(0, 0), thread(1, 0), thread(2, 5)], MACHINE) == {1: 1.0}


def test_without_any_cpu_time_all_threads_weigh_the_same():
    """Where no thread has used CPU time yet, they are counted."""
    assert running_by_node([thread(0, 0), thread(1, 0), thread(2, 0), thread(3, 0)], MACHINE) == {
        0: 0.5,
        1: 0.5,
    }


@pytest.mark.parametrize("threads", [[], [thread(64)]])
def test_nothing_is_known_without_a_thread_on_a_known_cpu(threads):
    """Without threads, or with one on a CPU of no node, nearness is not known."""
    near = locality(threads, {0: 4096}, MACHINE)
    assert (near.running_by_node, near.near_share, near.mean_distance) == ({}, None, None)


def test_nothing_is_known_without_memory():
    """A process without memory is neither near nor far."""
    near = locality([thread(0)], {}, MACHINE)
    assert (near.near_share, near.mean_distance) == (None, None)


def test_share_and_distance_weigh_threads_and_memory():
    """Three quarters of the running on node 0 with 1 of 4 GiB, the rest on node 1 with 2 of 4."""
    memory = {0: 1 << 30, 1: 2 << 30, 2: 1 << 30}
    near = locality([thread(1, 3), thread(2, 1)], memory, MACHINE)
    assert near.near_share == 0.75 * 0.25 + 0.25 * 0.5
    assert near.mean_distance == 0.75 * (2.5 + 10 + 5) + 0.25 * (5 + 5 + 5)


def test_all_memory_near():
    """Memory all on the node of the threads is near, at the distance of a node to itself."""
    near = locality([thread(2), thread(3)], {1: 8192}, MACHINE)
    assert (near.near_share, near.mean_distance) == (1.0, 10.0)


def test_distances_that_are_not_known():
    """A machine that does not tell distances has 10 for near and 20 for far."""
    near = Locality({0: 1.0}, {0: 4096, 5: 4096}, {})
    assert near.mean_distance == 15.0

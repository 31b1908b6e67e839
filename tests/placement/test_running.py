"""Where a process runs is told by CPU time, of a while or of all its life."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from movepages.placement.running import Running, running, time_between
from movepages.topology import parse_topology
from movepages.values import ThreadInfo

TOPOLOGY = parse_topology("2x(2cpu,64M) + 1x(0cpu,64M)")


def thread(tid, cpu, time_ns):
    """Return a thread that ran last on a CPU, after so much time in all."""
    return ThreadInfo(tid, "t", cpu, time_ns)


def test_only_the_time_between_two_looks_counts():
    """A thread that ran long ago weighs nothing against one that ran since the first look."""
    before = [thread(1, 0, 10**12), thread(2, 3, 5)]
    now = [thread(1, 0, 10**12), thread(2, 3, 9)]
    assert running(now, TOPOLOGY, before) == Running({1: 1.0}, ran=True)
    assert running(now, TOPOLOGY).share[0] > 0.99


def test_shares_add_up_by_node():
    """CPUs 0 and 1 are of node 0, and 2 of node 1: threads there count together."""
    found = running([thread(1, 0, 30), thread(2, 1, 10), thread(3, 2, 60)], TOPOLOGY)
    assert found == Running({0: 0.4, 1: 0.6}, ran=True)


def test_who_has_not_run_is_where_it_was():
    """Without any time in between, each thread counts alike, where it ran last; that is said."""
    threads = [thread(1, 0, 7), thread(2, 2, 7), thread(3, 3, 0)]
    assert running(threads, TOPOLOGY, threads) == Running({0: 1 / 3, 1: 2 / 3}, ran=False)


def test_cpus_of_no_node():
    """A thread on a CPU that is offline by now counts nowhere; with none left nothing is known."""
    assert running([thread(1, 9, 5), thread(2, 0, 5)], TOPOLOGY).share == {0: 1.0}
    assert running([thread(1, 9, 5)], TOPOLOGY) == Running({}, ran=True)
    assert running([], TOPOLOGY) == Running({}, ran=False)


def test_new_threads_and_ids_used_again():
    """A new thread counts with all its time, and so does another one with an old id."""
    before = [thread(1, 0, 100), thread(2, 0, 50)]
    now = [thread(2, 0, 20), thread(3, 0, 7)]
    assert [each.cpu_time_ns for each in time_between(before, now)] == [20, 7]


TIMES = st.dictionaries(st.integers(1, 6), st.integers(0, 10**15))


@given(TIMES, TIMES)
def test_no_time_is_lost_or_invented(before, more):
    """Threads that were there before have what they gained, and the sum is what was used."""
    now = {tid: before.get(tid, 0) + more.get(tid, 0) for tid in before | more}
    found = time_between(
        [thread(tid, 0, time) for tid, time in before.items()],
        [thread(tid, 0, time) for tid, time in now.items()],
    )
    assert {each.tid: each.cpu_time_ns for each in found} == {tid: more.get(tid, 0) for tid in now}


@pytest.mark.parametrize(
    ("share", "main"),
    [
        ({0: 1.0}, {0: 1.0}),
        ({0: 1.0, 1: 10.0}, {1: 10 / 11, 0: 1 / 11}),
        ({0: 0.99, 1: 10.0}, {1: 1.0}),
        ({0: 0.25, 1: 0.5, 2: 0.25}, {1: 0.5, 0: 0.25, 2: 0.25}),
        (dict.fromkeys(range(32), 1 / 32), dict.fromkeys(range(32), 1 / 32)),
        ({}, {}),
    ],
)
def test_the_nodes_that_count(share, main):
    """A tenth of what the busiest has is enough, less is not; of many even ones all count."""
    found = Running(share, ran=True).main_nodes()
    assert list(found) == list(main)
    assert found == pytest.approx(main)

"""On which node a page is that was touched: policies of areas and tasks, by turns, when full."""

from __future__ import annotations

import numpy as np
import pytest
from live_machine import bind

from movepages.abi import MAX_NUMNODES, Mode
from movepages.emulator.capacity import Capacity
from movepages.emulator.first_touch import Touch, place
from movepages.emulator.objects import Objects
from movepages.emulator.processes import LiveTask
from movepages.kernel import LINUX_6_12
from movepages.kernel.mempolicy import MemPolicy, Surroundings
from movepages.kernel.zonelists import build_zonelists
from movepages.nodeset import NodeSet
from movepages.topology import parse_topology

TOPOLOGY = parse_topology("4x(1cpu,4M)")
PAGES_OF_A_NODE = 1024


@pytest.fixture
def task():
    """A task without a policy."""
    return LiveTask(7, 7, None, 0, -1)


@pytest.fixture
def capacity():
    """Four nodes of 1024 pages."""
    return Capacity(TOPOLOGY, 4096, lambda: None)


@pytest.fixture
def thing():
    """An object without pages or policies."""
    return Objects().anonymous()


@pytest.fixture
def touch(task, thing, capacity):
    """Return a function that touches pages on node 2 and returns their nodes."""
    mems = TOPOLOGY.with_memory
    weights = {0: 3, 1: 1, 2: 2, 3: 1}
    at = Surroundings(2, mems, build_zonelists(TOPOLOGY), weights, LINUX_6_12, TOPOLOGY.online)

    def touched(*pages, order=0, cached=False):
        return place(
            Touch(task, at), thing.policies, np.array(pages), order, capacity, cached=cached
        ).tolist()

    return touched


def interleave(*nodes, weighted=False):
    """Return a policy that interleaves."""
    return MemPolicy(Mode.WEIGHTED_INTERLEAVE if weighted else Mode.INTERLEAVE, NodeSet(nodes))


def test_page_without_policy_is_local(touch, capacity):
    """It is on the node of the CPU that touched it, and counted there."""
    assert touch(1, 2, 3) == [2, 2, 2]
    assert capacity.used[:4].tolist() == [0, 0, 3, 0]


def test_area_goes_before_task(touch, task, thing):
    """The policy of a page's range holds up to its end; beyond it the task's does."""
    task.policy = bind(3)
    thing.policies.set(10, 12, bind(1))
    assert touch(9, 10, 11, 12) == [3, 1, 1, 3]


def test_interleave_goes_by_the_place_of_the_page(touch, thing):
    """The n-th page of an object is on the n-th node counted round, whatever was touched first."""
    thing.policies.set(0, 100, interleave(0, 1, 3))
    assert touch(5) == [3]
    assert touch(0, 1, 2, 3, 4) == [0, 1, 3, 0, 1]


def test_weighted_interleave_gives_each_node_its_weight(touch, thing):
    """With weights 3, 1 and 2 a round has six pages."""
    thing.policies.set(0, 100, interleave(0, 1, 2, weighted=True))
    assert touch(*range(7)) == [0, 0, 0, 1, 2, 2, 0]


def test_huge_pages_are_interleaved_as_one_each(touch, thing, capacity):
    """Of folios of order 9 each has the next node, and takes 512 pages of it."""
    thing.policies.set(0, 1 << 20, interleave(1, 3))
    assert touch(0, 512, 1024, order=9) == [1, 3, 1]
    assert capacity.used[:4].tolist() == [0, 1024, 0, 512]


def test_page_cache_goes_by_turns_and_not_by_area(touch, task, thing):
    """Pages of an ordinary file follow the task's policy, from where its last turn ended."""
    thing.policies.set(0, 100, bind(2))
    task.policy = interleave(0, 1, 3)
    assert touch(50, 7, cached=True) == [0, 1]
    assert touch(7, 8, cached=True) == [3, 0]
    assert task.il_prev == 0


def test_turns_begin_before_the_first_node(touch, task):
    """A task that never interleaved begins with the lowest node."""
    task.policy, task.il_prev = interleave(1, 2), MAX_NUMNODES - 1
    assert touch(0, cached=True) == [1]


@pytest.mark.parametrize(("taken", "nodes"), [(1022, [2, 2]), (1023, [2, 0]), (1024, [0, 0])])
def test_full_node_hands_over_to_the_next(touch, capacity, taken, nodes):
    """The last page of a node is given; what comes after it is on the next of the zone list."""
    capacity.take(2, taken)
    zonelist = build_zonelists(TOPOLOGY)[2]
    assert zonelist[0] == 2
    expected = [zonelist[1] if node == 0 else node for node in nodes]
    assert touch(1, 2) == expected


def test_bound_page_stays_on_its_node_beyond_what_that_has(touch, task, capacity):
    """A page that is there although its nodes are full is counted on the first of them."""
    task.policy = bind(1)
    capacity.take(1, PAGES_OF_A_NODE)
    assert touch(1, 2) == [1, 1]
    assert capacity.used[1] == PAGES_OF_A_NODE + 2
    assert capacity.free(1) == 0


def test_no_page_takes_no_memory(touch, capacity):
    """Nothing touched is nothing placed."""
    assert touch() == []
    assert not capacity.used.any()

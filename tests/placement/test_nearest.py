"""Pages come to the nearest node with room, and never farther from where they are used."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, strategies as st

from movepages.nodeset import NodeSet
from movepages.placement.nearest import distances_from, near_nodes, nearest_with_room
from movepages.topology import declared_topology
from movepages.values import NO_NODE, Placement

PAGE, HUGE = 4096, 2 << 20
DISTANCES = ([10, 16, 21, 31], [16, 10, 31, 21], [21, 31, 10, 16], [31, 21, 16, 10])
TOPOLOGY = declared_topology([(1, 1 << 30, row) for row in DISTANCES])
ALL = NodeSet(range(4))


def placed(nodes, sizes=PAGE):
    """Return a placement of pages with their sizes, far enough from each other, on their nodes."""
    count = len(nodes)
    start = np.arange(count, dtype=np.uint64) * np.uint64(2 * HUGE)
    every = np.broadcast_to(np.asarray(sizes, np.int64), count).copy()
    return Placement(start, np.ones(count, np.int64), every, np.array(nodes, np.int32))


def brought(nodes, users, free_pages, *, sizes=PAGE, allowed=ALL, weight=1):
    """Return the node for each page, with so many free base pages on each node."""
    free = {node: pages * PAGE for node, pages in enumerate(free_pages)}
    user = np.array(users, np.int32)
    return nearest_with_room(placed(nodes, sizes), user, TOPOLOGY, allowed, free, weight).tolist()


def test_to_its_user():
    """With room everywhere each page comes to its user; one without a user stays."""
    assert brought([0, 0, 0, 3], [1, 3, NO_NODE, 3], [9] * 4) == [1, 3, 0, 3]


@pytest.mark.parametrize(("free", "to"), [(2, [2, 2]), (1, [2, 3]), (0, [3, 3])])
def test_to_the_page(free, to):
    """What has no room goes on to the next nearest: node 3, at 16, from node 2."""
    assert brought([0, 0], [2, 2], [0, 9, free, 9]) == to


def test_never_farther():
    """From node 0, at 21 from its user 2, a page does not go to node 1, at 31."""
    assert brought([0], [2], [9, 9, 0, 0]) == [0]


def test_only_allowed_nodes():
    """Outside the cpuset there is no target: the nearest inside is taken, or none."""
    assert brought([1], [2], [9] * 4, allowed=NodeSet([0, 1])) == [0]
    assert brought([0], [2], [9] * 4, allowed=NodeSet([1])) == [0]
    assert brought([0], [2], [9] * 4, allowed=NodeSet()) == [0]


def test_large_pages_first_then_what_gains_most():
    """There is room for one huge page and one small one: the heavier of those."""
    sizes = [PAGE, HUGE, PAGE, HUGE]
    room = [0, 0, HUGE // PAGE + 1, 0]
    to = brought([0] * 4, [2] * 4, room, sizes=sizes, weight=np.array([1, 9, 5, 3]))
    assert to == [0, 2, 2, 0]


def test_the_farthest_first():
    """Of two pages of one weight, that from 31 away goes before that from 21."""
    assert brought([0, 1], [2, 2], [0, 0, 1, 0]) == [0, 2]


def test_each_has_its_own_node_before_anyone_is_sent_there():
    """Node 3 is user 3's first, though user 2, that has no room, would take it, too."""
    assert brought([0, 0], [2, 3], [0, 0, 0, 1]) == [0, 3]


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(-1, 3), st.booleans()), max_size=20),
    st.lists(st.integers(0, 1100), min_size=4, max_size=4),
    st.sets(st.integers(0, 3)),
)
def test_room_is_kept_and_nobody_loses(pages, free_pages, allowed):
    """No node takes more than is free; a page that moves comes nearer; one that stays had to."""
    nodes, users = [page[0] for page in pages], [page[1] for page in pages]
    sizes = [HUGE if huge else PAGE for _, _, huge in pages]
    to = brought(nodes, users, free_pages, sizes=sizes, allowed=NodeSet(allowed))
    coming = Counter()
    for node, target, size in zip(nodes, to, sizes, strict=True):
        coming[target] += size if target != node else 0
    left = {node: pages * PAGE - coming[node] for node, pages in enumerate(free_pages)}
    assert min(left.values()) >= 0
    for node, user, target, size in zip(nodes, users, to, sizes, strict=True):
        if target != node:
            assert target in allowed
            assert DISTANCES[user][target] < DISTANCES[user][node]
        if user >= 0:
            better = [n for n in allowed if DISTANCES[user][n] < DISTANCES[user][target]]
            assert all(left[node] < size for node in better)


def test_the_nearest_nodes():
    """By distance; of those as near, the one with more free memory; the rest by number."""
    even = declared_topology([(1, 1 << 30, None) for _ in range(4)])
    assert near_nodes(1, even, ALL, {0: 5, 2: 9, 3: 5}) == [(10, 1), (20, 2), (20, 0), (20, 3)]
    assert near_nodes(1, even, NodeSet([0, 3]), {}) == [(20, 0), (20, 3)]


def test_distances_from_a_node_that_is_not_there():
    """Nothing can be reached from it, and the last number, that of no node, from nowhere."""
    assert distances_from(2, TOPOLOGY).tolist() == [21, 31, 10, 16, 255]
    assert set(distances_from(7, TOPOLOGY).tolist()) == {255}

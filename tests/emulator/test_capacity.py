"""Counters of nodes' memory, at their limits."""

from __future__ import annotations

import numpy as np
import pytest

from movepages.emulator.capacity import Capacity
from movepages.emulator.overlay import MAX_NODES
from movepages.errors import TopologyError
from movepages.nodeset import NodeSet
from movepages.topology import Node, Topology, parse_topology

PAGE = 4096


@pytest.fixture
def reclaimed():
    """Collects how often memory was looked for."""
    return []


@pytest.fixture
def capacity(reclaimed):
    """Node 0 with 1024 pages, node 1 with 512, node 2 with none."""
    topology = parse_topology("1x(1cpu,4M) + 1x(1cpu,2M) + 1x(1cpu,0)")
    return Capacity(topology, PAGE, lambda: reclaimed.append(True))


def pages(**counts):
    """Return counts by node, such as n1=3."""
    array = np.zeros(MAX_NODES, dtype=np.int64)
    for node, count in counts.items():
        array[int(node[1:])] = count
    return array


def test_nodes_have_the_pages_that_they_declare(capacity):
    """Free pages are memory by page size, and 0 for a node without memory."""
    assert [capacity.free(node) for node in range(3)] == [1024, 512, 0]


@pytest.mark.parametrize(("wanted", "found"), [(1023, 1023), (1024, 1024), (1025, 1024)])
def test_node_gives_what_it_has_and_not_more(capacity, wanted, found):
    """One page less than there is, all, and one too many."""
    assert capacity.take(0, wanted) == found
    assert capacity.free(0) == 1024 - found
    assert capacity.free(1) == 512


@pytest.mark.parametrize(("used", "found"), [(512, 1), (513, 0)])
def test_huge_page_needs_all_of_its_pages(capacity, used, found):
    """A folio of order 9 fits into 512 free pages, and not into 511."""
    assert capacity.take(0, used) == used
    assert capacity.take(0, 2, 9) == found
    assert capacity.free(0) == 1024 - used - 512 * found


def test_memory_is_looked_for_only_when_short(capacity, reclaimed):
    """Reclaim is called for a page that does not fit, not before, and not where there is none."""
    capacity.take(1, 512)
    capacity.take(2, 1)
    assert not reclaimed
    assert capacity.take(1, 1) == 0
    assert len(reclaimed) == 1


def test_what_reclaim_finds_is_taken():
    """Pages that are released meanwhile are there for the one who asked."""
    capacity = Capacity(parse_topology("1 x 4M"), PAGE, lambda: capacity.release(pages(n0=3)))
    capacity.take(0, 1024)
    assert capacity.take(0, 5) == 3


def test_overdrawn_node_has_nothing_free_until_it_is_paid_back(capacity):
    """Pages that are there are counted beyond what a node has; releasing them counts back."""
    capacity.charge(pages(n1=600))
    assert (capacity.free(1), capacity.take(1, 1)) == (0, 0)
    capacity.release(pages(n1=88))
    assert capacity.free(1) == 0
    capacity.release(pages(n1=1))
    assert capacity.free(1) == 1


def test_releasing_more_than_is_used_makes_no_memory(capacity):
    """A node never has more free pages than it declares."""
    capacity.take(0, 1)
    capacity.release(pages(n0=2, n2=1))
    assert [capacity.free(node) for node in range(3)] == [1024, 512, 0]


@pytest.mark.parametrize("node", [MAX_NODES - 1, MAX_NODES])
def test_node_numbers_have_an_end(node):
    """Node 127 can be emulated; node 128 is refused in a sentence that says which can."""
    topology = Topology((Node(node, memory_bytes=4 << 20),), NodeSet([node]))
    if node < MAX_NODES:
        assert Capacity(topology, PAGE, lambda: None).free(node) == 1024
        return
    with pytest.raises(TopologyError, match=r"^node 128: emulated nodes are numbered 0 to 127$"):
        Capacity(topology, PAGE, lambda: None)

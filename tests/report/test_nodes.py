from __future__ import annotations

import io

import pytest

from movepages.nodeset import NodeSet
from movepages.report.nodes import to_json, write_text
from movepages.report.output import Output
from movepages.topology import Access, Node, Topology


def shown(topology, width=None):
    """Return the lines for a topology."""
    stream = io.StringIO()
    write_text(topology, Output(stream, width=width))
    return stream.getvalue().splitlines()


def of_nodes(number, **facts):
    """Return a topology of some nodes, 20 apart."""
    distances = {
        node: {other: 10 if node == other else 20 for other in range(number)}
        for node in range(number)
    }
    return Topology(
        tuple(Node(node, distances=distances[node], **facts) for node in range(number)),
        NodeSet(range(number)),
    )


def test_columns_that_a_machine_lacks_are_left_out():
    """Without tiers and weights there are no empty columns for them."""
    assert shown(of_nodes(1, cpus=(0,)))[0] == "NODE  CPUS  MEMORY  FREE"


@pytest.mark.parametrize(("nodes", "blocks"), [(14, 1), (15, 2)])
def test_wide_distance_matrix_is_cut_into_blocks(nodes, blocks):
    """14 nodes fit 80 columns; of 15 the last column stands in a block of its own."""
    lines = shown(of_nodes(nodes), width=80)
    assert sum(line.startswith("Distance") for line in lines) == blocks
    assert max(map(len, lines)) <= 80
    assert sum(line.split()[2:].count("10") for line in lines if line.startswith("node")) == nodes


def test_matrix_is_whole_in_a_pipe():
    """In a pipe the matrix is one block however many nodes there are."""
    assert sum(line.startswith("Distance") for line in shown(of_nodes(64))) == 1


def test_kernel_without_distances():
    """A machine that states no distances has no matrix."""
    topology = Topology((Node(0),), NodeSet([0]))
    assert not any(line.startswith("Distance") for line in shown(topology))


def test_speeds_are_those_of_any_initiator():
    """Class 0 is shown where both are stated; JSON has both."""
    accesses = (Access(1, NodeSet([0]), 200, 200), Access(0, NodeSet([0]), 100, 100))
    topology = Topology((Node(0, accesses=accesses),), NodeSet([0]))
    assert shown(topology)[-1].split() == ["0", "0", "100", "100", "-", "-"]
    assert [each["access_class"] for each in to_json(topology)["nodes"][0]["accesses"]] == [1, 0]

"""The order in which nodes are asked for memory."""

from __future__ import annotations

from movepages.kernel.zonelists import build_zonelists
from movepages.topology import parse_topology


def lists(topology):
    """Return the zonelists, as strings of node numbers."""
    return [
        "".join(map(str, nodes)) for nodes in build_zonelists(parse_topology(topology)).values()
    ]


def with_distances(*rows):
    """Declare a machine of nodes with a CPU each, by its matrix of distances."""
    return "\n".join(f"[[nodes]]\ncpus = 1\ndistances = {list(row)}" for row in rows)


TWO_PAIRS = with_distances((10, 12, 32, 32), (12, 10, 32, 32), (32, 32, 10, 12), (32, 32, 12, 10))


def test_equals_take_turns():
    """The example of 54d032ced983: of nodes 2 and 3, one falls back to 0 first, the other to 1."""
    assert lists(TWO_PAIRS) == ["0123", "1032", "2301", "3210"]


def test_nearer_nodes_come_first():
    """Distance decides before all else, read from the node outwards."""
    rows = ((10, 41, 31, 21), (22, 10, 42, 32), (33, 43, 10, 51), (44, 34, 24, 10))
    assert lists(with_distances(*rows)) == ["0321", "1032", "2013", "3210"]


def test_nodes_without_cpus_come_first_among_equals():
    """On the machine that Linux was observed on, node 0 falls back to node 2, not to node 1."""
    assert lists("2x(1cpu,16M) + 2x(0cpu,16M)")[0] == "0231"


def test_one_node():
    """A node alone has itself."""
    assert lists("1") == ["0"]

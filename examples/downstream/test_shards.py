"""What `shards` promises, on machines that nobody here has."""

from __future__ import annotations

import pytest
from shards import make_shards, memory_nodes, nodes_of

SIZE_BYTES = 1 << 20


@pytest.mark.numa_nodes(4)
def test_each_shard_is_on_its_node() -> None:
    """Four nodes get four shards, each with all its pages on its own node."""
    shards = make_shards(SIZE_BYTES)
    assert {node: set(nodes_of(shard)) for node, shard in shards.items()} == {
        0: {0},
        1: {1},
        2: {2},
        3: {3},
    }


@pytest.mark.numa_nodes(topology="2x(1cpu,1G) + 1x(0cpu,4G)")
def test_node_without_cpus() -> None:
    """A node that has memory alone, as CXL brings, has a shard too."""
    assert list(make_shards(SIZE_BYTES)) == [0, 1, 2]


@pytest.mark.parametrize(
    "count", [pytest.param(n, marks=pytest.mark.numa_nodes(n)) for n in (1, 2, 64)]
)
def test_nodes_are_counted(count: int) -> None:
    """The list of nodes is understood, however many there are."""
    assert len(memory_nodes()) == count


def test_this_machine() -> None:
    """On the machine as it is, there is a shard for each of its nodes."""
    assert list(make_shards(SIZE_BYTES)) == memory_nodes()

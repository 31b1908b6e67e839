"""Names and numbers for users, which are known without importing what they stand for."""

from __future__ import annotations

import pytest

from movepages.emulator.declared import (
    MOST_NODES,
    PRECISIONS,
    SEMANTICS,
    equal_nodes,
    semantics_named,
)
from movepages.emulator.filter import Precision
from movepages.emulator.overlay import MAX_NODES
from movepages.kernel.semantics import ALL_SEMANTICS
from movepages.topology import parse_topology


def test_they_are_those_of_the_emulator():
    """Precisions, kernels and the number of nodes are the same under both names."""
    assert list(PRECISIONS) == [level.value for level in Precision]
    assert {id(semantics_named(name)) for name in SEMANTICS} == set(map(id, ALL_SEMANTICS))
    assert MOST_NODES == MAX_NODES


@pytest.mark.parametrize("nodes", [1, 3, MOST_NODES])
def test_equal_nodes(nodes):
    """The nodes have the same memory each, at least a mebibyte."""
    topology = parse_topology(equal_nodes(nodes))
    sizes = {node.memory_bytes for node in topology}
    assert len(list(topology)) == nodes
    assert len(sizes) == 1
    assert sizes.pop() % (1 << 20) == 0

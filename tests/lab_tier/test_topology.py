"""The topology that the lab was told to be is the topology that is read in it."""

from __future__ import annotations

import os

import pytest
from labkit.topologies import TOPOLOGIES

from movepages import api
from movepages.linux.machine import LinuxMachine

pytestmark = [pytest.mark.lab, pytest.mark.needs_nodes(4)]

MIB = 1 << 20
_KERNEL_TAKES = 48 * MIB
"""The kernel's own share of a node: node 0 has its text and more."""


@pytest.fixture
def topology():
    """The machine as movepages reads it."""
    return api.read_topology()


@pytest.fixture
def declared():
    """The machine as the lab declared it to QEMU."""
    return TOPOLOGIES[os.environ["MOVEPAGES_LAB"]]


def test_distances(topology, declared):
    """Every distance is the declared one, though none equals its way back."""
    matrix = [[node.distances[to] for to in range(4)] for node in topology]
    assert matrix == [list(row) for row in declared.distances]


def test_nodes_without_cpus(topology, declared):
    """Nodes 2 and 3 have memory and no CPU; CPU 1 belongs to node 1."""
    assert [node.cpus for node in topology] == [node.cpus for node in declared.nodes]
    assert [node.has_memory for node in topology] == [True] * 4
    assert str(topology.with_cpus) == "0-1"
    assert topology.node_of_cpu(1) == 1


def test_memory(topology, declared):
    """A node has as much memory as was declared, but for what the kernel keeps; some is free."""
    for node, said in zip(topology, declared.nodes, strict=True):
        assert said.mib * MIB - _KERNEL_TAKES <= node.memory_bytes <= said.mib * MIB
        assert 0 < node.free_bytes < node.memory_bytes
    assert LinuxMachine().free_bytes().keys() == {0, 1, 2, 3}


def test_sets_of_nodes(topology):
    """Online, possible and with memory are all the four nodes; without HMAT they are one tier."""
    sets = (topology.online, topology.possible, topology.with_memory)
    assert [str(nodes) for nodes in sets] == ["0-3"] * 3
    assert [str(tier.nodes) for tier in topology.tiers] == ["0-3"]


def test_pools_and_weights(topology, pools):
    """A node's huge pages are in its pool, and its interleave weight is 1 unless set."""
    pools.set(2, 3)
    pool = next(p for p in api.read_topology().node(2).huge_pools if p.page_size_bytes == 2 * MIB)
    assert (pool.total, pool.free, pool.surplus) == (3, 3, 0)
    assert [node.weight for node in topology] == [1] * 4

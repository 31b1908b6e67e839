from __future__ import annotations

import dataclasses
import pickle

import pytest

from movepages.nodeset import NodeSet
from movepages.topology import LOCAL_DISTANCE, Access, HugePool, Node, Tier, Topology


@pytest.fixture
def machine() -> Topology:
    """Node 0 with CPUs and memory, 2 without CPUs, 5 with CPUs but without memory."""
    return Topology(
        nodes=(
            Node(0, cpus=(0, 1), memory_bytes=1 << 30, distances={0: 10, 2: 17, 5: 20}),
            Node(2, memory_bytes=1 << 30, distances={0: 17, 2: 10, 5: 28}),
            Node(5, cpus=(2, 7), has_memory=False, distances={0: 20, 2: 28, 5: 10}),
        ),
        possible=NodeSet(range(8)),
        tiers=(Tier(4, NodeSet([0])), Tier(22, NodeSet([2]))),
    )


def test_node_sets_tell_what_nodes_have(machine):
    """Online, with memory and with CPUs are different sets."""
    assert machine.online == {0, 2, 5}
    assert machine.with_memory == {0, 2}
    assert machine.with_cpus == {0, 5}
    assert machine.possible == set(range(8))


def test_nodes_are_found_by_id_not_by_position(machine):
    """Ids may have gaps."""
    assert machine.node(5).cpus == (2, 7)
    assert [node.id for node in machine] == [0, 2, 5]


@pytest.mark.parametrize("node", [1, 3, -1, 8])
def test_a_node_that_is_not_there_is_a_key_error(machine, node):
    """A possible node that is not online has nothing to tell, nor has the third of three."""
    with pytest.raises(KeyError):
        machine.node(node)


@pytest.mark.parametrize(("cpu", "node"), [(0, 0), (1, 0), (2, 5), (7, 5)])
def test_a_cpu_belongs_to_a_node(machine, cpu, node):
    """CPU numbers may have gaps as well."""
    assert machine.node_of_cpu(cpu) == node


@pytest.mark.parametrize("cpu", [-1, 3, 8])
def test_a_cpu_that_is_not_there_is_a_key_error(machine, cpu):
    """No node is guessed for a CPU."""
    with pytest.raises(KeyError):
        machine.node_of_cpu(cpu)


def test_a_node_with_cpus_but_no_memory_is_no_target(machine):
    """Such a node is online, but pages cannot be on it."""
    assert 5 in machine.online
    assert 5 not in machine.with_memory


def test_distances_need_not_be_the_same_both_ways():
    """A distance is from here to there; 10 is a node's to itself."""
    node = Node(1, distances={0: 21, 1: LOCAL_DISTANCE})
    assert node.distances[1] == LOCAL_DISTANCE == 10
    assert node.distances[0] == 21


def test_the_values_are_frozen_and_comparable(machine):
    """A topology is a value: equal to another of the same content, and unchangeable."""
    assert machine == pickle.loads(pickle.dumps(machine))  # noqa: S301 - made here
    assert machine != dataclasses.replace(machine, tiers=())
    for value in (
        machine,
        machine.nodes[0],
        machine.tiers[0],
        Access(0, NodeSet()),
        HugePool(1, 2, 3, 4),
    ):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, dataclasses.fields(value)[0].name, None)

from __future__ import annotations

import re

import pytest
from labkit.topologies import TOPOLOGIES, Link, Node, Topology, qemu_args

ALL = list(TOPOLOGIES.values())


def values(topology, option):
    """Return the values of an option that is given several times."""
    words = qemu_args(topology)
    return [words[i + 1] for i, word in enumerate(words) if word == option]


@pytest.mark.parametrize("topology", ALL, ids=lambda t: t.name)
def test_topology_is_consistent(topology):
    """Every machine has a square matrix, 10 on its diagonal only, and CPUs numbered from 0."""
    count = len(topology.nodes)
    assert [len(row) for row in topology.distances] == [count] * count
    for source, row in enumerate(topology.distances):
        assert [n for n, distance in enumerate(row) if distance == 10] == [source]
        assert all(10 <= distance <= 254 for distance in row)
    cpus = [cpu for node in topology.nodes for cpu in node.cpus]
    assert cpus == list(range(topology.cpus)) == [0, 1]


@pytest.mark.parametrize("topology", ALL, ids=lambda t: t.name)
def test_every_ordered_pair_is_told_to_qemu(topology):
    """QEMU hears each distance as it is in the table: it would mirror what is left unsaid."""
    pattern = re.compile(r"dist,src=(\d),dst=(\d),val=(\d+)")
    found = [pattern.fullmatch(value) for value in values(topology, "-numa")]
    said = {(int(m[1]), int(m[2])): int(m[3]) for m in found if m}
    assert said == {
        (source, target): distance
        for source, row in enumerate(topology.distances)
        for target, distance in enumerate(row)
        if source != target
    }


@pytest.mark.parametrize("topology", ALL, ids=lambda t: t.name)
def test_memory_adds_up(topology):
    """The sizes of the backends are the nodes', and what is there at boot is what -m says."""
    sizes = [int(m[1]) for v in values(topology, "-object") if (m := re.search(r"size=(\d+)M", v))]
    fixed = sum(node.mib for node in topology.nodes if not node.removable)
    assert sizes == [node.mib for node in topology.nodes]
    assert values(topology, "-m")[0].split(",")[0] == f"{fixed}M"


@pytest.mark.parametrize("topology", ALL, ids=lambda t: t.name)
def test_every_cpu_has_a_socket_of_its_own(topology):
    """CPUs of two nodes never share a socket: Linux warns of a cache that spans nodes."""
    assert values(topology, "-smp") == [f"{topology.cpus},sockets={topology.cpus},maxcpus=2"]


def test_4node_distances_tell_source_from_target():
    """No two distances of 4node are equal, so that swapping source and target cannot pass."""
    rows = TOPOLOGIES["4node"].distances
    remote = [d for row in rows for d in row if d != 10]
    assert len(set(remote)) == len(remote) == 12
    assert (rows[0][1], rows[1][0]) == (21, 22)


def test_memory_only_nodes_are_farther_than_the_other_cpu():
    """From a CPU, memory-only nodes of 4node are farther than the other CPU's node."""
    rows = TOPOLOGIES["4node"].distances
    assert all(rows[cpu][target] > rows[cpu][1 - cpu] for cpu in (0, 1) for target in (2, 3))


def test_hotplug_node_has_its_memory_on_a_dimm():
    """Node 3 of hotplug starts without a backend and gets it as a DIMM, with room for it."""
    topology = TOPOLOGIES["hotplug"]
    assert "node,nodeid=3" in values(topology, "-numa")
    assert values(topology, "-device") == ["pc-dimm,id=dimm3,memdev=m3,node=3"]
    assert values(topology, "-m") == ["1536M,slots=4,maxmem=2560M"]
    assert topology.kernel_args == ("memhp_default_state=online_movable",)


def test_hmat_names_the_nearest_cpu_of_each_node():
    """Memory-only nodes name as initiator the node with CPUs that is nearest to them."""
    nodes = [v for v in values(TOPOLOGIES["hmat-tiers"], "-numa") if v.startswith("node,")]
    assert [v.rpartition("initiator=")[2] for v in nodes] == ["0", "1", "0", "1"]


def test_hmat_latencies_come_before_bandwidths():
    """QEMU refuses a bandwidth that precedes its latency."""
    kinds = [
        "latency" if "access-latency" in v else "bandwidth"
        for v in values(TOPOLOGIES["hmat-tiers"], "-numa")
        if v.startswith("hmat-lb")
    ]
    assert kinds == ["latency"] * 8 + ["bandwidth"] * 8


def test_a_machine_of_ones_own():
    """A machine is data: one that is not in the list is translated just as well."""
    machine = Topology(
        "own", "", (Node(256, (0, 1)), Node(64)), ((10, 17), (28, 10)), (Link(0, 1, 250, 60),)
    )
    assert values(machine, "-M") == ["q35,hmat=on"]
    assert values(machine, "-numa") == [
        "node,nodeid=0,memdev=m0,cpus=0,cpus=1,initiator=0",
        "node,nodeid=1,memdev=m1,initiator=0",
        "dist,src=0,dst=1,val=17",
        "dist,src=1,dst=0,val=28",
        "hmat-lb,initiator=0,target=1,hierarchy=memory,data-type=access-latency,latency=250",
        "hmat-lb,initiator=0,target=1,hierarchy=memory,data-type=access-bandwidth,bandwidth=60G",
    ]

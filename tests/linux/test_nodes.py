from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path

import pytest

from movepages.errors import MalformedError, UnsupportedError
from movepages.linux import nodes
from movepages.nodeset import NodeSet
from movepages.topology import Access, HugePool, MemorySideCache, Tier

NODES = "sys/devices/system/node"
MIB = 1 << 20

# Machine: online, with memory, with CPUs, CPUs and distances by node. All values are those that the
# machine was described by, to QEMU or in the first lines of its file, and not what we have read.
MACHINES = {
    "one-node": ("0", "0", "0", {0: (0, 1)}, {0: [10]}),
    "two-sockets": ("0-1", "0-1", "0-1", {0: (0, 1), 1: (2, 3)}, {0: [10, 21], 1: [21, 10]}),
    "sub-numa-clusters": (
        "0-3",
        "0-3",
        "0-3",
        {0: (0,), 1: (1,), 2: (2,), 3: (3,)},
        {0: [10, 12, 21, 21], 1: [12, 10, 21, 21], 2: [21, 21, 10, 12], 3: [21, 21, 12, 10]},
    ),
    "eight-nodes": (
        "0-7",
        "0-7",
        "0-7",
        {node: (node,) for node in range(8)},
        {a: [10 if a == b else 16 if a // 4 == b // 4 else 32 for b in range(8)] for a in range(8)},
    ),
    "cpu-less": (
        "0-2",
        "0-2",
        "0-1",
        {0: (0,), 1: (1,), 2: ()},
        {0: [10, 21, 14], 1: [21, 10, 24], 2: [14, 24, 10]},
    ),
    "memory-less": (
        "0-2",
        "0,2",
        "0-1",
        {0: (0,), 1: (1,), 2: ()},
        {0: [10, 20, 30], 1: [20, 10, 20], 2: [30, 20, 10]},
    ),
    "memory-removed": (
        "0-3",
        "0-2",
        "0-1",
        {0: (0,), 1: (1,), 2: (), 3: ()},
        {0: [10, 21, 31, 41], 1: [22, 10, 42, 32], 2: [33, 43, 10, 51], 3: [44, 34, 52, 10]},
    ),
    "gaps-in-ids": (
        "0-1,3",
        "0-1,3",
        "0-1",
        {0: (0,), 1: (1,), 3: ()},
        {0: [10, 21, 28], 1: [21, 10, 17], 3: [28, 17, 10]},
    ),
    "hmat-tiers": (
        "0-3",
        "0-3",
        "0-1",
        {0: (0,), 1: (1,), 2: (), 3: ()},
        {0: [10, 21, 31, 41], 1: [22, 10, 42, 32], 2: [33, 43, 10, 51], 3: [44, 34, 52, 10]},
    ),
}


@pytest.mark.parametrize("name", MACHINES)
def test_captured_machine(tree, name):
    """Nodes, CPUs and distances of each captured machine are those that it was made with."""
    online, with_memory, with_cpus, cpus, distances = MACHINES[name]
    topology = nodes.read_topology(tree(name))
    assert str(topology.online) == online
    assert str(topology.with_memory) == with_memory
    assert str(topology.with_cpus) == with_cpus
    assert {node.id: node.cpus for node in topology} == cpus
    assert {node.id: list(node.distances.values()) for node in topology} == distances
    assert all(node.distances[node.id] == 10 for node in topology)
    assert all(list(node.distances) == list(topology.online) for node in topology)


@pytest.mark.parametrize("name", MACHINES)
def test_lists_need_one_file_each(tree, name):
    """Online nodes, those with memory and those with CPUs are told without reading the nodes."""
    root = tree(name)
    for directory in (root / NODES).glob("node*"):
        shutil.rmtree(directory)
    online, with_memory, with_cpus, *_ = MACHINES[name]
    assert str(nodes.read_online(root)) == online
    assert str(nodes.read_has_memory(root)) == with_memory
    assert str(nodes.read_has_cpu(root)) == with_cpus


def test_every_machine_is_tested():
    """A captured machine that no test expects anything of is a mistake."""
    captured = Path(__file__).parents[1] / "topologies"
    assert {path.stem for path in captured.glob("*.txt")} == set(MACHINES)


def test_memory_is_that_of_the_machine(tree):
    """A node shows most of the 512 MiB that it was made with, or none where it was removed."""
    topology = nodes.read_topology(tree("memory-removed"))
    for node in (0, 1):
        assert 448 * MIB <= topology.node(node).memory_bytes <= 512 * MIB
        assert 0 < topology.node(node).free_bytes < topology.node(node).memory_bytes
    assert topology.node(3).memory_bytes == topology.node(3).free_bytes == 0
    assert not topology.node(3).has_memory


def test_node_that_is_only_possible(tree):
    """A node that is not online is among the possible ones, and has no distance."""
    topology = nodes.read_topology(tree("gaps-in-ids"))
    assert topology.possible == NodeSet([0, 1, 2, 3])
    assert 2 not in topology.online
    assert topology.node(0).distances == {0: 10, 1: 21, 3: 28}


def test_latency_and_bandwidth_from_hmat(tree):
    """Latencies in ns, bandwidths in MiB/s are those of the best initiators, for both classes."""
    topology = nodes.read_topology(tree("hmat-tiers"))
    near = {"read_latency_ns": 100, "write_latency_ns": 100}
    near |= {"read_bandwidth_mib_per_s": 200 * 1024, "write_bandwidth_mib_per_s": 200 * 1024}
    far = {"read_latency_ns": 300, "write_latency_ns": 300}
    far |= {"read_bandwidth_mib_per_s": 50 * 1024, "write_bandwidth_mib_per_s": 50 * 1024}
    expected = {0: (0, near), 1: (1, near), 2: (0, far), 3: (1, far)}
    for node, (initiator, performance) in expected.items():
        assert topology.node(node).accesses == tuple(
            Access(access_class, NodeSet([initiator]), **performance) for access_class in (0, 1)
        )


def test_a_memory_side_cache_from_hmat(tree):
    """Node 3 has the 16M direct-mapped write-back cache that the lab's topology declares."""
    topology = nodes.read_topology(tree("hmat-tiers"))
    assert topology.node(3).side_caches == (
        MemorySideCache(
            level=1, size_bytes=16 << 20, line_size_bytes=64, indexing=0, write_policy=0
        ),
    )
    assert topology.node(2).side_caches == ()


def test_tiers_are_sorted_from_fast_to_slow(tree, put):
    """A smaller number is faster, also where it has fewer digits; a tier without nodes is none."""
    topology = nodes.read_topology(tree("hmat-tiers"))
    assert topology.tiers == (Tier(4, NodeSet([0, 1])), Tier(54, NodeSet([2, 3])))
    root = tree("one-node")
    for tier, text in ((10, "1\n"), (7, "\n")):
        put(f"one-node/sys/devices/virtual/memory_tiering/memory_tier{tier}/nodelist", text)
    tiers = nodes.read_topology(root).tiers
    assert tiers == (Tier(4, NodeSet([0])), Tier(10, NodeSet([1])))


def test_kernel_without_tiers_weights_and_huge_pages(tree):
    """What an older kernel does not have is absent from the topology, not an error."""
    root = tree("two-sockets")
    shutil.rmtree(root / "sys/devices/virtual")
    shutil.rmtree(root / "sys/kernel")
    for directory in (root / NODES).glob("node*/hugepages"):
        shutil.rmtree(directory)
    topology = nodes.read_topology(root)
    assert topology.tiers == ()
    assert [(node.weight, node.huge_pools, node.accesses) for node in topology] == [
        (None, (), ()),
        (None, (), ()),
    ]


def test_weights_and_huge_pools(tree, put):
    """Weights are those of node files only; pools are listed from small pages to large ones."""
    root = tree("one-node")  # its kernel also has a file beside the nodes', for auto-tuning
    put("one-node/sys/kernel/mm/mempolicy/weighted_interleave/node0", "255\n")
    for name, count in (("nr", 8), ("free", 5), ("surplus", 2)):
        put(f"one-node/{NODES}/node0/hugepages/hugepages-2048kB/{name}_hugepages", f"{count}\n")
    (node,) = nodes.read_topology(root).nodes
    assert node.weight == 255
    assert node.huge_pools == (HugePool(2 * MIB, 8, 5, 2), HugePool(1024 * MIB, 0, 0, 0))


def test_blocks_of_whole_nodes(tree):
    """Each block belongs to the node it is linked under; 512 MiB are four blocks of 128 MiB."""
    size, blocks = nodes.read_block_nodes(tree("hmat-tiers"))
    assert size == 128 * MIB
    assert blocks == {block: (block // 4,) for block in range(16)}


def test_blocks_that_two_nodes_share(tree):
    """Where a node ends inside a block (320 MiB, then 192 each), both nodes are named."""
    size, blocks = nodes.read_block_nodes(tree("eight-nodes"))
    ends = [320 + 192 * node for node in range(8)]  # MiB at which each node ends
    starts = [0, *ends[:-1]]
    expected = {
        block: tuple(
            node
            for node in range(8)
            if starts[node] < (block + 1) * 128 and block * 128 < ends[node]
        )
        for block in range(13)
    }
    assert (size, blocks) == (128 * MIB, expected)
    assert [block for block, owners in blocks.items() if len(owners) == 2] == [2, 5, 8, 11]


def test_block_that_no_node_has(tree):
    """A block that is linked under no node is listed without one."""
    root = tree("two-sockets")
    (root / NODES / "node1/memory7").unlink()
    _, blocks = nodes.read_block_nodes(root)
    assert blocks[7] == ()
    assert blocks[6] == (1,)


def test_directories_named_like_blocks_are_not_blocks(tree):
    """memory_side_cache and memory_failure begin as a block does."""
    root = tree("one-node")
    (root / NODES / "node0/memory_side_cache").mkdir()
    _, blocks = nodes.read_block_nodes(root)
    assert blocks[0] == (0,)
    assert all(isinstance(block, int) for block in blocks)


def test_free_memory_by_node(tree):
    """Free memory is in bytes, and 0 for a node without memory."""
    root = tree("memory-less")
    free = nodes.read_free_bytes(root)
    assert free == {node: nodes.read_meminfo(node, root)["MemFree"] for node in range(3)}
    assert free[1] == 0
    assert free[0] > 0


def test_meminfo_units(put):
    """Lines in kB become bytes, counts of huge pages stay counts."""
    root = put(
        f"{NODES}/node5/meminfo",
        "Node 5 MemTotal:        2048 kB\nNode 5 MemFree:  1 kB\n"
        "Node 5 Active(anon):    3 kB\nNode 5 HugePages_Total:     7\n",
    )
    assert nodes.read_meminfo(5, root) == {
        "MemTotal": 2 * MIB,
        "MemFree": 1024,
        "Active(anon)": 3072,
        "HugePages_Total": 7,
    }


def test_numastat(tree):
    """A node's counters are read by name; on one node no allocation can miss."""
    numastat = nodes.read_numastat(0, tree("one-node"))
    assert numastat["numa_miss"] == numastat["numa_foreign"] == numastat["other_node"] == 0
    assert numastat["local_node"] == numastat["numa_hit"] > 0


@pytest.mark.parametrize(
    "read",
    [nodes.read_topology, nodes.read_online, nodes.read_has_memory, nodes.read_free_bytes],
)
def test_kernel_without_numa(tmp_path, read):
    """A machine that shows no nodes is told so, with what would help."""
    with pytest.raises(UnsupportedError, match=r"does not show its nodes .* CONFIG_NUMA"):
        read(tmp_path)


def test_kernel_without_memory_blocks(tree):
    """Without memory blocks, pages cannot be found by frame: an error that says so."""
    root = tree("one-node")
    shutil.rmtree(root / "sys/devices/system/memory")
    with pytest.raises(UnsupportedError, match="does not show its memory blocks"):
        nodes.read_block_nodes(root)


@pytest.mark.parametrize(
    ("name", "text", "place"),
    [
        ("online", "zero\n", "node/online, line 1: online"),
        ("has_memory", "1-0\n", "node/has_memory, line 1: has_memory"),
        ("possible", "0-1,x\n", "node/possible, line 1: possible"),
        ("node1/distance", "21 x\n", "node1/distance, line 1: distance to node 1"),
        ("node1/distance", "21\n", "node1/distance, line 1: distance: 1 distances for the 2"),
        ("node1/distance", "21 10 9\n", "node1/distance, line 1: distance: 3 distances for the 2"),
        ("node1/cpulist", "all\n", "node1/cpulist, line 1: list"),
        ("node1/meminfo", "Node 1 MemTotal: 1 kB\n", "node1/meminfo: MemFree: the line is missing"),
        ("node1/meminfo", "MemTotal: 1 kB\n", "node1/meminfo, line 1: line"),
        ("node1/meminfo", "Node 1 MemTotal: 1.5 kB\n", "node1/meminfo, line 1: MemTotal"),
        ("node1/hugepages/hugepages-2048kB/nr_hugepages", "\n", "nr_hugepages: value"),
        ("node1/access0/initiators/read_latency", "fast\n", "read_latency: value"),
        ("../../../kernel/mm/mempolicy/weighted_interleave/node1", "x\n", "node1: value"),
        ("../../virtual/memory_tiering/memory_tier4/nodelist", "x\n", "nodelist, line 1: list"),
    ],
)
def test_malformed_file_is_named(tree, put, name, text, place):
    """Garbage anywhere in a machine is named with path, line and field."""
    root = tree("two-sockets")
    put(f"two-sockets/{NODES}/{name}", text)
    with pytest.raises(MalformedError) as caught:
        nodes.read_topology(root)
    assert place in str(caught.value)


def test_malformed_block_size(tree, put):
    """The block size is hexadecimal; garbage is named."""
    root = tree("one-node")
    put("one-node/sys/devices/system/memory/block_size_bytes", "12g\n")
    with pytest.raises(MalformedError, match="block_size_bytes: value"):
        nodes.read_block_nodes(root)


@pytest.mark.parametrize("read", [nodes.read_topology, nodes.read_free_bytes])
def test_online_node_without_directory_is_malformed(tree, read):
    """A machine that lists a node as online and does not have it contradicts itself."""
    root = tree("two-sockets")
    shutil.rmtree(root / NODES / "node1")
    with pytest.raises(MalformedError, match=r"node1/meminfo: file: it is missing"):
        read(root)


class Removal:
    """Node 3 of a captured machine goes away in the moment in which its meminfo is read.

    Its meminfo is a FIFO that shows when it is opened. The node then leaves `online` first, and
    its directory goes next, as try_offline_node in mm/memory_hotplug.c does it.
    """

    def __init__(self, root: Path) -> None:
        """Lay out the FIFO, and wait for a reader."""
        self._nodes = root / NODES
        self._fifo = self._nodes / "node2/meminfo"
        self._text = self._fifo.read_text("ascii")
        self._fifo.unlink()
        os.mkfifo(self._fifo)
        self._thread = threading.Thread(target=self._remove)
        self._thread.start()

    def _remove(self) -> None:
        with self._fifo.open("w", encoding="ascii") as fifo:
            self._fifo.unlink()
            self._fifo.write_text(self._text, "ascii")
            for node, distances in ((0, "10 21 31"), (1, "22 10 42"), (2, "33 43 10")):
                (self._nodes / f"node{node}/distance").write_text(f"{distances}\n", "ascii")
            (self._nodes / "online").write_text("0-2\n", "ascii")
            (self._nodes / "has_memory").write_text("0-2\n", "ascii")
            shutil.rmtree(self._nodes / "node3")
            fifo.write(self._text)

    def join(self) -> None:
        """Wait until the node has gone."""
        self._thread.join()


def test_node_that_goes_while_the_machine_is_read(tree):
    """The topology is read again, and is that of the machine without the node."""
    root = tree("hmat-tiers")
    removal = Removal(root)
    topology = nodes.read_topology(root)
    removal.join()
    assert topology.online == topology.with_memory == NodeSet([0, 1, 2])
    assert topology.node(0).distances == {0: 10, 1: 21, 2: 31}


def test_node_that_goes_while_free_memory_is_read(tree):
    """The node that has gone is left out."""
    root = tree("hmat-tiers")
    removal = Removal(root)
    free = nodes.read_free_bytes(root)
    removal.join()
    assert set(free) == {0, 1, 2}


def test_machine_that_never_stays_the_same(tree):
    """Nodes that come and go at each attempt end in an error, not in a loop."""
    root = tree("two-sockets")
    online, cpulist = root / NODES / "online", root / NODES / "node0/cpulist"
    cpulist.unlink()
    os.mkfifo(cpulist)

    def change() -> None:
        for attempt in range(4):
            with cpulist.open("w", encoding="ascii") as fifo:
                cpulist.unlink()
                os.mkfifo(cpulist)  # the next attempt opens another than the one that now ends
                online.write_text("0-1\n" if attempt % 2 else "0\n", "ascii")
                fifo.write("0-1\n")

    thread = threading.Thread(target=change)
    thread.start()
    with pytest.raises(UnsupportedError, match="came and went"):
        nodes.read_topology(root)
    thread.join()


@pytest.mark.host
def test_own_machine():
    """This machine's nodes are those with a directory, and share out its CPUs between them."""
    topology = nodes.read_topology()
    directories = {path.name for path in Path("/", NODES).glob("node[0-9]*")}
    assert {f"node{node.id}" for node in topology} == directories
    every_cpu = [cpu for node in topology for cpu in node.cpus]
    assert len(every_cpu) == len(set(every_cpu))
    assert set(every_cpu) >= os.sched_getaffinity(0)
    assert topology.with_memory == nodes.read_has_memory()
    assert topology.with_cpus == nodes.read_has_cpu()
    for node in topology:
        assert node.distances[node.id] == 10
        assert (node.memory_bytes > 0) == node.has_memory
        assert node.free_bytes <= node.memory_bytes
    assert nodes.read_free_bytes().keys() == set(topology.online)


@pytest.mark.host
def test_own_blocks():
    """Every memory block of this machine is listed, and belongs to nodes that are online."""
    size, blocks = nodes.read_block_nodes()
    assert size.bit_count() == 1
    listed = Path("/sys/devices/system/memory").glob("memory[0-9]*")
    assert set(blocks) == {int(path.name.removeprefix("memory")) for path in listed}
    owners = {node for nodes_of_block in blocks.values() for node in nodes_of_block}
    assert owners <= set(nodes.read_online())

"""The machines that the lab can be, as data, and how each is said to QEMU.

A node's size here is 10 to 40 MiB more than the guest sees; 320 MiB is the smallest that boots
with room for tests. Two CPUs always: more than the host has gains nothing under emulation.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Node:
    """A NUMA node: its memory in MiB, its CPUs, and whether its memory is a removable DIMM.

    `cache_mib` is the size of a cache in front of its memory, which HMAT tells of.
    """

    mib: int
    cpus: tuple[int, ...] = ()
    removable: bool = False
    cache_mib: int = 0


@dataclass(frozen=True)
class Link:
    """What ACPI's HMAT says about reads and writes of `target` by `initiator`."""

    initiator: int
    target: int
    latency_ns: int
    bandwidth_gib: int


@dataclass(frozen=True)
class Topology:
    """A machine: nodes, distances between them (row is the source), and optional HMAT links."""

    name: str
    summary: str
    nodes: tuple[Node, ...]
    distances: tuple[tuple[int, ...], ...]
    links: tuple[Link, ...] = ()
    kernel_args: tuple[str, ...] = ()

    @property
    def mib(self) -> int:
        """Memory of all nodes together, in MiB."""
        return sum(node.mib for node in self.nodes)

    @property
    def cpus(self) -> int:
        """Number of CPUs."""
        return sum(len(node.cpus) for node in self.nodes)

    def nearest_cpu_node(self, target: int) -> int:
        """Return the node with CPUs that is nearest to `target`: what ACPI calls its initiator."""
        with_cpus = [n for n, node in enumerate(self.nodes) if node.cpus]
        return min(with_cpus, key=lambda source: self.distances[source][target])


# No distance equals another and none its way back: code that swaps source and target, or takes
# the index for the distance, cannot pass by luck.
_FOUR_DISTANCES = (
    (10, 21, 31, 41),
    (22, 10, 42, 32),
    (33, 43, 10, 51),
    (44, 34, 52, 10),
)

_TOPOLOGIES = (
    Topology(
        name="4node",
        summary="nodes 0, 1 with a CPU; 2, 3 memory only; asymmetric distances",
        nodes=(Node(512, (0,)), Node(512, (1,)), Node(512), Node(512)),
        distances=_FOUR_DISTANCES,
    ),
    Topology(
        name="2node",
        summary="two nodes, each with a CPU",
        nodes=(Node(768, (0,)), Node(768, (1,))),
        distances=((10, 20), (20, 10)),
    ),
    Topology(
        name="hmat-tiers",
        summary="4node with HMAT: 2 and 3 are a slower memory tier",
        nodes=(Node(512, (0,)), Node(512, (1,)), Node(512), Node(512, cache_mib=16)),
        distances=_FOUR_DISTANCES,
        links=(
            Link(0, 0, 100, 200),
            Link(0, 1, 150, 100),
            Link(0, 2, 300, 50),
            Link(0, 3, 350, 40),
            Link(1, 0, 150, 100),
            Link(1, 1, 100, 200),
            Link(1, 2, 350, 40),
            Link(1, 3, 300, 50),
        ),
    ),
    Topology(
        name="hotplug",
        summary="4node whose node 3 is a DIMM: its memory can go offline",
        nodes=(Node(512, (0,)), Node(512, (1,)), Node(512), Node(512, removable=True)),
        distances=_FOUR_DISTANCES,
        # Only movable memory can be put offline again.
        kernel_args=("memhp_default_state=online_movable",),
    ),
    Topology(
        name="tiny",
        summary="4node with 320 MiB a node: soon full",
        nodes=(Node(320, (0,)), Node(320, (1,)), Node(320), Node(320)),
        distances=_FOUR_DISTANCES,
    ),
)

TOPOLOGIES = {topology.name: topology for topology in _TOPOLOGIES}
DEFAULT_TOPOLOGY = "4node"


def qemu_args(topology: Topology) -> list[str]:
    """Return the QEMU options that make this machine: board, memory, CPUs, NUMA tables."""
    return [
        *_board(topology),
        *_memory(topology),
        *_processors(topology),
        *_numa_nodes(topology),
        *_distances(topology),
        *_hmat(topology),
        *_dimms(topology),
    ]


def _board(topology: Topology) -> list[str]:
    """Return the board: the old one boots fastest; HMAT and DIMMs were tried on the newer."""
    if topology.links:
        return ["-M", "q35,hmat=on"]
    if any(node.removable for node in topology.nodes):
        return ["-M", "q35"]
    return ["-M", "pc"]


def _memory(topology: Topology) -> list[str]:
    """Return the memory behind each node; vhost-user needs it shared."""
    fixed = sum(node.mib for node in topology.nodes if not node.removable)
    total = topology.mib
    size = f"{fixed}M" if fixed == total else f"{fixed}M,slots=4,maxmem={total + 512}M"
    backends = [
        f"memory-backend-memfd,id=m{n},size={node.mib}M,share=on"
        for n, node in enumerate(topology.nodes)
    ]
    return ["-m", size, *_each("-object", backends)]


def _processors(topology: Topology) -> list[str]:
    """Return the CPUs: a socket each, else they share a cache across nodes (`topology_sane`)."""
    count = topology.cpus
    # Nehalem: NumPy's baseline, without AVX, which TCG emulates slowly (NumPy 3-5 times faster).
    return ["-cpu", "Nehalem", "-smp", f"{count},sockets={count},maxcpus={count}"]


def _numa_nodes(topology: Topology) -> list[str]:
    """Return one node each; a node whose memory is a DIMM starts without."""
    texts = []
    for n, node in enumerate(topology.nodes):
        parts = ["node", f"nodeid={n}"]
        if not node.removable:
            parts.append(f"memdev=m{n}")
        parts += [f"cpus={cpu}" for cpu in node.cpus]
        if topology.links:
            parts.append(f"initiator={topology.nearest_cpu_node(n)}")
        texts.append(",".join(parts))
    return _each("-numa", texts)


def _distances(topology: Topology) -> list[str]:
    """Return every ordered pair: QEMU mirrors a distance only where the other way is unsaid."""
    return _each(
        "-numa",
        [
            f"dist,src={source},dst={target},val={distance}"
            for source, row in enumerate(topology.distances)
            for target, distance in enumerate(row)
            if source != target
        ],
    )


def _hmat(topology: Topology) -> list[str]:
    """Return latency and bandwidth of each link, then the caches: QEMU wants them in that order."""
    prefix = "hmat-lb,initiator={},target={},hierarchy=memory,data-type=access-"
    latencies = [
        prefix.format(link.initiator, link.target) + f"latency,latency={link.latency_ns}"
        for link in topology.links
    ]
    bandwidths = [
        prefix.format(link.initiator, link.target) + f"bandwidth,bandwidth={link.bandwidth_gib}G"
        for link in topology.links
    ]
    caches = [
        f"hmat-cache,node-id={n},size={node.cache_mib}M,level=1,associativity=direct,"
        "policy=write-back,line=64"
        for n, node in enumerate(topology.nodes)
        if node.cache_mib
    ]
    return _each("-numa", latencies + bandwidths + caches)


def _dimms(topology: Topology) -> list[str]:
    """Return the DIMMs of nodes whose memory can be removed."""
    return _each(
        "-device",
        [
            f"pc-dimm,id=dimm{n},memdev=m{n},node={n}"
            for n, node in enumerate(topology.nodes)
            if node.removable
        ],
    )


def _each(option: str, values: list[str]) -> list[str]:
    """Return the option before each value."""
    return [word for value in values for word in (option, value)]

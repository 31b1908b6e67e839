"""A NUMA machine as a value: nodes, CPUs, memory, distances, tiers, latency and bandwidth."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from movepages.errors import SizeError, TopologyError
from movepages.nodeset import NodeSet
from movepages.units import format_size, parse_size

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

LOCAL_DISTANCE = 10
"""Distance of a node to itself, by the ACPI SLIT's definition."""
REMOTE_DISTANCE = 20
"""Distance between nodes of a declared machine that does not say."""
DECLARED_MEMORY_BYTES = 64 << 20
"""Memory of a node of a declared machine that does not say."""
_GROUP = re.compile(r"(\d+)\s*(?:x\s*(.+))?")
_CPUS = re.compile(r"(\d+)\s*cpus?")


@dataclass(frozen=True, slots=True)
class Access:
    """How a node's memory performs for its best initiators, from HMAT or CXL (0: not stated).

    `access_class` 0 counts all initiators, 1 CPUs only.
    """

    access_class: int
    initiators: NodeSet
    read_latency_ns: int = 0
    write_latency_ns: int = 0
    read_bandwidth_mib_per_s: int = 0
    write_bandwidth_mib_per_s: int = 0


@dataclass(frozen=True, slots=True)
class MemorySideCache:
    """A cache in front of a node's memory, from HMAT. `level` 1 is nearest to the memory."""

    level: int
    size_bytes: int
    line_size_bytes: int
    indexing: int
    """0 direct-mapped, 1 indexed, 2 custom."""
    write_policy: int
    """0 write-back, 1 write-through, 2 other or none."""


@dataclass(frozen=True, slots=True)
class HugePool:
    """A node's pool of huge pages of one size, in huge pages."""

    page_size_bytes: int
    total: int
    free: int
    surplus: int


@dataclass(frozen=True, slots=True)
class Node:
    """A memory node. `distances` maps each online node to the distance from here to there."""

    id: int
    cpus: tuple[int, ...] = ()
    memory_bytes: int = 0
    free_bytes: int = 0
    has_memory: bool = True
    distances: Mapping[int, int] = field(default_factory=dict)
    accesses: tuple[Access, ...] = ()
    huge_pools: tuple[HugePool, ...] = ()
    side_caches: tuple[MemorySideCache, ...] = ()
    weight: int | None = None
    """Weighted-interleave weight, 1 to 255; None where the kernel has none."""


@dataclass(frozen=True, slots=True)
class Tier:
    """A memory tier: nodes of like speed. A smaller number is faster; ordinary DRAM is 4."""

    id: int
    nodes: NodeSet


@dataclass(frozen=True, slots=True)
class Topology:
    """A machine's online nodes in rising order, and its tiers, fastest first.

    Ids may have gaps. `possible` is what the kernel may still bring online.
    """

    nodes: tuple[Node, ...]
    possible: NodeSet
    tiers: tuple[Tier, ...] = ()

    @property
    def online(self) -> NodeSet:
        """The online nodes."""
        return NodeSet(node.id for node in self.nodes)

    @property
    def with_memory(self) -> NodeSet:
        """The nodes that pages can be on: the only valid targets of a move."""
        return NodeSet(node.id for node in self.nodes if node.has_memory)

    @property
    def with_cpus(self) -> NodeSet:
        """The nodes that have CPUs."""
        return NodeSet(node.id for node in self.nodes if node.cpus)

    def __iter__(self) -> Iterator[Node]:
        """Go through the nodes in rising order of id."""
        return iter(self.nodes)

    def node(self, node_id: int) -> Node:
        """Return the node of that id. Raises KeyError."""
        for node in self.nodes:
            if node.id == node_id:
                return node
        raise KeyError(node_id)

    def node_of_cpu(self, cpu: int) -> int:
        """Return the id of the node a CPU belongs to. Raises KeyError."""
        for node in self.nodes:
            if cpu in node.cpus:
                return node.id
        raise KeyError(cpu)


def parse_topology(text: str) -> Topology:
    """Read a declared machine. Raises TopologyError.

    `4`, `4 x 64M`, `2x(8cpu,16G) + 1x(0cpu,64G)`: groups of nodes with CPUs and memory each, one
    CPU and 64M by default. Or TOML, with `[[nodes]]` tables of `cpus` (a count), `memory` (a size)
    and `distances` (to every node); anything with an equals sign is TOML.
    """
    groups = _toml_groups(text) if "=" in text else _short_groups(text)
    return declared_topology(groups)


def declared_topology(groups: list[tuple[int, int, list[int] | None]]) -> Topology:
    """Make a machine of (CPUs, memory in bytes, distances or None) for each node."""
    if not groups:
        raise TopologyError("a machine needs at least one node; write it like '4' or '2 x 64M'")
    nodes, cpu = [], 0
    for number, (cpus, memory_bytes, distances) in enumerate(groups):
        if distances is not None and len(distances) != len(groups):
            raise TopologyError(
                f"node {number} has {len(distances)} distances for {len(groups)} nodes"
            )
        default = [LOCAL_DISTANCE if to == number else REMOTE_DISTANCE for to in range(len(groups))]
        nodes.append(
            Node(
                number,
                tuple(range(cpu, cpu + cpus)),
                memory_bytes,
                memory_bytes,
                has_memory=memory_bytes > 0,
                distances=dict(enumerate(distances or default)),
            )
        )
        cpu += cpus
    topology = Topology(tuple(nodes), NodeSet(range(len(nodes))))
    check_topology(topology)
    return topology


def check_topology(topology: Topology) -> None:
    """Refuse a machine that makes no sense. Raises TopologyError."""
    if not topology.with_memory:
        raise TopologyError("no node has memory")
    for node in topology:
        if set(node.distances) != set(topology.online):
            raise TopologyError(f"node {node.id} must have a distance to each of {topology.online}")
        local = node.distances[node.id]
        if any(distance < local for distance in node.distances.values()) or local <= 0:
            raise TopologyError(f"the distance of node {node.id} to itself must be its smallest")
    cpus = [cpu for node in topology for cpu in node.cpus]
    if len(cpus) != len(set(cpus)):
        raise TopologyError("a CPU belongs to more than one node")


def format_topology(topology: Topology) -> str:
    """Write a machine in the short form: `2x(8cpu,16G) + 1x(0cpu,64G)`. Distances are left out."""
    groups: list[tuple[int, str]] = []
    for node in topology:
        what = f"({len(node.cpus)}cpu,{format_size(node.memory_bytes)})"
        if groups and groups[-1][1] == what:
            groups[-1] = (groups[-1][0] + 1, what)
        else:
            groups.append((1, what))
    return " + ".join(f"{count}x{what}" for count, what in groups)


def _short_groups(text: str) -> list[tuple[int, int, list[int] | None]]:
    groups: list[tuple[int, int, list[int] | None]] = []
    for part in text.split("+"):
        match = _GROUP.fullmatch(part.strip())
        if not match:
            raise TopologyError(
                f"{part.strip()!r} in {text!r} is not a group of nodes; write it like 4, 4 x 64M "
                "or 2x(8cpu,16G)"
            )
        cpus, memory_bytes = _node_of(match[2] or "", text)
        groups += [(cpus, memory_bytes, None)] * int(match[1])
    return groups


def _node_of(words: str, text: str) -> tuple[int, int]:
    cpus, memory_bytes = 1, DECLARED_MEMORY_BYTES
    for word in words.strip().removeprefix("(").removesuffix(")").split(","):
        if not word.strip():
            continue
        if match := _CPUS.fullmatch(word.strip()):
            cpus = int(match[1])
            continue
        try:
            memory_bytes = parse_size(word)
        except SizeError as error:
            raise TopologyError(f"{word.strip()!r} in {text!r}: {error}") from None
    return cpus, memory_bytes


def _toml_groups(text: str) -> list[tuple[int, int, list[int] | None]]:
    import tomllib  # here, for most machines are declared in a few words

    try:
        tables: Any = tomllib.loads(text).get("nodes", [])
        return [
            (
                int(table.get("cpus", 1)),
                parse_size(str(table.get("memory", "64M"))),
                list(table["distances"]) if "distances" in table else None,
            )
            for table in tables
        ]
    except (tomllib.TOMLDecodeError, SizeError, TypeError, AttributeError) as error:
        raise TopologyError(f"the machine's description cannot be read: {error}") from None

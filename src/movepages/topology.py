"""A NUMA machine as a value: nodes, CPUs, memory, distances, tiers, latency and bandwidth."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from movepages.nodeset import NodeSet

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

LOCAL_DISTANCE = 10
"""Distance of a node to itself, by the ACPI SLIT's definition."""


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

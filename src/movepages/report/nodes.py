"""The machine's nodes: CPUs, memory, distances, and what else the kernel tells of them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from movepages.report.fields import FIELDS, encode, fields

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from movepages.report.output import Output
    from movepages.topology import Access, HugePool, Node, Topology

ACCESS = fields(
    "access_class",
    "initiators",
    "read_latency_ns",
    "write_latency_ns",
    "read_bandwidth_mib_per_s",
    "write_bandwidth_mib_per_s",
)
HUGE_POOL = fields("page_size_bytes", "total", "free", "surplus")
NODE = fields(
    "id", "cpus", "memory_bytes", "free_bytes", "has_memory", "tier", "weight", "distances"
)


@dataclass(frozen=True, slots=True)
class NodeRow:
    """A node as it is shown."""

    id: int
    cpus: tuple[int, ...]
    memory_bytes: int
    free_bytes: int
    has_memory: bool
    tier: int | None
    weight: int | None
    distances: Mapping[int, int]

    @property
    def remark(self) -> str:
        """What a person would otherwise have to conclude."""
        if not self.has_memory:
            return "no memory: pages cannot be here"
        return "" if self.cpus else "memory only"


@dataclass(frozen=True, slots=True)
class _OfNode:
    """A value that belongs to a node, as a row that starts with the node."""

    node: int
    value: Access | HugePool

    def __getattr__(self, name: str) -> Any:
        return getattr(self.value, name)


def node_rows(topology: Topology) -> list[NodeRow]:
    """Return the nodes of a topology as they are shown."""
    tiers = {node: tier.id for tier in topology.tiers for node in tier.nodes}
    return [
        NodeRow(
            id=node.id,
            cpus=node.cpus,
            memory_bytes=node.memory_bytes,
            free_bytes=node.free_bytes,
            has_memory=node.has_memory,
            tier=tiers.get(node.id),
            weight=node.weight,
            distances=node.distances,
        )
        for node in topology
    ]


def write_text(topology: Topology, output: Output) -> None:
    """Write the nodes for a person."""
    rows = node_rows(topology)
    columns = ["id", "cpus", "memory_bytes", "free_bytes"]
    columns += [name for name in ("tier", "weight") if any(getattr(row, name) for row in rows)]
    columns += ["remark"] if any(row.remark for row in rows) else []
    output.table(fields(*columns), rows)
    _write_distances(topology.nodes, output)
    accesses = [_OfNode(node.id, access) for node in topology for access in node.accesses]
    if accesses:
        output.line()
        output.heading("Speed of each node's memory, from the nodes that reach it fastest")
        output.table((FIELDS["node"], *ACCESS[1:]), _best_class(accesses))
    pools = [_OfNode(node.id, pool) for node in topology for pool in node.huge_pools if pool.total]
    if pools:
        output.line()
        output.heading("Pools of huge pages")
        output.table((FIELDS["node"], *HUGE_POOL), pools)


def to_json(topology: Topology) -> dict[str, Any]:
    """Return the nodes for a program."""
    return {
        "possible": list(topology.possible),
        "nodes": [
            encode(row, NODE)
            | {
                "accesses": [encode(access, ACCESS) for access in node.accesses],
                "huge_pools": [encode(pool, HUGE_POOL) for pool in node.huge_pools],
            }
            for node, row in zip(topology, node_rows(topology), strict=True)
        ],
    }


def _best_class(accesses: list[_OfNode]) -> list[_OfNode]:
    """Keep class 0 (any initiator) of each node, or what else there is."""
    best: dict[int, _OfNode] = {}
    for access in sorted(accesses, key=lambda of: (of.node, of.access_class)):
        best.setdefault(access.node, access)
    return list(best.values())


def _write_distances(nodes: Sequence[Node], output: Output) -> None:
    """Write the distance matrix, in as many blocks of columns as the width asks for."""
    if not any(node.distances for node in nodes):
        return
    digits = max(len(str(node.id)) for node in nodes)
    cell = max(3, digits) + 2
    label = len("node ") + digits
    per_block = len(nodes) if output.width is None else max(1, (output.width - label) // cell)
    ids = iter([node.id for node in nodes])
    while block := list(islice(ids, per_block)):
        output.line()
        output.heading("Distance from a node (row) to memory on a node (column); 10 is local")
        output.line(" " * label + "".join(f"{target:>{cell}}" for target in block))
        for node in nodes:
            distances = "".join(f"{node.distances.get(to, '-'):>{cell}}" for to in block)
            output.line(f"node {node.id:>{digits}}{distances}")

"""In what order nodes are asked for memory: build_zonelists of mm/page_alloc.c.

Nearer nodes come first. Among nodes at one distance those without CPUs do, then those above the
node itself, then those that fewer nodes have as the first of a distance, so that equals take turns.
2006 and today agree on that; 2006 counted a near distance for more, which the model leaves out.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from movepages.abi import MAX_NUMNODES

if TYPE_CHECKING:
    from movepages.topology import Topology

_PENALTY_FOR_NODE_WITH_CPUS = 1


def build_zonelists(topology: Topology) -> dict[int, tuple[int, ...]]:
    """Return for each node all online nodes, in the order in which its tasks try them."""
    load: Counter[int] = Counter()
    return {node.id: _zonelist(topology, node.id, load) for node in topology}


def _zonelist(topology: Topology, local: int, load: Counter[int]) -> tuple[int, ...]:
    """Return the list of one node, and count for whom a node begins a distance (node_load)."""
    distances = topology.node(local).distances

    def cost(node: int) -> int:
        penalty = _PENALTY_FOR_NODE_WITH_CPUS if topology.node(node).cpus else 0
        return (distances[node] + (node < local) + penalty) * MAX_NUMNODES + load[node]

    found, left = [local], set(topology.online) - {local}
    while left:
        best = min(left, key=lambda node: (cost(node), node))
        if distances[best] != distances[found[-1]]:
            load[best] += 1
        found.append(best)
        left.remove(best)
    return tuple(found)

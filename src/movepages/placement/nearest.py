"""Bring pages to the nearest node that has room for them, counted from where they are used."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from movepages.nodeset import NodeSet
    from movepages.topology import Topology
    from movepages.values import Placement

_UNREACHABLE = 255
"""The distance of what cannot be reached, in the ACPI SLIT; here of nodes that are not online."""


def nearest_with_room(
    pages: Placement,
    user: NDArray[np.int32],
    topology: Topology,
    allowed: NodeSet,
    free: Mapping[int, int],
    weight: NDArray[np.int64] | int = 1,
) -> NDArray[np.int32]:
    """Return the node that each page is to be on, int32[n]: the nearest to its user, if it is.

    `pages` are runs of one page, or runs that are not to be divided. `user` int32[n] is the node
    from where each is used, below 0 for one that stays. `allowed` are the nodes to choose from and
    `free` their free bytes. A page for which a node has no room goes to the next nearest, as long
    as that is nearer than where it is; else it stays. The first to be placed are the largest, and
    of those what gains most: distance saved, times `weight` (int64[n], or one for all).
    """
    room = {node: free.get(node, 0) for node in allowed}
    targets = pages.node.copy()
    waiting: dict[int, NDArray[np.intp]] = {}
    choices: dict[int, list[tuple[int, int]]] = {}
    away: dict[int, NDArray[np.int16]] = {}
    for node in np.unique(user[user >= 0]).tolist():
        mine = np.flatnonzero(user == node)
        choices[node] = near_nodes(node, topology, allowed, free)
        away[node] = distances_from(node, topology)
        nearest = choices[node][0][0] if choices[node] else _UNREACHABLE
        gain = away[node][pages.node[mine]] - nearest
        gain = gain * (weight if isinstance(weight, int) else weight[mine])
        waiting[node] = mine[np.lexsort((-gain, -_sizes(pages, mine)))]
    for rank in range(len(allowed)):
        for node, mine in waiting.items():
            distance, target = choices[node][rank]
            better = mine[away[node][pages.node[mine]] > distance]
            fits = _fitting(_sizes(pages, better), room[target])
            targets[better[fits]] = target
            room[target] -= int(_sizes(pages, better[fits]).sum())
            waiting[node] = better[~fits]
    return targets


def near_nodes(
    node: int, topology: Topology, allowed: NodeSet, free: Mapping[int, int]
) -> list[tuple[int, int]]:
    """Return (distance, node) of the allowed nodes, the nearest to a node first.

    Of nodes as near, that with more free memory comes first.
    """
    away = distances_from(node, topology)
    return sorted(
        ((int(away[to]), to) for to in allowed),
        key=lambda choice: (choice[0], -free.get(choice[1], 0), choice[1]),
    )


def distances_from(node: int, topology: Topology) -> NDArray[np.int16]:
    """Return the distance from a node to each node, int16[highest possible + 2], by number."""
    away = np.full(highest_node(topology) + 2, _UNREACHABLE, dtype=np.int16)
    known = topology.node(node).distances if node in topology.online else {}
    for to, distance in known.items():
        away[to] = distance
    return away


def highest_node(topology: Topology) -> int:
    """Return the highest number that a node can have."""
    highest: int = max([*topology.possible, *topology.online])
    return highest


def _sizes(pages: Placement, rows: NDArray[np.intp]) -> NDArray[np.int64]:
    """Return the bytes of some runs, int64[rows]."""
    sizes = pages.pages[rows]
    sizes *= pages.page_size_bytes[rows]
    return sizes


def _fitting(sizes: NDArray[np.int64], room_bytes: int) -> NDArray[np.bool_]:
    """Tell which pages, of falling size, have room together, bool[n]."""
    fits = np.zeros(len(sizes), dtype=np.bool_)
    for size in np.unique(sizes)[::-1].tolist():
        alike = np.flatnonzero(sizes == size)[: room_bytes // size]
        fits[alike] = True
        room_bytes -= len(alike) * size
    return fits

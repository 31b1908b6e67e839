"""Spread pages over nodes, evenly or by weights, and move no more of them than that takes.

mbind(2) leaves pages that are on one of the nodes already where they are, however many crowd there.
Here each node gets its share, and only what a node has beyond its share leaves it, taken from all
along its pages, so that neighbours in memory come to different nodes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from movepages.errors import ArgumentError
from movepages.nodeset import NodeSet
from movepages.placement import select
from movepages.placement.planning import by_page, make_plan

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from movepages.machine import Machine
    from movepages.placement.select import Selection
    from movepages.values import Placement, Plan, TaskInfo

_REASONS = ("beyond the share of its node", "its node has no share")


def plan_spread(
    machine: Machine,
    task: TaskInfo,
    selection: Selection,
    to: Iterable[int],
    weights: Mapping[int, int] | None = None,
) -> Plan:
    """Plan to spread the pages that a selection means over nodes.

    `weights` has a whole number from 1 on for each of the nodes; all alike by default. Raises
    CallError, ArgumentError.
    """
    nodes = NodeSet(to)
    placement, targets = spread_nodes(select.locate(machine, task.pid, selection), nodes, weights)
    strange = ~np.isin(placement.node, list(nodes))
    return make_plan(task.id, placement, targets, reason=strange, reasons=_REASONS)


def spread_nodes(
    placement: Placement, to: Iterable[int], weights: Mapping[int, int] | None = None
) -> tuple[Placement, NDArray[np.int32]]:
    """Return a placement, cut into pages, and a node for each page, so that each has its share.

    Pages of each size are spread for themselves. Raises ArgumentError as `plan_spread` does.
    """
    nodes = NodeSet(to)
    pages = by_page(placement)
    return pages, spread_rows(pages.node, pages.page_size_bytes, weighing(nodes, weights))


def spread_rows(
    nodes: NDArray[np.int32], page_size_bytes: NDArray[np.int64], weights: Mapping[int, int]
) -> NDArray[np.int32]:
    """Return a node for each page, int32[n], from its node and its size, as `spread_nodes` does."""
    targets = nodes.copy()
    for size in np.unique(page_size_bytes):
        alike = page_size_bytes == size
        targets[alike] = _spread(nodes[alike], weights)
    return targets


def shares(pages_by_node: Mapping[int, int], weights: Mapping[int, int]) -> dict[int, int]:
    """Divide all pages among the weighted nodes, as near to their weights as whole pages go.

    The pages left over go to the largest remainders, and of equal ones to where most pages are, so
    that as few as possible move.
    """
    pages, weight = sum(pages_by_node.values()), sum(weights.values())
    share = {node: pages * own // weight for node, own in weights.items()}

    def claim(node: int) -> tuple[int, int, int]:
        beyond = pages_by_node.get(node, 0) - share[node]
        return -(pages * weights[node] % weight), -beyond, node

    for node in sorted(weights, key=claim)[: pages - sum(share.values())]:
        share[node] += 1
    return share


def weighing(nodes: NodeSet, weights: Mapping[int, int] | None) -> dict[int, int]:
    """Return the weight of each node, 1 where none are given. Raises ArgumentError."""
    if not nodes:
        raise ArgumentError("there is no node to spread over; give at least one")
    if weights is None:
        return dict.fromkeys(nodes, 1)
    if weights.keys() != set(nodes) or not all(weight >= 1 for weight in weights.values()):
        raise ArgumentError(
            f"the weights {dict(weights)} do not fit nodes {nodes}; give each of them a whole "
            "number from 1 on"
        )
    return {node: weights[node] for node in nodes}


def _spread(now: NDArray[np.int32], weights: Mapping[int, int]) -> NDArray[np.int32]:
    """Return the node that each page is to be on, int32[n], of pages alike in order of address."""
    found, counts = np.unique(now, return_counts=True)
    here = dict(zip(found.tolist(), counts.tolist(), strict=True))
    share = shares(here, weights)
    leaves = np.zeros(len(now), dtype=np.bool_)
    for node, count in here.items():
        own = share.get(node, 0)
        if count > own:
            leaves[now == node] = ~_evenly(own, count)
    targets = now.copy()
    targets[leaves] = _mixed({node: own - here.get(node, 0) for node, own in share.items()})
    return targets


def _mixed(counts: Mapping[int, int]) -> NDArray[np.int32]:
    """Return each node as often as its count says, evenly mixed; none for a count below 1."""
    wanting = {node: count for node, count in counts.items() if count > 0}
    left = sum(wanting.values())
    mixed = np.zeros(left, dtype=np.int32)
    waiting = np.ones(left, dtype=np.bool_)
    for node, count in wanting.items():
        chosen = np.zeros_like(waiting)
        chosen[waiting] = _evenly(count, left)
        mixed[chosen] = node
        waiting &= ~chosen
        left -= count
    return mixed


def _evenly(count: int, rows: int) -> NDArray[np.bool_]:
    """Choose so many of some rows, evenly from all along them, bool[rows]."""
    place = np.arange(rows)
    place *= count
    place %= rows
    return place < count

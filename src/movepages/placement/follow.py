"""Bring the pages of a process near to where its threads run: what `movepages follow` does.

Where threads run on one node, that is the place. Where they run on several, nothing tells which
page belongs to which thread (a log of accesses does: `access_log`). So pages that are near to any
of these nodes stay, for as many would get farther from their threads as nearer; those that are far
from all of them come to these nodes by their share of the running, evenly mixed, for then a page is
where it is used with the best chance that there is without knowing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from movepages.errors import ArgumentError
from movepages.nodeset import NodeSet
from movepages.placement import select
from movepages.placement.nearest import (
    distances_from,
    highest_node,
    near_nodes,
    nearest_with_room,
)
from movepages.placement.planning import by_page, make_plan
from movepages.placement.spread import spread_rows
from movepages.topology import LOCAL_DISTANCE
from movepages.values import NO_NODE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from movepages.machine import Machine
    from movepages.placement.running import Running
    from movepages.placement.select import Selection
    from movepages.topology import Topology
    from movepages.values import Placement, Plan, TaskInfo

NEAR_DISTANCE = 15
"""Memory no farther than this is near: sub-NUMA clusters of a socket are 11 to 13 apart, and
sockets 20 and more."""
_FINE = 1000
"""Shares are rounded to a thousandth where pages are dealt out by them."""


def plan_follow(
    machine: Machine,
    task: TaskInfo,
    selection: Selection,
    running: Running,
    *,
    near_distance: int = NEAR_DISTANCE,
    free: Mapping[int, int] | None = None,
) -> Plan:
    """Plan to bring the selected pages near to where a process runs, as far as there is room.

    Pages no farther than `near_distance` from a node that it runs on stay. Targets are nodes of its
    cpuset. `free` is bytes by node, what the machine has free by default. Raises CallError,
    ArgumentError.
    """
    topology = machine.topology()
    nodes = running.main_nodes()
    pages, to, user = follow_nodes(
        select.locate(machine, task.pid, selection),
        nodes,
        topology,
        NodeSet(task.mems_allowed & topology.with_memory),
        machine.free_bytes() if free is None else free,
        near_distance,
    )
    first_reason = np.zeros(highest_node(topology) + 2, dtype=np.int32)  # NO_NODE has the last
    first_reason[list(nodes)] = range(0, 2 * len(nodes), 2)
    reason = np.where(user >= 0, first_reason[user] + (to != user), 0)
    reasons = _reasons(nodes, running)
    return make_plan(task.id, pages, to, reason=reason, reasons=reasons, crowded=user >= 0)


def follow_nodes(
    placement: Placement,
    running: Mapping[int, float],
    topology: Topology,
    allowed: NodeSet,
    free: Mapping[int, int],
    near_distance: int = NEAR_DISTANCE,
) -> tuple[Placement, NDArray[np.int32], NDArray[np.int32]]:
    """Return a placement, and for each run the node for it and the node that it is used from.

    `running` is the share of each node where threads run, `allowed` are nodes with memory. Of a run
    that stays, the second is NO_NODE. The placement is cut into pages where some runs are divided.
    Raises ArgumentError for a `near_distance` below 10.
    """
    if near_distance < LOCAL_DISTANCE:
        raise ArgumentError(
            f"a distance of {near_distance} is less than that of a node to itself; "
            f"give {LOCAL_DISTANCE} or more"
        )
    if not running or not allowed:
        return placement, placement.node, np.full(len(placement), NO_NODE, np.int32)
    near = _near(running, topology, allowed, free, near_distance)
    if len(running) == 1:
        user = _users(placement, near, running)
        to = nearest_with_room(placement, user, topology, allowed, free)
        _, home = near_nodes(next(iter(running)), topology, allowed, free)[0]
        if (to[user >= 0] == home).all():  # there is room for all runs undivided
            return placement, to, user
    pages = by_page(placement, which=~near[placement.node])
    user = _users(pages, near, running)
    return pages, nearest_with_room(pages, user, topology, allowed, free), user


def saved_distance(
    plan: Plan,
    running: Mapping[int, float],
    topology: Topology,
    pages: NDArray[np.int64] | None = None,
) -> float:
    """Return what a plan gains: bytes times distance saved, in local distances (10).

    So 1M that comes from a distance of 20 to one of 10 gains 1M. `pages` int64[n] counts how many
    of each run are meant, all by default.
    """
    sizes = (plan.pages if pages is None else pages) * plan.page_size_bytes
    saved = 0.0
    for node, share in running.items():
        away = distances_from(node, topology)
        saved += share * float(sizes @ (away[plan.from_node] - away[plan.to_node]))
    return saved / LOCAL_DISTANCE


def _near(
    running: Mapping[int, float],
    topology: Topology,
    allowed: NodeSet,
    free: Mapping[int, int],
    near_distance: int,
) -> NDArray[np.bool_]:
    """Tell which nodes are near to one that runs, bool[highest possible + 2], by number."""
    near = np.zeros(highest_node(topology) + 2, dtype=np.bool_)
    for node in running:
        nearest, _ = near_nodes(node, topology, allowed, free)[0]
        near |= distances_from(node, topology) <= max(near_distance, nearest)
    return near


def _users(
    pages: Placement, near: NDArray[np.bool_], running: Mapping[int, float]
) -> NDArray[np.int32]:
    """Return the node that each page is taken to be used from, NO_NODE for one that is near."""
    far = ~near[pages.node]
    user = np.full(len(pages), NO_NODE, dtype=np.int32)
    if len(running) == 1:
        user[far] = next(iter(running))
    else:
        weights = {node: max(1, round(share * _FINE)) for node, share in running.items()}
        user[far] = spread_rows(pages.node[far], pages.page_size_bytes[far], weights)
    return user


def _reasons(nodes: Mapping[int, float], running: Running) -> list[str]:
    """Return two reasons for each node: pages come to it, or to the nearest that has room."""
    reasons = []
    for node in nodes:
        share = f"{running.share[node]:.0%}"
        ran = f"threads ran {share} on node {node}" if running.ran else f"last ran on node {node}"
        reasons += [ran, f"{ran}: nearest with room"]
    return reasons or [""]

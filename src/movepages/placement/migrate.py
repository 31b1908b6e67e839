"""Migrate pages from nodes to nodes so that they keep their relative places, as the kernel does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from movepages.errors import ArgumentError
from movepages.nodeset import NodeSet
from movepages.placement import select
from movepages.placement.planning import make_plan

if TYPE_CHECKING:
    from collections.abc import Iterable

    from movepages.machine import Machine
    from movepages.placement.select import Selection
    from movepages.values import Plan, TaskInfo


def plan_migration(
    machine: Machine,
    task: TaskInfo,
    selection: Selection,
    source: Iterable[int],
    to: Iterable[int],
) -> Plan:
    """Plan to migrate the selected pages that are on source nodes, as migrate_pages(2) would.

    Raises CallError, ArgumentError.
    """
    nodes = relative_targets(source, to)
    meant = selection & select.on_node(nodes)
    placement = select.locate(machine, task.pid, meant)
    table = np.arange(max(nodes) + 1, dtype=np.int32)
    table[list(nodes)] = list(nodes.values())
    return make_plan(task.id, placement, table[placement.node], reasons=(str(selection),))


def relative_targets(source: Iterable[int], to: Iterable[int]) -> dict[int, int]:
    """Return where the pages of each source node go: to the node in its place, counted round.

    Of sets of different sizes, what is on a node of both stays (do_migrate_pages, node_remap in
    mm/mempolicy.c). Raises ArgumentError where either set is empty.
    """
    old, new = NodeSet(source), NodeSet(to)
    if not old or not new:
        raise ArgumentError("there is no node to migrate from or to; give at least one of each")
    onto = list(new)
    found = {node: onto[place % len(onto)] for place, node in enumerate(old)}
    if len(old) != len(new):
        found.update((node, node) for node in old & new)
    return found

"""Look at the pages of a plan again: another process that maps them may have had them moved."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from movepages.placement.planning import by_page, make_plan
from movepages.values import Placement

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from movepages.machine import Machine
    from movepages.values import Plan

_ASK_PAGES = 1 << 18
"""Pages that are asked for in one call, not to hold up the process for long."""


def looked_at_again(machine: Machine, plan: Plan) -> Plan:
    """Return a plan with the nodes that its pages are on by now; those at their target stay there.

    A page that is on no node keeps the one that it was on, for the kernel to say why when it is
    moved. Raises CallError.
    """
    pages = by_page(Placement(plan.start, plan.pages, plan.page_size_bytes, plan.from_node))
    now = _nodes(machine, plan.task.pid, pages.start)
    made = make_plan(
        plan.task,
        replace(pages, node=np.where(now >= 0, now, pages.node)),
        np.repeat(plan.to_node, plan.pages),
        reason=np.repeat(plan.reason, plan.pages),
        reasons=plan.reasons,
    )
    staying = dict(plan.staying_bytes_by_node)
    for node, size_bytes in made.staying_bytes_by_node.items():
        staying[node] = staying.get(node, 0) + size_bytes
    return replace(
        made,
        there_pages=plan.there_pages + made.there_pages,
        there_bytes=plan.there_bytes + made.there_bytes,
        crowded_pages=plan.crowded_pages,
        crowded_bytes=plan.crowded_bytes,
        staying_bytes_by_node=staying,
    )


def _nodes(machine: Machine, pid: int, addresses: NDArray[np.uint64]) -> NDArray[np.int32]:
    """Ask where pages are, int32[n]: the node, or a negative errno. Raises CallError."""
    parts = [
        machine.query_pages(pid, addresses[first : first + _ASK_PAGES]).status
        for first in range(0, len(addresses), _ASK_PAGES)
    ]
    return np.concatenate(parts) if parts else np.empty(0, np.int32)

"""How much of the memory that was meant is on each node, before and after."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from movepages.errors import NoSuchProcessError
from movepages.report.fields import fields

if TYPE_CHECKING:
    from collections.abc import Mapping

    from movepages.report.output import Output
    from movepages.values import Ledger, Plan

BEFORE_AFTER = fields("node", "before_bytes", "after_bytes")
BEFORE_PLANNED = fields("node", "before_bytes", "planned_bytes")


@dataclass(frozen=True, slots=True)
class BeforeAfter:
    """Memory of a process on one node, before and after."""

    node: int
    before_bytes: int
    after_bytes: int

    @property
    def planned_bytes(self) -> int:
        """The memory after it, where that is only planned."""
        return self.after_bytes


def before_after(before: Mapping[int, int], after: Mapping[int, int]) -> list[BeforeAfter]:
    """Return the rows of nodes that have memory before or after."""
    nodes = sorted(before.keys() | after.keys())
    return [BeforeAfter(node, before.get(node, 0), after.get(node, 0)) for node in nodes]


def says_more(plan: Plan) -> bool:
    """Tell whether memory by node says more than counts: not if all goes from one node to one."""
    return max(len(plan.bytes_by_node), len(plan.bytes_by_node_planned)) > 1


def write_moved(ledger: Ledger, output: Output) -> None:
    """Write memory by node before and after, if it says more; a process that ended has none."""
    if says_more(ledger.plan) and not isinstance(ledger.error, NoSuchProcessError):
        output.line()
        rows = before_after(ledger.plan.bytes_by_node, ledger.bytes_by_node)
        output.table(BEFORE_AFTER, rows)


def write_planned(plan: Plan, output: Output) -> None:
    """Write memory by node before, and as it is planned, if it says more."""
    if says_more(plan):
        rows = before_after(plan.bytes_by_node, plan.bytes_by_node_planned)
        output.table(BEFORE_PLANNED, rows)
        output.line()

"""`movepages pack`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from movepages.cli.carrying import Carrying, carrying
from movepages.cli.command import json_option, subcommand
from movepages.cli.operation import finish, plan_each, selected
from movepages.cli.parameters import SPAN, Span, target_nodes
from movepages.cli.selecting import Selectors, selecting
from movepages.nodeset import NodeSet

if TYPE_CHECKING:
    from movepages.cli.exit_codes import ExitCode
    from movepages.cli.session import Session
    from movepages.values import Plan, TaskInfo


@subcommand(
    "pack",
    example="movepages pack 1234\n"
    "movepages pack 1234 --prefer 1 --anon\n"
    "movepages pack cgroup:/batch --dry-run",
)
@click.argument("target")
@click.argument("spans", metavar="[ADDRESS|START-END]...", type=SPAN, nargs=-1)
@click.option("--prefer", metavar="NODES", help="Rather these: 1, 0-3, all, '!1' or +0.")
@selecting
@carrying
@json_option
@click.pass_obj
def run(
    session: Session,
    /,
    *,
    target: str,
    spans: tuple[Span, ...],
    prefer: str | None,
    as_json: bool,
    **settings: Any,
) -> ExitCode:
    """Bring pages of processes to as few nodes as have room for them.

    TARGET is a pid or what else `movepages move` takes; each process is packed for itself. All
    memory is meant, unless you name addresses, ranges or a kind.

    A node has room for its free memory, beside the pages that it has already. Of the sets of fewest
    nodes it takes that with most of --prefer, and then that to which the least has to move.
    """
    selectors, how = Selectors.take(settings), Carrying.take(settings)
    machine, topology = session.machine, session.machine.topology()
    selection = selected(machine, selectors, spans)
    free = dict(machine.free_bytes())
    from movepages.placement.pack import plan_pack

    def plan_one(task: TaskInfo) -> tuple[Plan, NodeSet]:
        preferred = (
            NodeSet() if prefer is None else target_nodes("--prefer", prefer, topology, task)
        )
        plan = plan_pack(machine, task, selection, preferred, free)
        for node, size_bytes in plan.bytes_by_target.items():
            free[node] -= size_bytes  # no room for the next process
        return plan, NodeSet(plan.bytes_by_target)

    snapshot, plans = plan_each(machine, target, spans, selection, plan_one)
    return finish(session, snapshot, plans, how, as_json=as_json)

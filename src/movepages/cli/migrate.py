"""`movepages migrate`."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from movepages.cli.carrying import Carrying, carrying
from movepages.cli.command import json_option, moving, subcommand
from movepages.cli.exit_codes import ExitCode
from movepages.cli.operation import finish, plan_each, selected
from movepages.cli.parameters import PID, source_nodes, target_nodes
from movepages.cli.selecting import Selectors, selecting

if TYPE_CHECKING:
    from movepages.cli.session import Session
    from movepages.machine import Machine
    from movepages.nodeset import NodeSet
    from movepages.values import Plan, TaskInfo


@subcommand(
    "migrate",
    example="movepages migrate 1234 --from 0 --to 1\n"
    "movepages migrate cgroup:/batch --from 0,1 --to 2,3 --limit-rate 1G/s\n"
    "movepages migrate 1234 --from 0 --to 1 --kernel",
)
@click.argument("target")
@click.option(
    "--from", "source", required=True, metavar="NODES", help="From where: 0, 0-3, all, '!1'."
)
@click.option("--to", required=True, metavar="NODES", help="Where to: 1, 2-3.")
@click.option("--kernel", is_flag=True, help="In one call, migrate_pages(2): all, unaccounted.")
@selecting
@carrying
@json_option
@click.pass_context
def run(
    context: click.Context,
    /,
    *,
    target: str,
    source: str,
    to: str,
    kernel: bool,
    as_json: bool,
    **settings: Any,
) -> ExitCode:
    """Move the memory of processes from some nodes to others.

    TARGET is a pid or what else `movepages move` takes; with --kernel it is a pid. All memory is
    meant, unless options select some.

    It keeps relative places: with --from 0,1 --to 2,3 the pages of node 0 go to node 2, those of
    node 1 to node 3. It ends with the pages by outcome.

    With --kernel the kernel does it in one call, as the migratepages command does: it counts the
    pages that stay, but tells neither which nor why. With CAP_SYS_NICE that call moves pages that
    others map, too, and may leave the cpuset.
    """
    session: Session = context.obj
    if kernel:
        _refuse_others(context, settings)
        pid = PID.convert(target, None, context)
        return _by_the_kernel(session, pid, source, to, as_json=as_json)
    selectors, how = Selectors.take(settings), Carrying.take(settings)
    machine, topology = session.machine, session.machine.topology()
    selection = selected(machine, selectors)
    old = source_nodes("--from", source, topology)
    from movepages.placement.migrate import plan_migration

    def plan_one(task: TaskInfo) -> tuple[Plan, NodeSet]:
        new = target_nodes("--to", to, topology, task)
        return plan_migration(machine, task, selection, old, new), new

    snapshot, plans = plan_each(machine, target, (), selection, plan_one)
    return finish(session, snapshot, plans, how, as_json=as_json)


def _refuse_others(context: click.Context, settings: dict[str, Any]) -> None:
    """Refuse what the kernel's call does not take. Raises UsageError."""
    for param in context.command.params:
        if param.name in settings and settings[param.name] not in {None, False, ()}:
            raise click.UsageError(
                f"--kernel moves all memory, in one call, so {param.opts[0]} cannot be kept; "
                "leave out one of the two"
            )


def _by_the_kernel(
    session: Session, pid: int, source_text: str, target_text: str, *, as_json: bool
) -> ExitCode:
    """Migrate with one call, and report memory by node before and after."""
    from movepages.report import moves as report

    machine = session.machine
    task = session.task(pid)
    topology = machine.topology()
    source = source_nodes("--from", source_text, topology)
    nodes = target_nodes(
        "--to", target_text, topology, task, lambda: machine.conditions().moves_shared
    )
    before = _bytes_by_node(machine, pid)
    with moving(pid):
        not_moved = machine.migrate_pages(pid, source, nodes)
    snapshot = report.MigrateSnapshot(
        pid=pid,
        command=task.command,
        source=source,
        target=nodes,
        not_moved=not_moved,
        before=before,
        after=_bytes_by_node(machine, pid),
    )
    if as_json:
        from movepages.report.json import write_document

        write_document(session.output, report.migrate_json(snapshot))
    else:
        report.write_migrate_text(snapshot, session.output)
    return ExitCode.NOT_MOVED if not_moved else ExitCode.DONE


def _bytes_by_node(machine: Machine, pid: int) -> dict[int, int]:
    total: Counter[int] = Counter()
    for mapping in machine.mappings(pid):
        total.update(mapping.bytes_by_node)
    return dict(total)

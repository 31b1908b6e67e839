"""`movepages move`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from movepages.abi import Errno
from movepages.cli.carrying import Carrying, carrying
from movepages.cli.command import json_option, subcommand
from movepages.cli.logged import Logged
from movepages.cli.operation import finish, plan_each
from movepages.cli.parameters import SHARE, SPAN, Span, target_nodes
from movepages.cli.selecting import Selectors, selecting
from movepages.errors import NoSuchProcessError
from movepages.nodeset import NodeSet

if TYPE_CHECKING:
    from collections.abc import Sequence

    from movepages.cli.exit_codes import ExitCode
    from movepages.cli.session import Session
    from movepages.machine import Machine
    from movepages.placement.select import Selection
    from movepages.report.moves import MoveSnapshot
    from movepages.values import Plan, TaskInfo


@subcommand(
    "move",
    example="movepages move 1234 --to 1 7f12a4000000-7f12a8000000\n"
    "movepages move 1234 --to 0-3 --all-mappings\n"
    "movepages move name:postgres --to 1 --anon --on 0 --limit-rate 200M/s\n"
    "movepages move 1234 --to 1 --heap --ledger moved.json\n"
    "movepages move --from-log accesses.csv --min-share 80%\n"
    "movepages move --undo moved.json",
)
@click.argument("target", required=False)
@click.argument("spans", metavar="[ADDRESS|START-END]...", type=SPAN, nargs=-1)
@click.option("--to", metavar="NODES", help="Where to: 1, 0-3, 0,2, all, '!1' or +0.")
@click.option(
    "--from-log", "log_file", metavar="FILE", help="Each page to the node that this log says."
)
@click.option("--min-share", type=SHARE, metavar="SHARE", help="Pages with so much off-node (60%).")
@click.option(
    "--min-samples", type=click.IntRange(1), metavar="N", help="Pages with so many accesses (8)."
)
@click.option("--undo", "undo_file", metavar="FILE", help="Put back what this ledger moved.")
@selecting
@carrying
@json_option
@click.pass_obj
def run(
    session: Session,
    /,
    *,
    target: str | None,
    spans: tuple[Span, ...],
    to: str | None,
    log_file: str | None,
    min_share: float | None,
    min_samples: int | None,
    undo_file: str | None,
    as_json: bool,
    **settings: Any,
) -> ExitCode:
    """Move pages of processes to other nodes.

    TARGET is a pid, name:NAME, user:USER, cgroup:/PATH or tree:PID (with its children), or several
    with commas between them.

    Name single addresses, ranges as `show --all` lists them, what kind of memory you mean, or
    --all-mappings. What is present moves. Several nodes get the pages in turn. Pages that other
    processes map stay, unless --shared is given.

    With --from-log a profiler's log says which pages move, and where to: those that are mostly
    accessed from other nodes, each to the node that uses it most. It is CSV with the columns pid,
    address, node or cpu, count, or JSON lines with these.

    `all`, `!` (all but) and `+` (relative) refer to the cpuset of the process, which no page can
    leave. It ends with the pages by outcome, and what to do about those that did not move. Ctrl-C
    ends it after the call in flight, with the same account.
    """
    selectors, how = Selectors.take(settings), Carrying.take(settings)
    logged = log_file and Logged(log_file, min_share, min_samples)
    if not logged and not (min_share is None and min_samples is None):
        raise click.UsageError("--min-share and --min-samples are for --from-log")
    if undo_file is not None:
        if target or to or spans or logged or selectors.given:
            raise click.UsageError(
                "--undo takes pages and nodes from its file; leave out the others"
            )
        snapshot, plans = _undone(session.machine, undo_file)
    elif logged:
        if to or spans:
            raise click.UsageError(
                "--from-log takes pages and nodes from its file; leave out --to and addresses"
            )
        snapshot, plans = logged.plans(session.machine, target, selectors)
    else:
        snapshot, plans = _asked(session.machine, target, spans, to, selectors)
    return finish(session, snapshot, plans, how, as_json=as_json)


def _asked(
    machine: Machine,
    target: str | None,
    spans: tuple[Span, ...],
    to: str | None,
    selectors: Selectors,
) -> tuple[MoveSnapshot, list[Plan]]:
    """Plan what the command line asks for."""
    if target is None:
        raise click.UsageError("Missing argument 'TARGET'.")
    if to is None:
        raise click.UsageError("Missing option '--to'.")
    topology = machine.topology()
    selection = selectors.selection(spans, machine.page_size_bytes, topology)
    named = () if selectors.given else spans

    def plan_one(task: TaskInfo) -> tuple[Plan, NodeSet]:
        there = target_nodes("--to", to, topology, task)
        return _plan(machine, task, selection, named, there), there

    return plan_each(machine, target, spans, selection, plan_one)


def _plan(
    machine: Machine,
    task: TaskInfo,
    selection: Selection,
    spans: Sequence[Span],
    nodes: NodeSet,
) -> Plan:
    """Plan for one process. A single address without a page stays: the kernel will say why."""
    from movepages.placement import in_turn, make_plan, select
    from movepages.placement.planning import with_unlocated

    size = machine.page_size_bytes
    placement = select.locate(machine, task.pid, selection)
    singles = [span.pages(size)[0] for span in spans if span.end is None]
    if singles:
        placement = with_unlocated(placement, singles, size)
    placement, to = in_turn(placement, nodes)
    return make_plan(task.id, placement, to, reasons=(str(selection),))


def _undone(machine: Machine, file: str) -> tuple[MoveSnapshot, list[Plan]]:
    """Plan to put back what the ledgers of a file moved. Raises UsageError, MalformedError."""
    from movepages.placement.records import read_ledgers
    from movepages.placement.undo import undo
    from movepages.report.moves import MoveSnapshot

    try:
        text = Path(file).read_bytes()
    except OSError as error:
        raise click.UsageError(f"--undo: {file} cannot be read: {error.strerror}") from None
    plans = [undo(ledger) for ledger in reversed(read_ledgers(text, file))]  # the last move first
    tasks = [_same(machine, plan, file) for plan in plans]
    return MoveSnapshot(
        commands=tuple(task.command for task in tasks),
        target=NodeSet(node for plan in plans for node in plan.bytes_by_target),
        selection=f"what {file} has as moved",
    ), plans


def _same(machine: Machine, plan: Plan, file: str) -> TaskInfo:
    """Return the process of a plan. Raises NoSuchProcessError where its pid is another's."""
    task = machine.task(plan.task.pid)
    if task.id != plan.task:
        raise NoSuchProcessError(
            Errno.ESRCH,
            f"process {task.pid} ({task.command}) is not the one in {file}: that has ended, and "
            "nothing is left to put back",
            call="undo",
            pid=task.pid,
        )
    return task

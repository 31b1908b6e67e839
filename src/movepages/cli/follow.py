"""`movepages follow`."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from movepages.cli.carrying import Carrying, carrying
from movepages.cli.command import json_option, subcommand
from movepages.cli.complaint import complain
from movepages.cli.operation import finish, none_left, plan_each, selected
from movepages.cli.parameters import DURATION, SIZE
from movepages.cli.selecting import Selectors, selecting
from movepages.cli.session import with_memory
from movepages.errors import NoSuchProcessError
from movepages.nodeset import NodeSet

if TYPE_CHECKING:
    from collections.abc import Sequence

    from movepages.cli.exit_codes import ExitCode
    from movepages.cli.session import Session
    from movepages.machine import Machine
    from movepages.placement.select import Selection
    from movepages.placement.target import Found
    from movepages.values import Plan, TaskId, TaskInfo, ThreadInfo

_ALL_TIME = "all"
_OVER_S = 1.0
_ONLY_WATCHING = ("samples", "pause_s", "least_gain_bytes")


@subcommand(
    "follow",
    example="movepages follow 1234\n"
    "movepages follow 1234 --over all --dry-run\n"
    "movepages follow name:postgres --watch --limit-rate 200M/s\n"
    "movepages follow cgroup:/batch --watch 5s --samples 6 --time-limit 8h",
)
@click.argument("target")
@click.option("--over", metavar="TIME", help="Weigh the running in that time: 500ms; or in all.")
@click.option(
    "--near", type=click.IntRange(10), metavar="DISTANCE", help="What is no farther stays (15)."
)
@click.option(
    "--watch",
    "every_s",
    type=DURATION,
    is_flag=False,
    flag_value="1s",
    metavar="[TIME]",
    help="Keep doing it; look every 1s, or so often.",
)
@click.option(
    "--samples", type=click.IntRange(1), metavar="N", help="Looks in a row that must agree (3)."
)
@click.option(
    "--pause", "pause_s", type=DURATION, metavar="TIME", help="Least time between moves (10s)."
)
@click.option(
    "--least-gain",
    "least_gain_bytes",
    type=SIZE,
    metavar="SIZE",
    help="Memory times distance saved (1M).",
)
@selecting
@carrying
@json_option
@click.pass_obj
def run(
    session: Session,
    /,
    *,
    target: str,
    over: str | None,
    near: int | None,
    every_s: float | None,
    as_json: bool,
    **settings: Any,
) -> ExitCode:
    """Move pages of processes near to where their threads run.

    TARGET is a pid or what else `movepages move` takes. All memory is meant, unless you name a
    kind.

    It looks at the threads for a second: where they ran counts, by CPU time. Pages that are near to
    such a node stay; others come to it, or to the nearest node that has room. Of a process on
    several nodes nothing tells which page belongs where: pages far from all of those come to them
    by their share of the running.

    With --watch it goes on until Ctrl-C, and moves only what has been worth it for a while: the
    threads on the same nodes in several looks, a gain, and a pause since the last move.
    """
    selectors, how = Selectors.take(settings), Carrying.take(settings)
    patience = {name: settings.pop(name) for name in _ONLY_WATCHING}
    machine = session.machine
    selection = selected(machine, selectors)
    from movepages.placement.follow import NEAR_DISTANCE

    near = NEAR_DISTANCE if near is None else near
    if every_s is None:
        given = [name for name, value in patience.items() if value is not None]
        if given:
            raise click.UsageError("--samples, --pause and --least-gain are for --watch")
        return _once(session, target, selection, how, over, near, as_json=as_json)
    if over is not None or how.dry_run:
        raise click.UsageError("--watch looks again and again; leave out --over and --dry-run")
    from movepages.cli.following import Watch
    from movepages.placement.clock import SystemClock
    from movepages.placement.habit import Patience

    known = {name: value for name, value in patience.items() if value is not None}
    watch = Watch(
        machine,
        session.output,
        selection,
        how,
        Patience(every_s=every_s, **known),
        near,
        SystemClock(),
        as_json,
    )
    found = _targets(machine, target)
    for missing in found.missing:
        complain(f"warning: there is no process {missing}")
    return watch.run([with_memory(task) for task in found.tasks])


def _once(
    session: Session,
    target: str,
    selection: Selection,
    how: Carrying,
    over: str | None,
    near: int,
    *,
    as_json: bool,
) -> ExitCode:
    """Look at threads, and move once."""
    from movepages.placement.follow import plan_follow
    from movepages.placement.running import running
    from movepages.report.follow import ran

    machine, topology = session.machine, session.machine.topology()
    before = _looked_before(machine, target, over)
    free = dict(machine.free_bytes())
    remarks: list[str] = []

    def plan_one(task: TaskInfo) -> tuple[Plan, NodeSet]:
        found = running(machine.threads(task.pid), topology, before.get(task.id))
        plan = plan_follow(machine, task, selection, found, near_distance=near, free=free)
        for node, size_bytes in plan.bytes_by_target.items():
            free[node] -= size_bytes  # no room for the next process
        remarks.append(f"Its threads {ran(found)}.")
        return plan, NodeSet(plan.bytes_by_target)

    snapshot, plans = plan_each(machine, target, (), selection, plan_one)
    return finish(session, replace(snapshot, remarks=tuple(remarks)), plans, how, as_json=as_json)


def _looked_before(
    machine: Machine, target: str, over: str | None
) -> dict[TaskId, Sequence[ThreadInfo]]:
    """Look at the threads of all processes meant, and wait for as long as they are to be weighed.

    Nothing is found where all their time counts. Raises UsageError, and as `find` does.
    """
    if over == _ALL_TIME:
        return {}
    try:
        seconds = _OVER_S if over is None else DURATION.convert(over, None, None)
    except click.BadParameter as error:
        raise click.UsageError(f"--over: {error.message}; or write all") from None
    from movepages.placement.clock import SystemClock, wait

    before: dict[TaskId, Sequence[ThreadInfo]] = {}
    for task in _targets(machine, target).tasks:
        with suppress(NoSuchProcessError):  # whether one has ended is told when it is planned for
            before[task.id] = machine.threads(with_memory(task).pid)
    wait(SystemClock(), seconds, lambda: False)
    return before


def _targets(machine: Machine, target: str) -> Found:
    """Return the processes that are meant. Raises NoSuchProcessError where there is none."""
    from movepages.placement.target import find, parse_targets

    found = find(machine, parse_targets(target))
    if not found.tasks:
        raise none_left([str(each) for each in found.missing])
    return found

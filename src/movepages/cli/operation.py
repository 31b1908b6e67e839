"""What the commands that move pages share: from targets to plans, and from plans to a report."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from movepages.abi import Errno
from movepages.cli.carrying import carry_out, warn
from movepages.cli.exit_codes import ExitCode
from movepages.cli.session import with_memory
from movepages.errors import NoSuchProcessError, NotPermittedError
from movepages.nodeset import NodeSet

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from movepages.cli.carrying import Carrying
    from movepages.cli.parameters import Span
    from movepages.cli.selecting import Selectors
    from movepages.cli.session import Session
    from movepages.machine import Machine
    from movepages.placement.select import Selection
    from movepages.report.moves import MoveSnapshot
    from movepages.values import Ledger, Plan, TaskInfo

    PlanOne = Callable[[TaskInfo], tuple[Plan, NodeSet]]


def selected(machine: Machine, selectors: Selectors, spans: Sequence[Span] = ()) -> Selection:
    """Return what is selected: all memory where nothing is said. Raises UsageError and the like."""
    if not (selectors.given or spans):
        from movepages.placement import select

        return select.everything()
    return selectors.selection(spans, machine.page_size_bytes, machine.topology())


def plan_each(
    machine: Machine,
    target: str,
    spans: Sequence[Span],
    selection: Selection,
    plan_one: PlanOne,
) -> tuple[MoveSnapshot, list[Plan]]:
    """Plan for each process that a target means, with what makes a plan and the nodes it is for.

    One of several that has ended, or that the caller may not look at, is among the missing. Raises
    UsageError for addresses of several processes, NoSuchProcessError or NotPermittedError where
    none is left, InvalidCallError for a kernel thread.
    """
    from movepages.placement.target import find, parse_targets
    from movepages.report.moves import MoveSnapshot

    found = find(machine, parse_targets(target))
    if spans and len(found.tasks) > 1:
        raise click.UsageError("addresses are those of one process; name one, or give no addresses")
    tasks: list[TaskInfo] = []
    plans: list[Plan] = []
    missing = [str(each) for each in found.missing]
    nodes = NodeSet()
    refusal: NotPermittedError | None = None
    for task in found.tasks:
        try:
            plan, there = plan_one(with_memory(task))
        except (NoSuchProcessError, NotPermittedError) as error:
            if len(found.tasks) == 1:
                raise
            missing.append(str(task.pid))
            refusal = error if isinstance(error, NotPermittedError) else refusal
            continue
        plans.append(plan)
        tasks.append(task)
        nodes = NodeSet(nodes | there)
    if not tasks:
        raise refusal or none_left(missing)
    bounds = [span.pages(machine.page_size_bytes) for span in spans]
    return MoveSnapshot(
        commands=tuple(task.command for task in tasks),
        target=nodes,
        selection=str(selection),
        span_bytes=_length(bounds),
        missing=tuple(missing),
    ), plans


def finish(
    session: Session, snapshot: MoveSnapshot, plans: Sequence[Plan], how: Carrying, *, as_json: bool
) -> ExitCode:
    """Carry plans out, or only show them; report, and return the exit code.

    Raises what ended the work, and NodeFullError where there is no room to begin.
    """
    plans = how.limited(plans)
    concerns = warn(session.machine, plans, how)
    if how.dry_run:
        _write(session, snapshot.planned(plans, concerns), as_json=as_json)
        return ExitCode.DONE
    ledgers = carry_out(session.machine, plans, how)
    _write(session, snapshot.moved(plans, ledgers, concerns), as_json=as_json)
    return _verdict(ledgers, len(plans), missing=bool(snapshot.missing))


def none_left(missing: Sequence[str]) -> NoSuchProcessError:
    """Return the error for targets none of which names a process."""
    return NoSuchProcessError(
        Errno.ESRCH, f"there is no process {', '.join(missing)}; it may have ended", call="find"
    )


def _length(bounds: Sequence[tuple[int, int]]) -> int:
    """Return how many bytes some ranges cover, those that overlap once."""
    covered = length = 0
    for start, end in sorted(bounds):
        length += max(0, end - max(start, covered))
        covered = max(covered, end)
    return length


def _write(session: Session, snapshot: MoveSnapshot, *, as_json: bool) -> None:
    from movepages.report import moves as report

    if as_json:
        from movepages.report.json import write_document

        write_document(session.output, report.move_json(snapshot))
    elif not snapshot.refused:
        report.write_move_text(snapshot, session.output)


def _verdict(ledgers: Sequence[Ledger], planned: int, *, missing: bool) -> ExitCode:
    """Return the exit code; raise what ended the work, but for the end of one of several."""
    if len(ledgers) < planned or any(ledger.ended == "interrupted" for ledger in ledgers):
        raise click.Abort("the account of what moved is exact")
    for ledger in ledgers:
        ended = isinstance(ledger.error, NoSuchProcessError)
        if ledger.error and not (ended and planned > 1):
            raise ledger.error
    complete = all(ledger.complete for ledger in ledgers) and not missing
    return ExitCode.DONE if complete else ExitCode.NOT_MOVED

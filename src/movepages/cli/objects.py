"""What `movepages file` and `movepages shm` share: look at objects, move them, report."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from movepages.abi import Errno
from movepages.cli.carrying import Carrying, until_interrupted
from movepages.cli.complaint import complain
from movepages.cli.exit_codes import ExitCode
from movepages.cli.parameters import target_nodes
from movepages.errors import NodeFullError
from movepages.nodeset import NodeSet

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from movepages.cli.session import Session
    from movepages.machine import Machine
    from movepages.placement.conditions import Concern
    from movepages.placement.objects import Memory, ObjectMover, Sums
    from movepages.report.objects import ObjectFacts, ObjectsSnapshot

_EXACT = "the account of what moved is exact"


@dataclass(frozen=True, slots=True)
class Mapped:
    """An object that is mapped; without memory where it may not be."""

    facts: ObjectFacts
    memory: Memory | None


def read_carrying(to: str | None, settings: dict[str, Any]) -> Carrying:
    """Take the options that say how to move. Raises UsageError for those without --to."""
    if to is None:
        for name, value in settings.items():
            if value and name != "dry_run":
                raise click.UsageError(
                    f"--{name.replace('_', '-')} says how to move; say where to as well, with --to"
                )
    return Carrying.take({**settings, "ledger_file": None})


def read_target(session: Session, to: str | None) -> NodeSet:
    """Read the nodes to move to: of the cpuset of this process, for it is that which moves."""
    if to is None:
        return NodeSet()
    return target_nodes("--to", to, session.machine.topology(), session.machine.task(0))


def look(machine: Machine, objects: Sequence[Mapped]) -> list[Mapped]:
    """Return the objects with where they are."""
    from movepages.placement.objects import bytes_by_node

    return [
        replace(
            thing, facts=replace(thing.facts, bytes_by_node=bytes_by_node(machine, thing.memory))
        )
        if thing.memory
        else thing
        for thing in objects
    ]


def carry_out(
    session: Session,
    objects: Sequence[Mapped],
    to: NodeSet,
    how: Carrying,
    write: Callable[[ObjectsSnapshot], None],
) -> ExitCode:
    """Look at objects, move them where there are nodes to move to, and report.

    Raises NodeFullError where there is no room to begin, and what ended the work.
    """
    from movepages.report.objects import ObjectsSnapshot

    seen = look(session.machine, objects)
    facts = tuple(thing.facts for thing in seen)
    if not to:
        write(ObjectsSnapshot(facts, to, dry_run=True))
        return ExitCode.DONE
    concerns = _warn(session.machine, seen, to, how)
    sums = _all_sums(session.machine, seen, to, how)
    snapshot = ObjectsSnapshot(_with(facts, sums), to, how.dry_run, tuple(concerns))
    if how.dry_run:
        write(snapshot)
        return ExitCode.DONE
    try:
        now = [thing.facts.bytes_by_node for thing in look(session.machine, seen)]
    except KeyboardInterrupt:
        write(snapshot)
        raise click.Abort(_EXACT) from None
    write(replace(snapshot, objects=_with(facts, sums, now)))
    return _verdict(sums)


def _with(
    facts: Sequence[ObjectFacts],
    sums: Sequence[Sums | None],
    now: Sequence[dict[int, int]] | None = None,
) -> tuple[ObjectFacts, ...]:
    """Return what is known of objects with what became of them, and where those moved are now."""
    after: Sequence[dict[int, int] | None] = now or [None] * len(facts)
    return tuple(
        replace(thing, sums=made, after=where if made else None)
        for thing, made, where in zip(facts, sums, after, strict=True)
    )


def _warn(machine: Machine, objects: Sequence[Mapped], to: NodeSet, how: Carrying) -> list[Concern]:
    """Say on standard error what will fight the move. Raises NodeFullError."""
    from movepages.placement.conditions import machine_concerns

    found = machine_concerns(machine, _bytes_to_come(objects, to), how.options())
    for concern in found:
        if concern.forbids and not (how.force or how.dry_run):
            raise NodeFullError(Errno.ENOMEM, str(concern), call="move_pages")
    for concern in found:
        complain(f"warning: {concern}")
    return found


def _bytes_to_come(objects: Sequence[Mapped], to: NodeSet) -> dict[int, int]:
    from movepages.placement.objects import bytes_to_come

    coming: dict[int, int] = {}
    for thing in objects:
        for node, size_bytes in bytes_to_come(thing.facts.bytes_by_node, to).items():
            coming[node] = coming.get(node, 0) + size_bytes
    return coming


def _all_sums(
    machine: Machine, objects: Sequence[Mapped], to: NodeSet, how: Carrying
) -> list[Sums | None]:
    """Plan or move the objects one after the other; None for those that were not come to."""
    from movepages.placement.objects import ObjectMover
    from movepages.report.progress import ProgressBar

    with until_interrupted() as stop, ProgressBar(sys.stderr) as bar:
        mover = ObjectMover(
            machine,
            to,
            how.options(),
            max_pages=how.max_pages,
            total_bytes=sum(_bytes_to_come(objects, to).values()),
            stop=stop,
            progress=bar.show,
            mover=how.mover(),
        )
        return [_sums(mover, thing, how) for thing in objects]


def _sums(mover: ObjectMover, thing: Mapped, how: Carrying) -> Sums | None:
    if mover.ended != "done" or thing.memory is None:
        return None
    return mover.plan(thing.memory) if how.dry_run else mover.move(thing.memory)


def _verdict(made: Sequence[Sums | None]) -> ExitCode:
    """Return the exit code; raise what ended the work."""
    begun = [sums for sums in made if sums]
    if any(sums.ended == "interrupted" for sums in begun):
        raise click.Abort(_EXACT)
    for sums in begun:
        if sums.error:
            raise sums.error
    complete = len(begun) == len(made) and all(sums.complete for sums in begun)
    return ExitCode.DONE if complete else ExitCode.NOT_MOVED


def write_objects(session: Session, snapshot: ObjectsSnapshot, kind: str, *, as_json: bool) -> None:
    """Write the report; `kind` is `files` or `segments`."""
    from movepages.report import objects as report

    if as_json:
        from movepages.report.json import write_document

        write_document(session.output, report.to_json(snapshot, kind))
    else:
        report.write_text(snapshot, kind, session.output)

"""`movepages shm`."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from movepages.cli.carrying import carrying_without_ledger
from movepages.cli.command import json_option, subcommand
from movepages.cli.objects import Mapped, carry_out, read_carrying, read_target, write_objects
from movepages.errors import ArgumentError, NotPermittedError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from movepages.cli.exit_codes import ExitCode
    from movepages.cli.session import Session
    from movepages.linux.shm import Segment
    from movepages.report.objects import ObjectsSnapshot

_REMARKS: dict[type[Exception], str] = {
    ArgumentError: "it has gone",
    NotPermittedError: "not permitted",
    UnsupportedError: "its nodes cannot be told",
}
"""Why a segment in the list has no nodes; who names it is told more."""


@subcommand(
    "shm",
    example="movepages shm\n"
    "movepages shm sysv:32 --to 1 --shared\n"
    "movepages shm /dev/shm/cache /dev/hugepages/pool --to 0,1 --shared",
)
@click.argument("names", metavar="[SEGMENT]...", nargs=-1)
@click.option("--to", metavar="NODES", help="Where to: 1, 0-3, all, '!1', +0-1.")
@carrying_without_ledger
@json_option
@click.pass_obj
def run(
    session: Session,
    /,
    *,
    names: tuple[str, ...],
    to: str | None,
    as_json: bool,
    **settings: Any,
) -> ExitCode:
    """List segments of shared memory with their nodes, or move them.

    Segments are those of System V (sysv:ID, as ipcs numbers them), of POSIX (/dev/shm/NAME) and
    files on hugetlbfs. Without a name all are listed.

    With --to those named are moved, as far as they are in memory; they are attached for that, to be
    read only. Pages that a program has mapped are moved with --shared only.
    """
    how = read_carrying(to, settings)
    if to is not None and not names:
        raise click.UsageError("--to: name the segments to move, as movepages shm lists them")
    target = read_target(session, to)
    chosen = _chosen(names)

    def write(snapshot: ObjectsSnapshot) -> None:
        write_objects(session, snapshot, "segments", as_json=as_json)

    with ExitStack() as kept:
        objects = [_mapped(segment, kept, must=bool(names)) for segment in chosen]
        return carry_out(session, objects, target, how, write)


def _chosen(names: Sequence[str]) -> list[Segment]:
    """Return the segments of some names, or all. Raises ArgumentError."""
    from movepages.linux.shm import list_segments

    there = {segment.name: segment for segment in list_segments()}
    if unknown := [name for name in names if name not in there]:
        raise ArgumentError(
            f"there is no segment {unknown[0]}; movepages shm lists those that there are, and "
            "other files are for movepages file"
        )
    return [there[name] for name in dict.fromkeys(names)] if names else list(there.values())


def _mapped(segment: Segment, kept: ExitStack, *, must: bool) -> Mapped:
    """Map a segment; in a list of all, one that may not be mapped is only told of."""
    from movepages.linux.object_memory import segment_memory
    from movepages.report.objects import ObjectFacts
    from movepages.report.policy import kernel_words

    facts = ObjectFacts(
        segment.name,
        segment.size_bytes,
        uid=segment.uid,
        owner=_user(segment.uid),
        attached=segment.attached,
    )
    try:
        memory = kept.enter_context(segment_memory(segment))
    except (ArgumentError, NotPermittedError, UnsupportedError) as error:
        if must:
            raise
        there = min(segment.there_bytes, segment.size_bytes)
        return Mapped(replace(facts, unlocated_bytes=there, remark=_REMARKS[type(error)]), None)
    return Mapped(replace(facts, policy=kernel_words(memory.policy())), memory)


def _user(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)

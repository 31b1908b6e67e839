"""Where the memory of files and segments is, and what became of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from movepages.abi import status_name
from movepages.report.by_node import BEFORE_AFTER, before_after
from movepages.report.fields import counted, encode, fields, node_keys, printable
from movepages.report.moves import OUTCOME, explain_failures, outcome_rows
from movepages.units import format_size

if TYPE_CHECKING:
    from movepages.nodeset import NodeSet
    from movepages.placement.conditions import Concern
    from movepages.placement.objects import Sums
    from movepages.report.output import Output

COLUMNS = {
    "files": fields("file", "size_bytes", "resident_bytes", "bytes_by_node"),
    "segments": fields(
        "segment",
        "size_bytes",
        "resident_bytes",
        "bytes_by_node",
        "policy",
        "owner",
        "attached",
        "remark",
    ),
}
"""What is shown of each, by what they are called."""
PLANNED = fields("from_node", "to_node", "pages", "size_bytes")


@dataclass(frozen=True, slots=True)
class ObjectFacts:
    """A file or segment: what it is called, and where its memory is, before and after a move.

    `unlocated_bytes` are in memory, and on which node is not known: `remark` says why. `attached`
    counts the attaches of a System V segment.
    """

    name: str
    size_bytes: int
    bytes_by_node: dict[int, int] = field(default_factory=dict)
    unlocated_bytes: int = 0
    after: dict[int, int] | None = None
    sums: Sums | None = None
    policy: str = ""
    uid: int = 0
    owner: str = ""
    attached: int | None = None
    remark: str = ""

    @property
    def file(self) -> str:
        """Its name, as that of a file."""
        return self.name

    @property
    def segment(self) -> str:
        """Its name, as that of a segment."""
        return self.name

    @property
    def resident_bytes(self) -> int:
        """Bytes that are in memory."""
        return sum(self.bytes_by_node.values()) + self.unlocated_bytes


@dataclass(frozen=True, slots=True)
class ObjectsSnapshot:
    """Files or segments, and what was asked for; no target where they are only looked at."""

    objects: tuple[ObjectFacts, ...]
    target: NodeSet
    dry_run: bool
    concerns: tuple[Concern, ...] = ()


@dataclass(frozen=True, slots=True)
class _Planned:
    from_node: int
    to_node: int
    pages: int
    size_bytes: int


def write_text(snapshot: ObjectsSnapshot, kind: str, output: Output) -> None:
    """Write a table of the objects; or, one after the other, what is planned or was done."""
    if not snapshot.objects:
        output.line(f"There are no {kind} of shared memory.")
        return
    if not snapshot.target:
        output.table(COLUMNS[kind], snapshot.objects)
        return
    for number, thing in enumerate(snapshot.objects):
        if number:
            output.line()
        _write_object(snapshot, thing, output)
    explain_failures([thing.sums for thing in snapshot.objects if thing.sums], output)


def _write_object(snapshot: ObjectsSnapshot, thing: ObjectFacts, output: Output) -> None:
    nodes = snapshot.target
    output.styled(
        (printable(thing.name), "bold"), (f": to node{'s' * (len(nodes) > 1)} {nodes}", "")
    )
    output.line(f"{_resident(thing)} of {format_size(thing.size_bytes)} is in memory")
    output.line()
    if thing.sums is None:
        output.line("Nothing was tried: the work ended before.")
    elif snapshot.dry_run:
        _write_plan(thing.sums, output)
    else:
        _write_moved(thing, thing.sums, output)


def _resident(thing: ObjectFacts) -> str:
    """Say how much of an object is in memory; its last page may reach beyond its end."""
    if not thing.resident_bytes:
        return "Nothing"
    if thing.resident_bytes >= thing.size_bytes:
        return "All"
    return format_size(thing.resident_bytes)


def _write_plan(sums: Sums, output: Output) -> None:
    rows = _planned(sums)
    if rows:
        output.table(PLANNED, rows)
        output.line()
    size_bytes = sum(row.size_bytes for row in rows)
    output.sentence(
        f"This is a dry run: {counted(sums.untried_pages, 'page')} ({format_size(size_bytes)}) "
        f"would be moved, {counted(sums.already_there, 'page')} "
        f"({format_size(sums.already_there_bytes)}) "
        f"{'is' if sums.already_there == 1 else 'are'} already there"
    )


def _write_moved(thing: ObjectFacts, sums: Sums, output: Output) -> None:
    rows = before_after(thing.bytes_by_node, thing.after) if thing.after is not None else []
    if rows:
        output.table(BEFORE_AFTER, rows)
        output.line()
    output.table(OUTCOME, outcome_rows(sums))


def to_json(snapshot: ObjectsSnapshot, kind: str) -> dict[str, Any]:
    """Return the objects for a program; `kind` is what they are called: `files` or `segments`."""
    objects = [_object_json(thing, kind) for thing in snapshot.objects]
    failed: Counter[str] = Counter()
    for thing in objects:
        failed.update(thing["failed"])
    sums = ("asked", "moved", "already_there", "not_tried", "bytes_moved")
    errors = [thing["error"] for thing in objects if thing["error"]]
    return {
        "to": list(snapshot.target),
        "dry_run": snapshot.dry_run,
        **{name: sum(thing[name] for thing in objects) for name in sums},
        "failed": dict(failed),
        "error": errors[0] if errors else None,
        "warnings": [
            {"name": concern.name, "says": concern.says, "remedy": concern.remedy}
            for concern in snapshot.concerns
        ],
        "plan": [
            {"name": thing.name, **encode(row, PLANNED)}
            for thing in snapshot.objects
            for row in (_planned(thing.sums) if thing.sums else ())
        ],
        kind: objects,
    }


def _object_json(thing: ObjectFacts, kind: str) -> dict[str, Any]:
    from movepages.placement.objects import Sums

    sums = thing.sums or Sums(ended="not begun")
    segment = {
        "policy": thing.policy or None,
        "uid": thing.uid,
        "attached": thing.attached,
        "remark": thing.remark,
    }
    return {
        "name": thing.name,
        "size_bytes": thing.size_bytes,
        "resident_bytes": thing.resident_bytes,
        "bytes_by_node": node_keys(thing.bytes_by_node),
        "bytes_by_node_after": node_keys(thing.after or {}),
        **(segment if kind == "segments" else {}),
        "asked": sums.asked,
        "moved": sums.moved_pages,
        "already_there": sums.already_there,
        "not_tried": sums.untried_pages,
        "failed": {status_name(code): pages for code, pages in sums.failed().items()},
        "bytes_moved": sums.moved_bytes,
        "spilled": sums.spilled_pages,
        "strayed": {status_name(where): pages for where, pages in sums.strayed().items()},
        "verified": sums.verified,
        "calls": sums.calls,
        "seconds": sums.seconds,
        "ended": sums.ended,
        "error": str(sums.error) if sums.error else None,
    }


def _planned(sums: Sums) -> list[_Planned]:
    return [_Planned(*way, *amount) for way, amount in sorted(sums.planned.items())]

"""What became of the pages that were to move."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from movepages.abi import PAGE_STATUSES, status_name
from movepages.report.fields import counted, fields, node_keys
from movepages.report.pages import status_meaning
from movepages.report.process import title
from movepages.units import format_size

if TYPE_CHECKING:
    from movepages.nodeset import NodeSet
    from movepages.placement.mover import MoveReport
    from movepages.report.output import Output

OUTCOME = fields("outcome", "pages", "remark")
BEFORE_AFTER = fields("node", "before_bytes", "after_bytes")


@dataclass(frozen=True, slots=True)
class MoveSnapshot:
    """What was asked of `move`, and what became of it.

    `span_bytes` is the length of the addresses and ranges given (0: all mappings), `present_bytes`
    the memory found there, whole huge pages included.
    """

    pid: int
    command: str
    target: NodeSet
    report: MoveReport
    span_bytes: int
    present_bytes: int


@dataclass(frozen=True, slots=True)
class _Outcome:
    outcome: str
    pages: int
    remark: str


@dataclass(frozen=True, slots=True)
class MigrateSnapshot:
    """What `migrate` did: resident bytes by node before and after, and folios that stayed."""

    pid: int
    command: str
    source: NodeSet
    target: NodeSet
    not_moved: int
    before: dict[int, int]
    after: dict[int, int]


@dataclass(frozen=True, slots=True)
class BeforeAfter:
    """Resident memory of a process on one node, before and after."""

    node: int
    before_bytes: int
    after_bytes: int


def write_move_text(snapshot: MoveSnapshot, output: Output) -> None:
    """Write the counts by outcome; each failing status with its phrase, and what to do about it."""
    report = snapshot.report
    output.styled(
        (title(snapshot.command, snapshot.pid), "bold"), (f": to {_nodes(snapshot.target)}", "")
    )
    if snapshot.span_bytes:
        present = f"{format_size(snapshot.present_bytes)} of memory is"
        output.line(
            f"{present if snapshot.present_bytes else 'Nothing is'} present "
            f"in the {format_size(snapshot.span_bytes)} of addresses given"
        )
    output.line()
    output.table(OUTCOME, _outcomes(report))
    for status, _ in _failures(report):
        if known := PAGE_STATUSES.get(status):
            output.line()
            output.heading(known.name)
            output.paragraph(known.cause)
            output.paragraph(f"What to do: {known.remedy}")


def move_json(snapshot: MoveSnapshot) -> dict[str, Any]:
    """Return the outcome of `move` for a program."""
    report = snapshot.report
    return {
        "pid": snapshot.pid,
        "command": snapshot.command,
        "to": list(snapshot.target),
        "present_bytes": snapshot.present_bytes,
        "asked": report.asked,
        "moved": report.moved,
        "already_there": report.already_there,
        "failed": {status_name(status): pages for status, pages in _failures(report)},
        "bytes_moved": report.bytes_moved,
        "error": str(report.error) if report.error else None,
    }


def write_migrate_text(snapshot: MigrateSnapshot, output: Output) -> None:
    """Write resident memory by node before and after, and what stayed."""
    output.styled(
        (title(snapshot.command, snapshot.pid), "bold"),
        (f": from {_nodes(snapshot.source)} to {_nodes(snapshot.target)}", ""),
    )
    output.line()
    nodes = sorted(snapshot.before.keys() | snapshot.after.keys())
    output.table(
        BEFORE_AFTER,
        [
            BeforeAfter(node, snapshot.before.get(node, 0), snapshot.after.get(node, 0))
            for node in nodes
        ],
    )
    output.line()
    if not snapshot.not_moved:
        output.line("Every page that was to move has moved.")
        return
    output.line(
        f"Not moved: {counted(snapshot.not_moved, 'page')} (a huge page counts as one); "
        "`movepages move` says why."
    )


def migrate_json(snapshot: MigrateSnapshot) -> dict[str, Any]:
    """Return the outcome of `migrate` for a program."""
    return {
        "pid": snapshot.pid,
        "command": snapshot.command,
        "from": list(snapshot.source),
        "to": list(snapshot.target),
        "not_moved": snapshot.not_moved,
        "bytes_by_node_before": node_keys(snapshot.before),
        "bytes_by_node_after": node_keys(snapshot.after),
    }


def _outcomes(report: MoveReport) -> list[_Outcome]:
    return [
        _Outcome("asked", report.asked, ""),
        _Outcome("moved", report.moved, format_size(report.bytes_moved) if report.moved else ""),
        _Outcome("already there", report.already_there, ""),
        *(
            _Outcome(f"failed: {status_name(status)}", pages, status_meaning(status))
            for status, pages in _failures(report)
        ),
    ]


def _failures(report: MoveReport) -> list[tuple[int, int]]:
    """Return (status, pages) of what failed, the most frequent first."""
    return sorted(report.failed.items(), key=lambda item: (-item[1], -item[0]))


def _nodes(nodes: NodeSet) -> str:
    return f"node {nodes}" if len(nodes) == 1 else f"nodes {nodes}"

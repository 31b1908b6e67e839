"""What became of the pages that were to move."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from movepages.abi import PAGE_STATUSES, status_name
from movepages.nodeset import NodeSet
from movepages.report.by_node import BEFORE_AFTER, before_after, write_moved, write_planned
from movepages.report.fields import counted, encode, fields, node_keys, printable
from movepages.report.pages import status_meaning
from movepages.report.process import title
from movepages.units import format_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from movepages.placement.conditions import Concern
    from movepages.placement.objects import Sums
    from movepages.report.output import Output
    from movepages.values import Ledger, Plan

OUTCOME = fields("outcome", "pages", "remark")
PLANNED = fields("from_node", "to_node", "pages", "size_bytes", "reason")


@dataclass(frozen=True, slots=True)
class MoveSnapshot:
    """What was asked of `move`, and what became of it, process by process.

    `span_bytes` is the length of the addresses and ranges given, 0 without any. `missing` are
    targets that name no process, none any more, or one that may not be looked at. `remarks` say a
    sentence about each process, if there is something to say. `ledgers` are those of the plans
    begun.
    """

    commands: tuple[str, ...]
    target: NodeSet
    selection: str
    span_bytes: int = 0
    missing: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    plans: tuple[Plan, ...] = ()
    ledgers: tuple[Ledger, ...] = ()
    concerns: tuple[Concern, ...] = ()
    dry_run: bool = True

    def planned(self, plans: Iterable[Plan], concerns: Iterable[Concern]) -> MoveSnapshot:
        """Return it with what is planned."""
        return replace(self, plans=tuple(plans), concerns=tuple(concerns))

    def moved(
        self, plans: Iterable[Plan], ledgers: Iterable[Ledger], concerns: Iterable[Concern]
    ) -> MoveSnapshot:
        """Return it with what was planned, and what became of that."""
        planned = self.planned(plans, concerns)
        return replace(planned, ledgers=tuple(ledgers), dry_run=False)

    @property
    def refused(self) -> bool:
        """Whether the kernel refused the work before anything moved: the error says it all."""
        return bool(self.ledgers) and not any(
            ledger.error is None or ledger.moved_pages for ledger in self.ledgers
        )


@dataclass(frozen=True, slots=True)
class _PlannedMove:
    from_node: int
    to_node: int
    pages: int
    size_bytes: int
    reason: str


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


def write_move_text(snapshot: MoveSnapshot, output: Output) -> None:
    """Write the counts by outcome, or the plan; then each failing status once, with its remedy."""
    for number, (command, plan) in enumerate(zip(snapshot.commands, snapshot.plans, strict=True)):
        if number:
            output.line()
        target = snapshot.target if len(snapshot.commands) == 1 else NodeSet(plan.bytes_by_target)
        heading = f": to {node_names(target)}" if target else ": nothing is to be moved"
        output.styled((title(command, plan.task.pid), "bold"), (heading, ""))
        for remark in snapshot.remarks[number : number + 1]:
            output.paragraph(remark)
        if snapshot.span_bytes:
            present = plan.present_bytes
            output.sentence(
                f"{f'{format_size(present)} of memory is' if present else 'Nothing is'} present "
                f"in the {format_size(snapshot.span_bytes)} of addresses given"
            )
        elif not (plan.page_count or plan.there_pages or plan.crowded_pages):
            output.sentence(f"No page that is in memory is meant by: {snapshot.selection}")
        output.line()
        if snapshot.dry_run:
            _write_plan(plan, output)
        elif number < len(snapshot.ledgers):
            ledger = snapshot.ledgers[number]
            output.table(OUTCOME, [*outcome_rows(ledger), *_without_room(plan)])
            write_moved(ledger, output)
        else:
            output.line("Nothing was tried: the work was interrupted before.")
    for missing in snapshot.missing:
        output.line()
        output.sentence(
            f"{printable(missing)}: it is not there, has ended, or is not yours to look at"
        )
    explain_failures(snapshot.ledgers, output)


def _write_plan(plan: Plan, output: Output) -> None:
    """Write what would be moved, by source, target and reason."""
    moves = _planned(plan)
    if moves:
        output.table(PLANNED, moves)
        output.line()
    write_planned(plan, output)
    output.sentence(
        f"This is a dry run: {counted(plan.page_count, 'page')} ({format_size(plan.total_bytes)}) "
        f"would be moved, {counted(plan.there_pages, 'page')} ({format_size(plan.there_bytes)}) "
        f"{'is' if plan.there_pages == 1 else 'are'} already there"
    )
    if plan.crowded_pages:
        size = format_size(plan.crowded_bytes)
        output.sentence(
            f"For {counted(plan.crowded_pages, 'page')} ({size}) no nearer node has room"
        )


def explain_failures(ledgers: Iterable[Ledger | Sums], output: Output) -> None:
    """Write cause and remedy of each failing status, once."""
    failed: Counter[int] = Counter()
    for ledger in ledgers:
        failed.update(ledger.failed())
    for status, _ in _most_first(failed):
        if known := PAGE_STATUSES.get(status):
            output.line()
            output.heading(known.name)
            output.paragraph(known.cause)
            output.paragraph(f"What to do: {known.remedy}")


def move_json(snapshot: MoveSnapshot) -> dict[str, Any]:
    """Return the outcome of `move` for a program: sums, then process by process."""
    from movepages.placement.account import untouched

    left = snapshot.plans[len(snapshot.ledgers) :]
    ledgers = [*snapshot.ledgers, *(untouched(plan, "not begun") for plan in left)]
    remarks = snapshot.remarks or ("",) * len(snapshot.commands)
    processes = [
        _process_json(command, remark, ledger)
        for command, remark, ledger in zip(snapshot.commands, remarks, ledgers, strict=True)
    ]
    failed: Counter[str] = Counter()
    for process in processes:
        failed.update(process["failed"])
    sums = (
        "present_bytes",
        "asked",
        "moved",
        "already_there",
        "no_room",
        "not_tried",
        "bytes_moved",
    )
    errors = [process["error"] for process in processes if process["error"]]
    return {
        "to": list(snapshot.target),
        "selection": snapshot.selection,
        "dry_run": snapshot.dry_run,
        **{name: sum(process[name] for process in processes) for name in sums},
        "failed": dict(failed),
        "error": errors[0] if errors else None,
        "missing": list(snapshot.missing),
        "warnings": [
            {"name": concern.name, "says": concern.says, "remedy": concern.remedy}
            for concern in snapshot.concerns
        ],
        "plan": [
            {"pid": plan.task.pid, **encode(move, PLANNED)}
            for plan in snapshot.plans
            for move in _planned(plan)
        ],
        "processes": processes,
    }


def _process_json(command: str, remark: str, ledger: Ledger) -> dict[str, Any]:
    return {
        "pid": ledger.plan.task.pid,
        "command": command,
        "remark": remark,
        "present_bytes": ledger.plan.present_bytes,
        "asked": ledger.asked,
        "moved": ledger.moved_pages,
        "already_there": ledger.already_there,
        "no_room": ledger.plan.crowded_pages,
        "not_tried": ledger.untried_pages,
        "failed": {status_name(code): pages for code, pages in _most_first(ledger.failed())},
        "bytes_moved": ledger.moved_bytes,
        "bytes_by_node_before": node_keys(ledger.plan.bytes_by_node),
        "bytes_by_node_after": node_keys(ledger.bytes_by_node),
        "spilled": ledger.spilled_pages,
        "strayed": {status_name(where): pages for where, pages in ledger.strayed().items()},
        "verified": ledger.verified,
        "calls": ledger.calls,
        "seconds": ledger.seconds,
        "ended": ledger.ended,
        "error": str(ledger.error) if ledger.error else None,
    }


def write_migrate_text(snapshot: MigrateSnapshot, output: Output) -> None:
    """Write resident memory by node before and after, and what stayed."""
    output.styled(
        (title(snapshot.command, snapshot.pid), "bold"),
        (f": from {node_names(snapshot.source)} to {node_names(snapshot.target)}", ""),
    )
    output.line()
    output.table(BEFORE_AFTER, before_after(snapshot.before, snapshot.after))
    output.line()
    if not snapshot.not_moved:
        output.line("Every page that was to move has moved.")
        return
    output.sentence(
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


def outcome_rows(ledger: Ledger | Sums) -> list[_Outcome]:
    """Return the counts by outcome, for a table."""
    moved = ledger.moved_pages
    rows = [
        _Outcome("asked", ledger.asked, ""),
        _Outcome("moved", moved, format_size(ledger.moved_bytes) if moved else ""),
        _Outcome("already there", ledger.already_there, ""),
        *(
            _Outcome(f"failed: {status_name(status)}", pages, status_meaning(status))
            for status, pages in _most_first(ledger.failed())
        ),
    ]
    if ledger.untried_pages:
        why = ledger.ended if ledger.ended not in {"done", "error"} else "see the error below"
        rows.append(_Outcome("not tried", ledger.untried_pages, why))
    if ledger.spilled_pages:
        rows.append(_Outcome("of moved: spilled", ledger.spilled_pages, "to the nearest with room"))
    strayed = ledger.strayed()
    if ledger.verified:
        still = moved - sum(strayed.values())
        rows.append(_Outcome("of moved: still there", still, "asked for again at the end"))
    rows += [
        _Outcome("of moved: left again", pages, f"now {status_name(where)}")
        for where, pages in _most_first(strayed)
    ]
    return rows


def _without_room(plan: Plan) -> list[_Outcome]:
    """Say how many pages no better node has room for, if there are any."""
    if not plan.crowded_pages:
        return []
    size = format_size(plan.crowded_bytes)
    return [_Outcome("no room", plan.crowded_pages, f"{size}: no nearer node has room for them")]


def _planned(plan: Plan) -> list[_PlannedMove]:
    """Sum a plan up by source, target and reason, in the order of its first pages."""
    import numpy as np

    _, source = np.unique(plan.from_node, return_inverse=True)
    targets, target = np.unique(plan.to_node, return_inverse=True)
    key = (source * len(targets) + target) * len(plan.reasons) + plan.reason
    _, first, kind = np.unique(key, return_index=True, return_inverse=True)
    pages = np.zeros(len(first), dtype=np.int64)
    sizes = pages.copy()
    np.add.at(pages, kind, plan.pages)
    np.add.at(sizes, kind, plan.pages * plan.page_size_bytes)
    return [
        _PlannedMove(
            int(plan.from_node[run]),
            int(plan.to_node[run]),
            int(pages[number]),
            int(sizes[number]),
            plan.reasons[int(plan.reason[run])],
        )
        for run, number in sorted(zip(first.tolist(), range(len(first)), strict=True))
    ]


def _most_first(counts: Mapping[int, int]) -> list[tuple[int, int]]:
    """Return (status, pages), the most frequent first."""
    return sorted(counts.items(), key=lambda item: (-item[1], -item[0]))


def node_names(nodes: NodeSet) -> str:
    """Write nodes in a sentence: `node 1`, `nodes 0-1`."""
    return f"node {nodes}" if len(nodes) == 1 else f"nodes {nodes}"

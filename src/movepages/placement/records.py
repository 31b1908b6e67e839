"""Plans and ledgers as JSON, and back: what `--ledger` writes and `--undo` reads.

A ledger's pages are written as runs of pages alike, so that a gigabyte that moved is one line. The
reader takes nothing on trust: a file that was edited or cut off is refused, never half understood.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from movepages.abi import UNWRITTEN
from movepages.errors import MalformedError, call_error
from movepages.values import Ledger, Plan, TaskId

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

FORMAT = "movepages ledger 1"


class _Task(msgspec.Struct, forbid_unknown_fields=True):
    boot_id: str
    pid: int
    start_ticks: int


class _Run(msgspec.Struct, forbid_unknown_fields=True):
    """Pages that follow each other and are alike; the last four only in a ledger."""

    start: str
    pages: int
    page_size_bytes: int
    from_node: int
    to_node: int
    reason: int = 0
    to: int = UNWRITTEN
    answer: int = UNWRITTEN
    now: int = UNWRITTEN
    tries: int = 0


class _Plan(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    task: _Task
    reasons: list[str]
    there_pages: int
    there_bytes: int
    crowded_pages: int = 0
    crowded_bytes: int = 0
    staying_bytes_by_node: dict[int, int] = {}
    runs: list[_Run]


class _Error(msgspec.Struct, forbid_unknown_fields=True):
    errno: int
    call: str
    message: str
    node: int | None = None


class _Ledger(_Plan, forbid_unknown_fields=True, kw_only=True):
    calls: int
    seconds: float
    ended: str
    verified: bool
    error: _Error | None = None


class _File(msgspec.Struct, forbid_unknown_fields=True):
    format: str
    ledgers: list[_Ledger]


def plan_json(plan: Plan) -> bytes:
    """Return a plan as JSON."""
    return msgspec.json.encode(_Plan(**_plan_fields(plan), runs=_runs_of_plan(plan)))


def read_plan(text: bytes, name: str = "plan") -> Plan:
    """Read what `plan_json` wrote. Raises MalformedError, which names the file `name`."""
    record = _decoded(text, _Plan, name)
    return _plan_of(record, record.runs, name)


def ledgers_json(ledgers: Sequence[Ledger]) -> bytes:
    """Return ledgers as JSON, one run of pages on a line."""
    file = _File(FORMAT, [_ledger_record(ledger) for ledger in ledgers])
    return msgspec.json.format(msgspec.json.encode(file), indent=1) + b"\n"


def read_ledgers(text: bytes, name: str = "ledger") -> list[Ledger]:
    """Read what `ledgers_json` wrote. Raises MalformedError, which names the file `name`."""
    file = _decoded(text, _File, name)
    if file.format != FORMAT:
        raise MalformedError(name, 0, "format", f"it is {file.format!r}, not {FORMAT!r}")
    return [_ledger_of(record, name) for record in file.ledgers]


def _decoded(text: bytes, kind: type[Any], name: str) -> Any:
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        problem = str(error).removeprefix("JSON is malformed: ")
        raise MalformedError(name, 0, "JSON", problem) from None


def _plan_fields(plan: Plan) -> dict[str, Any]:
    task = plan.task
    return {
        "task": _Task(task.boot_id, task.pid, task.start_ticks),
        "reasons": list(plan.reasons),
        "there_pages": plan.there_pages,
        "there_bytes": plan.there_bytes,
        "crowded_pages": plan.crowded_pages,
        "crowded_bytes": plan.crowded_bytes,
        "staying_bytes_by_node": dict(plan.staying_bytes_by_node),
    }


def _runs_of_plan(plan: Plan) -> list[_Run]:
    return [
        _Run(f"{start:#x}", *facts)
        for start, *facts in zip(
            plan.start.tolist(),
            plan.pages.tolist(),
            plan.page_size_bytes.tolist(),
            plan.from_node.tolist(),
            plan.to_node.tolist(),
            plan.reason.tolist(),
            strict=True,
        )
    ]


def _ledger_record(ledger: Ledger) -> _Ledger:
    error = ledger.error
    return _Ledger(
        **_plan_fields(ledger.plan),
        runs=_runs_of_ledger(ledger),
        calls=ledger.calls,
        seconds=ledger.seconds,
        ended=ledger.ended,
        verified=ledger.verified,
        error=_Error(error.errno or 0, error.call, str(error), error.node) if error else None,
    )


def _runs_of_ledger(ledger: Ledger) -> list[_Run]:
    """Cut the plan's runs where what became of their pages changes."""
    plan = ledger.plan
    begins = np.cumsum(plan.pages) - plan.pages
    columns = (ledger.to, ledger.answer, ledger.now, ledger.tries)
    first = _changes(columns, begins)
    pages = np.diff(first, append=len(ledger))
    run = np.searchsorted(begins, first, side="right") - 1
    size = plan.page_size_bytes[run]
    start = plan.start[run] + ((first - begins[run]) * size).view(np.uint64)
    rows = zip(
        start.tolist(),
        pages.tolist(),
        size.tolist(),
        plan.from_node[run].tolist(),
        plan.to_node[run].tolist(),
        plan.reason[run].tolist(),
        *(column[first].tolist() for column in columns),
        strict=True,
    )
    return [_Run(f"{address:#x}", *facts) for address, *facts in rows]


def _changes(columns: Sequence[NDArray[Any]], begins: NDArray[np.int64]) -> NDArray[np.intp]:
    new = np.zeros(len(columns[0]), dtype=np.bool_)
    new[begins] = True
    for column in columns:
        new[1:] |= column[1:] != column[:-1]
    return np.flatnonzero(new)


def _ledger_of(record: _Ledger, name: str) -> Ledger:
    plan = _plan_of(record, record.runs, name)
    error = record.error
    pages = plan.pages

    def column(field: str, dtype: type[np.generic]) -> NDArray[Any]:
        return np.repeat(_numbers(record.runs, field, dtype, name), pages)

    return Ledger(
        plan=plan,
        to=column("to", np.int32),
        answer=column("answer", np.int32),
        now=column("now", np.int32),
        tries=column("tries", np.uint8),
        calls=record.calls,
        seconds=record.seconds,
        ended=record.ended,
        error=_error_of(error, plan.task.pid) if error else None,
        verified=record.verified,
    )


def _error_of(error: _Error, pid: int) -> Any:
    detail = error.message.removeprefix(f"{error.call}: ")
    return call_error(-error.errno, error.call, detail=detail, pid=pid, node=error.node)


def _plan_of(record: _Plan, runs: Sequence[_Run], name: str) -> Plan:
    task = record.task
    plan = Plan(
        task=TaskId(task.boot_id, task.pid, task.start_ticks),
        start=np.array([_address(run.start, name) for run in runs], dtype=np.uint64),
        pages=_numbers(runs, "pages", np.int64, name),
        page_size_bytes=_numbers(runs, "page_size_bytes", np.int64, name),
        from_node=_numbers(runs, "from_node", np.int32, name),
        to_node=_numbers(runs, "to_node", np.int32, name),
        reason=_numbers(runs, "reason", np.int32, name),
        reasons=tuple(record.reasons),
        there_pages=record.there_pages,
        there_bytes=record.there_bytes,
        crowded_pages=record.crowded_pages,
        crowded_bytes=record.crowded_bytes,
        staying_bytes_by_node=record.staying_bytes_by_node,
    )
    _refuse_nonsense(plan, name)
    return plan


def _address(text: str, name: str) -> int:
    try:
        address = int(text, 16)
    except ValueError:
        address = -1
    if not 0 <= address < 1 << 64:
        raise MalformedError(name, 0, "start", f"{text!r} is not an address")
    return address


def _numbers(runs: Sequence[_Run], field: str, dtype: type[np.generic], name: str) -> NDArray[Any]:
    try:
        return np.array([getattr(run, field) for run in runs], dtype=dtype)
    except OverflowError:
        raise MalformedError(name, 0, field, "a number is too large") from None


def _refuse_nonsense(plan: Plan, name: str) -> None:
    for field, values in (("pages", plan.pages), ("page_size_bytes", plan.page_size_bytes)):
        if len(values) and int(values.min()) < 1:
            raise MalformedError(name, 0, field, "it must be 1 or more")
    if len(plan) and not 0 <= int(plan.reason.min()) <= int(plan.reason.max()) < len(plan.reasons):
        raise MalformedError(name, 0, "reason", "there is no such reason")
    staying = plan.staying_bytes_by_node
    if staying and sum(staying.values()) != plan.there_bytes + plan.crowded_bytes:
        said = "it does not add up to there_bytes and crowded_bytes"
        raise MalformedError(name, 0, "staying_bytes_by_node", said)
    ends = [
        start + pages * size
        for start, pages, size in zip(
            plan.start.tolist(), plan.pages.tolist(), plan.page_size_bytes.tolist(), strict=True
        )
    ]
    if ends and max(ends) > 1 << 64:
        raise MalformedError(name, 0, "pages", "they reach beyond the address space")

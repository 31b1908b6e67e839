"""What a status of a page, or the errno of a call, means and what a person can do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from movepages.abi import CALL_ERRORS, PAGE_STATUSES, status_name
from movepages.report.fields import encode, fields

if TYPE_CHECKING:
    from collections.abc import Iterable

    from movepages.abi import CallErrorMeaning, PageStatus
    from movepages.report.output import Output

PAGE_STATUS = fields("status", "name", "meaning", "cause", "remedy")
CALL_ERROR = fields("name", "call", "meaning", "remedy")
_PAGE_OVERVIEW = fields("status", "name", "meaning")
_CALL_OVERVIEW = fields("error", "call")


@dataclass(frozen=True, slots=True)
class Explanation:
    """All that is known of one code: as the status of a page, and as the answer of a call.

    `reading` says how the word was understood, where it could have been understood otherwise.
    """

    code: int
    reading: str
    page: PageStatus | None
    calls: tuple[CallErrorMeaning, ...]

    @property
    def name(self) -> str:
        """The name of the code."""
        return status_name(self.code)


@dataclass(frozen=True, slots=True)
class _StatusRow:
    """A page status under the field names that `query` has."""

    status: int
    name: str
    meaning: str
    cause: str
    remedy: str


@dataclass(frozen=True, slots=True)
class _CallRow:
    error: str
    call: str


def explain(code: int, reading: str = "") -> Explanation:
    """Return what is known of a code: a negative errno, or UNWRITTEN."""
    calls = tuple(error for error in CALL_ERRORS if error.code == code)
    return Explanation(code, reading, PAGE_STATUSES.get(code), calls)


def known_codes() -> list[int]:
    """Return every code that can be explained, by errno, UNWRITTEN last."""
    return sorted({*PAGE_STATUSES, *(error.code for error in CALL_ERRORS)}, reverse=True)


def write_text(explanation: Explanation, output: Output) -> None:
    """Write one explanation."""
    if explanation.reading:
        output.paragraph(explanation.reading)
        output.line()
    if page := explanation.page:
        output.heading(f"{page.name} as the status of a page ({page.code}): {page.meaning}")
        output.paragraph(page.cause)
        output.paragraph(f"What to do: {page.remedy}")
    for index, error in enumerate(explanation.calls):
        if index or explanation.page:
            output.line()
        output.heading(f"{error.name} from {error.call}")
        output.paragraph(_sentence(error.meaning))
        output.paragraph(f"What to do: {error.remedy}.")


def write_overview(output: Output) -> None:
    """Write the statuses that a page can have, and which calls can fail with which errno."""
    output.heading("Statuses of a page; 0 and more is the node that the page is on")
    output.table(_PAGE_OVERVIEW, [_row(page) for page in PAGE_STATUSES.values()])
    output.line()
    output.heading("Errors of a whole call")
    output.table(_CALL_OVERVIEW, _calls_by_name())
    output.line()
    output.line("`movepages explain NAME` says why they come, and what to do.")


def to_json(explanations: Iterable[Explanation]) -> dict[str, Any]:
    """Return explanations for a program."""
    return {"explanations": [_encoded(explanation) for explanation in explanations]}


def _encoded(explanation: Explanation) -> dict[str, Any]:
    page = explanation.page
    return {
        "code": explanation.code,
        "name": explanation.name,
        "page_status": encode(_row(page), PAGE_STATUS) if page else None,
        "call_errors": [encode(error, CALL_ERROR) for error in explanation.calls],
    }


def _row(page: PageStatus) -> _StatusRow:
    return _StatusRow(page.code, page.name, page.meaning, page.cause, page.remedy)


def _calls_by_name() -> list[_CallRow]:
    calls: dict[str, list[str]] = {}
    for error in CALL_ERRORS:
        calls.setdefault(error.name, []).append(error.call)
    return [_CallRow(name, ", ".join(of)) for name, of in calls.items()]


def _sentence(phrase: str) -> str:
    return f"{phrase[0].upper()}{phrase[1:]}."

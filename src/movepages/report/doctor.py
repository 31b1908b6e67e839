"""What stops pages from being moved, if anything does: the verdict, and what was tried for it."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from movepages.report.fields import encode, fields, printable
from movepages.report.process import title

if TYPE_CHECKING:
    from movepages.placement.doctor import Check
    from movepages.report.output import Output
    from movepages.values import TaskInfo

CHECK = fields("name", "answer", "says", "remedy")
_INDENT = "      "
_WIDTH = 80
_STYLES = {"yes": "green", "note": "yellow", "no": "bold red"}


@dataclass(frozen=True, slots=True)
class DoctorSnapshot:
    """What was tried with a process, or with the machine in general (`task` is None)."""

    task: TaskInfo | None
    checks: tuple[Check, ...]

    @property
    def stops(self) -> tuple[Check, ...]:
        """The checks of what stops pages from being moved."""
        return tuple(check for check in self.checks if check.answer == "no")

    @property
    def verdict(self) -> str:
        """What came of it, in a sentence without its full stop."""
        of = f"of {title(self.task.command, self.task.pid)}" if self.task else "here"
        if self.stops:
            return f"You cannot move pages {of}: {'; and '.join(c.says for c in self.stops)}"
        if self.task:
            return f"You can move pages {of}"
        return f"You can move pages here, of {'all' if self._sees_all else 'your own'} processes"

    @property
    def _sees_all(self) -> bool:
        return any(check.name == "rights" and check.answer == "yes" for check in self.checks)


def write_text(snapshot: DoctorSnapshot, output: Output) -> None:
    """Write the verdict, and then each check with what to do about it."""
    width = output.width or _WIDTH
    for line in textwrap.wrap(printable(snapshot.verdict), width):
        output.heading(line)
    output.line()
    for check in snapshot.checks:
        _write_check(check, output, width)


def to_json(snapshot: DoctorSnapshot) -> dict[str, Any]:
    """Return it for a program."""
    task = snapshot.task
    return {
        "pid": task.pid if task else None,
        "command": task.command if task else None,
        "can_move": not snapshot.stops,
        "verdict": snapshot.verdict,
        "checks": [encode(check, CHECK) for check in snapshot.checks],
    }


def _write_check(check: Check, output: Output, width: int) -> None:
    remedy = f"What to do: {check.remedy}" if check.remedy else ""
    first, *others = textwrap.wrap(printable(check.says), width - len(_INDENT))
    word = f"{check.answer:<{len(_INDENT)}}"
    output.styled((word, _STYLES[check.answer]), (first, ""))
    for line in [*others, *textwrap.wrap(printable(remedy), width - len(_INDENT))]:
        output.line(f"{_INDENT}{line}")

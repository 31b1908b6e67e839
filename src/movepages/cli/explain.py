"""`movepages explain`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from movepages.abi import UNWRITTEN, Errno, status_name
from movepages.cli.command import json_option, subcommand
from movepages.cli.exit_codes import ExitCode
from movepages.report import explanation as report

if TYPE_CHECKING:
    from movepages.cli.session import Session


@subcommand(
    "explain",
    example="movepages explain EACCES\nmovepages explain -14\nmovepages explain",
    context_settings={"ignore_unknown_options": True},  # -14 is no option
)
@click.argument("code", required=False)
@json_option
@click.pass_obj
def run(session: Session, *, code: str | None, as_json: bool) -> ExitCode:
    """Explain a status of a page or an error of a call: what it means, why it comes, what to do.

    CODE is a name (ENOENT), a negative status (-2), an errno (2), or UNWRITTEN, which movepages
    says of pages that the kernel gave no status. Without CODE, all are listed.
    """
    explanations = (
        [report.explain(known) for known in report.known_codes()]
        if code is None
        else [_explanation(code)]
    )
    if as_json:
        from movepages.report.json import write_document

        write_document(session.output, report.to_json(explanations))
    elif code is None:
        report.write_overview(session.output)
    else:
        report.write_text(explanations[0], session.output)
    return ExitCode.DONE


def _explanation(text: str) -> report.Explanation:
    code = _code(text)
    if code not in report.known_codes():
        names = ", ".join(status_name(known) for known in report.known_codes())
        raise click.UsageError(f"{text!r} is neither a status nor an errno of these calls: {names}")
    number = text.lstrip("+")
    if not number.isdecimal():
        return report.explain(code)
    return report.explain(
        code,
        f"{number} is read as an errno, {status_name(code)}. As the status of a page it would "
        f"say that the page is on node {number}.",
    )


def _code(text: str) -> int | None:
    """Return the negative errno, or UNWRITTEN, that a text stands for; None if it is neither."""
    name = text.upper()
    if name == "UNWRITTEN":
        return UNWRITTEN
    if name in Errno.__members__:
        return -Errno[name]
    try:
        return -abs(int(text))
    except ValueError:
        return None

"""`movepages query`."""

from __future__ import annotations

from itertools import chain, groupby
from typing import TYPE_CHECKING

import click

from movepages.cli.command import json_option, subcommand
from movepages.cli.exit_codes import ExitCode
from movepages.cli.parameters import PID, SPAN, Span
from movepages.report import pages as report

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from movepages.cli.session import Session
    from movepages.machine import Machine

BATCH_PAGES = 1 << 16
"""Pages asked for at a time, so that a range of any length takes little memory."""


@subcommand(
    "query",
    example="movepages query 1234 7f12a4000000\n"
    "movepages query 1234 7f12a4000000-7f12a4400000 7ffc01b2e000",
)
@click.argument("pid", type=PID)
@click.argument("spans", metavar="ADDRESS|START-END...", type=SPAN, nargs=-1, required=True)
@json_option
@click.pass_obj
def run(session: Session, *, pid: int, spans: tuple[Span, ...], as_json: bool) -> ExitCode:
    """Ask on which node pages of process PID are, or why they are on none.

    Addresses are hexadecimal, with or without 0x; START+SIZE also is a range. An address stands for
    the page that contains it. In a range, pages that follow each other with the same status
    share a line; with --json every page has its own.

    Asking touches nothing: a page that was never used stays so.
    """
    machine, output = session.machine, session.output
    session.task(pid)
    page_size = machine.page_size_bytes
    widened = [
        report.Widened(span.text, span.pages(page_size))
        for span in spans
        if not span.aligned(page_size)
    ]
    batches = query_batches(machine, pid, spans)
    batches = chain([next(batches)], batches)  # what forbids to ask, says so before any output
    if as_json:
        from movepages.report.json import write_document

        write_document(output, report.to_json(pid, page_size, widened, batches))
    else:
        report.write_text(batches, widened, page_size, output)
    return ExitCode.DONE


def query_batches(machine: Machine, pid: int, spans: Sequence[Span]) -> Iterator[report.PageBatch]:
    """Yield the statuses of all pages, in the order given, some at a time. Raises CallError."""
    for addresses, run in _address_batches(spans, machine.page_size_bytes):
        yield report.PageBatch(addresses, machine.query_pages(pid, addresses).status, run)


def _address_batches(
    spans: Sequence[Span], page_size_bytes: int
) -> Iterator[tuple[NDArray[np.uint64], bool]]:
    """Yield arrays of page addresses, and whether they follow each other: parts of a range do."""
    import numpy as np

    for in_range, group in groupby(spans, key=lambda span: span.end is not None):
        bounds = [span.pages(page_size_bytes) for span in group]
        if not in_range:
            singles = np.array([start for start, _ in bounds], dtype=np.uint64)
            for first in range(0, len(singles), BATCH_PAGES):
                yield singles[first : first + BATCH_PAGES], False
            continue
        for start, end in bounds:
            for low in range(start, end, BATCH_PAGES * page_size_bytes):
                pages = min((end - low) // page_size_bytes, BATCH_PAGES)
                steps = np.arange(pages, dtype=np.uint64) * np.uint64(page_size_bytes)
                yield np.uint64(low) + steps, True

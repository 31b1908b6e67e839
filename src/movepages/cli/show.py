"""`movepages show`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from movepages.cli.command import json_option, subcommand
from movepages.cli.exit_codes import ExitCode
from movepages.cli.parameters import PID
from movepages.report import process as report

if TYPE_CHECKING:
    from movepages.cli.session import Session

_VSYSCALL = "[vsyscall]"
"""A page of the kernel's that maps lists for every process; numa_maps does not."""


@subcommand(
    "show",
    example="movepages show 1234\n"
    "movepages show 1234 --all | grep heap\n"
    "movepages show 1234 --json | jq .bytes_by_node",
)
@click.argument("pid", type=PID)
@click.option(
    "--all", "everything", is_flag=True, help="List all mappings as START-END, by address."
)
@json_option
@click.pass_obj
def run(session: Session, *, pid: int, everything: bool, as_json: bool) -> ExitCode:
    """Show on which nodes the memory of process PID is.

    First how much there is and each node's share of it, then the 30 mappings with the most
    resident memory: where they start, their size, what of it is resident, page size, memory
    policy, the nodes with how much is on each, and what is mapped.

    It reads numa_maps once, and never smaps. Huge pages of a THP are listed as 4K pages, as the
    kernel counts them there.
    """
    task = session.task(pid)
    process = report.ProcessSnapshot(
        pid,
        task.command,
        [mapping for mapping in session.machine.mappings(pid) if mapping.path != _VSYSCALL],
    )
    if as_json:
        from movepages.report.json import write_document

        write_document(session.output, report.to_json(process))
    else:
        report.write_text(process, session.output, everything=everything)
    return ExitCode.DONE

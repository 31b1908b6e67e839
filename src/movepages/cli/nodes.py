"""`movepages nodes`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from movepages.cli.command import json_option, subcommand
from movepages.cli.exit_codes import ExitCode
from movepages.report import nodes as report

if TYPE_CHECKING:
    from movepages.cli.session import Session


@subcommand("nodes", example="movepages nodes\nmovepages nodes --json | jq '.nodes[].distances'")
@json_option
@click.pass_obj
def run(session: Session, *, as_json: bool) -> ExitCode:
    """Show the NUMA nodes: CPUs, memory, free memory, distances.

    Tiers, interleave weights, latency and bandwidth (HMAT, CXL) and pools of huge pages follow
    where the machine has them. Only nodes with memory can hold pages.
    """
    topology = session.machine.topology()
    if as_json:
        from movepages.report.json import write_document

        write_document(session.output, report.to_json(topology))
    else:
        report.write_text(topology, session.output)
    return ExitCode.DONE

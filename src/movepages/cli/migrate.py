"""`movepages migrate`."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import click

from movepages.cli.command import json_option, moving, subcommand
from movepages.cli.exit_codes import ExitCode
from movepages.cli.parameters import PID, source_nodes, target_nodes

if TYPE_CHECKING:
    from movepages.cli.session import Session
    from movepages.machine import Machine


@subcommand("migrate", example="movepages migrate 1234 --from 0 --to 1")
@click.argument("pid", type=PID)
@click.option(
    "--from", "source_text", required=True, metavar="NODES", help="From where: 0, 0-3, all, '!1'."
)
@click.option("--to", "target_text", required=True, metavar="NODES", help="Where to: 1, 2-3.")
@json_option
@click.pass_obj
def run(
    session: Session, *, pid: int, source_text: str, target_text: str, as_json: bool
) -> ExitCode:
    """Move all memory of process PID from some nodes to others.

    The kernel does it in one call, migrate_pages(2), as the migratepages command does. It keeps
    relative places: with --from 0,1 --to 2,3 the pages of node 0 go to node 2, those of node 1 to
    node 3. With CAP_SYS_NICE it moves pages that others map, too, and may leave the cpuset.

    It ends with the memory on each node before and after. To learn why pages stayed, or to choose
    pages, use `movepages move`.
    """
    from movepages.report import moves as report

    machine = session.machine
    task = session.task(pid)
    topology = machine.topology()
    source = source_nodes("--from", source_text, topology)
    target = target_nodes(
        "--to", target_text, topology, task, lambda: machine.conditions().moves_shared
    )
    before = _bytes_by_node(machine, pid)
    with moving(pid):
        not_moved = machine.migrate_pages(pid, source, target)
    snapshot = report.MigrateSnapshot(
        pid=pid,
        command=task.command,
        source=source,
        target=target,
        not_moved=not_moved,
        before=before,
        after=_bytes_by_node(machine, pid),
    )
    if as_json:
        from movepages.report.json import write_document

        write_document(session.output, report.migrate_json(snapshot))
    else:
        report.write_migrate_text(snapshot, session.output)
    return ExitCode.NOT_MOVED if not_moved else ExitCode.DONE


def _bytes_by_node(machine: Machine, pid: int) -> dict[int, int]:
    total: Counter[int] = Counter()
    for mapping in machine.mappings(pid):
        total.update(mapping.bytes_by_node)
    return dict(total)

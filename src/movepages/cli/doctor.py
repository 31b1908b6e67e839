"""`movepages doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from movepages.cli.command import json_option, subcommand
from movepages.cli.exit_codes import ExitCode
from movepages.cli.parameters import PID

if TYPE_CHECKING:
    from movepages.cli.session import Session
    from movepages.report.doctor import DoctorSnapshot

_CODES = {
    "filter": ExitCode.NOT_PERMITTED,
    "rights": ExitCode.NOT_PERMITTED,
    "cpuset": ExitCode.NOT_PERMITTED,
    "memory": ExitCode.NOT_MOVED,
}
"""What stops a move, and the exit code that the move would end with; CANNOT for all else."""


@subcommand("doctor", example="movepages doctor\nmovepages doctor 1234")
@click.argument("pid", type=PID, required=False)
@json_option
@click.pass_obj
def run(session: Session, *, pid: int | None, as_json: bool) -> ExitCode:
    """Find out whether you can move pages, and if not, what stops you and what to do.

    With PID, the pages of that process: rights, filters of system calls, cpuset, free memory. Else
    what you can move on this machine, and which settings bear on it.

    It tries: the kernel is asked to move nothing, and to move one page to where it is. Nothing
    changes. If pages cannot be moved it ends with the exit code that `movepages move` would.
    """
    from movepages.report import doctor as report

    snapshot = _examine(session, pid)
    if as_json:
        from movepages.report.json import write_document

        write_document(session.output, report.to_json(snapshot))
    else:
        report.write_text(snapshot, session.output)
    if not snapshot.stops:
        return ExitCode.DONE
    return _CODES.get(snapshot.stops[0].name, ExitCode.CANNOT)


def _examine(session: Session, pid: int | None) -> DoctorSnapshot:
    from movepages.report.doctor import DoctorSnapshot

    machine = session.machine
    if pid is None:
        from movepages.placement.survey import examine_machine

        return DoctorSnapshot(None, examine_machine(machine))
    from movepages.placement.doctor import examine_process

    task = session.task(pid)
    return DoctorSnapshot(task, examine_process(machine, task))

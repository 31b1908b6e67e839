"""`movepages show`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from movepages.cli.command import json_option, subcommand
from movepages.cli.exit_codes import ExitCode
from movepages.cli.operation import none_left
from movepages.cli.parameters import DURATION
from movepages.cli.session import with_memory
from movepages.errors import NoSuchProcessError, NotPermittedError, UnsupportedError

if TYPE_CHECKING:
    from movepages.cli.session import Session
    from movepages.machine import Machine
    from movepages.report.output import Output
    from movepages.report.process import ProcessSnapshot
    from movepages.report.views import Order, View
    from movepages.topology import Topology
    from movepages.values import TaskInfo

_VSYSCALL = "[vsyscall]"
"""A page of the kernel's that maps lists for every process; numa_maps does not."""


@subcommand(
    "show",
    example="movepages show 1234\n"
    "movepages show 1234 --all | grep heap\n"
    "movepages show 1234 --pages --sort node2\n"
    "movepages show 1234 --by thread --watch 500ms\n"
    "movepages show name:postgres\n"
    "movepages show 1234 --json | jq .bytes_by_node",
)
@click.argument("target")
@click.option(
    "--all", "everything", is_flag=True, help="List all; mappings as START-END, by address."
)
@click.option(
    "--by",
    type=click.Choice(["mapping", "kind", "file", "thread"]),
    default="mapping",
    help="What to list.",
)
@click.option("--sort", metavar="ORDER", help="resident, size, address, name, node2, time, ...")
@click.option("--pages", is_flag=True, help="Look at each page: huge pages, where nodes change.")
@click.option(
    "--watch",
    "every_s",
    type=DURATION,
    is_flag=False,
    flag_value="1s",
    metavar="[TIME]",
    help="Show it again every 1s, or so often.",
)
@json_option
@click.pass_obj
def run(
    session: Session,
    *,
    target: str,
    everything: bool,
    by: str,
    sort: str | None,
    pages: bool,
    every_s: float | None,
    as_json: bool,
) -> ExitCode:
    """Show on which nodes the memory of processes is.

    TARGET is a pid, name:, user:, cgroup: or tree: with what it is to match, or several with
    commas between them.

    Of one process: how much there is, each node's share, how near it is to the threads, and then
    the 30 mappings with the most resident memory: where they start, their size, what of it is
    resident, page size, memory policy, the nodes with how much is on each, and what is mapped.
    Several processes stand side by side.

    Threads count by the CPU time they have used, each on the node where it ran last. It reads
    numa_maps once, and never smaps; with --pages it asks for each page as well. Huge pages of a
    THP are listed as 4K pages, as the kernel counts them there.

    --sort knows resident, size, name, for mappings address, for all these node0, node1 and so on,
    and for threads time, near and tid.
    """
    view, order = _viewed(by, sort, pages=pages, everything=everything)
    screen = _Screen(session.machine, target, by, view, order, everything, pages, as_json)
    if every_s is None:
        screen.show(session.output)
        return ExitCode.DONE
    from movepages.cli.carrying import until_interrupted
    from movepages.cli.watching import watch
    from movepages.placement.clock import SystemClock

    with until_interrupted() as stop:
        watch(screen.show_again, session.output, every_s, SystemClock(), stop)
    if session.output.terminal and not as_json:
        session.output.line()  # behind the ^C that the terminal shows
    return ExitCode.DONE


def _viewed(by: str, sort: str | None, *, pages: bool, everything: bool) -> tuple[View, Order]:
    """Return what is listed, and in which order. Raises UsageError."""
    from movepages.report.views import STRIPS, VIEWS

    if pages and by != "mapping":
        raise click.UsageError(f"--pages looks along mappings, and cannot list by {by}")
    view = STRIPS if pages else VIEWS[by]
    usual = "address" if everything and by == "mapping" else next(iter(view.orders))
    order = view.order(usual if sort is None else sort)
    if order is None:
        known = ", ".join(view.orders) + (", node0, node1 ..." if by != "thread" else "")
        raise click.UsageError(f"--sort: a list by {by} has no order {sort!r}; it has {known}")
    return view, order


@dataclass(slots=True)
class _Screen:
    """What is to be shown, and what was shown last."""

    machine: Machine
    target: str
    by: str
    view: View
    order: Order
    everything: bool
    pages: bool
    as_json: bool
    looks: int = 0
    before: dict[int, int] | None = None

    def show(self, output: Output) -> None:
        """Look at the processes, and write what is seen."""
        processes, missing = _collect(self.machine, self.target, pages=self.pages)
        if self.as_json:
            from movepages.report.json import write_document

            write_document(output, self._json(processes, missing))
        else:
            self._write(processes, missing, output)

    def show_again(self, output: Output) -> None:
        """Likewise, with what has changed since the last time; JSON on one line each time."""
        processes, missing = _collect(self.machine, self.target, pages=self.pages)
        if self.as_json:
            from movepages.report.json import write_line

            write_line(output, self._json(processes, missing))
            return
        if self.looks and not output.terminal:
            output.line()
        self._write(processes, missing, output)
        self.looks += 1
        self.before = processes[0].bytes_by_node if len(processes) == 1 else None

    def _json(self, processes: list[ProcessSnapshot], missing: list[str]) -> dict[str, Any]:
        if len(processes) == 1 and not missing:
            from movepages.report.process import to_json

            return to_json(processes[0], self.by)
        from movepages.report.processes import processes_json

        return processes_json(processes, missing)

    def _write(self, processes: list[ProcessSnapshot], missing: list[str], output: Output) -> None:
        if len(processes) == 1 and not missing:
            from movepages.report.process import write_text

            write_text(
                processes[0],
                output,
                self.view,
                self.order,
                everything=self.everything,
                before=self.before,
            )
            return
        from movepages.report.processes import write_processes

        write_processes(processes, missing, output)


def _collect(
    machine: Machine, target: str, *, pages: bool
) -> tuple[list[ProcessSnapshot], list[str]]:
    """Read all processes that a target names, and tell which could not be read.

    Raises NoSuchProcessError, NotPermittedError where that goes for all of them, InvalidCallError
    for a kernel thread.
    """
    from movepages.placement.target import find, parse_targets

    found = find(machine, parse_targets(target))
    topology = _topology(machine)
    missing = [str(each) for each in found.missing]
    processes: list[ProcessSnapshot] = []
    refusal: NotPermittedError | None = None
    for task in found.tasks:
        try:
            processes.append(_process(machine, with_memory(task), topology, pages=pages))
        except (NoSuchProcessError, NotPermittedError) as error:
            if len(found.tasks) == 1:
                raise
            missing.append(str(task.pid))
            refusal = error if isinstance(error, NotPermittedError) else refusal
    if not processes:
        raise refusal or none_left(missing)
    return processes, missing


def _topology(machine: Machine) -> Topology:
    """Return the nodes, or none where sysfs does not show them: then nothing is near or far."""
    try:
        return machine.topology()
    except UnsupportedError:
        from movepages.nodeset import NodeSet
        from movepages.topology import Topology

        return Topology((), NodeSet())


def _process(
    machine: Machine, task: TaskInfo, topology: Topology, *, pages: bool
) -> ProcessSnapshot:
    """Read a process."""
    from movepages.report.process import ProcessSnapshot

    mappings = [each for each in machine.mappings(task.pid) if each.path != _VSYSCALL]
    return ProcessSnapshot(
        task.pid,
        task.command,
        mappings,
        machine.threads(task.pid),
        topology,
        machine.page_size_bytes,
        machine.locate(task.pid) if pages else None,
    )

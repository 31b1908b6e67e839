"""`movepages emulate`."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from movepages.cli.command import subcommand
from movepages.cli.complaint import complain
from movepages.cli.exit_codes import ExitCode
from movepages.emulator.declared import (
    MOST_NODES,
    PRECISIONS,
    SEMANTICS,
    equal_nodes,
)
from movepages.errors import TopologyError, UnsupportedError

if TYPE_CHECKING:
    from movepages.emulator.run import World
    from movepages.topology import Topology

_DEFAULT_NODES = 4
_CHECK_WIDTH = 75
_NODE_DIRECTORY = "sys/devices/system/node"


@subcommand(
    "emulate",
    example="movepages emulate --nodes 4 -- numactl --hardware\n"
    "movepages emulate --topology '2x(2cpu,1G) + 1x(0cpu,4G)' -- ./program\n"
    "movepages emulate --check",
    context_settings={"allow_interspersed_args": False},
)
@click.option(
    "--nodes",
    type=click.IntRange(1, MOST_NODES),
    metavar="N",
    help="N nodes that share this machine's memory; 4 by default.",
)
@click.option(
    "--topology",
    "machine",
    metavar="MACHINE",
    help="A declaration ('2x(2cpu,1G) + 1x(0cpu,4G)'), a TOML file, or a captured sysfs tree.",
)
@click.option(
    "--semantics",
    type=click.Choice(list(SEMANTICS)),
    default="6.12",
    help="Whose answers: Linux 6.12 or 2.6.18, the patch's code, or the text of 2006.",
)
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    help="How exactly first touch is known; the best that works here by default.",
)
@click.option("--pin", is_flag=True, help="Keep program and emulator on one CPU: quicker calls.")
@click.option(
    "--files",
    type=click.Choice(["all", "rdonly", "none"]),
    default="all",
    help="Which opens to look at, to fake files that tell of nodes.",
)
@click.option(
    "--report",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    metavar="FILE",
    help="Write at the end what was done, as JSON.",
)
@click.option("-v", "--verbose", is_flag=True, help="Say on standard error how it is emulated.")
@click.option("--check", "checking", is_flag=True, help="Only tell what works here.")
@click.argument("command", nargs=-1, metavar="[--] COMMAND [ARGS]...")
def run(
    *,
    nodes: int | None,
    machine: str | None,
    command: tuple[str, ...],
    checking: bool,
    **options: Any,
) -> ExitCode | int:
    """Run COMMAND on a NUMA machine that is not there.

    The program is unmodified, and its memory is real; its NUMA system calls are answered by
    movepages, and files that tell of nodes are faked. Neither root nor a virtual machine is needed.
    Nothing gets slower or faster by being on another node.

    It ends with the exit code, or by the signal, that COMMAND ends with; with 127 if there is no
    such command, 126 if it cannot be executed.
    """
    if sys.platform != "linux":
        raise UnsupportedError("only Linux has system calls to answer; this command needs it")
    if checking:
        return _check()
    if nodes is not None and machine is not None:
        raise click.UsageError("give either --nodes or --topology: both describe the machine")
    if not command:
        raise click.UsageError("give a command to run, or --check")
    topology = _topology(machine or equal_nodes(nodes or _DEFAULT_NODES))
    return _emulate(command, topology, declared=machine is not None, **options)


def _check() -> ExitCode:
    from movepages.emulator.check import check

    findings = check()
    for finding in findings:
        click.echo(f"{'no ' if finding.problem else 'yes'}  {finding.what}")
        if finding.problem:
            click.echo(textwrap.indent(textwrap.fill(finding.problem, _CHECK_WIDTH), " " * 5))
    works = not any(finding.problem and finding.required for finding in findings)
    return ExitCode.DONE if works else ExitCode.CANNOT


def _topology(machine: str) -> Topology:
    """Read a machine: a file, a directory, or else a declaration. Raises TopologyError."""
    from movepages.topology import parse_topology

    path = Path(machine)
    if (path / _NODE_DIRECTORY).is_dir():
        from movepages.linux.nodes import read_topology

        return read_topology(path)
    if path.is_dir():
        raise TopologyError(f"{machine} has no {_NODE_DIRECTORY}; name the root of a captured tree")
    if path.is_file():
        return parse_topology(_declaration(path))
    if "/" in machine or path.suffix == ".toml":
        raise TopologyError(f"{machine}: there is no such file or directory")
    return parse_topology(machine)


def _declaration(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TopologyError(f"{path} cannot be read as a machine's declaration: {error}") from None


def _emulate(
    command: tuple[str, ...],
    topology: Topology,
    *,
    declared: bool,
    semantics: str,
    precision: str | None,
    pin: bool,
    files: str,
    report: Path | None,
    verbose: bool,
) -> NoReturn:
    from movepages.emulator.check import best_precision, outer_filter_problem
    from movepages.emulator.deferred import defer_machine
    from movepages.emulator.filter import Files, Precision
    from movepages.emulator.front import leave
    from movepages.emulator.run import Program, Settings, run

    if problem := outer_filter_problem():
        complain(problem)
    known = Precision(precision) if precision else best_precision()
    if report is not None:
        report = _empty(report)
    settings = Settings(
        precision=known, files=Files(files), pin=pin, report=report, verbose=verbose
    )

    def world() -> World:
        made = defer_machine(topology, semantics, known)
        if not declared and not verbose:  # nobody has asked for the CPUs that are missing
            made.notice = ""
        return made

    leave(run(Program.of(command), world, settings))


def _empty(report: Path) -> Path:
    """Make the file before the program runs, not to learn at the end that it cannot be."""
    try:
        report.write_bytes(b"")
    except OSError as error:
        raise click.UsageError(f"--report {report}: {error.strerror}") from None
    return report.absolute()

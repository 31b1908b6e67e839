"""`movepages run`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import click

from movepages.abi import Errno, Mode, ModeFlag
from movepages.cli.command import json_option, subcommand
from movepages.cli.exit_codes import ExitCode
from movepages.cli.starting import read_start
from movepages.errors import InvalidCallError, OutsideCpusetError, UnsupportedError
from movepages.nodeset import NodeSet

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from movepages.cli.session import Session
    from movepages.cli.starting import Start
    from movepages.machine import Machine

_SINCE = {Mode.PREFERRED_MANY: "5.15", Mode.WEIGHTED_INTERLEAVE: "6.9"}


@subcommand(
    "run",
    example="movepages run --membind 1 -- ./program\n"
    "movepages run --cpunodebind 0 --preferred-many 0,2 -- ./program --its-option\n"
    "movepages run -i all movepages run --show",
    context_settings={"allow_interspersed_args": False},
)
@click.option("--membind", "-m", metavar="NODES", help="Memory of these only: 0-3, all, '!1', +0.")
@click.option("--interleave", "-i", metavar="NODES", help="Page by page from one after the other.")
@click.option(
    "--weighted-interleave", "--weighted", "-w", metavar="NODES", help="By turns, by their weights."
)
@click.option("--preferred", "-p", metavar="NODE", help="From this node while it has room.")
@click.option("--preferred-many", "-P", metavar="NODES", help="From these while they have room.")
@click.option("--localalloc", "-l", is_flag=True, help="From the node that it runs on.")
@click.option("--balancing", "-b", is_flag=True, help="With NUMA balancing within -m or -P.")
@click.option("--cpunodebind", "-N", metavar="NODES", help="Run on the CPUs of these nodes.")
@click.option("--physcpubind", "-C", metavar="CPUS", help="Run on these CPUs: 0-3, all, '!1', +0.")
@click.option("--all", "-a", is_flag=True, help="Let lists mean the whole machine.")
@click.option("--home", metavar="NODE", help="Refused: only ranges of memory have a home node.")
@click.option("--show", "-s", is_flag=True, help="Only show what a program would start with.")
@json_option
@click.argument("command", nargs=-1, metavar="[--] COMMAND [ARGS]...")
@click.pass_obj
def run(
    session: Session,
    /,
    *,
    command: tuple[str, ...],
    show: bool,
    as_json: bool,
    **options: Any,
) -> ExitCode:
    """Run COMMAND with a memory policy, and on some CPUs.

    The options are numactl's, and so are their short forms. COMMAND takes the place of movepages:
    its exit code, its output and the signals it gets are its own. It is 127 if there is no such
    command, 126 if it cannot be executed; what is wrong before has the exit codes of movepages.

    Children inherit the policy. Memory that is there stays; movepages spread or move is for that.
    """
    if show:
        _refuse_beside_show(command, options)
        return _show(session, as_json=as_json)
    if as_json:
        raise click.UsageError("--json belongs to --show: COMMAND writes what it likes")
    if not command:
        raise click.UsageError("give a command to run, or --show")
    _begin(session.machine, read_start(session.machine, options))
    return _become(command)


def _refuse_beside_show(command: tuple[str, ...], options: Mapping[str, Any]) -> None:
    if command or any(value not in {None, False} for value in options.values()):
        raise click.UsageError(
            "--show tells what this shell's programs start with, and goes alone; to see what "
            "options do, write: movepages run OPTIONS movepages run --show"
        )


def _show(session: Session, *, as_json: bool) -> ExitCode:
    from movepages.report import policy as report

    task, topology = session.machine.task(0), session.machine.topology()
    cpus = NodeSet(task.cpus_allowed)
    snapshot = report.PolicySnapshot(
        policy=session.machine.get_policy(),
        cpus=cpus,
        cpu_nodes=NodeSet(node.id for node in topology if not cpus.isdisjoint(node.cpus)),
        allowed_nodes=NodeSet(task.mems_allowed & topology.with_memory),
    )
    if as_json:
        from movepages.report.json import write_document

        write_document(session.output, report.to_json(snapshot))
    else:
        report.write_text(snapshot, session.output)
    return ExitCode.DONE


def _begin(machine: Machine, start: Start) -> None:
    """Take CPUs and policy on. Raises OutsideCpusetError, UnsupportedError, CallError."""
    if start.cpus:
        _take_cpus(start.cpus)
    if start.mode is None:
        return
    try:
        machine.set_policy(start.mode, start.nodes)
    except InvalidCallError as error:
        raise UnsupportedError(_refusal(start.mode)) from error


def _become(command: Sequence[str]) -> NoReturn:
    from movepages.emulator.launch import execute

    execute(command)


def _take_cpus(groups: Mapping[str, NodeSet]) -> None:
    from movepages.linux.affinity import run_on

    had = run_on({cpu for cpus in groups.values() for cpu in cpus})
    for name, cpus in groups.items():
        if had.isdisjoint(cpus):
            raise OutsideCpusetError(
                Errno.EACCES,
                f"{name} may not be used: the cpuset of this process leaves it out; choose among "
                "the CPUs that movepages run --show lists",
                call="sched_setaffinity",
            )


def _refusal(mode: int) -> str:
    """Say why the kernel calls a policy invalid whose nodes exist."""
    if mode & ModeFlag.NUMA_BALANCING:
        return "this kernel does not balance under that policy (Linux 5.12 does); leave -b out"
    if mode in _SINCE:
        return f"this kernel has no such policy; Linux {_SINCE[Mode(mode)]} and later have it"
    return (
        "the cpuset leaves none of these nodes; choose among those that movepages run --show lists"
    )

"""The command `movepages`: its subcommands, and the one place where an error becomes an exit code.

A subcommand's module is imported when it is called, so that `--help` stays quick.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any

import click

from movepages import __version__
from movepages.cli.command import write_example
from movepages.cli.complaint import complain
from movepages.cli.exit_codes import MEANINGS, ExitCode, exit_code_of
from movepages.cli.session import Session
from movepages.errors import MovePagesError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from movepages.machine import Machine
    from movepages.report.output import Output

SUBCOMMANDS = {
    "nodes": "Show the NUMA nodes: CPUs, memory, distances.",
    "show": "Show on which nodes the memory of a process is.",
    "query": "Ask on which node single pages are, or why on none.",
    "move": "Move pages of a process to other nodes.",
    "spread": "Spread pages of a process over nodes, evenly or by weights.",
    "pack": "Bring pages of a process to as few nodes as have room.",
    "migrate": "Move memory of a process from some nodes to others.",
    "file": "Show on which nodes cached pages of files are, or move them.",
    "shm": "List segments of shared memory with their nodes, or move them.",
    "follow": "Move memory of a process near to where its threads run.",
    "run": "Run a program with a memory policy, and on some CPUs.",
    "doctor": "Find out whether pages can be moved, and what stops it.",
    "emulate": "Run a program on a NUMA machine that is not there.",
    "explain": "Explain a status of a page or an error of a call.",
}
"""Each is a module of its name in this package, with a function `run`. In order of `--help`."""

_EXAMPLE = """\
movepages nodes
movepages show 1234
movepages move 1234 --to 1 --all-mappings"""


class _PipeClosedError(Exception):
    """Whoever read our output has stopped reading, as `head` does."""


class _Group(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(SUBCOMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in SUBCOMMANDS:
            return None
        module = importlib.import_module(f"movepages.cli.{cmd_name}")
        command: click.Command = module.run
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] in SUBCOMMANDS or args[0].startswith("-"):
            return super().resolve_command(ctx, args)
        from difflib import get_close_matches

        near = get_close_matches(args[0], SUBCOMMANDS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise click.UsageError(f"No such command {args[0]!r}.{hint}", ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(SUBCOMMANDS.items()))

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(code.value), said) for code, said in MEANINGS.items()])
        write_example(formatter, _EXAMPLE)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # click would exit with 1, which means something else here
            raise _PipeClosedError from None


@click.group(cls=_Group, invoke_without_command=True)
@click.version_option(__version__, message="movepages %(version)s")
@click.pass_context
def movepages(context: click.Context) -> None:
    """See where the pages of a process are on a NUMA machine, and move them.

    A process is named by its pid. --help says more of each command, and all but emulate take
    --json.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
        context.exit(ExitCode.USAGE)


def main(
    arguments: Sequence[str] | None = None,
    *,
    machine: Machine | None = None,
    output: Output | None = None,
) -> int:
    """Run `movepages` and return its exit code; the parameters are for tests.

    `arguments` are those of the process by default, `machine` is this one, `output` is standard
    output. No exception leaves it.
    """
    try:
        return _run(arguments, Session(machine, output))
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - no traceback reaches a user
        return _end(error)


def _run(arguments: Sequence[str] | None, session: Session) -> int:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    code = movepages.main(arguments, prog_name="movepages", standalone_mode=False, obj=session)
    sys.stdout.flush()
    return int(code or ExitCode.DONE)


def _end(error: BaseException) -> ExitCode:
    """Tell the user what ended the run, and return the exit code for it."""
    code, message = _verdict(error)
    if code in {ExitCode.PIPE_CLOSED, ExitCode.OUTPUT}:
        _forget_output()
    if code is ExitCode.INTERNAL and os.environ.get("MOVEPAGES_DEBUG") == "1":
        import traceback

        traceback.print_exception(error)
    if message:
        complain(message)
    return code


def _verdict(error: BaseException) -> tuple[ExitCode, str]:
    """Return the exit code for what ended a run, and the line to say; none for a closed pipe."""
    match error:
        case click.UsageError(ctx=context):
            command = context.command_path if context else "movepages"
            return ExitCode.USAGE, f"{error.format_message()} (see {command} --help)"
        case MovePagesError():
            return exit_code_of(error), str(error)
        case click.Abort() | KeyboardInterrupt():
            return ExitCode.INTERRUPTED, f"interrupted{''.join(f'; {said}' for said in error.args)}"
        case _PipeClosedError() | BrokenPipeError():
            return ExitCode.PIPE_CLOSED, ""
        case OSError(errno=errno.ENOSPC | errno.EDQUOT | errno.EIO, filename=None):
            return ExitCode.OUTPUT, f"the output cannot be written: {error.strerror}"
        case _:
            return ExitCode.INTERNAL, (
                f"unexpected {type(error).__name__}: {error}; this is a defect, please report it "
                "(MOVEPAGES_DEBUG=1 shows where it happened)"
            )


def _forget_output() -> None:
    """Let what is still buffered for standard output go nowhere, so that exit does not fail."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)

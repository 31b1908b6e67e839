"""The arguments of lab/run: its own options, and the commands after `--` with theirs."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from labkit import kernels, topologies
from labkit.guest import Command

SEPARATOR = ":::"
ROOTS = ("auto", "virtiofs", "9p")

_USAGE = """\
lab/run [OPTIONS] -- COMMAND ARGS... [::: COMMAND ARGS...]...
       lab/run doctor | topologies | setup [--kernel NAME]..."""

_DESCRIPTION = """\
Boot a real multi-node Linux kernel in QEMU and run commands in it, in the
project's directory, with its virtual environment first in PATH. The guest's
root is this machine's, read-only; /tmp, /var/tmp, /run and HOME are its own.
"""

_EPILOG = """\
Several commands, separated by ':::', run one after the other in one guest,
each to its end; what one leaves running is killed before the next. Each may
begin with its own --uid, --timeout and --env:

  lab/run -- pytest -m kernel ::: --uid 1000 pytest -m unprivileged

exit codes:
  the command's, or of several the first that is not 0; and else
  124  the boot, or the guest later, hung      2  wrong usage
  125  the guest panicked or went away     128+n  signal n ended lab/run
  126  the lab cannot run here               137  the command overran its time
A file that cannot be fetched makes 1 of an exit code 0.

'lab/run doctor' tells what is missing here; 'lab/run setup' gets it.
"""


@dataclass(frozen=True)
class Fetch:
    """A file to bring back, from the guest's path to the host's."""

    source: str
    target: Path


@dataclass(frozen=True)
class Options:
    """What to boot and what to do there."""

    kernel: str
    topology: topologies.Topology
    root: str
    commands: list[Command]
    fetches: list[Fetch]
    console: Path | None
    quiet: bool


def parse(argv: list[str]) -> Options:
    """Return the options of a run; exit with 2 and a line on stderr where they are wrong."""
    parser = _parser()
    cut = argv.index("--") if "--" in argv else len(argv)
    own = parser.parse_args(argv[:cut])
    try:
        commands = split_commands(argv[cut + 1 :], own.uid, own.timeout, dict(own.env))
    except ValueError as problem:
        parser.error(str(problem))
    return Options(
        kernel=own.kernel,
        topology=topologies.TOPOLOGIES[own.topology],
        root=own.root,
        commands=commands,
        fetches=own.fetch,
        console=own.console,
        quiet=own.quiet,
    )


def split_commands(
    words: list[str], uid: int = 0, timeout: float = 600.0, env: dict[str, str] | None = None
) -> list[Command]:
    """Return the commands between the separators; raise ValueError where one is missing."""
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False, allow_abbrev=False)
    _add_command_options(parser, uid, timeout)
    parts: list[list[str]] = [[]]
    for word in words:
        if word == SEPARATOR:
            parts.append([])
        else:
            parts[-1].append(word)
    if parts == [[]]:
        raise ValueError("no command: write it after `--`")
    return [_command(parser, part, env or {}) for part in parts]


def _command(parser: argparse.ArgumentParser, words: list[str], env: dict[str, str]) -> Command:
    """Return one command; its own options come before its first word."""
    start = 0
    while start < len(words) and words[start].startswith("--"):
        start += 1 if "=" in words[start] else 2
    own, argv = words[:start], words[start:]
    if not argv:
        raise ValueError(f"a command is missing beside `{SEPARATOR}`")
    try:
        options, unknown = parser.parse_known_args(own)
    except argparse.ArgumentError as problem:
        raise ValueError(str(problem)) from None
    if unknown:
        raise ValueError(f"{unknown[0]} is no option of a command")
    return Command(tuple(argv), options.uid, options.timeout, env | dict(options.env))


def _add_command_options(parser: argparse.ArgumentParser, uid: int, timeout: float) -> None:
    """Add the options that belong to a command, with their defaults."""
    parser.add_argument(
        "--uid", type=_natural, default=uid, metavar="N", help="run as this user and group (0)"
    )
    parser.add_argument(
        "--timeout",
        type=_seconds,
        default=timeout,
        metavar="S",
        help="seconds until the command is killed; 0 for never (600)",
    )
    parser.add_argument(
        "--env",
        type=_variable,
        action="append",
        default=[],
        metavar="K=V",
        help="set an environment variable; may be repeated",
    )


def _parser() -> argparse.ArgumentParser:
    """Return the parser of everything before `--`."""
    parser = argparse.ArgumentParser(
        prog="lab/run",
        usage=_USAGE,
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--kernel",
        choices=kernels.CHOICES,
        default=kernels.DEFAULT_KERNEL,
        help=f"the kernel to boot ({kernels.DEFAULT_KERNEL})",
    )
    parser.add_argument(
        "--topology",
        choices=topologies.TOPOLOGIES,
        default=topologies.DEFAULT_TOPOLOGY,
        metavar="NAME",
        help=f"{', '.join(topologies.TOPOLOGIES)} ({topologies.DEFAULT_TOPOLOGY})",
    )
    _add_command_options(parser, 0, 600.0)
    parser.add_argument(
        "--fetch",
        type=_fetch_pair,
        action="append",
        default=[],
        metavar="GUEST=HOST",
        help="bring a file back after the last command; may be repeated",
    )
    parser.add_argument(
        "--root",
        choices=ROOTS,
        default="auto",
        help="how the guest reaches its root (auto: virtiofs as root, else 9p)",
    )
    parser.add_argument(
        "--console", type=Path, metavar="FILE", help="write the guest's console there"
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="do not say what is booted")
    return parser


def _natural(text: str) -> int:
    """Return a user id."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a user id")
    return int(text)


def _seconds(text: str) -> float:
    """Return a number of seconds."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return value


def _variable(text: str) -> tuple[str, str]:
    """Return the name and the value of K=V."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=VALUE")
    return name, value


def _fetch_pair(text: str) -> Fetch:
    """Return the two paths of GUEST=HOST."""
    source, equals, target = text.partition("=")
    if not source.startswith("/") or not equals or not target:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form /GUEST/PATH=HOSTPATH")
    if not Path(target).parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no directory {Path(target).parent}")
    return Fetch(source, Path(target))

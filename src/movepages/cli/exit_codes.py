"""The exit codes of `movepages`, and which error leads to which. docs/cli.md lists the same."""

from __future__ import annotations

from enum import IntEnum

from movepages.errors import (
    ArgumentError,
    FilteredError,
    MovePagesError,
    NodeFullError,
    NodeSetError,
    NoSuchNodeError,
    NoSuchProcessError,
    NotPermittedError,
    OutsideCpusetError,
    SizeError,
    TopologyError,
)


class ExitCode(IntEnum):
    """What `movepages` ends with. From 64 on they are those of sysexits.h and of the shell."""

    DONE = 0
    NOT_MOVED = 1
    USAGE = 2
    NO_PROCESS = 3
    NOT_PERMITTED = 4
    CANNOT = 5
    INTERNAL = 70
    OUTPUT = 74
    INTERRUPTED = 130
    PIPE_CLOSED = 141


MEANINGS: dict[ExitCode, str] = {
    ExitCode.DONE: "done",
    ExitCode.NOT_MOVED: "some pages were not moved",
    ExitCode.USAGE: "the command line asks for something that makes no sense",
    ExitCode.NO_PROCESS: "no such process, or it has ended",
    ExitCode.NOT_PERMITTED: "not permitted",
    ExitCode.CANNOT: "this machine, or this process, cannot",
}
"""The codes to know, as `movepages --help` lists them."""

_BY_ERROR: dict[type[MovePagesError], ExitCode] = {
    NodeFullError: ExitCode.NOT_MOVED,
    NodeSetError: ExitCode.USAGE,
    SizeError: ExitCode.USAGE,
    ArgumentError: ExitCode.USAGE,
    TopologyError: ExitCode.USAGE,
    NoSuchNodeError: ExitCode.USAGE,
    NoSuchProcessError: ExitCode.NO_PROCESS,
    NotPermittedError: ExitCode.NOT_PERMITTED,
    FilteredError: ExitCode.NOT_PERMITTED,
    OutsideCpusetError: ExitCode.NOT_PERMITTED,
}


def exit_code_of(error: MovePagesError) -> ExitCode:
    """Return the exit code for an error; what is neither named nor the user's doing is CANNOT."""
    for kind in type(error).__mro__:
        if kind in _BY_ERROR:
            return _BY_ERROR[kind]
    return ExitCode.CANNOT

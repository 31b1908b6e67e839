"""Starts programs with `movepages run` and, where it is there, with numactl, by the same options.

    beside_numactl.py OPTIONS...

Each argument holds options, with blanks between. Prints a line of JSON: for each the exit codes and
outputs of both. movepages is forked from this process, which has loaded it, to be quick.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
from pathlib import Path

from movepages.cli import main
from movepages.emulator import launch  # noqa: F401 - loaded once, for all that are forked
from movepages.report.output import Output

POLICY = [sys.executable, "-S", str(Path(__file__).with_name("policy.py"))]


def outcome(start):
    """Fork, let `start` become a program or fail, and return its exit code and what it wrote."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(writing, 1)
        os.dup2(writing, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        os._exit(start())
    os.close(writing)
    with os.fdopen(reading) as said:
        text = said.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), text


def by_movepages(arguments):
    """Start it by movepages."""
    return outcome(lambda: flushed(main(["run", *arguments])))


def flushed(code):
    """Write what is buffered."""
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def by_numactl(arguments):
    """Start it by numactl."""
    return outcome(lambda: os.execvp("numactl", ["numactl", *arguments]))  # noqa: S606 - needs none


main(["run", "--show"], output=Output(io.StringIO()))  # loads most of what will be needed
found = []
for options in sys.argv[1:]:
    arguments = [*options.split(), *POLICY]
    both = [by_movepages(arguments)]
    if shutil.which("numactl"):
        both.append(by_numactl(arguments))
    found.append(both)
ends = {
    "exit": by_movepages(["-m1", "sh", "-c", "exit 7"]),
    "signal": by_movepages(["-m1", "--", "sh", "-c", "kill -TERM $$"]),
    "pipe": by_movepages(["-l", "sh", "-c", "kill -PIPE $$"]),
    "missing": by_movepages(["-l", "no-such-command"]),
    "directory": by_movepages(["-l", "/"]),
    "show": by_movepages(["--interleave", "1,3", sys.executable, "-m", "movepages", "run", "-s"]),
}
print(json.dumps({"options": found, "ends": ends}))  # noqa: T201

"""The command line: how much CPU time it takes to start, and to show processes large and split up.

CPU time is user and kernel, of the whole command from its start to its end.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from harness import BUDGET_SECONDS, Benchmark, Measure, Row, compare
from memory import PAGE
from targets import held, require

from movepages.units import format_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAPPINGS = 10_000
LARGE_BYTES = 8 << 30
MOVEPAGES = (sys.executable, "-c", "from movepages.cli import main; main()")

# Says, one a line, which files the command opened to read them.
_AUDIT = """
import sys
sys.addaudithook(
    lambda event, facts: event == "open" and print("opened", facts[0], file=sys.stderr)
)
"""


def benchmarks(mappings: int = MAPPINGS, large_bytes: int = LARGE_BYTES) -> list[Benchmark]:
    """Return the benchmarks of this group, for processes of these sizes."""
    return [
        Benchmark("start-up", _start_up),
        Benchmark("show, many mappings", lambda: _many_mappings(mappings)),
        Benchmark("show, a large process", lambda: _large(large_bytes)),
    ]


def _start_up() -> Iterator[Row]:
    yield _own("movepages --help", ["--help"], 150)


def _many_mappings(mappings: int) -> Iterator[Row]:
    with held("mappings", mappings) as target:
        pid = str(target.pid)
        of = f"of {mappings:,} mappings"
        yield _own(f"show --json {of}", ["show", "--json", pid], 1000)
        yield _own(f"show --all {of} | cat", ["show", "--all", pid], 1000)


def _large(size_bytes: int) -> Iterator[Row]:
    require(size_bytes)
    with held("base", size_bytes // PAGE) as target:
        arguments = ["show", str(target.pid)]
        of = f"of {format_size(size_bytes)}"
        yield _own(f"show {of}", arguments, 250)
        files = opened(arguments)
        for name, most in (("numa_maps", 1), ("smaps", 0), ("smaps_rollup", 0)):
            count = sum(file.endswith(f"/{name}") for file in files)
            yield Row(f"show {of}, reads of {name}", count, Measure.COUNT, most)


def _own(name: str, arguments: list[str], bar_ms: float) -> Row:
    (timing,) = compare({name: command_cpu(arguments)}, BUDGET_SECONDS).values()
    return Row(name, timing, Measure.OWN, bar_ms)


def command_cpu(arguments: list[str]) -> Callable[[], float]:
    """Return a way to time `movepages ARGUMENTS | cat`: CPU seconds of movepages alone."""

    def sample() -> float:
        with (
            subprocess.Popen([*MOVEPAGES, *arguments], stdout=subprocess.PIPE) as command,
            subprocess.Popen(["cat"], stdin=command.stdout, stdout=subprocess.DEVNULL),
        ):
            _, status, used = os.wait4(command.pid, 0)
            command.returncode = os.waitstatus_to_exitcode(status)
        if command.returncode:
            raise RuntimeError(f"movepages {' '.join(arguments)} ended with {command.returncode}")
        return used.ru_utime + used.ru_stime

    return sample


def opened(arguments: list[str]) -> list[str]:
    """Run movepages, and return the paths of the files that it opened, in order."""
    done = subprocess.run(
        [sys.executable, "-c", f"{_AUDIT}{MOVEPAGES[2]}", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=True,
    )
    said = (line.partition(" ") for line in done.stderr.splitlines())
    return [path for word, _, path in said if word == "opened"]

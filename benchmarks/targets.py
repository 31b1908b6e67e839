"""Processes to look at: started to hold memory as memory.py makes it, and ended afterwards."""

from __future__ import annotations

import re
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import memory
from harness import LeftOutError

from movepages.units import format_size

if TYPE_CHECKING:
    from collections.abc import Iterator

MEMINFO = Path("/proc/meminfo")
SPARE_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Target:
    """A process that holds memory from address `start` to `end`."""

    pid: int
    start: int
    end: int


def require(wanted_bytes: int, meminfo: Path = MEMINFO) -> None:
    """Make sure that this much memory can be had. Raises LeftOutError."""
    match = re.search(r"^MemAvailable: *(\d+) kB$", meminfo.read_text(), re.MULTILINE)
    available_bytes = int(match[1]) * 1024 if match else 0
    if available_bytes < wanted_bytes + SPARE_BYTES:
        raise LeftOutError(
            f"needs {format_size(wanted_bytes + SPARE_BYTES)} of free memory, "
            f"and there are {format_size(available_bytes)}"
        )


@contextmanager
def held(kind: str, pages: int, share: int = 1, pattern: str = "block") -> Iterator[Target]:
    """Run a process that holds such memory; it has ended when this is left. Raises LeftOutError."""
    arguments = (kind, str(pages), str(share), pattern)
    with subprocess.Popen(
        [sys.executable, "-S", memory.__file__, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            if not line:
                raise LeftOutError(f"no process could be made that holds {' '.join(arguments)}")
            start, end = line.split()
            yield Target(process.pid, int(start), int(end))
        finally:
            process.kill()

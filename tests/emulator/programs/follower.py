"""A process is bound to the CPU of another node, followed there once, and back by watching.

One line of JSON: pages by node after each step, what the followings said, and whether the bytes are
as they were. The main thread of the process sleeps; a thread of it runs, and reads its memory.
"""

from __future__ import annotations

import io
import json
import mmap
import os
import sys
import threading
from contextlib import redirect_stderr
from ctypes import addressof, c_char
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "lab_tier"))

from guestkit.children import Child

from movepages.cli import main as movepages
from movepages.linux.machine import LinuxMachine
from movepages.report.output import Output

SIZE = 8 << 20
MARK = bytes(range(1, 256))


class Runner(threading.Thread):
    """Runs on one CPU, reading memory, until it is told to stop."""

    def __init__(self, cpu, memory):
        """Start it."""
        super().__init__(daemon=True)
        self.cpu, self.memory, self.stop = cpu, memory, threading.Event()
        self.start()

    def run(self):
        """Read, over and over."""
        os.sched_setaffinity(0, {self.cpu})
        while not self.stop.is_set():
            self.memory.find(b"no such bytes")


def child(cpus):
    """Have memory from the first CPU, run on the second, and on the first again."""
    os.sched_setaffinity(0, {cpus[0]})
    memory = mmap.mmap(-1, SIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    expected = (MARK * (SIZE // len(MARK) + 1))[:SIZE]
    memory[:] = expected
    yield addressof(c_char.from_buffer(memory))
    for cpu in (cpus[1], cpus[0]):
        runner = Runner(cpu, memory)
        yield True
        runner.stop.set()
        runner.join()
    yield memory[:] == expected


def follow(*options):
    """Follow the process with its memory alone; return the exit code and what was said."""
    said = io.StringIO()
    line = [
        "follow",
        str(process.pid),
        "--select",
        f"within({start:x}, {start + SIZE:x})",
        "--json",
    ]
    with redirect_stderr(io.StringIO()):
        code = movepages([*line, *options], output=Output(said))
    return code, json.loads(said.getvalue())


def by_node():
    """Return how much of the memory is on each node."""
    return machine.locate(process.pid, [(start, start + SIZE)]).bytes_by_node


machine = LinuxMachine()
cpus = [node.cpus[0] for node in machine.topology() if node.cpus]
process = Child(lambda: child(cpus))
start = process.step()
pages = [by_node()]
process.step()
once = follow("--over", "200ms")
pages.append(by_node())
process.step()
count = str(SIZE // mmap.PAGESIZE)
watched = follow("--watch", "100ms", "--pause", "100ms", "--max-pages", count)
pages.append(by_node())
same = process.step()
process.end()
json.dump({"pages": pages, "once": once, "watched": watched, "same": same}, sys.stdout)

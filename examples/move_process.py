"""Move the memory of another process, which checks it all the while, around four nodes.

    movepages emulate --nodes 4 -- python examples/move_process.py

A picture has 32 digits; each says on which node a part of the memory is.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import movepages
from movepages.abi import Mode
from movepages.linux.mempolicy import set_mempolicy
from movepages.units import format_size, parse_range

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from movepages.topology import Topology

    Addresses = NDArray[np.uint64]
    Nodes = NDArray[np.int64] | int

WORKER = Path(__file__).with_name("worker.py")
MIB = 16
DIGITS = 32


def main(topology: Topology) -> int:
    """Show it all; return the exit code."""
    nodes = list(topology.with_memory)[:4]
    if len(nodes) < 2:
        print(
            "move_process.py: to move pages takes several nodes with memory, and here is one; run\n"
            "it under `movepages emulate --nodes 4 -- python`",
            file=sys.stderr,
        )
        return 1
    with live_process(nodes[0]) as (worker, start, end):
        part = format_size((end - start) // DIGITS)
        print(
            f"A process goes on checking {MIB}M of its memory. A digit: the node of {part} of it."
        )
        move_around(worker.pid, np.arange(start, end, os.sysconf("SC_PAGE_SIZE"), np.uint64), nodes)
        return verdict(worker)


@contextmanager
def live_process(home: int) -> Iterator[tuple[subprocess.Popen[str], int, int]]:
    """Start a process that checks its own memory, which it gets from one node."""
    set_mempolicy(Mode.BIND, [home])  # a child inherits it
    command = [sys.executable, str(WORKER), str(MIB)]
    worker = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603 - ours
    set_mempolicy(Mode.DEFAULT, [])
    with worker:
        try:
            yield worker, *parse_range(answer(worker).split()[-1])
        finally:
            worker.kill()


def answer(worker: subprocess.Popen[str]) -> str:
    """Return the next line that the process writes."""
    assert worker.stdout  # noqa: S101 - a pipe, as it was started
    return worker.stdout.readline().strip()


def move_around(pid: int, pages: Addresses, nodes: Sequence[int]) -> None:
    """Move the memory of a process: in parts, as a whole, single pages, and back."""
    home, last = nodes[0], nodes[-1]
    print(f"  {'first touched':21}{picture(pid, pages)}")
    parts = np.take(nodes, np.arange(len(pages)) * len(nodes) // len(pages))
    move(pid, "a part on each node", pages, pages, parts)
    move(pid, f"all of it: node {last}", pages, pages, last)
    print(f"Its first {DIGITS} pages, a digit for each:")
    few = pages[:DIGITS]
    move(pid, f"every fourth: node {nodes[1]}", few, few[::4], nodes[1])
    move(pid, f"all of it: node {home}", few, pages, home)


def move(pid: int, label: str, shown: Addresses, pages: Addresses, to: Nodes) -> None:
    """Move some pages of a process; write where those shown are then, and how many moved."""
    before = movepages.query_pages(pid, pages).status
    status = movepages.move_pages(pid, pages, to).status
    moved = int(((status == to) & (before != to)).sum())
    print(f"  {label:21}{picture(pid, shown)}  {moved:5,} pages moved")


def picture(pid: int, pages: Addresses) -> str:
    """Return a digit for each part of some pages: its node, or `+` where there are several."""
    parts = np.array_split(movepages.query_pages(pid, pages).status, DIGITS)
    return "".join(str(part[0]) if (part == part[0]).all() else "+" for part in parts)


def verdict(worker: subprocess.Popen[str]) -> int:
    """End the process and write what it has found; return its exit code."""
    worker.terminate()
    errors = answer(worker).split(", ")[1]
    print(
        f"The process has checked all of it, over and over, while it was moved: {errors}.",
        flush=True,
    )
    return worker.wait()


if __name__ == "__main__":
    try:
        sys.exit(main(movepages.read_topology()))
    except (KeyboardInterrupt, BrokenPipeError):
        os._exit(1)  # Ctrl-C, or a reader that has gone: there is nobody to tell

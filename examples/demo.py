"""Move the memory of a live process around the nodes of this machine, and show what happens.

python examples/demo.py     on a machine with several NUMA nodes
make demo                   on any other: on four nodes, in a virtual machine
"""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import movepages
from movepages.abi import PAGE_STATUSES, Errno, status_name
from movepages.errors import CallError, NotPermittedError
from movepages.units import format_size, parse_range

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from movepages.topology import Topology

    Range = tuple[int, int]

WORKER = Path(__file__).with_name("worker.py")
MIB = 16
CELLS = 32
"""Digits that show where the memory of the process is."""


def main(topology: Topology) -> int:
    """Show it all; return the exit code."""
    nodes = list(topology.with_memory)[:4]
    if len(nodes) < 2:
        print(
            "demo: to move pages takes several NUMA nodes with memory, and this machine has one.\n"
            "      `make demo` shows it on four nodes, in a virtual machine that it boots itself.",
            file=sys.stderr,
        )
        return 1
    show_machine(topology)
    with live_process(topology) as (worker, memory):
        move_around(worker.pid, memory, nodes)
        ask_for_every_kind(nodes[-1], max(topology.possible) + 1)
        return verdict(worker)


def show_machine(topology: Topology) -> None:
    """Write the nodes in one line, and the distances in another."""
    nodes = "   ".join(
        f"{node.id}: {format_size(node.memory_bytes)}, "
        + (f"CPU {','.join(map(str, node.cpus))}" if node.cpus else "no CPU")
        for node in topology
    )
    distances = "   ".join(
        f"from node {node.id}: {' '.join(map(str, node.distances.values()))}"
        for node in topology
        if node.cpus
    )
    print(f"Linux {os.uname().release}, {len(topology.with_memory)} nodes with memory")
    print(f"  memory     {nodes}")
    print(f"  distances  {distances}")


@contextmanager
def live_process(topology: Topology) -> Iterator[tuple[subprocess.Popen[str], Range]]:
    """Start a process that checks its own memory, on the first node that has CPUs and memory."""
    cpus = os.sched_getaffinity(0)
    homes = (cpus & set(node.cpus) for node in topology if node.has_memory)
    os.sched_setaffinity(0, next(filter(None, homes), cpus))  # a child inherits it
    command = [sys.executable, str(WORKER), str(MIB)]
    worker = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603 - ours
    os.sched_setaffinity(0, cpus)
    with worker:
        try:
            yield worker, parse_range(answer(worker).split()[-1])
        finally:
            worker.kill()


def answer(worker: subprocess.Popen[str]) -> str:
    """Return the next line that the process writes."""
    assert worker.stdout  # noqa: S101 - a pipe, as it was started
    return worker.stdout.readline().strip()


def move_around(pid: int, memory: Range, nodes: Sequence[int]) -> None:
    """Move the memory of the process as a whole, in parts, and back."""
    process = movepages.Process(pid)
    addresses = process.locate(memory).page_runs().addresses()
    size_bytes = memory[1] - memory[0]
    parts = np.arange(len(addresses)) * len(nodes) // len(addresses)
    print(f"\nProcess {pid} goes on checking {format_size(size_bytes)} of its own memory.")
    print(f"A digit is {format_size(size_bytes / CELLS)} of it, and says on which node.\n")
    print(f"  {'as it is':18} {picture(process, memory)}")
    for label, targets in (
        (f"all to node {nodes[-1]}", np.full(len(addresses), nodes[-1])),
        ("a part to each", np.take(nodes, parts)),
        (f"all to node {nodes[1]}", np.full(len(addresses), nodes[1])),
        (f"back to node {nodes[0]}", np.full(len(addresses), nodes[0])),
    ):
        before = movepages.query_pages(pid, addresses).status
        started = time.perf_counter()
        result = movepages.move_pages(pid, addresses, targets)
        seconds = time.perf_counter() - started
        moved = int(((result.status == targets) & (before != targets)).sum())
        print(f"  {label:18} {picture(process, memory)}  {moved:,} pages in {seconds:.2f} s")


def picture(process: movepages.Process, memory: Range) -> str:
    """Return a digit for each part of the memory: its node, or `+` where there are several."""
    placement = process.locate(memory)
    offset = placement.page_runs().addresses() - np.uint64(memory[0])
    cell = offset.astype(np.int64) * CELLS // (memory[1] - memory[0])
    of_page = placement.page_nodes()
    found = [np.unique(of_page[cell == number]).tolist() for number in range(CELLS)]
    return "".join(str(on[0])[-1] if len(on) == 1 else "+" if on else "." for on in found)


def ask_for_every_kind(target: int, nowhere: int) -> None:
    """Ask for pages of every kind to move, and write what the kernel says of each."""
    print(f"\nWhat Linux says of a page that is asked to move to node {target}:\n")
    touched, there = new_page(b"data"), new_page(b"data")
    movepages.move_pages(0, there, target)
    ask("touched", touched, target, "moved")
    ask("on that node already", there, target, "nothing to do")
    ask("never touched", new_page(), target)
    ask("only read: the zero page", zero_page(), target)
    shared = new_page(b"data")
    with another_process():
        ask("shared with another process", shared, target)
        ask("the same, with MOVE_ALL", shared, target, "moved for both", movepages.MOVE_ALL)
    ask("an address without a mapping", np.zeros(1, dtype=np.uint64), target)
    ask(f"touched, to node {nowhere}", new_page(b"data"), nowhere)


def ask(
    kind: str,
    page: NDArray[np.uint64],
    node: int,
    success: str = "",
    flags: int = movepages.MOVE,
) -> None:
    """Ask for one page of this process to move, and write a line about it."""
    try:
        status = int(movepages.move_pages(0, page, node, flags).status[0])
    except NotPermittedError:
        status, meaning = -Errno.EPERM, "needs root (CAP_SYS_NICE)"
    except CallError as error:
        status, sentence = -(error.errno or 0), str(error).partition(": ")[2]
        meaning = textwrap.shorten(sentence, 38, placeholder=" ...")
    else:
        meaning = PAGE_STATUSES[status].meaning if status in PAGE_STATUSES else success
    print(f"  {kind:30} {status_name(status):8} {meaning}")


_kept: list[mmap.mmap] = []


def new_page(data: bytes = b"") -> NDArray[np.uint64]:
    """Map a page, write data into it if there is any; return its address, uint64[1]."""
    memory = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    _kept.append(memory)
    memory[: len(data)] = data
    return np.array([np.frombuffer(memory, dtype=np.uint8).ctypes.data], dtype=np.uint64)


def zero_page() -> NDArray[np.uint64]:
    """Map a page and only read it: the kernel lends its one page of zeros."""
    page = new_page()
    _kept[-1].read(1)
    return page


@contextmanager
def another_process() -> Iterator[None]:
    """Fork a child, which shares all pages until one side writes to them."""
    child = os.fork()
    if child == 0:
        signal.pause()
        os._exit(0)
    try:
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def verdict(worker: subprocess.Popen[str]) -> int:
    """End the process and write what it has found; return its exit code."""
    worker.terminate()
    said = answer(worker)
    code = worker.wait()
    print(
        f"\nAll the while process {worker.pid} has {said.replace('checked', 'checked its memory')}."
    )
    print("\nGo on with: movepages nodes, movepages show PID, movepages move --help")
    return code


if __name__ == "__main__":
    sys.exit(main(movepages.read_topology()))

"""Ask for pages of every kind to move, in one call, and write what the kernel says of each.

    movepages emulate --nodes 4 -- python examples/every_kind.py
    movepages emulate --nodes 4 --semantics patch -- python examples/every_kind.py

A line is a kind of page, its status, and what that means. To move a page that two processes share
takes MOVE_ALL, which takes CAP_SYS_NICE: without it the line says EPERM.
"""

from __future__ import annotations

import mmap
import os
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

import movepages
from movepages.abi import PAGE_STATUSES, Errno, status_name
from movepages.errors import CallError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_kept: list[mmap.mmap] = []


def main() -> None:
    """Show it all."""
    topology = movepages.read_topology()
    target, nowhere = max(topology.with_memory), max(topology.possible) + 1
    home, shared = min(topology.with_memory), new_page(b"data")
    ask([shared], home)
    with another_process():
        touched, there = new_page(b"data"), new_page(b"data")
        ask([touched], home)
        ask([there], target)
        kinds = {
            "touched": touched,
            f"on node {target} already": there,
            "never touched": new_page(),
            "only read: the zero page": zero_page(),
            "no mapping there": 0,
            "shared by two processes": shared,
        }
        for kind, status in zip(kinds, ask(kinds.values(), target), strict=True):
            tell(kind, status, "nothing to do" if kind.endswith("already") else "moved")
        (status,) = ask([shared], target, movepages.MOVE_ALL)
        tell("the same, with MOVE_ALL", status, "moved for both")
    tell(f"touched, to node {nowhere}", *ask([touched], nowhere))


def ask(pages: Iterable[int], node: int, flags: int = movepages.MOVE) -> list[int]:
    """Ask for pages of this process to move; return their statuses.

    Where the call as a whole is refused, its error stands for them.
    """
    addresses = np.array(list(pages), dtype=np.uint64)
    try:
        return movepages.move_pages(0, addresses, node, flags).status.tolist()
    except CallError as error:
        return [-(error.errno or 0)] * len(addresses)


def tell(kind: str, status: int, success: str = "") -> None:
    """Write a line about a kind of page."""
    refused = {-Errno.ENODEV: "there is no such node", -Errno.EPERM: "takes CAP_SYS_NICE"}
    failure = refused.get(status) or PAGE_STATUSES[status].meaning if status < 0 else ""
    print(f"{kind:26}{status_name(status):10}{failure or success}")


def new_page(data: bytes = b"") -> int:
    """Map a page, write data into it if there is any; return its address."""
    memory = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    _kept.append(memory)
    memory[: len(data)] = data
    return np.frombuffer(memory, dtype=np.uint8).ctypes.data


def zero_page() -> int:
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


if __name__ == "__main__":
    try:
        main()
    except (KeyboardInterrupt, BrokenPipeError):
        os._exit(1)  # Ctrl-C, or a reader that has gone: there is nobody to tell

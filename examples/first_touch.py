"""Where memory comes from: first touch, policies, and a program that moves its own pages.

    movepages emulate --nodes 4 -- python examples/first_touch.py

A digit is a page of this program: the node that it is on, `.` before it is touched.
"""

from __future__ import annotations

import mmap
import threading

import numpy as np

import movepages
from movepages.abi import Mode
from movepages.linux.mempolicy import mbind, set_mempolicy

PAGES = 32


class Memory:
    """Pages of our own, which nobody has touched yet."""

    def __init__(self) -> None:
        """Map them."""
        size_bytes = PAGES * mmap.PAGESIZE
        self.map = mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.map.madvise(mmap.MADV_NOHUGEPAGE)
        start = np.frombuffer(self.map, dtype=np.uint8).ctypes.data
        self.addresses = np.arange(start, start + size_bytes, mmap.PAGESIZE, dtype=np.uint64)

    def touch(self, pages: range) -> None:
        """Write to some pages."""
        for page in pages:
            self.map[page * mmap.PAGESIZE] = 1

    def show(self, label: str) -> None:
        """Write where each page is: a query moves nothing."""
        status = movepages.query_pages(0, self.addresses).status
        print(f"{label:32}{''.join(str(node) if node >= 0 else '.' for node in status)}")


def main() -> None:
    """Show it all."""
    nodes = sorted(movepages.read_topology().with_memory)
    home, last = nodes[0], nodes[-1]
    memory = Memory()
    memory.show("mapped, and not touched")
    set_mempolicy(Mode.BIND, [home])
    memory.touch(range(8))
    memory.show(f"8 touched, bound to node {home}")
    thread = threading.Thread(target=touch_bound_to, args=(memory, range(8, 16), last))
    thread.start()
    thread.join()
    memory.show(f"8 by a thread bound to node {last}")
    set_mempolicy(Mode.INTERLEAVE, nodes)
    memory.touch(range(16, 24))
    memory.show("8 interleaved over all")
    set_mempolicy(Mode.DEFAULT, [])
    mbind(int(memory.addresses[24]), 8 * mmap.PAGESIZE, Mode.BIND, [nodes[1 % len(nodes)]], 0)
    memory.touch(range(24, PAGES))
    memory.show("8 where the area has a policy")
    movepages.move_pages(0, memory.addresses[::2], last)
    memory.show(f"every other moved to node {last}")


def touch_bound_to(memory: Memory, pages: range, node: int) -> None:
    """Touch pages in a thread of its own, whose policy is its own as well."""
    set_mempolicy(Mode.BIND, [node])
    memory.touch(pages)


if __name__ == "__main__":
    main()

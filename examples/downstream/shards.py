"""One buffer on each memory node, as a server wants it that has workers on each."""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
from pathlib import Path

MPOL_BIND = 2
NR_MBIND = {"x86_64": 237, "aarch64": 235, "riscv64": 235}
NR_MOVE_PAGES = {"x86_64": 279, "aarch64": 239, "riscv64": 239}
HAS_MEMORY = Path("/sys/devices/system/node/has_memory")


def memory_nodes() -> list[int]:
    """Return the nodes with memory, from a list such as "0-1,3"."""
    ranges = (part.split("-") for part in HAS_MEMORY.read_text().strip().split(","))
    return [node for ends in ranges for node in range(int(ends[0]), int(ends[-1]) + 1)]


def make_shards(size_bytes: int) -> dict[int, mmap.mmap]:
    """Return a buffer for each node that has memory, filled with zeros on that node."""
    shards = {node: mmap.mmap(-1, size_bytes, mmap.MAP_PRIVATE) for node in memory_nodes()}
    for node, shard in shards.items():
        _bind(shard, node)
        shard.write(bytes(size_bytes))
    return shards


def nodes_of(shard: mmap.mmap) -> list[int]:
    """Return the node of each page of a buffer, or -errno: move_pages(2) without nodes."""
    start = _address(shard)
    pages = range(start, start + len(shard), mmap.PAGESIZE)
    addresses, status = (ctypes.c_void_p * len(pages))(*pages), (ctypes.c_int * len(pages))()
    _syscall(NR_MOVE_PAGES, 0, len(pages), ctypes.addressof(addresses), 0, ctypes.addressof(status))
    return list(status)


def _bind(shard: mmap.mmap, node: int) -> None:
    """Have the pages of a buffer come from one node, once they are touched: mbind(2)."""
    mask = ctypes.create_string_buffer((1 << node).to_bytes(128, "little"), 128)
    _syscall(NR_MBIND, _address(shard), len(shard), MPOL_BIND, ctypes.addressof(mask), 1024)


def _address(shard: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(shard))


def _syscall(numbers: dict[str, int], *arguments: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    number, flags = numbers[platform.machine()], 0
    if libc.syscall(number, *map(ctypes.c_long, (*arguments, flags))) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

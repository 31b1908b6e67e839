"""NUMA calls for programs under the emulator: the standard library alone, raw system calls."""

from __future__ import annotations

import ctypes
import mmap
import os

PAGE = mmap.PAGESIZE
DEFAULT, PREFERRED, BIND, INTERLEAVE, LOCAL = range(5)
MOVE, MOVE_ALL = 2, 4
NOHUGEPAGE = 15
_NAMES = ("move_pages", "migrate_pages", "mbind", "set_mempolicy", "get_mempolicy")
_NUMBERS = {
    "x86_64": (279, 256, 237, 238, 239),
    "aarch64": (239, 238, 235, 237, 236),
    "riscv64": (239, 238, 235, 237, 236),
}[os.uname().machine]
_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.syscall.argtypes = [ctypes.c_long, *[ctypes.c_ulong] * 6]
_libc.madvise.argtypes = [ctypes.c_ulong, ctypes.c_size_t, ctypes.c_int]


def call(name, *arguments):
    """Make a call; return what the kernel returned."""
    registers = [argument & (1 << 64) - 1 for argument in arguments]
    number = _NUMBERS[_NAMES.index(name)]
    returned = _libc.syscall(number, *registers, *[0] * (6 - len(registers)))
    return returned if returned >= 0 else -ctypes.get_errno()


def set_policy(mode, *nodes):
    """Set the policy of the calling thread."""
    mask = ctypes.c_ulong(sum(1 << node for node in nodes))
    assert call("set_mempolicy", mode, ctypes.addressof(mask) if nodes else 0, 65) == 0


def bind(address, pages, mode, *nodes):
    """Set the policy of a range."""
    mask = ctypes.c_ulong(sum(1 << node for node in nodes))
    pointer = ctypes.addressof(mask) if nodes else 0
    assert call("mbind", address, pages * PAGE, mode, pointer, 65, 0) == 0


def map_pages(pages, *, shared=False):
    """Map untouched memory, never to be backed by huge pages; return its address."""
    kind = mmap.MAP_SHARED if shared else mmap.MAP_PRIVATE
    memory = mmap.mmap(-1, pages * PAGE, flags=kind | mmap.MAP_ANONYMOUS)
    _kept.append(memory)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    _libc.madvise(address, pages * PAGE, NOHUGEPAGE)
    return address


_kept = []
"""What was mapped stays so until the program ends."""


def touch(address, pages=1, value=7):
    """Write to pages, each once; other threads run meanwhile."""
    for page in range(pages):
        ctypes.memset(address + page * PAGE, value, 1)


def statuses(addresses, nodes=None, flags=MOVE):
    """Ask where pages are, or move them; return their statuses."""
    count = len(addresses)
    pages = (ctypes.c_ulong * count)(*addresses)
    wanted = (ctypes.c_int * count)(*nodes) if nodes is not None else None
    status = (ctypes.c_int * count)(*[-9999] * count)
    arrays = (pages, wanted, status)
    pointers = [ctypes.addressof(array) if array is not None else 0 for array in arrays]
    assert call("move_pages", 0, count, *pointers, flags) >= 0
    return list(status)


def pages_from(address, count):
    """Return the addresses of pages that lie side by side."""
    return [address + page * PAGE for page in range(count)]

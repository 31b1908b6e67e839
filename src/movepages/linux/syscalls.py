"""The NUMA system calls, raw: numbers in, the kernel's own answer out.

Arguments are those of the C prototypes, pointers as addresses (`address_of` gives a NumPy array's).
Every function returns what the kernel returned: 0 or more, or a negative errno. Nothing is checked
and nothing is raised here; whoever holds the arrays keeps them alive until the call is over.

A number that no C int can hold is passed as -1, which the kernel refuses as a pid, as flags and as
a mode. ctypes would cut it to 32 bits, and name another process: 2**32 + 7 is not pid 7.

ctypes costs about one microsecond a call and nothing per page, and other threads run meanwhile.
"""

from __future__ import annotations

import ctypes
import os
from ctypes import c_int, c_long, c_ulong, c_void_p
from functools import partial
from typing import TYPE_CHECKING, Any

from movepages.abi import Errno, numbers_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

_libc = ctypes.CDLL(None, use_errno=True)


def _numbers() -> dict[str, int]:
    try:
        return numbers_for(os.uname().machine)
    except KeyError:
        return {}


_NUMBERS = _numbers()


def _declare(call: str, *types: type) -> Callable[..., int]:
    """Declare a call's argument types once; an unknown architecture's calls answer -ENOSYS."""
    number = _NUMBERS.get(call)
    if number is None:
        return lambda *_: -Errno.ENOSYS
    syscall = _libc["syscall"]  # indexing makes a function object of its own, with its own types
    syscall.argtypes = (c_long, *types)
    syscall.restype = c_long
    return partial(syscall, number)


def _answer(returned: int) -> int:
    """Turn libc's -1 and errno back into what the kernel returned. The one place errno is read."""
    if returned != -1:
        return returned
    return -ctypes.get_errno()


def _c_int(number: int) -> int:
    return number if -(2**31) <= number < 2**31 else -1


def address_of(array: NDArray[Any]) -> int:
    """Return the address of an array's first element; the array must outlive its use.

    Raises TypeError for an array that is not contiguous: the kernel would read what lies between.
    """
    try:
        return ctypes.addressof(_from_buffer(array))
    except (TypeError, ValueError):  # read-only or empty: the slower way knows them
        if not array.flags.c_contiguous:
            raise
        return int(array.ctypes.data)


_from_buffer: Callable[[Any], ctypes.c_char] = ctypes.c_char.from_buffer

_move_pages = _declare("move_pages", c_int, c_ulong, c_void_p, c_void_p, c_void_p, c_int)
_migrate_pages = _declare("migrate_pages", c_int, c_ulong, c_void_p, c_void_p)
_mbind = _declare("mbind", c_void_p, c_ulong, c_int, c_void_p, c_ulong, c_int)
_set_mempolicy = _declare("set_mempolicy", c_int, c_void_p, c_ulong)
_get_mempolicy = _declare("get_mempolicy", c_void_p, c_void_p, c_ulong, c_void_p, c_ulong)
_home_node = _declare("set_mempolicy_home_node", c_ulong, c_ulong, c_ulong, c_ulong)


def move_pages(
    pid: int, count: int, pages: int | None, nodes: int | None, status: int | None, flags: int
) -> int:
    """move_pages(2): void *pages[count], const int nodes[count] or None, int status[count]."""
    return _answer(_move_pages(_c_int(pid), count, pages, nodes, status, _c_int(flags)))


def migrate_pages(pid: int, maxnode: int, old_nodes: int | None, new_nodes: int | None) -> int:
    """migrate_pages(2): bit masks of which the kernel reads maxnode - 1 bits."""
    return _answer(_migrate_pages(_c_int(pid), maxnode, old_nodes, new_nodes))


def mbind(
    start: int, length: int, mode: int, nodemask: int | None, maxnode: int, flags: int
) -> int:
    """mbind(2): policy of the caller's range of `length` bytes."""
    return _answer(_mbind(start, length, _c_int(mode), nodemask, maxnode, _c_int(flags)))


def set_mempolicy(mode: int, nodemask: int | None, maxnode: int) -> int:
    """set_mempolicy(2): policy of the calling thread."""
    return _answer(_set_mempolicy(_c_int(mode), nodemask, maxnode))


def get_mempolicy(
    mode: int | None, nodemask: int | None, maxnode: int, address: int | None, flags: int
) -> int:
    """get_mempolicy(2): int *mode and a mask of maxnode bits are written."""
    return _answer(_get_mempolicy(mode, nodemask, maxnode, address, flags))


def set_mempolicy_home_node(start: int, length: int, home_node: int, flags: int) -> int:
    """set_mempolicy_home_node(2): preferred node of a range under bind or preferred-many."""
    return _answer(_home_node(start, length, home_node, flags))

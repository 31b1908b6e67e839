"""Memory of another process as itself could access it: process_vm_readv(2), process_vm_writev(2).

/proc/PID/mem would ignore protections (FOLL_FORCE) and read what the process itself may not. These
calls honour them, so an address that is bad to the process is bad here as well. An access may end
early, at the first page that cannot be accessed; that is an answer, not an error. A task that has
ended or may not be accessed is an error.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
from ctypes import c_char_p, c_int, c_ssize_t, c_ulong
from typing import TYPE_CHECKING, Any

from movepages.abi import Errno
from movepages.errors import call_error, no_such_process
from movepages.linux.maps import read_maps

if TYPE_CHECKING:
    from collections.abc import Callable

_PAGE_BYTES = mmap.PAGESIZE
_IOV_MAX = 1024
_ADDRESSES = 1 << 64


_iovec = struct.Struct("=QQ").pack
"""struct iovec: address and length. Packed, for an object of ctypes takes ten times as long."""
_from_buffer = ctypes.c_char.from_buffer


def _declared(name: str) -> Callable[..., int]:
    function = ctypes.CDLL(None, use_errno=True)[name]
    function.argtypes = (c_int, c_char_p, c_ulong, c_char_p, c_ulong, c_ulong)
    function.restype = c_ssize_t
    return function


_readv = _declared("process_vm_readv")
_writev = _declared("process_vm_writev")


def read_memory(tid: int, address: int, size_bytes: int) -> bytes:
    """Return the bytes from an address on, as far as the task itself can read, at most that many.

    Raises NoSuchProcessError, NotPermittedError.
    """
    buffer = bytearray(size_bytes)
    done = read_into(tid, address, buffer)
    return bytes(buffer) if done == size_bytes else bytes(memoryview(buffer)[:done])


def read_into(tid: int, address: int, buffer: Any) -> int:
    """Fill a writable buffer from an address on; return how many bytes could be read.

    Raises NoSuchProcessError, NotPermittedError.
    """
    size_bytes = memoryview(buffer).nbytes
    if not size_bytes:
        return 0
    here = ctypes.addressof(_from_buffer(buffer))
    return _transfer(_readv, "process_vm_readv", tid, here, address, size_bytes)


def write_memory(tid: int, address: int, data: Any) -> int:
    """Write bytes from an address on; return how many could be written before one could not.

    `data` is bytes or any contiguous buffer. Raises NoSuchProcessError, NotPermittedError.
    """
    view = memoryview(data)
    size_bytes = view.nbytes
    if not size_bytes:
        return 0
    if view.readonly:
        data = bytearray(view)
    here = ctypes.addressof(_from_buffer(data))
    return _transfer(_writev, "process_vm_writev", tid, here, address, size_bytes)


def readable(tid: int, address: int, size_bytes: int) -> int:
    """Return how many bytes from an address on lie in areas that the task may read.

    It looks at the areas and touches no page. Raises NoSuchProcessError, NotPermittedError.
    """
    return _allowed(tid, address, size_bytes, "r")


def writable(tid: int, address: int, size_bytes: int) -> int:
    """Return how many bytes from an address on lie in areas that the task may write.

    It looks at the areas and touches no page. Raises NoSuchProcessError, NotPermittedError.
    """
    return _allowed(tid, address, size_bytes, "w")


def _allowed(tid: int, address: int, size_bytes: int, permission: str) -> int:
    reached = address
    for area in read_maps(tid):
        if area.end <= reached:
            continue
        if area.start > reached or permission not in area.permissions:
            break
        reached = area.end
        if reached >= address + size_bytes:
            break
    return min(reached - address, size_bytes)


def _transfer(
    call: Callable[..., int], name: str, tid: int, here: int, there: int, size_bytes: int
) -> int:
    """Copy in one piece; where that ends early, page by page until it ends in the same place.

    The kernel may stop anywhere within a piece, and need not do what it can of one (the man page).
    """
    if there + size_bytes > _ADDRESSES:
        size_bytes = _ADDRESSES - there
    done = call(tid, _iovec(here, size_bytes), 1, _iovec(there, size_bytes), 1, 0)
    if done == size_bytes:
        return done
    done = _checked(done, name, tid)
    while 0 <= done < size_bytes:
        pages, count, named_bytes = _by_page(there + done, size_bytes - done)
        returned = call(tid, _iovec(here + done, named_bytes), 1, pages, count, 0)
        more = _checked(returned, name, tid)
        if not more:
            break
        done += more
    return done


def _by_page(address: int, size_bytes: int) -> tuple[bytes, int, int]:
    """Cut a range at the borders of pages; its beginning, as much as one call takes.

    Return the pieces, how many, and how many bytes they name.
    """
    start, end = address, address + size_bytes
    pieces: list[bytes] = []
    while address < end and len(pieces) < _IOV_MAX:
        border = min(end, (address // _PAGE_BYTES + 1) * _PAGE_BYTES)
        pieces.append(_iovec(address, border - address))
        address = border
    return b"".join(pieces), len(pieces), address - start


def _checked(returned: int, name: str, tid: int) -> int:
    """Return what a call returned, 0 for a bad address. Raises for what is wrong with the task."""
    if returned >= 0:
        return returned
    errno = ctypes.get_errno()
    if errno == Errno.EFAULT:
        return 0
    raise _refused(errno, name, tid)


def _refused(errno: int, name: str, tid: int) -> Exception:
    if errno == Errno.ESRCH:
        return no_such_process(tid, name)
    if errno == Errno.EPERM:
        detail = f"the memory of task {tid} may not be accessed; run as its user or as root"
        return call_error(-errno, name, detail=detail, pid=tid)
    return call_error(-errno, name, detail=os.strerror(errno), pid=tid)

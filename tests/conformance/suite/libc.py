"""The memory calls of libc, with numbers for arguments and OSError for failures."""

from __future__ import annotations

import ctypes
import mmap
import os
from ctypes import c_int, c_long, c_size_t, c_uint, c_void_p

PROT_NONE = 0
PROTECTIONS = {"": PROT_NONE, "r": mmap.PROT_READ, "rw": mmap.PROT_READ | mmap.PROT_WRITE}
ADVICE = {"dontneed": 4, "mergeable": 12, "hugepage": 14}
MAP_SHARED, MAP_PRIVATE = mmap.MAP_SHARED, mmap.MAP_PRIVATE
MAP_ANONYMOUS, MAP_HUGETLB, MAP_FIXED_NOREPLACE = mmap.MAP_ANONYMOUS, 0x40000, 0x100000

_PR_SET_DUMPABLE = 4
_MEMFD_SECRET = 447
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = c_void_p
_libc.mmap.argtypes = (c_void_p, c_size_t, c_int, c_int, c_int, c_long)
_libc.munmap.argtypes = _libc.mlock.argtypes = (c_void_p, c_size_t)
_libc.mprotect.argtypes = _libc.madvise.argtypes = (c_void_p, c_size_t, c_int)
_libc.vmsplice.restype = ctypes.c_ssize_t
_libc.vmsplice.argtypes = (c_int, c_void_p, c_size_t, c_uint)


class _IoVec(ctypes.Structure):
    _fields_ = (("base", c_void_p), ("length", c_size_t))


def map_at(address: int | None, length: int, protection: int, flags: int, fd: int = -1) -> int:
    """Map memory: mmap(2)."""
    return _checked(_libc.mmap(address, length, protection, flags, fd, 0), "mmap")


def unmap(address: int, length: int) -> None:
    """Unmap memory: munmap(2)."""
    _checked(_libc.munmap(address, length), "munmap")


def protect(address: int, length: int, protection: int) -> None:
    """Change protection: mprotect(2)."""
    _checked(_libc.mprotect(address, length, protection), "mprotect")


def advise(address: int, length: int, advice: str) -> None:
    """Advise: madvise(2)."""
    _checked(_libc.madvise(address, length, ADVICE[advice]), f"madvise {advice}")


def lock(address: int, length: int) -> None:
    """Lock in memory: mlock(2)."""
    _checked(_libc.mlock(address, length), "mlock")


def splice_into(pipe: int, address: int, length: int) -> None:
    """Put pages themselves into a pipe, which then refers to them: vmsplice(2)."""
    vector = _IoVec(address, length)
    taken = _checked(_libc.vmsplice(pipe, ctypes.byref(vector), 1, 0), "vmsplice")
    if taken != length:
        raise OSError(f"the pipe took {taken} bytes of {length}")


def memfd_secret() -> int:
    """Make a file of secret memory: memfd_secret(2)."""
    return _checked(_libc.syscall(c_long(_MEMFD_SECRET), 0), "memfd_secret")


def set_dumpable(value: int) -> None:
    """Let others look at this process, or not: prctl(PR_SET_DUMPABLE)."""
    _checked(_libc.prctl(_PR_SET_DUMPABLE, value, 0, 0, 0), "prctl")


def _checked(returned: int, call: str) -> int:
    if returned in {-1, c_void_p(-1).value}:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")
    return returned

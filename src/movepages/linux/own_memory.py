"""Memory of the caller, and files to map: mmap(2), shmat(2), madvise(2), mincore(2), cachestat(2).

Every function returns what the kernel returned: 0 or more, or a negative errno. Nothing is checked
and nothing is raised here.
"""

from __future__ import annotations

import ctypes
import mmap
from ctypes import c_int, c_long, c_size_t, c_void_p
from typing import TYPE_CHECKING, Any

import numpy as np

from movepages.abi import Errno
from movepages.linux.libc import NUMBERS

if TYPE_CHECKING:
    from numpy.typing import NDArray

MADV_RANDOM = 1
MADV_DONTNEED = 4
MADV_POPULATE_READ = 22
"""Of include/uapi/asm-generic/mman-common.h. The last is in Linux 5.14 and later."""

_CACHESTAT = 451  # on all architectures whose numbers we know: include/uapi/asm-generic/unistd.h
_SHM_RDONLY = 0o10000  # include/uapi/linux/shm.h


def _declared(function: str, answer: Any, *types: Any) -> Any:
    declared = ctypes.CDLL(None, use_errno=True)[function]
    declared.argtypes = types
    declared.restype = answer
    return declared


_mmap = _declared("mmap", c_size_t, c_void_p, c_size_t, c_int, c_int, c_int, c_long)
_munmap = _declared("munmap", c_int, c_void_p, c_size_t)
_madvise = _declared("madvise", c_int, c_void_p, c_size_t, c_int)
_mincore = _declared("mincore", c_int, c_void_p, c_size_t, c_void_p)
_cachestat = _declared("syscall", c_long, c_long, c_long, c_void_p, c_void_p, c_long)
_shmat = _declared("shmat", c_size_t, c_int, c_void_p, c_int)
_shmdt = _declared("shmdt", c_int, c_void_p)

_FAILED = (1 << 8 * ctypes.sizeof(c_size_t)) - 1
"""(void *) -1: what mmap and shmat return where they fail."""


def _answer(returned: int) -> int:
    return returned if returned not in {-1, _FAILED} else -ctypes.get_errno()


def map_shared(descriptor: int, length_bytes: int, offset: int) -> int:
    """mmap(2): bytes of a file from an offset on, shared, to be read only. Return the address."""
    return _answer(_mmap(None, length_bytes, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, offset))


def unmap(start: int, length_bytes: int) -> int:
    """munmap(2)."""
    return _answer(_munmap(start, length_bytes))


def attach(shmid: int) -> int:
    """shmat(2), to be read only. Return the address."""
    return _answer(_shmat(shmid, None, _SHM_RDONLY))


def detach(start: int) -> int:
    """shmdt(2)."""
    return _answer(_shmdt(start))


def advise(start: int, length_bytes: int, advice: int) -> int:
    """madvise(2)."""
    return _answer(_madvise(start, length_bytes, advice))


def mincore(start: int, length_bytes: int, resident: NDArray[np.uint8]) -> int:
    """mincore(2): bit 0 of a byte for each page, uint8[pages], says whether it is in memory."""
    return _answer(_mincore(start, length_bytes, resident.ctypes.data))


def cached_pages(descriptor: int, offset: int, length_bytes: int) -> int:
    """cachestat(2), of Linux 6.5: how many pages of a part of a file are in the page cache."""
    if not NUMBERS:  # then this number may be another call's
        return -Errno.ENOSYS
    part = np.array([offset, length_bytes], dtype=np.uint64)
    found = np.zeros(5, dtype=np.uint64)  # struct cachestat: the first is nr_cache
    ret = _answer(_cachestat(_CACHESTAT, descriptor, part.ctypes.data, found.ctypes.data, 0))
    return ret or int(found[0])


def touch(start: int, length_bytes: int, page_size_bytes: int) -> None:
    """Read a byte of each page. SIGBUS ends the process where the file has lost one meanwhile."""
    window = (ctypes.c_uint8 * length_bytes).from_address(start)
    np.frombuffer(memoryview(window), dtype=np.uint8)[::page_size_bytes].sum()

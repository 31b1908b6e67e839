"""Memory of this process whose every page is known, mapped with mmap(2) itself."""

from __future__ import annotations

import ctypes
import mmap
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from guestkit.pages import HUGE_BYTES, HUGE_PAGES, PAGE_BYTES, Pages

if TYPE_CHECKING:
    from collections.abc import Iterator

PROT_NONE = 0  # not in the mmap module
_RW = mmap.PROT_READ | mmap.PROT_WRITE
_ANONYMOUS = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
_MAP_FIXED = 0x10
_MAP_HUGETLB = 0x40000

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
)
_libc.munmap.argtypes = _libc.mlock.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_libc.vmsplice.restype = ctypes.c_ssize_t
_libc.vmsplice.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint)
_FAILURES = {-1, ctypes.c_void_p(-1).value}


class _IoVec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class Memory:
    """Maps memory between guard pages, so that no mapping merges with its neighbour."""

    def __init__(self) -> None:
        """Start with nothing."""
        self._reserved: list[tuple[int, int]] = []

    def private(self, pages: int, protection: int = _RW) -> Pages:
        """Map private anonymous memory, untouched."""
        return self._map(pages, protection, _ANONYMOUS)

    def shared(self, pages: int) -> Pages:
        """Map shared anonymous memory, untouched."""
        return self._map(pages, _RW, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)

    def shared_file(self, descriptor: int, pages: int) -> Pages:
        """Map the beginning of a file, to read and write the file itself."""
        return self._map(pages, _RW, mmap.MAP_SHARED, descriptor)

    def read_only_file(self, descriptor: int, pages: int) -> Pages:
        """Map the beginning of a file to read it."""
        return self._map(pages, mmap.PROT_READ, mmap.MAP_PRIVATE, descriptor)

    def thp(self, huge_pages: int) -> Pages:
        """Map private memory that the first touch makes transparent huge pages of."""
        pages = self._map(huge_pages * HUGE_PAGES, _RW, _ANONYMOUS)
        _checked(_libc.madvise(pages.start, pages.size_bytes, mmap.MADV_HUGEPAGE))
        return pages

    def hugetlb(self, huge_pages: int) -> Pages:
        """Map huge pages of the pools, untouched."""
        return self._map(huge_pages * HUGE_PAGES, _RW, _ANONYMOUS | _MAP_HUGETLB)

    def close(self) -> None:
        """Unmap all of it."""
        for start, length in self._reserved:
            _checked(_libc.munmap(start, length))
        self._reserved.clear()

    def _map(self, pages: int, protection: int, flags: int, descriptor: int = -1) -> Pages:
        length = pages * PAGE_BYTES + 2 * HUGE_BYTES
        low = _checked(_libc.mmap(None, length, PROT_NONE, _ANONYMOUS, -1, 0))
        self._reserved.append((low, length))
        start = (low + HUGE_BYTES) // HUGE_BYTES * HUGE_BYTES
        size, flags = pages * PAGE_BYTES, flags | _MAP_FIXED
        _checked(_libc.mmap(start, size, protection, flags, descriptor, 0))
        return Pages(np.uint64(start) + np.arange(pages, dtype=np.uint64) * np.uint64(PAGE_BYTES))


def unmap(pages: Pages) -> None:
    """Unmap pages that lie side by side: a hole in their mapping."""
    _checked(_libc.munmap(pages.start, pages.size_bytes))


def lock(pages: Pages) -> None:
    """Lock pages that lie side by side in memory: mlock(2)."""
    _checked(_libc.mlock(pages.start, pages.size_bytes))


@contextmanager
def pinned(pages: Pages) -> Iterator[int]:
    """Let a pipe hold references to pages that lie side by side; yield the bytes that it took.

    vmsplice(2) puts the pages themselves into the pipe, and what is referenced cannot migrate.
    """
    reader, writer = os.pipe()
    vector = _IoVec(pages.start, pages.size_bytes)
    try:
        yield _checked(_libc.vmsplice(writer, ctypes.byref(vector), 1, 0))
    finally:
        os.close(writer)
        os.close(reader)


def _checked(returned: int) -> int:
    """Return what a function of libc returned, or raise its OSError."""
    if returned in _FAILURES:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return returned

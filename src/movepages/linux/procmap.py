"""One mapping (VMA) of a process by address: PROCMAP_QUERY on /proc/PID/maps (Linux 6.11).

A few microseconds, where the text takes hundreds for a process with many mappings. A kernel without
it says ENOTTY; then the text is read, each time.

An open maps file stays with the memory it was opened on: behind an execve(2) the query says ESRCH,
and after a vfork(2) it answers about the parent's memory. Who follows a process opens it anew.
Source: do_procmap_query in fs/proc/task_mmu.c.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
from errno import EINVAL, ENOTTY
from typing import TYPE_CHECKING, NamedTuple

from movepages.abi.procmap import (
    COVERING_OR_NEXT_VMA,
    PATH_MAX,
    PROCMAP_QUERY,
    PROCMAP_QUERY_ARG,
    VmaFlag,
)
from movepages.errors import UnsupportedError, no_such_process
from movepages.linux.maps import read_maps
from movepages.linux.reading import ROOT, not_permitted, process_directory, start_ticks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from movepages.linux.maps import MapsLine

_PERMISSIONS = (
    ("r", VmaFlag.READABLE),
    ("w", VmaFlag.WRITABLE),
    ("x", VmaFlag.EXECUTABLE),
    ("s", VmaFlag.SHARED),
)


class Vma(NamedTuple):
    """A mapping. Addresses and offset in bytes, the end excluded.

    `device` is (major, minor) and `inode` 0 for anonymous memory. `name` is as the kernel prints
    it: empty, `[heap]`, `[anon:NAME]`, or a file's path with ` (deleted)` behind it.
    `page_size_bytes` is None where the kernel had only the text of maps to offer.
    """

    start: int
    end: int
    flags: VmaFlag
    offset: int
    device: tuple[int, int]
    inode: int
    name: str
    page_size_bytes: int | None


def query_vma(maps_fd: int, address: int) -> Vma | None:
    """Return the mapping that covers an address, or else the next one above; None if none is.

    Raises UnsupportedError where the kernel has no PROCMAP_QUERY, ProcessLookupError when the
    memory that the file was opened on is gone.
    """
    name = ctypes.create_string_buffer(PATH_MAX)
    argument = bytearray(
        PROCMAP_QUERY_ARG.pack(
            PROCMAP_QUERY_ARG.size,
            COVERING_OR_NEXT_VMA,
            address,
            *(0,) * 8,
            PATH_MAX,
            0,
            ctypes.addressof(name),
            0,
        )
    )
    try:
        fcntl.ioctl(maps_fd, PROCMAP_QUERY, argument)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno not in {ENOTTY, EINVAL}:
            raise
        raise UnsupportedError("this kernel has no PROCMAP_QUERY (Linux 6.11)") from error
    _, _, _, start, end, flags, page_size, offset, inode, major, minor, length, *_ = (
        PROCMAP_QUERY_ARG.unpack(argument)
    )
    text = name.raw[: length - 1].decode("utf-8", "surrogateescape") if length else ""
    return Vma(start, end, VmaFlag(flags), offset, (major, minor), inode, text, page_size)


class VmaSource:
    """The mappings of a process, asked for by address in the best way that this kernel has.

    Owns the descriptor of the maps file.
    """

    def __init__(self, pid: int, root: Path = ROOT) -> None:
        """Open the maps of a process, and choose the way by trying.

        Raises NoSuchProcessError, NotPermittedError.
        """
        self.pid = pid
        self._root = root
        self._fd = _open_maps(pid, root)
        self.queries = self._can_query()
        """Whether PROCMAP_QUERY is used, and not the text."""

    def __enter__(self) -> Self:
        """Return the source, which is open already."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the source."""
        self.close()

    def close(self) -> None:
        """Close the maps file; closing twice is no error."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def find(self, address: int) -> Vma | None:
        """Return the mapping that covers an address, or else the next one above; None if none is.

        This is find_vma() of the kernel. Raises NoSuchProcessError, NotPermittedError.
        """
        return next(self.above(address), None)

    def covering(self, address: int) -> Vma | None:
        """Return the mapping that an address is in, or None. Raises as find does."""
        found = self.find(address)
        return found if found and found.start <= address else None

    def above(self, address: int) -> Iterator[Vma]:
        """Go through the mappings that end above an address, in rising order. Raises as find."""
        if not self.queries:
            lines = read_maps(self.pid, self._root)
            yield from (_from_line(line) for line in lines if line.end > address)
            return
        while (found := self._query(address)) is not None:
            yield found
            address = found.end

    def _can_query(self) -> bool:
        try:
            query_vma(self._fd, 0)
        except (UnsupportedError, ProcessLookupError):  # no memory: the text tells why
            return False
        return True

    def _query(self, address: int) -> Vma | None:
        try:
            return query_vma(self._fd, address)
        except ProcessLookupError:
            raise no_such_process(self.pid, "PROCMAP_QUERY") from None


def _open_maps(pid: int, root: Path) -> int:
    path = process_directory(pid, root) / "maps"
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise no_such_process(pid, "open maps") from None
    except ProcessLookupError:
        start_ticks(pid, root)  # a kernel thread lives, and has no mappings
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError:
        raise not_permitted(pid, path) from None


def _from_line(line: MapsLine) -> Vma:
    flags = VmaFlag(0)
    for letter, flag in _PERMISSIONS:
        if letter in line.permissions:
            flags |= flag
    major, _, minor = line.device.partition(":")
    device = int(major, 16), int(minor, 16)
    return Vma(line.start, line.end, flags, line.offset, device, line.inode, line.path, None)

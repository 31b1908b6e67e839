"""The memory of a file or of a segment, mapped into the caller, with nothing brought in from disk.

mincore(2) tells which pages are in memory; those are mapped, for only what is mapped can be asked
about and moved. What has to be known of the kernel for that:

- Of a file that is neither the caller's nor writable to him, mincore says that all of it is in
  memory (can_do_mincore in mm/mincore.c). So such a file is refused.
- Of hugetlb pages it knows only those that this very mapping has (mincore_hugetlb), and a fault
  makes those that are not there. So how much is allocated has to tell: all, nothing, or a part,
  which is refused.
- A fault may start readahead; not under MADV_RANDOM (do_async_mmap_readahead in mm/filemap.c).
- A file that was cut meanwhile ends its reader by SIGBUS; MADV_POPULATE_READ only fails.

A page may leave memory between the look and the fault, and is then read in again.
"""

from __future__ import annotations

import errno
import os
import resource
import stat
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from movepages.abi import Errno, Mode
from movepages.errors import ArgumentError, NotPermittedError, UnsupportedError
from movepages.linux import own_memory
from movepages.linux.files import read_mounts
from movepages.linux.mappings import read_mappings
from movepages.linux.mempolicy import get_mempolicy
from movepages.linux.reading import ROOT
from movepages.linux.shm import ShmFile
from movepages.linux.status import read_status
from movepages.units import format_size
from movepages.values import Policy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from movepages.linux.shm import Segment, SysvSegment

WINDOW_BYTES = 256 << 20
"""So much of an object is mapped at a time."""
HUGE_WINDOW_BYTES = 1 << 30
"""The same of hugetlb: whole pages, whichever size they have."""
_PAGE_BYTES = resource.getpagesize()
_BLOCK_BYTES = 512  # the unit of st_blocks (stat(2))
_CAP_FOWNER = 3  # include/uapi/linux/capability.h
_EHWPOISON = 133  # include/uapi/asm-generic/errno.h
_GONE = {Errno.EFAULT, _EHWPOISON, Errno.EBUSY, Errno.ENOMEM}
"""What MADV_POPULATE_READ says of pages that are there no more, or cannot be read."""


@dataclass(frozen=True, slots=True)
class FileMemory:
    """An open file of `size_bytes`; `length_bytes` of it, in whole pages, can be in memory.

    Satisfies `placement.objects.Memory`.
    """

    name: str
    descriptor: int
    size_bytes: int
    length_bytes: int
    hugetlb: bool = False

    def windows(self) -> Iterator[tuple[int, int]]:
        """Go through its parts as (offset, end), in rising order; none where it is empty."""
        return _windows(self.length_bytes, hugetlb=self.hugetlb)

    @contextmanager
    def mapped(self, offset: int, end: int) -> Iterator[tuple[int, int] | None]:
        """Map the pages of a part that are in memory while the block lasts.

        Yields the addresses from start to end, or None where no page is in memory. Raises
        UnsupportedError.
        """
        if not own_memory.cached_pages(self.descriptor, offset, end - offset):
            yield None  # quicker than mincore, which looks for every page of a hole
            return
        start = own_memory.map_shared(self.descriptor, end - offset, offset)
        if start < 0:
            raise UnsupportedError(
                f"{self.name} cannot be mapped: {os.strerror(-start)}; its file system does not "
                "allow it, or memory of this process is limited (ulimit -v)"
            )
        try:
            own_memory.advise(start, end - offset, own_memory.MADV_RANDOM)
            span = (start, start + end - offset)
            yield span if _fault_in(span, whole=self.hugetlb) else None
        finally:
            own_memory.unmap(start, end - offset)

    def policy(self, root: Path = ROOT) -> Policy:
        """Return the policy of the file itself: that of its first page. Raises CallError.

        numa_maps would show the policy of the caller where the file has none.
        """
        for _, end in self.windows():
            start = own_memory.map_shared(self.descriptor, end, 0)
            try:
                return get_mempolicy(start, root)
            finally:
                own_memory.unmap(start, end)
        return Policy(Mode.DEFAULT)


@dataclass(frozen=True, slots=True)
class SegmentMemory:
    """A System V segment that is attached at `start`; otherwise as `FileMemory`."""

    start: int
    size_bytes: int
    length_bytes: int
    hugetlb: bool = False

    def windows(self) -> Iterator[tuple[int, int]]:
        """Go through its parts as (offset, end), in rising order."""
        return _windows(self.length_bytes, hugetlb=self.hugetlb)

    @contextmanager
    def mapped(self, offset: int, end: int) -> Iterator[tuple[int, int] | None]:
        """Map the pages of a part that are in memory while the block lasts; as `FileMemory`."""
        span = (self.start + offset, self.start + end)
        try:
            yield span if _fault_in(span, whole=self.hugetlb) else None
        finally:
            own_memory.advise(span[0], end - offset, own_memory.MADV_DONTNEED)

    def policy(self, root: Path = ROOT) -> Policy:
        """Return the policy of the segment itself: that of its first page. Raises CallError."""
        return get_mempolicy(self.start, root)


_Memory = TypeVar("_Memory", FileMemory, SegmentMemory)


@contextmanager
def file_memory(path: Path, root: Path = ROOT) -> Iterator[FileMemory]:
    """Open a file or block device while the block lasts.

    Raises ArgumentError for what has no pages, NotPermittedError, UnsupportedError.
    """
    descriptor = _opened(path)
    try:
        facts = os.fstat(descriptor)
        _refuse_what_has_no_pages(path, facts)
        block_device = stat.S_ISBLK(facts.st_mode)
        size = os.lseek(descriptor, 0, os.SEEK_END) if block_device else facts.st_size
        length = -(-size // _PAGE_BYTES) * _PAGE_BYTES
        memory = FileMemory(str(path), descriptor, size, length, _is_hugetlb(facts, root))
        if memory.hugetlb:
            memory = _if_whole(str(path), facts.st_blocks * _BLOCK_BYTES, memory)
        else:
            _refuse_stranger(path, facts, root)
        yield memory
    finally:
        os.close(descriptor)


@contextmanager
def attached_segment(segment: SysvSegment, root: Path = ROOT) -> Iterator[SegmentMemory]:
    """Attach a System V segment, to be read only, while the block lasts; as `file_memory`."""
    start = own_memory.attach(segment.shmid)
    if start < 0:
        raise _not_attached(segment.name, -start)
    try:
        (mapping,) = (each for each in read_mappings(0, root) if each.start <= start < each.end)
        length = mapping.end - start
        memory = SegmentMemory(start, segment.size_bytes, length, mapping.hugetlb)
        if memory.hugetlb:
            memory = _if_whole(segment.name, _allocated_bytes(segment.name, memory), memory)
        yield memory
    finally:
        own_memory.detach(start)


def segment_memory(
    segment: Segment, root: Path = ROOT
) -> AbstractContextManager[FileMemory | SegmentMemory]:
    """Open a segment of whichever kind while the block lasts. Raises as `file_memory` does."""
    if isinstance(segment, ShmFile):
        return file_memory(segment.path, root)
    return attached_segment(segment, root)


def _windows(length_bytes: int, *, hugetlb: bool) -> Iterator[tuple[int, int]]:
    step = HUGE_WINDOW_BYTES if hugetlb else WINDOW_BYTES
    for offset in range(0, length_bytes, step):
        yield offset, min(offset + step, length_bytes)


def _fault_in(span: tuple[int, int], *, whole: bool) -> bool:
    """Map the pages of a span that are in memory, or all; tell whether there are any."""
    runs = [span] if whole else _resident(*span)
    for first, last in runs:
        ret = own_memory.advise(first, last - first, own_memory.MADV_POPULATE_READ)
        if ret == -Errno.EINVAL:  # before Linux 5.14
            own_memory.touch(first, last - first, _PAGE_BYTES)
        elif ret < 0 and -ret not in _GONE:
            raise UnsupportedError(f"pages cannot be mapped: {os.strerror(-ret)} (madvise(2))")
    return bool(runs)


def _resident(start: int, end: int) -> list[tuple[int, int]]:
    """Return the runs of pages that are in memory."""
    pages = np.zeros((end - start) // _PAGE_BYTES, dtype=np.uint8)
    ret = own_memory.mincore(start, end - start, pages)
    if ret < 0:
        raise UnsupportedError(f"mincore: {os.strerror(-ret)}; it has to be allowed here")
    return [
        (start + first * _PAGE_BYTES, start + last * _PAGE_BYTES)
        for first, last in _runs(pages & 1)
    ]


def _runs(there: NDArray[Any]) -> list[tuple[int, int]]:
    """Return the first and the end of each run of ones."""
    edges = np.flatnonzero(np.diff(there, prepend=0, append=0))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def _opened(path: Path) -> int:
    """Open a file to read it; never wait for the other end of a pipe."""
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        try:
            return os.open(path, flags)
        except OSError as error:
            if error.errno != errno.EMFILE:
                raise
            _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
            return os.open(path, flags)
    except PermissionError:
        raise NotPermittedError(
            Errno.EACCES, f"{path} may not be read; run as its owner or as root", call="open"
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ArgumentError(f"{path} cannot be opened: {reason}; name a file") from None


def _refuse_what_has_no_pages(path: Path, facts: os.stat_result) -> None:
    if stat.S_ISREG(facts.st_mode) or stat.S_ISBLK(facts.st_mode):
        return
    what = "a directory" if stat.S_ISDIR(facts.st_mode) else "no file with pages"
    raise ArgumentError(f"{path} is {what}; name regular files or block devices")


def _is_hugetlb(facts: os.stat_result, root: Path) -> bool:
    if facts.st_blksize <= _PAGE_BYTES:  # there it is the size of the huge pages
        return False
    device = f"{os.major(facts.st_dev)}:{os.minor(facts.st_dev)}"
    huge = (mount.device for mount in read_mounts(root) if mount.filesystem == "hugetlbfs")
    return device in huge


def _allocated_bytes(name: str, memory: SegmentMemory) -> int:
    """Return how much of a hugetlb segment is there: what sysvipc says of these is wrong (6.18)."""
    span = f"{memory.start:x}-{memory.start + memory.length_bytes:x}"
    try:
        return Path("/proc/self/map_files", span).stat().st_blocks * _BLOCK_BYTES
    except PermissionError:
        raise NotPermittedError(
            Errno.EPERM,
            f"{name} has huge pages, and how many of them are there only root is told; run as root",
            call="stat",
        ) from None


def _if_whole(name: str, there_bytes: int, memory: _Memory) -> _Memory:
    """Return hugetlb memory if all of it is there, without windows if nothing is.

    Raises UnsupportedError where a part is: a look would make the rest.
    """
    if there_bytes >= memory.length_bytes:
        return memory
    if not there_bytes:
        return replace(memory, length_bytes=0)
    raise UnsupportedError(
        f"{name} has {format_size(there_bytes)} of huge pages for its "
        f"{format_size(memory.length_bytes)}, and the kernel does not tell which; "
        "use movepages move on a process that maps it"
    )


def _refuse_stranger(path: Path, facts: os.stat_result, root: Path) -> None:
    """Refuse a file of which mincore(2) would not tell the truth."""
    if facts.st_uid == os.geteuid() or os.access(path, os.W_OK, effective_ids=True):
        return
    if read_status(0, root).cap_eff >> _CAP_FOWNER & 1:
        return
    raise NotPermittedError(
        Errno.EPERM,
        f"{path} is neither yours nor writable to you, and then the kernel does not tell which of "
        "its pages are in memory (mincore(2)); run as its owner or as root",
        call="mincore",
    )


def _not_attached(name: str, code: int) -> Exception:
    if code == Errno.EACCES:
        return NotPermittedError(
            Errno.EACCES, f"{name} may not be read; run as its owner or as root", call="shmat"
        )
    if code in {Errno.EINVAL, errno.EIDRM}:
        return ArgumentError(f"there is no segment {name} any more; see movepages shm")
    return UnsupportedError(f"{name} cannot be attached: {os.strerror(code)}; see shmat(2)")

"""Shared memory that outlives a process: System V segments, /dev/shm, files on hugetlbfs."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from movepages.errors import MalformedError
from movepages.linux.files import filesystem_of, read_mounts
from movepages.linux.reading import ROOT, parse_number, read_optional

if TYPE_CHECKING:
    from collections.abc import Iterator

_BLOCK_BYTES = 512  # the unit of st_blocks, whatever the file system (stat(2))


@dataclass(frozen=True, slots=True)
class SysvSegment:
    """A segment of shmget(2), in the caller's IPC namespace. Sizes in bytes."""

    key: int
    shmid: int
    size_bytes: int
    rss_bytes: int
    swap_bytes: int
    nattch: int
    uid: int
    gid: int

    @property
    def name(self) -> str:
        """What to call it: `sysv:32`."""
        return f"sysv:{self.shmid}"

    @property
    def attached(self) -> int:
        """How often it is attached."""
        return self.nattch

    @property
    def there_bytes(self) -> int:
        """What of it is in memory."""
        return self.rss_bytes


@dataclass(frozen=True, slots=True)
class ShmFile:
    """A file in memory. `allocated_bytes` is what it has of memory and swap; `inode` as in maps."""

    path: Path
    size_bytes: int
    allocated_bytes: int
    inode: int
    uid: int
    attached: int | None = None
    """How often it is attached is not known."""

    @property
    def name(self) -> str:
        """What to call it: its path."""
        return str(self.path)

    @property
    def there_bytes(self) -> int:
        """What of it is in memory or in swap."""
        return self.allocated_bytes


Segment = SysvSegment | ShmFile
"""Shared memory that can be found by a name."""


def list_segments(root: Path = ROOT) -> list[Segment]:
    """Return all segments: of System V, of POSIX, on hugetlbfs. Raises MalformedError."""
    return [*read_sysv_segments(root), *list_posix_shm(root), *list_hugetlb_files(root)]


def read_sysv_segments(root: Path = ROOT) -> list[SysvSegment]:
    """Return the System V segments; none where the kernel has no SysV IPC. Raises MalformedError.

    Source: sysvipc_shm_proc_show in ipc/shm.c.
    """
    path = root / "proc/sysvipc/shm"
    header, *lines = (read_optional(path) or "").splitlines() or [""]
    names = header.split()
    return [_segment(names, line, path, number) for number, line in enumerate(lines, 2)]


def list_posix_shm(root: Path = ROOT) -> list[ShmFile]:
    """Return the POSIX segments by path: files of /dev/shm, for no name has a slash (shm_open(3)).

    What lies in a directory there is an ordinary file on tmpfs.
    """
    directory = root / "dev/shm"
    files = (file for file in _files(directory) if file.path.parent == directory)
    return sorted(files, key=lambda file: file.path)


def list_hugetlb_files(root: Path = ROOT) -> list[ShmFile]:
    """Return the files on all hugetlbfs mounts by path. Raises MalformedError."""
    mounts = read_mounts(root)
    points = [
        mount.point
        for mount in mounts
        if mount.filesystem == "hugetlbfs" and filesystem_of(mount.point, mounts) is mount
    ]
    files = (file for point in points for file in _files(root / point.lstrip("/")))
    return sorted(files, key=lambda file: file.path)


def _segment(names: list[str], line: str, path: Path, number: int) -> SysvSegment:
    values = dict(zip(names, line.split(), strict=False))

    def value(name: str) -> int:
        if name not in values:
            raise MalformedError(path, number, name, "the column is missing")
        return parse_number(values[name], path, number, name)

    return SysvSegment(
        key=value("key"),
        shmid=value("shmid"),
        size_bytes=value("size"),
        rss_bytes=value("rss"),
        swap_bytes=value("swap"),
        nattch=value("nattch"),
        uid=value("uid"),
        gid=value("gid"),
    )


def _files(directory: Path) -> Iterator[ShmFile]:
    """Go through the regular files below a directory; one that is removed meanwhile is left out."""
    for parent, _, names in os.walk(directory):
        for name in names:
            path = Path(parent, name)
            try:
                facts = path.lstat()
            except FileNotFoundError:
                continue
            if stat.S_ISREG(facts.st_mode):
                allocated = facts.st_blocks * _BLOCK_BYTES
                yield ShmFile(path, facts.st_size, allocated, facts.st_ino, facts.st_uid)

"""The files that processes map, each with its pages: told apart though inode numbers are reused.

Of files with one number only one lives at a time, so a file is known by device and inode number,
and the kernel's handle of it (`linux.file_handle`) tells when another has taken its place. Root
reads the handle of what is mapped, be it unlinked; a user that of what the path leads to. Where
neither is to be had, the number has to do.

The page cache keeps pages of a file that nobody maps, as in the kernel, for as long as a path leads
to it. What has no path goes with its last mapping.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from movepages.linux.file_handle import read_file_handle

if TYPE_CHECKING:
    from collections.abc import Collection

    from movepages.emulator.objects import Objects, PageObject
    from movepages.linux.procmap import Vma

    FileNumber = tuple[tuple[int, int], int]
    """Device and inode."""

_UNKNOWN = b""


@dataclass(slots=True, eq=False)
class _File:
    pages: PageObject
    handle: bytes
    path: str


@dataclass(slots=True, eq=False)
class MappedFiles:
    """All files that have been seen mapped and are not gone yet."""

    objects: Objects
    proc: Path
    _files: dict[FileNumber, _File] = field(default_factory=dict)
    _replaced: list[PageObject] = field(default_factory=list)
    """Of files whose number another has since."""

    def of(self, tid: int, vma: Vma, *, movable: bool) -> PageObject:
        """Return the object of the file that an area of a task maps, made when first asked for."""
        handle = self._handle(tid, vma)
        known = self._files.get(number_of(vma))
        if known is not None and handle and known.handle and handle != known.handle:
            self._replaced.append(known.pages)
            known = None
        if known is None:
            known = _File(self.objects.file(movable=movable), handle, vma.name)
            self._files[number_of(vma)] = known
        known.handle = handle or known.handle
        known.path = vma.name
        return known.pages

    def drop_gone(self, mapped: Collection[FileNumber]) -> list[PageObject]:
        """Forget what neither a mapping nor a path leads to any more; return what it had."""
        gone = [
            number
            for number, file in self._files.items()
            if number not in mapped and not _has_path(number, file)
        ]
        dropped = [*self._replaced, *(self._files.pop(number).pages for number in gone)]
        self._replaced.clear()
        return dropped

    def _handle(self, tid: int, vma: Vma) -> bytes:
        """Return the handle of the file that an area maps, or _UNKNOWN."""
        of_task = self.proc / str(tid)
        with suppress(OSError):
            return read_file_handle(of_task / f"map_files/{vma.start:x}-{vma.end:x}")
        with suppress(OSError):
            path = of_task / "root" / vma.name.lstrip("/")
            if path.stat().st_ino == vma.inode:
                return read_file_handle(path)
        return _UNKNOWN


def number_of(vma: Vma) -> FileNumber:
    """Return what tells the file of an area from others that live."""
    return vma.device, vma.inode


def _has_path(number: FileNumber, file: _File) -> bool:
    """Tell whether the path by which a file was mapped still leads to it."""
    with suppress(OSError):
        if file.handle:
            return read_file_handle(file.path) == file.handle
        return Path(file.path).stat().st_ino == number[1]
    return False

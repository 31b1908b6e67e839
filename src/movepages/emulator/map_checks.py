"""What mmap(2) and mremap(2) refuse for their arguments, so that nothing is unmapped.

What cannot be foreseen is left out: limits on memory and on the number of areas, locks and seals.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

_MAP_SHARED, _MAP_PRIVATE, _MAP_SHARED_VALIDATE, _MAP_DROPPABLE = 1, 2, 3, 8
_MAP_TYPE = 0xF
_MAP_ANONYMOUS = 0x20
_MAP_FIXED_NOREPLACE = 0x100000
_PROT_WRITE = 2
_O_PATH = 0o10000000
MREMAP_MAYMOVE, MREMAP_FIXED, MREMAP_DONTUNMAP = 1, 2, 4


class Mmap(NamedTuple):
    """The arguments of mmap(2)."""

    address: int
    length: int
    protection: int
    flags: int
    descriptor: int
    offset: int


def replaces(call: Mmap, task: Path, page_size_bytes: int) -> bool:
    """Tell whether mmap(2) with MAP_FIXED replaces what is mapped; `task` is its /proc directory.

    Source: do_mmap and ksys_mmap_pgoff in mm/mmap.c.
    """
    if call.offset % page_size_bytes or call.flags & _MAP_FIXED_NOREPLACE:
        return False
    kind = call.flags & _MAP_TYPE
    if call.flags & _MAP_ANONYMOUS:
        return kind in {_MAP_SHARED, _MAP_PRIVATE, _MAP_DROPPABLE}
    if kind not in {_MAP_SHARED, _MAP_PRIVATE, _MAP_SHARED_VALIDATE}:
        return False
    writes = kind != _MAP_PRIVATE and bool(call.protection & _PROT_WRITE)
    return _can_be_mapped(task, call.descriptor & 0xFFFF_FFFF, writes=writes)


def is_valid_mremap(count: int, new_count: int, flags: int) -> bool:
    """Tell whether mremap(2) accepts its flags for numbers of pages (check_mremap_params)."""
    if flags & ~(MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP):
        return False
    if flags & (MREMAP_FIXED | MREMAP_DONTUNMAP) and not flags & MREMAP_MAYMOVE:
        return False
    return not flags & MREMAP_DONTUNMAP or count == new_count


def _can_be_mapped(task: Path, descriptor: int, *, writes: bool) -> bool:
    """Tell whether a task may map what it has opened, to write to it if that is wanted."""
    with suppress(PermissionError):  # it may not be looked at
        try:
            mode = (task / f"fd/{descriptor}").stat().st_mode
            opened = _open_flags((task / f"fdinfo/{descriptor}").read_bytes())
        except FileNotFoundError:
            return False
        if opened & _O_PATH or stat.S_ISDIR(mode) or stat.S_ISFIFO(mode):
            return False
        access = opened & os.O_ACCMODE
        return access == os.O_RDWR or (access == os.O_RDONLY and not writes)
    return True


def _open_flags(fdinfo: bytes) -> int:
    line = next(line for line in fdinfo.splitlines() if line.startswith(b"flags:"))
    return int(line.split()[1], 8)

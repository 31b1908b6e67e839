"""The areas of a live process: what the kernel tells of a mapping, and what that means here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from movepages.abi.procmap import VmaFlag
from movepages.kernel.address_space import VmFlag

if TYPE_CHECKING:
    from movepages.emulator.mapped_files import MappedFiles
    from movepages.emulator.objects import PageObject
    from movepages.linux.procmap import Vma

_NO_FLAGS = VmFlag(0)
_DEVICES = ("[vvar", "/dev/")
_SPECIAL = ("[vdso]", "[vvar", "[uprobes]")
_MEMORY_IN_DEV = ("/dev/zero", "/dev/shm/", "/dev/hugepages/")  # noqa: S108 - as maps name them
_MEMORY_FILES = (*_MEMORY_IN_DEV, "/memfd:", "/SYSV", "/anon_hugepage", "/secretmem")
_REFUSES = ("/secretmem",)


@dataclass(frozen=True, slots=True, eq=False)
class LiveArea:
    """An area: pages `start` to `end`, what it is, and which object its pages are of."""

    start: int
    end: int
    flags: VmFlag
    order: int
    """Of the pages of a hugetlb area; else 0."""
    file: PageObject | None
    file_page: int
    """The page of the file that `start` shows."""
    page_cache: bool
    """Whether the file is an ordinary one, whose pages no area's policy rules."""
    device: bool = False
    """Whether its pages are a device's, which cannot move."""
    special: bool = False
    """Whether it is one of the kernel's own, which cannot be split (special_mapping_split)."""

    @property
    def shared(self) -> bool:
        """Whether writes go to the file itself."""
        return bool(self.flags & VmFlag.SHARED)


def read_area(vma: Vma, tid: int, files: MappedFiles, shift: int) -> LiveArea:
    """Return what an area of a task is, from what the kernel tells of it; pages: 2**shift bytes."""
    flags = VmFlag.SHARED if vma.flags & VmaFlag.SHARED else _NO_FLAGS
    device = _is_device(vma.name)
    if device:
        flags |= VmFlag.IO | VmFlag.PFNMAP
    order = max(0, (vma.page_size_bytes or 0).bit_length() - 1 - shift)
    if order:
        flags |= VmFlag.HUGETLB
    memory = vma.name.startswith(_MEMORY_FILES)
    file = None
    if vma.inode:
        file = files.of(tid, vma, movable=not vma.name.startswith(_REFUSES))
        file.pool_order = order
    return LiveArea(
        vma.start >> shift,
        vma.end >> shift,
        flags,
        order,
        file,
        vma.offset >> shift,
        page_cache=file is not None and not memory and not order,
        device=device,
        special=vma.name.startswith(_SPECIAL),
    )


def _is_device(path: str) -> bool:
    """Tell whether an area maps a device: its pages are none that could move."""
    return path.startswith(_DEVICES) and not path.startswith(_MEMORY_IN_DEV)

"""Calls after which an address means other pages: what was known of the old ones is forgotten.

The kernel carries the calls out; the handlers only look at the arguments beforehand. One that the
kernel will refuse for its arguments changes nothing and is not looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from movepages.emulator import remaps
from movepages.emulator.address_space import LiveAddressSpace
from movepages.emulator.map_checks import (
    MREMAP_DONTUNMAP,
    MREMAP_FIXED,
    Mmap,
    is_valid_mremap,
    replaces,
)
from movepages.emulator.remaps import Wanted
from movepages.emulator.replies import Continue

if TYPE_CHECKING:
    from movepages.emulator.live_area import LiveArea
    from movepages.emulator.machine import EmulatedMachine
    from movepages.emulator.processes import LiveTask
    from movepages.emulator.replies import Handler, Reply
    from movepages.linux.seccomp import Notification

_MADV_FREE = 8
_MADV_REMOVE = 9


@dataclass(frozen=True, slots=True, eq=False)
class MapChanges:
    """The handlers of an emulated machine, by name of call."""

    machine: EmulatedMachine

    def handlers(self) -> dict[str, Handler]:
        """Return the handler of each call."""
        return {
            "munmap": self._munmap,
            "mmap": self._mmap,  # watched only with MAP_FIXED
            "madvise": self._madvise,
            "mremap": self._mremap,
            "brk": self._brk,
            "shmdt": self._shmdt,
        }

    def _munmap(self, notification: Notification) -> Reply:
        task, start, end = self._range(notification)
        if start < end and not self._divides_huge_page(task, start, end):
            self.machine.forget_range(task, start, end, policies=True)
        return Continue()

    def _mmap(self, notification: Notification) -> Reply:
        task, start, end = self._range(notification)
        directory = self.machine.processes.proc / str(task.tid)
        call = Mmap(*notification.args)
        if start < end and replaces(call, directory, self.machine.page_size_bytes):
            self.machine.forget_range(task, start, end, policies=True)
        return Continue()

    def _madvise(self, notification: Notification) -> Reply:
        """Go on to the first area that the kernel refuses to drop pages of, as it does."""
        advice = notification.args[2]
        task, start, end = self._range(notification)
        if start >= end or task.mm is None or advice == _MADV_FREE:
            return Continue()  # freed pages stay until memory is short
        drop = self._remove if advice == _MADV_REMOVE else self._drop
        for area in LiveAddressSpace.of(self.machine, task, task.mm).areas(start, end):
            if not drop(task, area, max(start, area.start), min(end, area.end)):
                break
        return Continue()

    def _drop(self, task: LiveTask, area: LiveArea, start: int, end: int) -> bool:
        """Drop pages of an area (madvise_dontneed_free_valid_vma); tell whether it lets them."""
        huge = 1 << area.order
        if area.device or start % huge:
            return False
        self.machine.forget_range(task, start, end - end % huge, policies=False)
        return True

    def _remove(self, _task: LiveTask, area: LiveArea, start: int, end: int) -> bool:
        """Make a hole in a file (madvise_remove); tell whether the area lets it."""
        if area.file is None or not area.shared:
            return False
        first = area.file_page - area.start
        self.machine.forget_pages(area.file, start + first, end + first)
        return True

    def _mremap(self, notification: Notification) -> Reply:
        task, start, end = self._range(notification)
        new_length, flags, target = notification.args[2:5]
        size = self.machine.page_size_bytes
        count, pages = end - start, -(-new_length // size)
        if task.mm is None or not count or not is_valid_mremap(count, pages, flags):
            return Continue()
        onto = target // size if flags & MREMAP_FIXED else None
        if not 0 < pages <= self.machine.user_pages - (onto or 0):
            return Continue()
        if onto is not None and (target % size or (onto < end and start < onto + pages)):
            return Continue()
        if onto is None and pages < count:
            self.machine.forget_range(task, start + pages, end, policies=True)
        elif onto is not None or pages > count or flags & MREMAP_DONTUNMAP:
            leaves = bool(flags & MREMAP_DONTUNMAP)
            remaps.begin(self.machine, task, task.mm, Wanted(start, end, pages, onto, leaves))
        return Continue()

    def _brk(self, notification: Notification) -> Reply:
        """Forget what the heap has beyond its new end; below its start there is none."""
        self.machine.attributes.take_written()
        task = self.machine.processes.caller(notification.tid)
        size = self.machine.page_size_bytes
        start = end = -(-notification.args[0] // size)
        if task.mm is None or start > self.machine.user_pages:
            return Continue()
        for vma in task.mm.areas.above(start * size):
            if vma.name != "[heap]" or vma.start > end * size:
                break
            end = vma.end // size
        if start < end:
            self.machine.forget_range(task, start, end, policies=True)
        return Continue()

    def _shmdt(self, notification: Notification) -> Reply:
        """Forget the policies of the areas that show a segment from its attachment on."""
        self.machine.attributes.take_written()
        task = self.machine.processes.caller(notification.tid)
        address, size = notification.args[0], self.machine.page_size_bytes
        if task.mm is None or address // size > self.machine.user_pages:
            return Continue()
        inode = 0
        for vma in task.mm.areas.above(address):
            inode = inode or vma.inode
            shown = vma.name.startswith("/SYSV") and vma.inode == inode
            if not shown or vma.start - vma.offset != address:
                break
            self.machine.forget_range(task, vma.start // size, vma.end // size, policies=True)
        return Continue()

    def _divides_huge_page(self, task: LiveTask, start: int, end: int) -> bool:
        """Tell whether a range begins or ends in a page of hugetlbfs, which stays in one piece."""
        if task.mm is None or not task.mm.has_pools:
            return False
        space = LiveAddressSpace.of(self.machine, task, task.mm)
        areas = (space.area_at(page) for page in (start, end))
        return any(
            area is not None and (page - area.start) % (1 << area.order)
            for area, page in zip(areas, (start, end), strict=True)
        )

    def _range(self, notification: Notification) -> tuple[LiveTask, int, int]:
        """Return the caller and the pages of its range; an empty one for bad arguments."""
        self.machine.attributes.take_written()
        task = self.machine.processes.caller(notification.tid)
        address, length = notification.args[:2]
        size = self.machine.page_size_bytes
        start, end = address // size, -(-(address + length) // size)
        if address % size or end > self.machine.user_pages or task.mm is None:
            return task, 0, 0
        return task, start, end

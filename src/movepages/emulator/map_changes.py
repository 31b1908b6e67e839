"""Calls after which an address means other pages: what was known of the old ones is forgotten.

The kernel carries the calls out; the handlers only look at the arguments beforehand. One that the
kernel will refuse for its arguments changes nothing and is not looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from movepages.emulator.address_space import LiveAddressSpace
from movepages.emulator.replies import Continue

if TYPE_CHECKING:
    from movepages.emulator.machine import EmulatedMachine
    from movepages.emulator.processes import LiveTask
    from movepages.emulator.replies import Handler, Reply
    from movepages.linux.seccomp import Notification

_MADV_FREE = 8
_MADV_REMOVE = 9
_MREMAP_FIXED = 2


@dataclass(frozen=True, slots=True, eq=False)
class MapChanges:
    """The handlers of an emulated machine, by name of call."""

    machine: EmulatedMachine

    def handlers(self) -> dict[str, Handler]:
        """Return the handler of each call."""
        return {
            "munmap": self._munmap,
            "mmap": self._munmap,  # watched only with MAP_FIXED: address and length come first
            "madvise": self._madvise,
            "mremap": self._mremap,
        }

    def _munmap(self, notification: Notification) -> Reply:
        task, start, end = self._range(notification)
        if start < end:
            self.machine.forget_range(task, start, end, policies=True)
        return Continue()

    def _madvise(self, notification: Notification) -> Reply:
        advice = notification.args[2]
        task, start, end = self._range(notification)
        if start >= end or advice == _MADV_FREE:  # freed pages stay until memory is short
            return Continue()
        if advice == _MADV_REMOVE and task.mm is not None:
            space = LiveAddressSpace.of(self.machine, task, task.mm)
            for area in space.areas(start, end):
                if area.file is not None:
                    first = max(start, area.start) - area.start + area.file_page
                    last = min(end, area.end) - area.start + area.file_page
                    self.machine.capacity.release(area.file.pages.forget(first, last))
            return Continue()
        self.machine.forget_range(task, start, end, policies=False)
        return Continue()

    def _mremap(self, notification: Notification) -> Reply:
        task, start, end = self._range(notification)
        new_length, flags, target = notification.args[2:5]
        size = self.machine.page_size_bytes
        pages = -(-new_length // size)
        if start >= end or not 0 < pages <= self.machine.user_pages:
            return Continue()
        kept = min(end, start + pages)
        self.machine.set_aside(task, start, kept)
        self.machine.forget_range(task, kept, end, policies=True)
        if flags & _MREMAP_FIXED and not target % size:
            self.machine.forget_range(task, target // size, target // size + pages, policies=True)
        return Continue()

    def _range(self, notification: Notification) -> tuple[LiveTask, int, int]:
        """Return the caller and the pages of its range; an empty one for bad arguments."""
        task = self.machine.processes.task(notification.tid)
        address, length = notification.args[:2]
        size = self.machine.page_size_bytes
        start, end = address // size, -(-(address + length) // size)
        if address % size or end > self.machine.user_pages or task.mm is None:
            return task, 0, 0
        return task, start, end

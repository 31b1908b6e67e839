"""pidfd_open(2): hold a process, so that its pid cannot come to mean another unnoticed.

A pid is free for another process as soon as its parent has waited. A pidfd stays with the process
that it was opened for, and polls readable from its end on (pidfd_poll in kernel/fork.c). It does
not exist for a thread, before Linux 5.3, and where a filter hides it: there the start time is read
again each time, which tells the same and costs some 10 microseconds more.
"""

from __future__ import annotations

import os
import select
from typing import TYPE_CHECKING

from movepages.errors import NoSuchProcessError, NotPermittedError, no_such_process
from movepages.linux.reading import ROOT, start_ticks
from movepages.linux.tasks import read_boot_id

if TYPE_CHECKING:
    from pathlib import Path

    from movepages.values import TaskId


class Hold:
    """A process that is held. Satisfies `movepages.machine.Hold`."""

    def __init__(self, task: TaskId, root: Path = ROOT) -> None:
        """Hold a process. Raises NoSuchProcessError where it ended, or its pid is another's."""
        self._task = task
        self._root = root
        self._descriptor = _pidfd(task.pid) if root == ROOT else None
        if task.boot_id != read_boot_id(root) or not self._same_start():
            self.close()
            raise no_such_process(task.pid, "hold process")

    def alive(self) -> bool:
        """Tell whether it has not ended; a zombie has."""
        if self._descriptor is None:
            return self._same_start()
        return not _readable(self._descriptor)

    def close(self) -> None:
        """Hold it no longer; more than once is no more than once."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _same_start(self) -> bool:
        try:
            return start_ticks(self._task.pid, self._root) == self._task.start_ticks
        except (NoSuchProcessError, NotPermittedError):
            return False


def _pidfd(pid: int) -> int | None:
    """Return a pidfd for a process, or None where there is none to be had."""
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def _readable(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))

"""Keeps a log of page faults from running full before there is a machine that asks it.

It needs no NumPy: what the rings hold is put aside as it is.
"""

from __future__ import annotations

import os
import select
import threading
from typing import TYPE_CHECKING

from movepages.linux.perf_event import open_fault_log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from movepages.linux.perf_event import FaultLog

_RING_PAGES, _USER_RING_PAGES = 512, 128
"""Of the log, for each CPU: a page has room for a hundred faults."""
MANY_BYTES = 1 << 20
"""Of records: some 26,000 faults, or 100 MB of memory."""


class EarlyFaults:
    """The log of a program from its beginning; a thread makes room in it until it is taken over."""

    def __init__(self, pid: int, cpus: Iterable[int], when_many: Callable[[], None]) -> None:
        """Begin to log the faults of a task and of what it clones, with what a user may lock.

        Once there are many, `when_many` is called in a thread of its own. Raises what
        `open_fault_log` raises.
        """
        self._log = _open(pid, tuple(cpus))
        self._when_many = when_many
        self._stop = os.eventfd(0, os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._make_room, name="early faults", daemon=True)
        self._thread.start()

    def hand_over(self) -> FaultLog:
        """Return the log with all that it has had; the thread has ended."""
        os.eventfd_write(self._stop, 1)
        self._thread.join()
        os.close(self._stop)
        return self._log

    def _make_room(self) -> None:
        poll = select.poll()
        for descriptor in (self._stop, *self._log.filenos):
            poll.register(descriptor, select.POLLIN)
        told = False
        while True:
            ready = dict(poll.poll())
            if self._stop in ready:
                return
            self._log.collect()
            if not told and self._log.collected_bytes > MANY_BYTES:
                told = True
                threading.Thread(target=self._when_many, name="maker", daemon=True).start()
            for descriptor, what in ready.items():
                if what & ~select.POLLIN:  # all tasks have ended: it would be ready for ever
                    poll.unregister(descriptor)


def _open(pid: int, cpus: Iterable[int]) -> FaultLog:
    try:
        return open_fault_log(pid, cpus, _RING_PAGES, exclude_kernel=False)
    except PermissionError:  # a user, be it as root of a user namespace
        return open_fault_log(pid, cpus, _USER_RING_PAGES, exclude_kernel=True)

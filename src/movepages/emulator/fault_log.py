"""Who faulted which page last, kept by address space while the program runs.

A thread drains the log whenever one of its rings has filled up to its mark; every question drains
it as well, so that an answer knows all faults before it. One lock is around the log and the tables.

Memory is told apart by process: threads share it, a fork begins without a fault of its own, and
execve(2) drops all there were. A child of vfork(2) has faults of its own until its execve(2),
although they are in its parent's memory.

Each CPU has a ring, and the rings are not read at the same instant: what happened on one CPU may be
read a little later than what happened after it on another. So faults are judged by their time: one
that is older than the program it claims to be of is dropped.
"""

from __future__ import annotations

import mmap
import os
import select
import threading
from dataclasses import dataclass, field
from operator import attrgetter
from typing import TYPE_CHECKING

import numpy as np

from movepages.emulator.fault_table import FaultTable
from movepages.emulator.overlay import distinct
from movepages.linux.perf_records import Exec, Exit, Fork

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from numpy.typing import NDArray

    from movepages.linux.perf_event import FaultLog
    from movepages.linux.perf_records import Event, Faults

_PAGE_SHIFT = np.uint64(mmap.PAGESIZE.bit_length() - 1)
_LATE_NS = 1_000_000_000
"""No record is read as late as this: a process that ended before may be forgotten."""

_by_time = attrgetter("time_ns")


@dataclass(slots=True, eq=False)
class _Space:
    """The faults of one program of one process: none is older than `since_ns`."""

    since_ns: int
    threads: set[int]
    table: FaultTable = field(default_factory=FaultTable)


class FaultRecorder:
    """Keeps the faults of a log, which it owns. As a context, a thread drains it meanwhile."""

    def __init__(self, log: FaultLog) -> None:
        """Take over an open log."""
        self._log = log
        self._lock = threading.Lock()
        self._spaces: dict[int, _Space] = {}
        self._ended: dict[int, int] = {}  # pid -> time, rising
        self._events: list[Event] = []
        self._lost = 0
        self._stop = -1
        self._thread = threading.Thread(target=self._keep_draining, name="faults", daemon=True)

    def __enter__(self) -> Self:
        """Start the thread."""
        self._stop = os.eventfd(0, os.EFD_CLOEXEC)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the thread and close the log; what was recorded by then can still be asked for."""
        os.eventfd_write(self._stop, 1)
        self._thread.join()
        os.close(self._stop)
        with self._lock:
            self._take_in(self._log.drain())
            self._log.close()

    @property
    def lost(self) -> int:
        """How many records the kernel has dropped for want of room.

        It says so with the next record of the same CPU, so this may be late.
        """
        return self._lost

    def drain(self) -> None:
        """Take in all that was logged up to now."""
        with self._lock:
            self._take_in(self._log.drain())

    def who_faulted(
        self, pid: int, page_numbers: NDArray[np.uint64]
    ) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.bool_]]:
        """Return who faulted each page of a process last: tid int32[n], CPU int32[n], known.

        Pages are address / page size, uint64[n]. `known` is bool[n]: where it is False, no fault
        was seen since the last `forget`, and tid and CPU mean nothing.
        """
        with self._lock:
            self._take_in(self._log.drain())
            space = self._spaces.get(pid)
            return (space.table if space else FaultTable()).last(page_numbers)

    def forget(self, pid: int, first_page: int, end_page: int) -> None:
        """Forget the faults of some pages up to now, the end excluded: they were unmapped."""
        with self._lock:
            self._take_in(self._log.drain())
            space = self._spaces.get(pid)
            if space:
                space.table.forget(first_page, end_page)

    def take_events(self) -> tuple[Event, ...]:
        """Return who forked, executed and exited since this was last asked, in order of time."""
        with self._lock:
            self._take_in(self._log.drain())
            events = tuple(sorted(self._events, key=_by_time))
            self._events.clear()
        return events

    def _keep_draining(self) -> None:
        poll = select.poll()
        for descriptor in (self._stop, *self._log.filenos):
            poll.register(descriptor, select.POLLIN)
        while True:
            ready = dict(poll.poll())
            if self._stop in ready:
                return
            self.drain()
            for descriptor, what in ready.items():
                if what & ~select.POLLIN:  # all tasks have ended: it would be ready for ever
                    poll.unregister(descriptor)

    def _take_in(self, faults: Faults) -> None:
        """Note what a drain brought. The lock is held."""
        self._lost += faults.lost
        events: list[Event] = sorted((*faults.forks, *faults.exits, *faults.execs), key=_by_time)
        self._events += events
        exits = []
        for event in events:
            match event:
                case Fork():
                    self._begin(event)
                case Exec(time_ns, pid):
                    self._begin_anew(pid, time_ns)
                case Exit():
                    exits.append(event)
        self._note(faults)
        for event in exits:
            self._end(event)

    def _begin(self, fork: Fork) -> None:
        if fork.pid != fork.parent_pid:
            self._begin_anew(fork.pid, fork.time_ns)
        elif fork.pid not in self._ended:
            self._space(fork.pid, fork.time_ns).threads.add(fork.tid)

    def _begin_anew(self, pid: int, time_ns: int) -> None:
        """Let a process have new memory from a time on."""
        if self._ended.get(pid, -1) > time_ns:  # read late: it has begun and ended
            return
        self._ended.pop(pid, None)
        old = self._spaces.get(pid)
        if old is None or old.since_ns < time_ns:
            self._spaces[pid] = _Space(time_ns, {pid})

    def _space(self, pid: int, time_ns: int) -> _Space:
        """Return the memory of a process; the log's first process was not seen to begin."""
        return self._spaces.setdefault(pid, _Space(time_ns, {pid}))

    def _note(self, faults: Faults) -> None:
        """Note the faults of each process in its own table."""
        for pid in distinct(faults.pid).tolist():
            chosen = (faults.pid == pid).nonzero()[0]
            if pid in self._ended:  # read late, from the ring of another CPU
                continue
            space = self._space(pid, int(faults.time_ns[chosen[0]]))
            chosen = chosen[faults.time_ns[chosen] >= np.uint64(space.since_ns)]
            pages = faults.address[chosen] >> _PAGE_SHIFT
            space.table.note(pages, faults.tid[chosen], faults.cpu[chosen])

    def _end(self, ended: Exit) -> None:
        """Drop the memory of a process that has no thread left."""
        space = self._spaces.get(ended.pid)
        if space is None or space.since_ns > ended.time_ns:
            return
        space.threads.discard(ended.tid)
        if space.threads:
            return
        del self._spaces[ended.pid]
        self._ended[ended.pid] = ended.time_ns
        while self._ended[oldest := next(iter(self._ended))] < ended.time_ns - _LATE_NS:
            del self._ended[oldest]

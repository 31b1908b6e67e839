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
import time
from dataclasses import dataclass, field
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from movepages.emulator.fault_table import FaultTable
from movepages.emulator.overlay import distinct
from movepages.linux.perf_records import Exec, Exit, Fork

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from numpy.typing import NDArray

    from movepages.linux.perf_event import FaultLog
    from movepages.linux.perf_records import Faults

_PAGE_SHIFT = np.uint64(mmap.PAGESIZE.bit_length() - 1)
_MANY = 64
"""Ranges that are remembered as unmapped before the log is drained for them."""
_LATE_NS = 1_000_000_000
"""No record is read as late as this: a process that ended before may be forgotten."""

_by_time = attrgetter("time_ns")


@dataclass(slots=True, eq=False)
class _Space:
    """The faults of one program of one process: none is older than `since_ns`."""

    since_ns: int
    threads: set[int]
    table: FaultTable = field(default_factory=FaultTable)


class _Unmapped(NamedTuple):
    """Pages that a process has unmapped, and when."""

    time_ns: int
    pid: int
    first: int
    end: int


class _Ended:
    """When tasks have ended, by number; those that no late record can be about are let go of."""

    def __init__(self) -> None:
        self._times_ns: dict[int, int] = {}

    def __contains__(self, number: int) -> bool:
        return number in self._times_ns

    def note(self, number: int, time_ns: int) -> None:
        self._times_ns.pop(number, None)
        self._times_ns[number] = time_ns
        while self._times_ns[oldest := next(iter(self._times_ns))] < time_ns - _LATE_NS:
            del self._times_ns[oldest]

    def begins(self, number: int, time_ns: int) -> bool:
        """Take note of a beginning; False for one that is read late, after its end."""
        if self._times_ns.get(number, -1) > time_ns:
            return False
        self._times_ns.pop(number, None)
        return True


class FaultRecorder:
    """Keeps the faults of a log, which it owns. As a context, a thread drains it meanwhile."""

    def __init__(self, log: FaultLog) -> None:
        """Take over an open log."""
        self._log = log
        self._lock = threading.Lock()
        self._spaces: dict[int, _Space] = {}
        self._ended = _Ended()  # by pid
        self._creators: dict[int, int] = {}  # by tid
        self._ended_threads = _Ended()  # by tid
        self._unmapped: list[_Unmapped] = []
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

    def take_faults(
        self, pid: int, page_numbers: NDArray[np.uint64]
    ) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.bool_]]:
        """Return what `who_faulted` does, and forget it: each fault brings one page about."""
        with self._lock:
            self._take_in(self._log.drain())
            space = self._spaces.get(pid)
            return (space.table if space else FaultTable()).take(page_numbers)

    def forget(self, pid: int, first_page: int, end_page: int) -> None:
        """Forget the faults of some pages up to now, the end excluded: they were unmapped.

        That is done with the next drain, which is told apart by time.
        """
        with self._lock:
            self._unmapped.append(_Unmapped(time.monotonic_ns(), pid, first_page, end_page))
            if len(self._unmapped) == _MANY:
                self._take_in(self._log.drain())

    def creator_of(self, tid: int) -> int | None:
        """Return which thread has made a task, None for one that is not known or has ended."""
        with self._lock:
            self._take_in(self._log.drain())
            return self._creators.get(tid)

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
        exits = []
        for event in sorted((*faults.forks, *faults.exits, *faults.execs), key=_by_time):
            match event:
                case Fork():
                    self._begin(event)
                case Exec(time_ns, pid):
                    self._begin_anew(pid, time_ns)
                case Exit(time_ns, _, tid):
                    self._creators.pop(tid, None)
                    self._ended_threads.note(tid, time_ns)
                    exits.append(event)
        self._note(faults)
        for event in exits:
            self._end(event)

    def _begin(self, fork: Fork) -> None:
        if self._ended_threads.begins(fork.tid, fork.time_ns):
            self._creators[fork.tid] = fork.parent_tid
        if fork.pid != fork.parent_pid:
            self._begin_anew(fork.pid, fork.time_ns)
        elif fork.pid not in self._ended:
            self._space(fork.pid, fork.time_ns).threads.add(fork.tid)

    def _begin_anew(self, pid: int, time_ns: int) -> None:
        """Let a process have new memory from a time on."""
        if not self._ended.begins(pid, time_ns):
            return
        old = self._spaces.get(pid)
        if old is None or old.since_ns < time_ns:
            self._spaces[pid] = _Space(time_ns, {pid})

    def _space(self, pid: int, time_ns: int) -> _Space:
        """Return the memory of a process; the log's first process was not seen to begin."""
        return self._spaces.setdefault(pid, _Space(time_ns, {pid}))

    def _note(self, faults: Faults) -> None:
        """Note the faults of each process in its own table, but for those of unmapped pages."""
        pages = faults.address >> _PAGE_SHIFT
        kept = np.ones(len(pages), dtype=np.bool_)
        for time_ns, pid, first, end in self._unmapped:
            if space := self._spaces.get(pid):
                space.table.forget(first, end)
            before = (faults.pid == pid) & (faults.time_ns < time_ns)
            kept &= ~(before & (pages >= first) & (pages < end))
        self._unmapped.clear()
        for pid in distinct(faults.pid[kept]).tolist():
            if pid in self._ended:  # read late, from the ring of another CPU
                continue
            chosen = (kept & (faults.pid == pid)).nonzero()[0]
            space = self._space(pid, int(faults.time_ns[chosen[0]]))
            chosen = chosen[faults.time_ns[chosen] >= np.uint64(space.since_ns)]
            space.table.note(pages[chosen], faults.tid[chosen], faults.cpu[chosen])

    def _end(self, ended: Exit) -> None:
        """Drop the memory of a process that has no thread left."""
        space = self._spaces.get(ended.pid)
        if space is None or space.since_ns > ended.time_ns:
            return
        space.threads.discard(ended.tid)
        if space.threads:
            return
        del self._spaces[ended.pid]
        self._ended.note(ended.pid, ended.time_ns)

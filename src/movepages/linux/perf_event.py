"""A log of page faults: which thread faulted which address, on which CPU, and when.

And of who forked, exited and ran execve(2) meanwhile. From perf_event_open(2), with the software
event PAGE_FAULTS.

What it does not tell: pages that come without a fault of their thread (MAP_POPULATE, mlock(2),
get_user_pages, the neighbours that a fault maps along with its own page) have no record. The event
is raised where the architecture takes the fault, before it is resolved: so a page that a thread
has faulted in has its record by the time that it is present; and a fault that ends in a signal has
one, too. With `exclude_kernel`, faults inside system calls (copy_to_user) are missed.

What can fail: kernel.perf_event_paranoid, or the filter of a container, forbids the event;
kernel.perf_event_mlock_kb is too small for the rings; records come faster than they are read, and
the kernel drops some (it says how many, with the next record for which there is room). Monitoring
ends, without a word, for a task that executes a set-user-ID program or one it may not read.

The event is inherited by what the task clones from then on, and an inherited event can have a ring
only if it is bound to a CPU: one event and one ring for each.

Opening a log and keeping its rings from running full takes no NumPy, which is imported when records
are first parsed.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import time
from typing import TYPE_CHECKING

from movepages.abi import perf_event as abi
from movepages.abi.perf_event import SAMPLE_TYPE, AttrFlag
from movepages.errors import (
    ArgumentError,
    CallError,
    FilteredError,
    NotPermittedError,
    UnsupportedError,
    no_such_process,
)
from movepages.linux.reading import ROOT, read_optional

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import TracebackType
    from typing import Self

    from movepages.linux.perf_records import Faults

_FLAGS = (
    AttrFlag.INHERIT
    | AttrFlag.EXCLUDE_HV
    | AttrFlag.COMM
    | AttrFlag.COMM_EXEC
    | AttrFlag.TASK
    | AttrFlag.WATERMARK
    | AttrFlag.SAMPLE_ID_ALL
    | AttrFlag.USE_CLOCKID
)
_HEAD, _TAIL = abi.DATA_HEAD_OFFSET // 8, abi.DATA_TAIL_OFFSET // 8
"""Where a ring's first page has them, in words of 64 bits."""
_WAKE_AT = 8  # a ring wakes its reader when an eighth of it is full


class FaultLog:
    """The open log of a task and its descendants. Not for two threads at once."""

    def __init__(self, rings: Sequence[_Ring]) -> None:
        """Take over the rings that `open_fault_log` made."""
        self._rings = tuple(rings)
        self._collected: list[list[bytes]] = [[] for _ in self._rings]
        """What was read of each ring and not parsed yet, in pieces."""

    def __enter__(self) -> Self:
        """Return the log, which is open already."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the log."""
        self.close()

    @property
    def filenos(self) -> tuple[int, ...]:
        """Descriptors for poll(2): POLLIN where an eighth of a ring is full.

        POLLHUP, time and again, once the task and all its descendants have ended.
        """
        return tuple(ring.descriptor for ring in self._rings)

    @property
    def collected_bytes(self) -> int:
        """How much has been collected and not drained yet."""
        return sum(len(piece) for pieces in self._collected for piece in pieces)

    def collect(self) -> None:
        """Make room in the rings; what was in them is kept for the next `drain`."""
        heads = [ring.head() for ring in self._rings]  # as near to one instant as can be
        for ring, head, pieces in zip(self._rings, heads, self._collected, strict=True):
            if records := ring.take(head):
                pieces.append(records)

    def drain(self) -> Faults:
        """Return the records since the last time, and make room. Raises MalformedError."""
        import numpy as np

        from movepages.linux.perf_records import NO_FAULTS, parse_records

        self.collect()
        if not any(self._collected):
            return NO_FAULTS
        rings = [np.frombuffer(b"".join(pieces), np.uint64) for pieces in self._collected]
        for pieces in self._collected:
            pieces.clear()
        return parse_records(rings)

    def close(self) -> None:
        """End the logging; what was not drained is gone."""
        for ring in self._rings:
            ring.close()
        self._rings, self._collected = (), []


def open_fault_log(pid: int, cpus: Iterable[int], pages: int, *, exclude_kernel: bool) -> FaultLog:
    """Log the page faults of a task, and of all that it clones from now on, on some CPUs.

    `pid` names a task (0: the caller); threads that it has already are tasks of their own. Each
    CPU gets a ring of `pages` pages, a power of two: a fault takes 40 bytes. An ordinary user has
    kernel.perf_event_mlock_kb for each CPU, 516 KiB as a rule, of which a page is not for records.

    Raises ArgumentError, NoSuchProcessError, NotPermittedError (PermissionError), FilteredError,
    UnsupportedError, CallError. Source: perf_event_open(2), kernel/events/core.c.
    """
    cpus = tuple(cpus)
    if pid < 0:
        raise ArgumentError(f"{pid} is no task; give a pid or tid, or 0 for the caller")
    if not cpus:
        raise ArgumentError("there is no CPU to log faults on; give those that the task may run on")
    if pages < 1 or pages & (pages - 1):
        raise ArgumentError(f"a ring cannot have {pages} pages; give a power of two")
    flags = _FLAGS | AttrFlag.EXCLUDE_KERNEL if exclude_kernel else _FLAGS
    attributes = abi.PERF_EVENT_ATTR.pack(
        abi.PERF_TYPE_SOFTWARE,
        abi.PERF_EVENT_ATTR.size,
        abi.PERF_COUNT_SW_PAGE_FAULTS,
        1,
        SAMPLE_TYPE,
        0,
        flags,
        pages * mmap.PAGESIZE // _WAKE_AT,
        time.CLOCK_MONOTONIC,
    )
    rings: list[_Ring] = []
    try:
        for cpu in cpus:
            descriptor = _open(attributes, pid, cpu, exclude_kernel=exclude_kernel)
            rings.append(_Ring(descriptor, pages))
    except BaseException:
        FaultLog(rings).close()
        raise
    return FaultLog(rings)


class _Ring:
    """The ring of one event, which the kernel writes and we read. Owns the descriptor.

    Head before records, and records before tail, is what the kernel wants: on x86 loads and stores
    keep that order, elsewhere a thousand instructions of the interpreter lie between them.
    """

    def __init__(self, descriptor: int, pages: int) -> None:
        self.descriptor = descriptor
        try:
            self._map = mmap.mmap(descriptor, (1 + pages) * mmap.PAGESIZE)
        except OSError as error:
            os.close(descriptor)
            raise _no_ring(error, pages) from None
        self._words = memoryview(self._map).cast("Q")
        self._size_bytes = pages * mmap.PAGESIZE
        self._tail = self._words[_TAIL]

    def head(self) -> int:
        """Return how many bytes were written ever."""
        return self._words[_HEAD]

    def take(self, head: int) -> bytes:
        """Return a copy of what was written since the last time, and give the room back."""
        if head == self._tail:
            return b""
        first = mmap.PAGESIZE + self._tail % self._size_bytes
        last = first + head - self._tail
        around = last - len(self._map)
        records = self._map[first:last]
        if around > 0:
            records += self._map[mmap.PAGESIZE : mmap.PAGESIZE + around]
        self._words[_TAIL] = self._tail = head
        return records

    def close(self) -> None:
        self._words.release()  # a map that is looked at cannot be closed
        self._map.close()
        os.close(self.descriptor)


_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc["syscall"]  # indexing makes a function object of its own, with its own types
_syscall.restype = ctypes.c_long
_syscall.argtypes = (
    ctypes.c_long,
    ctypes.c_char_p,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_ulong,
)


def _open(attributes: bytes, pid: int, cpu: int, *, exclude_kernel: bool) -> int:
    number = abi.PERF_EVENT_OPEN.get(os.uname().machine)
    if number is None:
        raise UnsupportedError(
            f"the number of perf_event_open(2) on {os.uname().machine} is not known; "
            "page faults can be logged on x86_64, aarch64 and riscv64"
        )
    descriptor: int = _syscall(number, attributes, pid, cpu, -1, abi.PERF_FLAG_FD_CLOEXEC)
    if descriptor < 0:
        raise _refused(ctypes.get_errno(), pid, cpu, exclude_kernel=exclude_kernel)
    return descriptor


def _refused(number: int, pid: int, cpu: int, *, exclude_kernel: bool) -> Exception:
    """Say why perf_event_open(2) failed, and what to do."""
    match number:
        case errno.ESRCH:
            return no_such_process(pid, "perf_event_open")
        case errno.EINVAL:
            return ArgumentError(f"page faults cannot be logged on CPU {cpu}; there is none")
        case errno.ENOSYS:
            return UnsupportedError(
                "this kernel has no perf_event_open(2); use one built with CONFIG_PERF_EVENTS"
            )
        case errno.EACCES:
            level = read_optional(ROOT / "proc/sys/kernel/perf_event_paranoid")
            enough = 2 if exclude_kernel else 1
            return NotPermittedError(
                number,
                f"perf_event_open: page faults of task {pid} may not be logged "
                f"(kernel.perf_event_paranoid is {level}); run as root, or as the owner of the "
                f"task with that at most {enough}",
                call="perf_event_open",
                pid=pid,
            )
        case errno.EPERM:
            return FilteredError(
                number,
                "perf_event_open: a system call filter, as containers have, forbids it, so page "
                "faults cannot be logged; run the container with --cap-add PERFMON, or with "
                "--security-opt seccomp=unconfined",
                call="perf_event_open",
                pid=pid,
            )
    return CallError(
        number,
        f"perf_event_open: page faults of task {pid} cannot be logged on CPU {cpu}: "
        f"{os.strerror(number)}",
        call="perf_event_open",
        pid=pid,
    )


def _no_ring(error: OSError, pages: int) -> CallError:
    """Say why a ring could not be mapped, and what to do."""
    number = error.errno or errno.EIO
    if number != errno.EPERM:
        sentence = f"a ring of {pages} pages cannot be had: {os.strerror(number)}"
        return CallError(number, f"perf_event_open: {sentence}", call="mmap")
    allowed = read_optional(ROOT / "proc/sys/kernel/perf_event_mlock_kb")
    return NotPermittedError(
        number,
        f"perf_event_open: rings of {pages} pages are more than an ordinary user may lock "
        f"(kernel.perf_event_mlock_kb is {allowed}); ask for fewer pages, raise that or "
        "`ulimit -l`, or run as root",
        call="mmap",
    )

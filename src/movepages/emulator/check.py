"""What of the emulator works here, and how to get what does not.

Each probe does on a small scale what the emulator will do, for whatever forbids it may be a kernel
without the call, a container's filter, a sysctl or a security module.
"""

from __future__ import annotations

import fcntl
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from movepages.abi import CALLS
from movepages.emulator.filter import Files, Precision, build_filter, call_numbers
from movepages.emulator.launch import fork_task, mount_privately
from movepages.emulator.replies import Value
from movepages.emulator.supervisor import Supervisor
from movepages.errors import MovePagesError
from movepages.linux import libc, syscalls

if TYPE_CHECKING:
    from collections.abc import Callable

_ANSWER = 4242
"""What the probe's supervisor answers, and no kernel does."""
_PERF_TYPE_SOFTWARE, _PERF_COUNT_SW_PAGE_FAULTS = 1, 2
_PERF_ATTR = struct.Struct("=II QQQQ QII Q")
"""struct perf_event_attr as first published (PERF_ATTR_SIZE_VER0)."""
_PERF_FLAGS = 1 << 0 | 1 << 1 | 1 << 5 | 1 << 6
"""disabled, inherit, exclude_kernel, exclude_hv."""
_PROCMAP_QUERY = 0xC0686611
"""_IOWR('f', 17, struct procmap_query), include/uapi/linux/fs.h."""
_PROCMAP = struct.Struct("=13Q")
_COVERING_OR_NEXT_VMA = 0x10


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was tried; `problem` is "" or says in a sentence what to do.

    `required` tells whether the emulator works at all without it.
    """

    what: str
    problem: str
    required: bool = False


def check() -> list[Finding]:
    """Try everything that the emulator uses; takes some milliseconds and changes nothing."""
    delivered = notification_problem()
    return [
        Finding("system calls are answered (seccomp user notification)", delivered, required=True),
        Finding("faked files are mounted (mount namespace)", mount_problem()),
        Finding("first touch is logged (perf page faults)", perf_problem()),
        Finding("page frames are visible (/proc/PID/pagemap)", frames_problem()),
        Finding("present pages are found fast (PAGEMAP_SCAN)", scan_problem()),
        Finding("areas are found fast (PROCMAP_QUERY)", procmap_problem()),
    ]


def best_precision() -> Precision:
    """Return the best precision that works here."""
    return Precision.EXACT if perf_problem() else Precision.FAULTS


def notification_problem() -> str:
    """Return why calls of a child cannot be answered here, "" if they can."""
    try:
        return _answered_outside()
    except MovePagesError as error:
        return str(error)


def outer_filter_problem() -> str:
    """Return what a filter around this process answers in our place; "" for none, which is quick.

    Raises MovePagesError where nothing can be answered.
    """
    status = Path("/proc/self/status").read_bytes()
    return _answered_outside() if b"\nSeccomp:\t2\n" in status else ""


def _answered_outside() -> str:
    """Return a sentence about calls that never reach us, "" if all do. Raises MovePagesError.

    A child makes each of the NUMA calls; an outer filter that answers EPERM outranks ours, so only
    the answer itself proves that it came through.
    """
    out, into = os.pipe()
    launch = fork_task(lambda: os.write(into, ",".join(_unanswered()).encode()))
    os.close(into)
    try:
        machine = os.uname().machine
        listener = launch.install(build_filter(machine, Precision.LAZY, Files.NONE))
        launch.start()
        handlers = dict.fromkeys(CALLS, lambda _: Value(_ANSWER))
        Supervisor(listener, handlers, call_numbers(machine)).serve()
        listener.close()
        unanswered = os.read(out, 4096).decode()
    finally:
        os.close(out)
        os.waitpid(launch.pid, 0)
    if not unanswered:
        return ""
    return (
        f"an outer system call filter answers {unanswered} before we can; run the container with "
        "--cap-add SYS_NICE or --security-opt seccomp=unconfined"
    )


def _unanswered() -> list[str]:
    made = {
        "move_pages": syscalls.move_pages(0, 0, None, None, None, 0),
        "migrate_pages": syscalls.migrate_pages(0, 0, None, None),
        "mbind": syscalls.mbind(0, 0, 0, None, 0, 0),
        "set_mempolicy": syscalls.set_mempolicy(0, None, 0),
        "get_mempolicy": syscalls.get_mempolicy(None, None, 0, None, 0),
        "set_mempolicy_home_node": syscalls.set_mempolicy_home_node(0, 0, 0, 0),
    }
    return [call for call, ret in made.items() if ret != _ANSWER]


def mount_problem() -> str:
    """Return why a child of ours may not mount anything, "" if it may."""
    return _in_child(lambda: mount_privately([("/sys", "/sys")]))


def _in_child(probe: Callable[[], str]) -> str:
    """Return what a function returns in a child, which it may change as it likes."""
    out, into = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.write(into, probe().encode())
        finally:
            os._exit(0)
    os.close(into)
    said = os.read(out, 4096).decode()
    os.close(out)
    _, status = os.waitpid(pid, 0)
    return said if not status else "the probe was killed"


def perf_problem() -> str:
    """Return why page faults cannot be logged, "" if they can."""
    attributes = _PERF_ATTR.pack(
        _PERF_TYPE_SOFTWARE,
        _PERF_ATTR.size,
        _PERF_COUNT_SW_PAGE_FAULTS,
        1,
        0,
        0,
        _PERF_FLAGS,
        0,
        0,
        0,
    )
    ret = libc.perf_event_open(attributes, 0, -1)
    if ret >= 0:
        os.close(ret)
        return ""
    return (
        f"perf events may not be used here ({os.strerror(-ret)}), so a page that another thread "
        "looks at first may count as that one's; set kernel.perf_event_paranoid to 2 or less, and "
        "in a container allow perf_event_open"
    )


def frames_problem() -> str:
    """Return why page frame numbers are hidden, "" if they are not."""
    with Path("/proc/self/pagemap").open("rb", buffering=0) as pagemap:
        page = id(pagemap) // os.sysconf("SC_PAGE_SIZE")
        entry = int.from_bytes(os.pread(pagemap.fileno(), 8, page * 8), "little")
    if entry & ((1 << 55) - 1):
        return ""
    return (
        "page frame numbers are hidden, so a page that was copied after a fork counts as the old "
        "one; run as root"
    )


def scan_problem() -> str:
    """Return why present pages are found by reading the whole pagemap, "" if they are not."""
    from movepages.abi.pagemap import PageRegion
    from movepages.linux.pagemap import open_pagemap, scan

    try:
        with open_pagemap(os.getpid()) as descriptor:
            scan(descriptor, 0, os.sysconf("SC_PAGE_SIZE"), require=PageRegion.PRESENT)
    except MovePagesError as error:
        return f"{error}; large sparse areas take longer"
    return ""


def procmap_problem() -> str:
    """Return why areas are found by reading the whole maps file, "" if they are not."""
    query = bytearray(_PROCMAP.pack(_PROCMAP.size, _COVERING_OR_NEXT_VMA, *[0] * 11))
    with Path("/proc/self/maps").open("rb") as maps:
        try:
            fcntl.ioctl(maps, _PROCMAP_QUERY, query)
        except OSError as error:
            return (
                f"this kernel has no PROCMAP_QUERY (Linux 6.11; {error.strerror}); calls about "
                "programs with many mappings take longer"
            )
    return ""

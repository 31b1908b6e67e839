"""/proc/PID/stat and /proc/PID/task: who a process is, and where its threads ran last.

CPU time is `schedstat`'s, in nanoseconds; a kernel that keeps none there (CONFIG_SCHED_INFO off, or
delay accounting switched off: it writes zeros) still counts clock ticks in `stat`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from movepages.errors import NoSuchProcessError, NotPermittedError, no_such_process
from movepages.linux.nodes import read_has_memory
from movepages.linux.reading import (
    PROCESSOR,
    ROOT,
    STATE,
    SYSTEM_TIME,
    USER_TIME,
    not_permitted,
    parse_number,
    process_directory,
    read_optional,
    read_text,
    start_ticks,
    stat_fields,
)
from movepages.linux.status import read_status
from movepages.values import TaskInfo, ThreadInfo

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_TIMES = ((USER_TIME, "utime"), (SYSTEM_TIME, "stime"))
_NS_PER_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def read_task_info(pid: int, root: Path = ROOT) -> TaskInfo:
    """Return who a process is, and where it may run and allocate; `uid` is the effective one.

    A kernel without cpusets lets every process allocate on every node that has memory. Raises
    NoSuchProcessError (also for a zombie), NotPermittedError, MalformedError.
    """
    ticks = start_ticks(pid, root)
    status = read_status(pid, root)
    cpus = read_last_cpus(pid, root)
    if start_ticks(pid, root) != ticks:
        raise no_such_process(pid, f"read {process_directory(pid, root)}")
    mems = status.mems_allowed
    return TaskInfo(
        pid=status.pid,
        boot_id=read_boot_id(root),
        start_ticks=ticks,
        command=status.name,
        uid=status.uids[1],
        state=status.state,
        mems_allowed=read_has_memory(root) if mems is None else mems,
        cpus_allowed=status.cpus_allowed,
        last_cpus=cpus,
        kernel_thread=status.kernel_thread,
        parent=status.ppid,
        cgroup=_cgroup(pid, root),
    )


def read_tasks(root: Path = ROOT) -> list[TaskInfo]:
    """Return all processes in user space, by pid. Raises MalformedError.

    Left out is what has ended when its turn comes, and what this caller may not look at.
    """
    pids = sorted(int(entry.name) for entry in (root / "proc").iterdir() if entry.name.isdecimal())
    found: list[TaskInfo] = []
    for pid in pids:
        try:
            found.append(read_task_info(pid, root))
        except (NoSuchProcessError, NotPermittedError):
            continue
    return [task for task in found if not task.kernel_thread]


def read_threads(pid: int, root: Path = ROOT) -> list[ThreadInfo]:
    """Return where each thread of a process ran last, and its CPU time so far, by thread id.

    A thread that ends meanwhile is left out. Raises NoSuchProcessError where all have (it is a
    zombie, or gone), NotPermittedError, MalformedError.
    """
    threads: list[ThreadInfo] = []
    for tid, path, text in _stat_lines(pid, root):
        fields = stat_fields(text, path)
        if fields[STATE] in "ZX":
            continue
        ticks = sum(parse_number(fields[at], path, 1, name) for at, name in _TIMES)
        threads.append(
            ThreadInfo(
                tid=tid,
                name=text[text.find("(") + 1 : text.rfind(")")],
                cpu=parse_number(fields[PROCESSOR], path, 1, "processor"),
                cpu_time_ns=_run_time_ns(path.with_name("schedstat")) or ticks * _NS_PER_TICK,
            )
        )
    if not threads:
        raise no_such_process(pid, f"read {process_directory(pid, root) / 'task'}")
    return threads


def read_last_cpus(pid: int, root: Path = ROOT) -> tuple[int, ...]:
    """Return the CPU that each thread ran on last, in order of thread id.

    A thread that ends meanwhile is left out. Raises NoSuchProcessError, NotPermittedError,
    MalformedError.
    """
    return tuple(
        parse_number(stat_fields(text, path)[PROCESSOR], path, 1, "processor")
        for _, path, text in _stat_lines(pid, root)
    )


def _stat_lines(pid: int, root: Path) -> Iterator[tuple[int, Path, str]]:
    """Go through the threads of a process in order: thread id, path of its stat, and the text."""
    directory = process_directory(pid, root) / "task"
    try:
        threads = sorted(int(entry.name) for entry in directory.iterdir())
    except (FileNotFoundError, ProcessLookupError):
        raise no_such_process(pid, f"read {directory}") from None
    except PermissionError:  # /proc is mounted with hidepid
        raise not_permitted(pid, directory) from None
    for thread in threads:
        path = directory / str(thread) / "stat"
        try:
            text = read_text(path)
        except (FileNotFoundError, ProcessLookupError):
            continue
        yield thread, path, text


def _run_time_ns(path: Path) -> int:
    """Return what a schedstat says a thread has run, 0 where it does not say."""
    try:
        text = read_optional(path)
    except ProcessLookupError:
        return 0
    return parse_number(text.split(maxsplit=1)[0], path, 1, "run time") if text else 0


def _cgroup(pid: int, root: Path) -> str:
    """Return the group of a process in the hierarchy of cgroup v2; empty where there is none."""
    text = read_optional(process_directory(pid, root) / "cgroup") or ""
    return next((line[3:] for line in text.splitlines() if line.startswith("0::")), "")


def read_boot_id(root: Path = ROOT) -> str:
    """Return the id of this boot of the kernel, or nothing where /proc does not give it."""
    return read_optional(root / "proc/sys/kernel/random/boot_id") or ""

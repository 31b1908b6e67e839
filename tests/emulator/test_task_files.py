"""What the files of a task in /proc say."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from movepages.emulator.task_files import children_of, parse_stat, tgid_of, threads_of

PROC = Path("/proc")
NOBODY_HAS_THIS_PID = 1 << 30

FIELDS = [str(number) for number in range(4, 53)]
"""The fields after the state, each by its number in proc_pid_stat(5)."""


def line(name, state="S", fields=FIELDS):
    """Write a stat file."""
    return f"7 ({name}) {state} {' '.join(fields)}\n".encode()


@pytest.mark.parametrize("name", ["cat", "a) S 1", ") (", ""])
def test_stat_is_read_by_the_numbers_of_the_man_page(name):
    """Fields are those of proc_pid_stat(5), whatever the name of the program has in it."""
    stat = parse_stat(line(name))
    assert (stat.state, stat.parent, stat.started, stat.size_bytes) == ("S", 4, 22, 23)
    assert stat.cpu == 39
    assert stat.image == (26, 27, 28, 48)


@pytest.mark.parametrize(("state", "ended"), [("S", False), ("R", False), ("Z", True), ("X", True)])
def test_zombie_has_ended(state, ended):
    """Of the states in proc_pid_stat(5) two are those of a task that has ended."""
    assert parse_stat(line("cat", state)).is_zombie is ended


def test_stat_of_a_task_that_is_gone_is_empty():
    """Nothing to read means that there is no such task."""
    with pytest.raises(ProcessLookupError):
        parse_stat(b"")


@pytest.mark.host
def test_stat_of_this_process_is_as_the_kernel_has_it():
    """Parent, state and CPU of a live file are those that other calls tell."""
    stat = parse_stat(Path("/proc/self/stat").read_bytes())
    assert (stat.parent, stat.state) == (os.getppid(), "R")
    assert stat.cpu in os.sched_getaffinity(0)
    assert stat.size_bytes > 0


@pytest.mark.host
def test_threads_and_children_are_those_of_the_kernel(fork):
    """A thread belongs to its process, a child to the thread that forked it, nobody to nobody."""
    child, me = fork(), os.getpid()
    assert child.pid in children_of(PROC / f"{me}/task/{threading.get_native_id()}")
    assert threading.get_native_id() in threads_of(PROC, me)
    assert (tgid_of(PROC / str(child.pid)), threads_of(PROC, child.pid)) == (child.pid, [child.pid])
    assert list(children_of(PROC / f"{NOBODY_HAS_THIS_PID}/task/1")) == []
    assert threads_of(PROC, NOBODY_HAS_THIS_PID) == []
    with pytest.raises(FileNotFoundError):
        tgid_of(PROC / str(NOBODY_HAS_THIS_PID))

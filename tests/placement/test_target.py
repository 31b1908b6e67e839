from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from movepages.errors import ArgumentError, NoSuchProcessError
from movepages.linux.machine import LinuxMachine
from movepages.nodeset import NodeSet
from movepages.placement.target import Target, find, parse_targets
from movepages.values import TaskInfo


def task(pid, **facts):
    """Return a process."""
    known = TaskInfo(pid, "boot", pid * 10, "cat", 1000, "S", NodeSet([0]), (0,), (0,))
    return replace(known, **facts)


class Machine:
    """Some processes, of which pid 9 is this one."""

    everyone = (
        task(2, command="postgres", uid=70, parent=1, cgroup="/system.slice/pg"),
        task(3, command="postgres", uid=70, parent=2, cgroup="/system.slice/pg/worker"),
        task(4, command="fifteen-letters", parent=3, cgroup="/system.slice/pgbouncer"),
        task(5, command="a:b,c", parent=1),
        task(9, command="postgres", uid=70, parent=2, cgroup="/system.slice/pg"),
    )

    def tasks(self):
        """Return all of them."""
        return self.everyone

    def task(self, pid):
        """Return one."""
        for each in self.everyone:
            if each.pid == (pid or 9):
                return each
        raise NoSuchProcessError(3, "gone", call="task", pid=pid)


def found(text):
    """Return the pids that targets name."""
    return [each.pid for each in find(Machine(), parse_targets(text)).tasks]


@pytest.mark.parametrize(
    ("text", "pids"),
    [
        ("3", [3]),
        ("9", [9]),
        ("name:postgres", [2, 3]),
        ("name:fifteen-letters-and-more", [4]),
        ("name:a:b,c", [5]),
        ("name:postgre", []),
        ("user:70", [2, 3]),
        ("user:1000", [4, 5]),
        ("cgroup:/system.slice/pg", [2, 3]),
        ("cgroup:/system.slice/pg/", [2, 3]),
        ("cgroup:/", [2, 3, 4]),
        ("tree:2", [2, 3, 4]),
        ("tree:4", [4]),
        ("tree:8", []),
        ("4,name:postgres,2", [4, 2, 3]),
        ("name:a:b,c,tree:3", [5, 3, 4]),
        ("3,8", [3]),
    ],
)
def test_targets_name_processes(text, pids):
    """Each process comes once, in the order named; who asks is meant only by pid."""
    assert found(text) == pids


def test_targets_that_name_nobody_are_reported():
    """Of several targets those that name no process are told, and the others stand."""
    named = find(Machine(), parse_targets("8,3,name:nobody"))
    assert [str(target) for target in named.missing] == ["8", "name:nobody"]
    assert [each.pid for each in named.tasks] == [3]


def test_a_single_pid_that_nobody_has_is_an_error():
    """Where nothing else is asked for there is nothing to go on with."""
    with pytest.raises(NoSuchProcessError):
        found("8")


@pytest.mark.parametrize(
    "text",
    ["", "0", "-1", "x", "1.5", "0x10", "2147483648", "1,", ",1", "1,,2", "\u0661", "9" * 99],
)
def test_what_is_no_pid_is_refused(text):
    """A pid is a number above 0."""
    with pytest.raises(ArgumentError, match="is not a pid"):
        parse_targets(text)


@pytest.mark.parametrize("text", ["name:", "user:", "cgroup:", "tree:", "1,name:"])
def test_a_word_without_a_value_is_refused(text):
    """Something has to stand behind the colon."""
    with pytest.raises(ArgumentError, match=r"names no process|is not a pid"):
        parse_targets(text)


def test_a_tree_has_a_pid():
    """tree: takes the number of a process."""
    with pytest.raises(ArgumentError, match="'postgres' is not a pid"):
        parse_targets("tree:postgres")


def test_a_user_that_is_not_there_is_refused():
    """A name that the system does not know is an error, not nobody's processes."""
    with pytest.raises(ArgumentError, match="there is no user 'no such user'"):
        found("user:no such user")


def test_targets_print_as_they_are_read():
    """The text of a target is the target."""
    for target in (Target("pid", "7"), Target("name", "a,b"), Target("tree", "7")):
        assert parse_targets(str(target)) == (target,)


@pytest.mark.host
def test_on_this_machine():
    """A child is found by its pid, its parent's tree and the user; this process only by its pid."""
    machine, own = LinuxMachine(), os.getpid()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        for text in (str(child.pid), f"tree:{own}", f"user:{os.geteuid()}"):
            pids = {each.pid for each in find(machine, parse_targets(text)).tasks}
            assert child.pid in pids
            assert own not in pids
        assert find(machine, parse_targets(str(own))).tasks[0].pid == own
        child.communicate(b"\n")

"""Whom a task means by a number, in its own pid namespace."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from movepages.emulator.namespaces import host_pid

pytestmark = pytest.mark.host

PROC = Path("/proc")
NOBODY_HAS_THIS_PID = 1 << 30


@pytest.fixture
def contained(root):  # noqa: ARG001 - only root may make a namespace
    """A shell that is process 1 of a namespace, and its child there."""
    command = ["unshare", "--pid", "--fork", "--kill-child", "sh", "-c", "sleep 300 & echo; wait"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as front:
        front.stdout.readline()
        first = children(front.pid)[0]
        yield first, children(first)[0]
        front.kill()


def children(pid):
    """Return the children of a process as we see them."""
    return [int(child) for child in (PROC / f"{pid}/task/{pid}/children").read_text().split()]


def test_number_means_itself_in_the_same_namespace():
    """A task that lives where we do means what we would, be it there or not."""
    for number in (os.getpid(), 1, NOBODY_HAS_THIS_PID):
        assert host_pid(PROC, os.getpid(), number) == number


def test_number_means_a_process_of_the_callers_namespace(contained):
    """Process 1 of a container is its first process; who has no such number is nobody."""
    first, child = contained
    names = {
        int(line.split()[-1])
        for line in (PROC / f"{child}/status").read_text().splitlines()
        if line.startswith("NSpid:")
    }
    assert host_pid(PROC, child, 1) == first
    assert host_pid(PROC, first, names.pop()) == child
    assert host_pid(PROC, first, NOBODY_HAS_THIS_PID) is None


def test_our_number_means_nobody_in_another_namespace(contained):
    """A process of a container is not found from within by the number that we see."""
    first, child = contained
    assert host_pid(PROC, first, child) is None


def test_number_of_a_caller_that_is_gone_is_taken_as_it_is():
    """Nothing can be seen of a task that has ended: most live where we do."""
    assert host_pid(PROC, NOBODY_HAS_THIS_PID, 5) == 5

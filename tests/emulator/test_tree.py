from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.host

ADOPTING = """
import os, signal
from movepages.emulator import tree
tree.adopt_orphans()
out, into = os.pipe()
held, holds = os.pipe()
if os.fork() == 0:
    os.close(held)
    {body}
    os._exit(0)
os.close(holds)
os.read(out, 1)
"""

TREE = """
        for _ in range(3): os.fork()
        os.write(into, b"x")
        signal.pause()
"""
"""Eight processes, three deep."""

DAEMON = """
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.write(into, b"x")
                signal.pause()
        os._exit(0)
"""

CHAIN = """
        signal.alarm(30)
        os.write(into, b"x")
        for _ in range(100_000):
            if os.fork(): os._exit(0)
            signal.alarm(30)
"""
"""Each process forks and exits: none of them lives long, and the chain would go on for long."""

BUSH = """
        signal.alarm(30)
        os.write(into, b"x")
        for _ in range(9): os.fork()
        signal.pause()
"""
"""512 processes, being forked while they are killed."""


def run(body, then):
    """Run code in a process that adopts orphans; return what it prints."""
    lines = "\n".join(line.removeprefix("    ") for line in body.strip("\n").splitlines())
    code = ADOPTING.replace("    {body}", lines)
    done = subprocess.run(
        [sys.executable, "-c", code + then], capture_output=True, text=True, check=True, timeout=50
    )
    return done.stdout.split()


ENDED = """
count = tree.end_descendants()
print(count, os.read(held, 1) == b"", len(tree.descendants()))
"""
"""The pipe that all descendants hold is closed only when none is left."""


@pytest.mark.parametrize(("body", "at_least"), [(TREE, 1), (DAEMON, 1), (CHAIN, 1), (BUSH, 1)])
def test_nobody_is_left(body, at_least):
    """Trees, daemons, chains and trees that still grow are ended to the last process."""
    count, closed, left = run(body, ENDED)
    assert int(count) >= at_least
    assert (closed, left) == ("True", "0")


def test_zombies_are_not_left_either():
    """Every process that was killed has been waited for."""
    then = ENDED + "\ntry: os.waitpid(-1, os.WNOHANG)\nexcept ChildProcessError: print('none')"
    assert run(TREE, then)[-1] == "none"


def test_without_children():
    """With nobody below, there is nothing to end."""
    then = ENDED + "\nprint(tree.end_descendants())"
    assert run(DAEMON, then)[-1] == "0"


def test_spared_processes_live_on():
    """A child from before, and what is below it, is spared."""
    then = """
first = next(iter(tree.descendants()))
print(tree.end_descendants({first}))
print(first in tree.descendants(), len(tree.descendants({first})))
tree.end_descendants()
"""
    one = "\n        os.write(into, b'x')\n        signal.pause()\n"
    assert run(one, then) == ["0", "True", "0"]


def test_end_below_children():
    """What is below a child that adopts orphans is ended, daemons too, and the child is not."""
    body = """
        tree.adopt_orphans()
        if os.fork() == 0:
            if os.fork():
                os._exit(0)
            os.setsid()
            os.fork()
            os.write(into, b"x")
            signal.pause()
        os.wait()
        try:
            while True: os.wait()
        except ChildProcessError:
            os._exit(7)
"""
    then = "tree.end_below_children(); print(os.waitstatus_to_exitcode(os.wait()[1]))"
    assert run(body, then) == ["7"]


def test_descendants_leave_this_process_out():
    """A process is not its own descendant."""
    assert run(TREE, "print(os.getpid() in tree.descendants()); tree.end_descendants()") == [
        "False"
    ]


def test_pid_one_is_nobodys_descendant():
    """Neither init nor our parent is below us."""
    from movepages.emulator.tree import descendants

    assert not {1, os.getppid()} & descendants()

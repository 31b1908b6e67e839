"""Has processes with one thing each that keeps their pages from being moved examined, by users.

One line of JSON: by name, the exit code of `movepages doctor` and what it says of what stops it.
"""

from __future__ import annotations

import ctypes
import io
import json
import os
import signal
import struct
import sys
from contextlib import redirect_stderr
from functools import partial
from pathlib import Path

TESTS = Path(__file__).parents[2]
sys.path[:0] = [str(TESTS / "lab_tier"), str(TESTS / "linux")]

from guestkit.children import Child, become, set_dumpable  # noqa: E402
from test_filters import install_filter  # noqa: E402

from movepages.abi import Capability, Errno  # noqa: E402
from movepages.cli import main as movepages  # noqa: E402
from movepages.report.output import Output  # noqa: E402

ALICE, BOB = 1000, 1001


def patient(uid, dumpable=1, *, change=become):
    """Start a process that becomes a user's, may be looked at or not, and lives on."""

    def body():
        change(uid)
        set_dumpable(dumpable)
        yield True

    child = Child(body)
    child.step()
    return child


def keep_one_capability(uid):
    """Become a user and keep CAP_SYS_NICE: prctl(PR_SET_KEEPCAPS), capset(2)."""
    libc = ctypes.CDLL(None)
    assert libc.prctl(8, 1, 0, 0, 0) == 0
    become(uid)
    nice = 1 << Capability.SYS_NICE
    header = struct.pack("=Ii", 0x20080522, 0)
    assert libc.capset(header, struct.pack("=6I", nice, nice, 0, 0, 0, 0)) == 0


def examine(uid, *pid, prepare=lambda: None):
    """Return what a user is told of a process, or of the machine: the code, and what stops him."""

    def body():
        prepare()
        if uid:
            become(uid)
        said = io.StringIO()
        with redirect_stderr(io.StringIO()):
            code = movepages(["doctor", *map(str, pid), "--json"], output=Output(said))
        text = said.getvalue()
        checks = json.loads(text)["checks"] if text else []
        yield [int(code), [check["says"] for check in checks if check["answer"] == "no"]]

    doctor = Child(body)
    told = doctor.step()
    doctor.end()
    return told


def main():
    """Examine each of them once."""
    for pid in ((), (str(os.getpid()),)):  # loads all modules, for all children at once
        movepages(["doctor", *pid, "--json"], output=Output(io.StringIO()))
    alice, bob = patient(ALICE), patient(BOB)
    hidden, able = patient(ALICE, dumpable=0), patient(ALICE, change=keep_one_capability)
    zombie = patient(ALICE)
    zombie.kill()
    told = {
        "own": examine(ALICE, alice.pid),
        "another user's": examine(ALICE, bob.pid),
        "another user's, by root": examine(0, bob.pid),
        "not dumpable": examine(ALICE, hidden.pid),
        "not dumpable, by root": examine(0, hidden.pid),
        "more capabilities": examine(ALICE, able.pid),
        "zombie": examine(ALICE, zombie.pid),
        "the machine": examine(ALICE),
    }
    for errno in (Errno.EPERM, Errno.ENOSYS):
        filtered = partial(install_filter, "move_pages", errno)
        name = f"a filter with {errno.name}"
        told[name] = examine(ALICE, alice.pid, prepare=filtered)
        told[f"{name}, the machine"] = examine(0, prepare=filtered)
    for child in (alice, bob, hidden, able):
        os.kill(child.pid, signal.SIGKILL)
        os.waitpid(child.pid, 0)
    json.dump(told, sys.stdout)


if __name__ == "__main__":
    main()

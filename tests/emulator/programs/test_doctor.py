"""`movepages doctor` on four nodes, of real processes with one thing each that stops it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.emulator,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to start processes of two users"),
]

FILTERED = (
    "move_pages(2) is not to be had: a system call filter (seccomp) refuses it, as containers do "
    "by default"
)
HIDDEN = (
    "move_pages(2) is not to be had: this kernel has NUMA, so a system call filter (seccomp) hides "
    "it"
)
NOT_DUMPABLE = (
    "it is not dumpable: it has asked for that (PR_SET_DUMPABLE), changed its user, or runs a "
    "program that you may not read"
)


def test_what_stops_it(emulate):
    """Each process is refused for its own reason, with the exit code for it, and root is not."""
    done = emulate(sys.executable, Path(__file__).parent / "patients.py")
    assert json.loads(done.stdout) == {
        "own": [0, []],
        "another user's": [4, ["it runs as another user (uid 1001, and you are uid 1000)"]],
        "another user's, by root": [0, []],
        "not dumpable": [4, [NOT_DUMPABLE]],
        "not dumpable, by root": [0, []],
        "more capabilities": [4, ["it has capabilities that you do not have"]],
        "zombie": [3, []],
        "the machine": [0, []],
        "a filter with EPERM": [4, [FILTERED]],
        "a filter with EPERM, the machine": [4, [FILTERED]],
        "a filter with ENOSYS": [5, [HIDDEN]],
        "a filter with ENOSYS, the machine": [5, [HIDDEN]],
    }

"""Who touched a page first decides where it is: many threads, and many processes, all at once."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.emulator

HERE = Path(__file__).parent
PYTHON = (shutil.which("python3", path=os.defpath) or sys.executable, "-S")
PRECISION = ("--precision", "faults")
ROUNDS = range(2)


def statuses(emulate, script, pages, *, as_nobody):
    """Run a script; return how many statuses it looked at, and the wrong ones."""
    command = (*PYTHON, HERE / script, pages)
    said = json.loads(emulate(*command, options=PRECISION, as_nobody=as_nobody).stdout)
    return said["looked_at"], said["wrong"]


@pytest.mark.parametrize("as_nobody", [False, True], ids=["root", "nobody"])
@pytest.mark.parametrize("_round", ROUNDS)
def test_sixteen_threads(emulate, as_nobody, _round):
    """Pages that threads of 16 policies touch in turns are where the policy of each says."""
    assert statuses(emulate, "threads.py", 250, as_nobody=as_nobody) == (4000, [])


@pytest.mark.parametrize("_round", ROUNDS)
def test_processes(emulate, root, _round):  # noqa: ARG001 - a condition
    """Forks, copies on write, exec, shared memory and MOVE_ALL: no status is wrong for anyone.

    Each child looks at 4.5 arrays of 100 pages and at what it has exec'ed, the parent at five.
    """
    assert statuses(emulate, "family.py", 100, as_nobody=False) == (4 * 451 + 500, [])

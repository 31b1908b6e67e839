"""Memory and threads that go, and come again: none is taken for one that was there before it."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.emulator

PYTHON = (shutil.which("python3", path=os.defpath) or sys.executable, "-S")
HERE = Path(__file__).parent
LOOKED_AT = 184


@pytest.mark.parametrize("precision", ["exact", "faults"])
@pytest.mark.parametrize("as_nobody", [False, True], ids=["root", "nobody"])
def test_memory_that_is_there_anew(emulate, precision, as_nobody):
    """Inodes, heaps, segments, remapped areas and calls that fail: no answer is wrong."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o777)
        options = ("--precision", precision)
        done = emulate(*PYTHON, HERE / "anew.py", directory, options=options, as_nobody=as_nobody)
    assert json.loads(done.stdout) == {"looked_at": LOOKED_AT, "wrong": []}


@pytest.mark.parametrize("precision", ["exact", "faults"])
@pytest.mark.parametrize(("kind", "looked_at"), [("known", 27), ("unknown", 19)])
def test_process_goes_on_without_its_first_thread(emulate, precision, kind, looked_at):
    """Threads of a process whose first one has ended have their calls answered as before."""
    done = emulate(*PYTHON, HERE / "leaderless.py", kind, options=("--precision", precision))
    assert json.loads(done.stdout) == {"looked_at": looked_at, "wrong": []}

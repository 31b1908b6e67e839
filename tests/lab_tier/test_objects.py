"""`movepages file` and `movepages shm` on real nodes do what they do on emulated ones."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import objects_said
import pytest

pytestmark = [pytest.mark.lab, pytest.mark.needs_nodes(4)]

PROGRAM = Path(__file__).parents[1] / "emulator" / "programs" / "objects.py"


def test_files_and_segments_move(tmp_path):
    """A file that is only cached, one that is mapped, and segments in use, before and after."""
    command = (sys.executable, PROGRAM, tmp_path)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    objects_said.check(json.loads(done.stdout))

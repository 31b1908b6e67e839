"""`movepages file` and `movepages shm` on four nodes: pages move, and hold what they held."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import objects_said
import pytest

pytestmark = pytest.mark.emulator

PROGRAM = Path(__file__).with_name("objects.py")


def test_files_and_segments_move(emulate, tmp_path):
    """A file that is only cached, one that is mapped, and segments in use, before and after."""
    done = emulate(sys.executable, PROGRAM, tmp_path)
    assert done.returncode == 0, done.stderr
    objects_said.check(json.loads(done.stdout))

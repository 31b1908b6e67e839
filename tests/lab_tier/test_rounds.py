"""A process that four threads check is moved, spread, packed and followed, and nothing is lost."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.lab, pytest.mark.needs_nodes(4)]

ROUNDS = Path(__file__).parents[1] / "programs" / "rounds.py"


def test_no_wrong_byte_and_no_wrong_account():
    """In 25 rounds over 8 MiB each ledger equals numa_maps, and each thread finds its memory."""
    command = (sys.executable, ROUNDS, "8", "25", "1")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["rounds"] == {"move": 7, "spread": 6, "pack": 6, "follow": 6}
    assert said["failed"] == {}
    assert said["moved"] > 8 * (8 << 20) // 4096

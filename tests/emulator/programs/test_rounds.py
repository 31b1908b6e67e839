"""A process that four threads check is moved, spread, packed and followed, and nothing is lost."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.emulator

ROUNDS = Path(__file__).parents[2] / "programs" / "rounds.py"
MACHINE = ("--topology", "2x(1cpu,512M) + 2x(0cpu,512M)")


@pytest.mark.parametrize("seed", [1, 2])
def test_no_wrong_byte_and_no_wrong_account(emulate, seed):
    """In 8 rounds over 4 MiB each ledger equals numa_maps, and each thread finds its memory."""
    done = emulate(sys.executable, ROUNDS, 4, 8, seed, nodes=None, options=MACHINE)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["rounds"] == {"move": 2, "spread": 2, "pack": 2, "follow": 2}
    assert said["failed"] == {}
    assert said["moved"] > 0

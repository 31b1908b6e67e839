"""`movepages follow` on four nodes: a real process goes to another CPU, and its memory follows."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.emulator,
    pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two CPUs to go between"),
]

SIZE = 8 << 20


def test_followed_there_and_back(emulate):
    """Its 8 MiB come to the node of its new CPU and back, whole, and the reasons are told."""
    machine = ("--topology", "2x(1cpu,64M) + 2x(0cpu,256M)")
    program = Path(__file__).parent / "follower.py"
    done = emulate(sys.executable, program, nodes=None, options=machine)
    said = json.loads(done.stdout)
    assert said["pages"] == [{"0": SIZE}, {"1": SIZE}, {"0": SIZE}]
    assert said["same"] is True
    code, once = said["once"]
    assert (code, once["to"], once["bytes_moved"], once["failed"]) == (0, [1], SIZE, {})
    assert {move["reason"] for move in once["plan"]} == {"threads ran 100% on node 1"}
    code, watched = said["watched"]
    assert (code, watched["to"], watched["bytes_moved"]) == (0, [0], SIZE)

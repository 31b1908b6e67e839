"""The program that touches, binds and moves its own pages: they are where it asked for them."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "first_touch.py"
EMULATE = (sys.executable, "-m", "movepages", "emulate", "--nodes", "4")


def run(*stage):
    """Run it, and return its pictures: 32 characters, one for each page."""
    command = [*stage, sys.executable, SCRIPT]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return [line[-32:] for line in done.stdout.splitlines()]


@pytest.mark.emulator
def test_pages_are_where_policies_say():
    """Each thread's policy decides about what it touches, an area's about all that is in it."""
    shown = run(*EMULATE, "--")
    assert shown[0] == "." * 32
    assert shown[1] == "0" * 8 + "." * 24
    assert shown[2] == "0" * 8 + "3" * 8 + "." * 16
    interleaved = shown[3][16:24]
    # Which comes first depends on what else the thread has touched meanwhile.
    assert Counter(interleaved) == dict.fromkeys("0123", 2)
    assert interleaved[:4] == interleaved[4:]
    assert shown[4] == "0" * 8 + "3" * 8 + interleaved + "1" * 8
    moved = list(shown[4])
    moved[::2] = ["3"] * 16
    assert shown[5] == "".join(moved)


@pytest.mark.emulator
@pytest.mark.parametrize("precision", ["lazy", "exact"])
def test_without_a_log_of_faults(precision):
    """Without the log, what a thread has touched counts as touched by the one that looks."""
    assert run(*EMULATE, "--precision", precision, "--")[2] == "0" * 16 + "." * 16


@pytest.mark.host
def test_on_this_machine():
    """It runs on the nodes that there are, be it one."""
    shown = run()
    assert shown[0] == "." * 32
    assert "." not in shown[-1]


def test_it_is_short():
    """It can be read in one go."""
    assert len(SCRIPT.read_text(encoding="utf-8").splitlines()) <= 80

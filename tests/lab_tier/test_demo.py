"""What `make demo-lab` shows: that a real kernel says the same, and that it fits a screen."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.lab, pytest.mark.needs_nodes(4)]

DEMO = Path(__file__).parents[2] / "examples" / "demo.py"


@pytest.fixture(scope="module")
def screen():
    """The lines that the demo writes on the nodes of this machine."""
    command = [sys.executable, DEMO, "--real"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_fits_a_screen(screen):
    """80 columns, and at most 24 lines."""
    assert max(map(len, screen)) <= 80
    assert len(screen) <= 24


def test_memory_is_where_it_was_moved(screen):
    """The pictures show it on one node, a part on each, on another, single pages, and back."""
    pictures = [match[1] for line in screen if (match := re.search(r" ([0-3+]{32})(?: |$)", line))]
    assert pictures == [
        "0" * 32,
        "0" * 8 + "1" * 8 + "2" * 8 + "3" * 8,
        "3" * 32,
        "1333" * 8,
        "0" * 32,
    ]


def test_every_kind_of_page_gets_the_status_that_it_must(screen):
    """The statuses are those of the recorded observations of Linux 6.12."""
    answers = dict(
        match.groups()
        for line in screen
        if (match := re.match(r"  (\S.{23}) (node 3|E[A-Z]+) ", line))
    )
    assert {kind.strip(): said for kind, said in answers.items()} == {
        "touched": "node 3",
        "on node 3 already": "node 3",
        "never touched": "ENOENT",
        "only read: the zero page": "EFAULT",
        "no mapping there": "EFAULT",
        "shared by two processes": "EACCES",
        "the same, with MOVE_ALL": "node 3",
        "touched, to node 4": "ENODEV",
    }


def test_live_process_found_no_error(screen):
    """The process that was moved has checked its memory all the while."""
    assert any(line.endswith("while it was moved: 0 errors.") for line in screen)

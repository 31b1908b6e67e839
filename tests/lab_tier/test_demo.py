"""What `make demo` shows: that it is true, and fits a screen."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from movepages import api

pytestmark = [pytest.mark.lab, pytest.mark.needs_nodes(4)]

DEMO = Path(__file__).parents[2] / "examples" / "demo.py"


@pytest.fixture(scope="module")
def screen():
    """The lines that the demo writes, from its `main` in this very process."""
    capture = pytest.MonkeyPatch()
    lines = []
    capture.setattr("builtins.print", lambda text="", **_: lines.extend(text.split("\n")))
    try:
        assert runpy.run_path(str(DEMO))["main"](api.read_topology()) == 0
    finally:
        capture.undo()
    return lines


def test_fits_a_screen(screen):
    """80 columns, and fewer than 40 lines."""
    assert max(map(len, screen)) <= 80
    assert len(screen) < 40


def test_memory_is_where_it_was_moved(screen):
    """The pictures show all of it on one node, then on another, a part on each, and back."""
    pictures = [match[1] for line in screen if (match := re.search(r" ([0-3+.]{32})(?: |$)", line))]
    assert pictures == [
        "0" * 32,
        "3" * 32,
        "0" * 8 + "1" * 8 + "2" * 8 + "3" * 8,
        "1" * 32,
        "0" * 32,
    ]


def test_every_kind_of_page_gets_the_status_that_it_must(screen):
    """The table of statuses is that of the recorded observations of Linux 6.12."""
    answers = dict(
        match.groups()
        for line in screen
        if (match := re.match(r"  (.{30}) (node 3|E[A-Z]+) ", line))
    )
    assert {kind.strip(): said for kind, said in answers.items()} == {
        "touched": "node 3",
        "on that node already": "node 3",
        "never touched": "ENOENT",
        "only read: the zero page": "EFAULT",
        "shared with another process": "EACCES",
        "the same, with MOVE_ALL": "node 3",
        "an address without a mapping": "EFAULT",
        "touched, to node 4": "ENODEV",
    }


def test_live_process_found_no_error(screen):
    """The process that was moved says at the end how often it checked its memory."""
    said = r"All the while process \d+ has checked its memory [1-9]\d* times, 0 errors\."
    assert any(re.fullmatch(said, line) for line in screen)

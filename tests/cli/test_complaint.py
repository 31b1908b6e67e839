from __future__ import annotations

import os
import pty
import termios

import pytest

from movepages.cli.complaint import complain

LONG = "process 1234 has mappings of 6.20M with pages that others map as well, and those-stay"


def test_one_line_in_a_pipe(capsys):
    """In a pipe a complaint is one line, however long."""
    complain(LONG)
    assert capsys.readouterr().err == f"movepages: {LONG}\n"


@pytest.mark.parametrize(
    ("columns", "lines"),
    [
        (0, ["movepages: process 1234 has mappings of 6.20M with pages that others map as", ""]),
        (len("movepages: ") + len(LONG), [f"movepages: {LONG}"]),
        (
            len("movepages: ") + len(LONG) - 1,
            [f"movepages: {LONG.removesuffix(' those-stay')}", ""],
        ),
    ],
)
def test_no_word_is_cut_on_a_terminal(monkeypatch, columns, lines):
    """On a terminal it is broken between words; one that does not know its width has 80 columns."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, columns))
    with os.fdopen(theirs, "w", encoding="utf-8") as stderr, os.fdopen(ours, "rb", 0) as screen:
        monkeypatch.setattr("sys.stderr", stderr)
        complain(LONG)
        stderr.flush()
        shown = screen.read(4096).decode().splitlines()
    assert shown[0] == lines[0]
    assert len(shown) == len(lines)
    assert " ".join(shown) == f"movepages: {LONG}"

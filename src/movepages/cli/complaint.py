"""What is said on standard error: `movepages: ...`."""

from __future__ import annotations

import os
import sys
import textwrap

import click

_USUAL_WIDTH = 80


def complain(text: str) -> None:
    """Say what is wrong: on one line; on a terminal on more, so that no word is cut."""
    said = f"movepages: {text}"
    if sys.stderr.isatty():
        said = textwrap.fill(said, _width(), break_long_words=False, break_on_hyphens=False)
    click.echo(said, err=True)


def _width() -> int:
    """Return the columns of the terminal, which standard output need not be."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or _USUAL_WIDTH
    except OSError:
        return _USUAL_WIDTH

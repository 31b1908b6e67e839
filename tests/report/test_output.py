from __future__ import annotations

import io

import pytest

from movepages.report.output import Output


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    encoding = "utf-8"

    def isatty(self):
        """Say so."""
        return True


class Latin1Terminal(Terminal):
    """A terminal that has no box characters."""

    encoding = "iso8859-1"


@pytest.mark.parametrize(
    ("environment", "colour"),
    [
        ({"TERM": "xterm"}, True),
        ({"TERM": "xterm", "NO_COLOR": ""}, True),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False),
        ({"TERM": "dumb"}, False),
        ({}, False),
    ],
)
def test_colours_on_a_terminal(environment, colour):
    """NO_COLOR counts if it is not empty (no-color.org); TERM=dumb and no TERM count as well."""
    output = Output.to(Terminal(), environment)
    assert output.terminal
    assert output.colour is colour


def test_width_of_a_terminal(monkeypatch):
    """COLUMNS says how wide the terminal is."""
    monkeypatch.setenv("COLUMNS", "99")
    assert Output.to(Terminal(), {}).width == 99


@pytest.mark.parametrize("stream", [io.StringIO(), Latin1Terminal()])
def test_elsewhere_it_is_plain(stream):
    """A pipe, and a terminal without UTF-8, get plain text of any width."""
    assert Output.to(stream, {"TERM": "xterm"}) == Output(stream)


def test_paragraphs_are_wrapped():
    """A text is wrapped to the terminal, or to 80 columns, two to the right."""
    stream = io.StringIO()
    Output(stream, width=20).paragraph("seven words of text are here, wrapped")
    assert stream.getvalue() == "  seven words of\n  text are here,\n  wrapped\n"


def test_styles_without_colour():
    """With NO_COLOR a heading is still bold, and nothing is coloured."""
    stream = io.StringIO()
    Output(stream, terminal=True, width=80).styled(("head", "bold"), ("red", "red"))
    assert "31" not in stream.getvalue()
    assert "head" in stream.getvalue()


@pytest.mark.parametrize(
    ("width", "written"),
    [
        (None, "  one two-three four\n"),
        (20, "  one two-three four\n"),
        (19, "  one two-three\n    four\n"),
        (5, "  one\n    two-three\n    four\n"),
    ],
)
def test_a_sentence_is_broken_between_words(width, written):
    """A sentence that fits is one line; else no word is cut, not even one that is too long."""
    stream = io.StringIO()
    Output(stream, width=width).sentence("  one two-three four", indent=4)
    assert stream.getvalue() == written

from __future__ import annotations

from movepages.report.fields import Field, shorten_middle
from movepages.report.layout import fit, lines, stream

NUMBER = Field("number", "N", "", right=True)
NAME = Field("name", "NAME", "", shorten=shorten_middle)
COLUMNS = (NUMBER, NAME)


def test_columns_are_as_wide_as_their_widest_cell():
    """Numbers are aligned to the right, text to the left, and no line ends in blanks."""
    rows = [["7", "short"], ["1000", "a longer name"]]
    assert list(lines(COLUMNS, rows)) == ["   N  NAME", "   7  short", "1000  a longer name"]


def test_titles_alone():
    """A table without rows still has its titles."""
    assert list(lines(COLUMNS, [])) == ["N  NAME"]


def test_a_line_that_just_fits_is_not_cut():
    """At the width of the line nothing is cut; at one less, what may be shortened is."""
    rows = [["1000", "a longer name"]]
    assert fit(COLUMNS, rows, 19) == rows
    assert fit(COLUMNS, rows, 18) == [["1000", "a lo…er name"]]


def test_no_width_cuts_nothing():
    """In a pipe a line may be of any length."""
    rows = [["1000", "x" * 1000]]
    assert fit(COLUMNS, rows, None) == rows


def test_the_widest_column_gives_way_first():
    """Of two columns that may be cut, the wider is cut until they are alike."""
    rows = [["a" * 10, "b" * 20]]
    ((first, second),) = fit((NAME, NAME), rows, 24)
    assert (len(first), len(second)) == (10, 12)


def test_a_screen_too_narrow():
    """Cells keep seven characters however narrow the screen, so that they still say something."""
    rows = [["1000", "a longer name"]]
    assert fit(COLUMNS, rows, 5) == [["1000", "a …name"]]


def test_stream_does_not_wait_for_the_end():
    """The first line comes though the rows never end: a thousand rows tell the widths."""

    def endless():
        while True:
            yield ["1", "name"]

    assert next(stream(COLUMNS, endless(), None)) == "N  NAME"


def test_stream_keeps_to_the_width():
    """Rows of a stream are cut to the same widths."""
    rows = [["1000", "a longer name"]] * 3
    assert list(stream(COLUMNS, iter(rows), 18))[1:] == ["1000  a lo…er name"] * 3


def test_a_later_row_may_be_wider():
    """A cell that is wider than those of the first thousand rows is shown whole, out of line."""
    rows = [["1", "x"]] * 1000 + [["22", "y"]]
    assert list(stream(COLUMNS, iter(rows), None))[-2:] == ["1  x", "22  y"]

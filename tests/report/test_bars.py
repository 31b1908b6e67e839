from __future__ import annotations

import io

import pytest

from movepages.report.bars import BAR_WIDTH, percent, write_bars
from movepages.report.output import Output


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0, "0%"),
        (1e-9, "<1%"),
        (0.0049, "<1%"),
        (0.005001, "1%"),
        (0.5, "50%"),
        (0.9949, "99%"),
        (0.9951, ">99%"),
        (1, "100%"),
    ],
)
def test_percent(share, text):
    """What is there is never 0%, and what is not all is never 100%."""
    assert percent(share) == text


def written(bytes_by_node):
    """Return the lines of the bars in a pipe."""
    stream = io.StringIO()
    write_bars(Output(stream), bytes_by_node)
    return stream.getvalue().splitlines()


def test_bars_are_shares_of_the_whole():
    """A quarter of the memory is a quarter of the bar, with its size and share."""
    first, second = written({0: 3 << 20, 10: 1 << 20})
    assert first == "  node  0  ######################........     3M   75%"
    assert second.count("#") == round(BAR_WIDTH / 4)


def test_little_is_not_nothing():
    """A node with one page of many still has a mark."""
    assert written({0: 1 << 40, 1: 4096})[1].count("#") == 1


def test_nothing():
    """Without memory there is no bar; of nothing, a node has 0%."""
    assert written({}) == []
    assert written({0: 0})[0].endswith("0    0%")

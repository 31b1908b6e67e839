from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, strategies as st

from movepages.placement.strips import NOTHING, huge_bytes, strips
from movepages.values import Placement

PAGE = 4096
HUGE = 512 * PAGE


def placement(*runs):
    """Return a placement of runs: (start, pages, page size, node)."""
    start, pages, size, node = zip(*runs, strict=True) if runs else ((), (), (), ())
    return Placement(
        np.array(start, np.uint64),
        np.array(pages, np.int64),
        np.array(size, np.int64),
        np.array(node, np.int32),
    )


def one(placed, start, end, cells):
    """Return the strip of one range."""
    [strip] = strips(placed, [(start, end)], cells)
    assert strip.dtype == np.int32
    return strip.tolist()


def test_a_cell_is_of_the_node_that_has_most_of_it():
    """Of four pages to a cell, three outweigh one, and of as many the smaller node is named."""
    placed = placement((0, 3, PAGE, 2), (3 * PAGE, 3, PAGE, 0), (6 * PAGE, 2, PAGE, 1))
    assert one(placed, 0, 8 * PAGE, 2) == [2, 0]


def test_nothing_is_where_no_page_is():
    """Cells before, between and behind the pages are empty; an unknown node is none."""
    placed = placement((PAGE, 1, PAGE, 3), (3 * PAGE, 1, PAGE, -2))
    assert one(placed, 0, 5 * PAGE, 5) == [NOTHING, 3, NOTHING, NOTHING, NOTHING]


@pytest.mark.parametrize("runs", [[], [(64 * PAGE, 1, PAGE, 0)]])
def test_a_range_without_pages(runs):
    """Of a range in which nothing is present all cells are empty."""
    assert one(placement(*runs), 0, 8 * PAGE, 3) == [NOTHING] * 3


def test_a_huge_page_is_cut_at_the_edges_of_cells_and_of_the_range():
    """A huge page lies in each cell with what of it is there."""
    placed = placement((0, 2, HUGE, 1))
    assert one(placed, HUGE // 2, 2 * HUGE, 6) == [1] * 6
    assert one(placed, HUGE, 3 * HUGE, 4) == [1, 1, NOTHING, NOTHING]


def test_each_range_has_a_strip_of_its_own():
    """Several ranges are answered in their order."""
    placed = placement((0, 4, PAGE, 0), (8 * PAGE, 4, PAGE, 1))
    first, second = strips(placed, [(8 * PAGE, 12 * PAGE), (0, 4 * PAGE)], 2)
    assert (first.tolist(), second.tolist()) == ([1, 1], [0, 0])


def test_more_cells_than_pages():
    """Parts of a page are on its node."""
    assert one(placement((0, 1, PAGE, 4), (PAGE, 1, PAGE, 5)), 0, 2 * PAGE, 8) == [4] * 4 + [5] * 4


def test_huge_bytes_counts_pages_above_the_base_page():
    """Base pages do not count, larger ones do with their size."""
    assert huge_bytes(placement((0, 2, HUGE, 1), (2 * HUGE, 7, PAGE, 1)), PAGE) == 2 * HUGE
    assert huge_bytes(placement(), PAGE) == 0


@given(
    nodes=st.lists(st.sampled_from([None, 0, 1, 2, -2]), min_size=1, max_size=40),
    cells=st.integers(1, 12),
)
def test_agrees_with_counting_byte_by_byte(nodes, cells):
    """For any pages, a cell has what counting its bytes one by one gives (pages of 8 bytes)."""
    runs = [(8 * at, 1, 8, node) for at, node in enumerate(nodes) if node is not None]
    edges = np.linspace(0, 8 * len(nodes), cells + 1).astype(int).tolist()
    expected = []
    for begin, end in pairwise(edges):
        of = [nodes[at // 8] for at in range(begin, end)]
        counted = Counter(node for node in of if node is not None and node >= 0)
        most = max(counted.values(), default=0)
        expected.append(min((n for n, c in counted.items() if c == most), default=NOTHING))
    assert one(placement(*runs), 0, 8 * len(nodes), cells) == expected

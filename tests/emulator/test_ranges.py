"""Values of ranges of pages, against a dictionary with an entry for each page."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, strategies as st

from movepages.emulator.ranges import Ranges

PAGES = 24
EDGES = st.integers(0, PAGES)
CHANGES = st.lists(st.tuples(EDGES, EDGES, st.sampled_from([None, "a", "b", "c"])), max_size=12)


def built(changes):
    """Return ranges and the dictionary that they stand for."""
    ranges, model = Ranges(), {}
    for start, end, value in changes:
        ranges.set(start, end, value)
        for page in range(start, end):
            model[page] = value
    return ranges, {page: value for page, value in model.items() if value is not None}


@given(CHANGES)
def test_ranges_are_a_dictionary_of_pages(changes):
    """After any changes each page has the value set last; pieces rise, and none is empty."""
    ranges, model = built(changes)
    pieces = list(ranges)
    assert {page: value for start, end, value in pieces for page in range(start, end)} == model
    assert all(start < end for start, end, _ in pieces)
    assert all(one[1] <= other[0] for one, other in pairwise(pieces))


@given(CHANGES, EDGES, EDGES)
def test_pieces_within_a_range_end_where_it_ends(changes, start, end):
    """`within` has the values of exactly the pages of the range that have one."""
    ranges, model = built(changes)
    found = {
        page: value for low, high, value in ranges.within(start, end) for page in range(low, high)
    }
    assert found == {page: value for page, value in model.items() if start <= page < end}


@given(CHANGES, EDGES, st.integers(1, PAGES))
def test_value_of_a_page_holds_up_to_the_end_that_is_told(changes, page, count):
    """`at` tells a page's value, and no page before the end that it tells has another."""
    ranges, model = built(changes)
    value, end = ranges.at(page, page + count)
    assert page < end <= page + count
    assert {model.get(other) for other in range(page, end)} == {value}


def test_value_ends_at_the_border_and_not_before():
    """At the last page of a piece the value is its own, at the next that of the next."""
    ranges = Ranges([(4, 8, "a"), (8, 9, "b")])
    assert [ranges.at(page, 99) for page in (3, 4, 7, 8, 9)] == [
        (None, 4),
        ("a", 8),
        ("a", 8),
        ("b", 9),
        (None, 99),
    ]


def test_copy_goes_its_own_way():
    """Changing a copy, or what it was made of, leaves the other as it was."""
    ranges = Ranges([(0, 4, "a")])
    copy = ranges.copy()
    copy.set(1, 2, None)
    ranges.set(3, 4, "b")
    assert list(ranges) == [(0, 3, "a"), (3, 4, "b")]
    assert list(copy) == [(0, 1, "a"), (2, 4, "a")]


def test_range_without_pages_changes_nothing():
    """An empty range, and one whose end is before its start, set nothing and cut nothing off."""
    ranges = Ranges([(0, 4, "a")])
    ranges.set(2, 2, "b")
    ranges.set(3, 1, "b")
    assert list(ranges) == [(0, 4, "a")]

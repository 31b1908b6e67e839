"""Interval arithmetic against the slow model: the set of all points."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, strategies as st

from movepages.linux import intervals

points = st.integers(0, 70)
borders = st.lists(points, max_size=12)


@st.composite
def disjoint(draw):
    """Draw rising intervals that do not overlap but may touch, as a list of (start, end)."""
    edges = sorted(draw(st.lists(st.integers(0, 60), max_size=16, unique=True)))
    pairs = list(zip(edges[::2], edges[1::2], strict=False))
    touching = [
        (end, following) for (_, end), (following, _) in pairwise(pairs) if draw(st.booleans())
    ]
    return sorted(pairs + touching)


def arrays(pairs):
    """Return intervals as the module takes them."""
    array = np.array(pairs, dtype=np.uint64).reshape(-1, 2)
    return np.ascontiguousarray(array[:, 0]), np.ascontiguousarray(array[:, 1])


def pairs_of(starts, ends):
    """Return intervals as a list of (start, end)."""
    return list(zip(starts.tolist(), ends.tolist(), strict=True))


def covered(pairs):
    """Return the set of points in intervals."""
    return {point for start, end in pairs for point in range(start, end)}


def addresses(values):
    """Return numbers as addresses."""
    return np.array(values, dtype=np.uint64)


@given(disjoint(), borders)
def test_find_finds_the_interval_that_holds_a_point(pairs, wanted):
    """The index is that of the interval with start <= point < end, or -1."""
    slow = [
        next((i for i, (start, end) in enumerate(pairs) if start <= point < end), -1)
        for point in wanted
    ]
    assert intervals.find(*arrays(pairs), addresses(wanted)).tolist() == slow


@given(disjoint(), borders)
def test_cut_keeps_the_points_and_leaves_no_border_inside(pairs, cuts):
    """Pieces cover what the intervals did, each belongs to its owner, none holds a border."""
    starts, ends, owner = intervals.cut(*arrays(pairs), addresses(cuts))
    pieces = pairs_of(starts, ends)
    assert covered(pieces) == covered(pairs)
    assert sum(end - start for start, end in pieces) == len(covered(pairs))
    assert pieces == sorted(pieces)
    assert all(start < end for start, end in pieces)
    for (start, end), index in zip(pieces, owner.tolist(), strict=True):
        assert pairs[index][0] <= start < end <= pairs[index][1]
        assert start == pairs[index][0] or start in cuts
        assert not any(start < border < end for border in cuts)


@given(disjoint(), disjoint())
def test_subtract_leaves_what_is_in_no_hole(pairs, holes):
    """The points that are left are those of the intervals without those of the holes."""
    left = pairs_of(*intervals.subtract(*arrays(pairs), arrays(holes)))
    assert covered(left) == covered(pairs) - covered(holes)
    assert left == sorted(left)
    assert all(start < end for start, end in left)


@given(disjoint(), st.integers(0, 8))
def test_join_joins_what_is_near(pairs, gap):
    """Neighbours at most the gap apart become one; the others stay as they are."""
    slow = []
    for start, end in pairs:
        if slow and start - slow[-1][1] <= gap:
            slow[-1] = (slow[-1][0], end)
        else:
            slow.append((start, end))
    assert pairs_of(*intervals.join(*arrays(pairs), gap)) == slow


@pytest.mark.parametrize("cuts", [[], [0], [5, 7]])
def test_nothing_is_cut_into_nothing(cuts):
    """Without intervals there are no pieces, whatever the borders."""
    starts, ends, owner = intervals.cut(*arrays([]), addresses(cuts))
    assert (len(starts), len(ends), len(owner)) == (0, 0, 0)
    assert intervals.find(*arrays([]), addresses(cuts)).tolist() == [-1] * len(cuts)


def test_the_ends_of_the_address_space_are_no_exception():
    """Addresses are unsigned: those above 2**63 are larger than those below."""
    top = 2**64 - 4096
    starts, ends = arrays([(0, 4096), (2**63, top)])
    found = intervals.find(starts, ends, addresses([0, 4095, 4096, 2**63, top - 1, top]))
    assert found.tolist() == [0, 0, -1, 1, 1, -1]
    pieces = intervals.cut(starts, ends, addresses([2**63 + 4096]))
    assert pairs_of(*pieces[:2]) == [(0, 4096), (2**63, 2**63 + 4096), (2**63 + 4096, top)]


@pytest.mark.parametrize(("gap", "joined"), [(9, 2), (10, 1), (11, 1)])
def test_join_at_the_limit(gap, joined):
    """Exactly the gap apart is near enough; one more is not."""
    assert len(intervals.join(*arrays([(0, 10), (20, 30)]), gap)[0]) == joined

"""Looking up where values stand in a batch agrees with a search by hand."""

from __future__ import annotations

import numpy as np
import pytest

from movepages.kernel.positions import PART, Positions, all_differ, as_run, first_of_each, parts

FAR = 1 << 40
"""A value so far from the others that no table is made of them."""


def batch(*values):
    """Return a batch of handles."""
    return np.array(values, dtype=np.int64)


@pytest.mark.parametrize(
    ("values", "run"),
    [
        (batch(7), slice(7, 8)),
        (batch(0, 1, 2), slice(0, 3)),
        (batch(5, 6, 7, 8), slice(5, 9)),
    ],
)
def test_consecutive_values_are_a_slice(values, run):
    """Each value one more than the one before: the slice has the same elements."""
    assert as_run(values) == run
    elements = np.arange(100, 110)
    assert elements[as_run(values)].tolist() == elements[values].tolist()


@pytest.mark.parametrize(
    "values",
    [
        batch(),
        batch(1, 2, 4),
        batch(3, 2, 1),
        batch(1, 3, 2, 4),  # ends where a run would
        batch(1, 1, 3),
        batch(-1, 0, 1),  # as a slice it would begin at the end of the array
        batch(-1),
    ],
)
def test_other_values_stay_as_they_are(values):
    """Gaps, another order, repetitions and negative numbers are no run."""
    assert as_run(values) is values


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (0, []),
        (1, [(0, 1)]),
        (PART, [(0, PART)]),
        (PART + 1, [(0, PART), (PART, PART + 1)]),
    ],
)
def test_parts_cover_a_batch(count, expected):
    """The parts follow one another, and only the last is shorter."""
    assert [(part.start, part.stop) for part in parts(count)] == expected


@pytest.mark.parametrize(
    ("values", "differ"),
    [
        (batch(), True),
        (batch(4), True),
        (batch(1, 2, 9), True),
        (batch(9, 2, 1), True),
        (batch(9, 2, 9), False),
        (batch(3, FAR, 1), True),
        (batch(FAR, 1, FAR), False),
    ],
)
def test_all_differ(values, differ):
    """A value that is there twice is found, whether values lie close together or not."""
    assert all_differ(values) is differ


@pytest.mark.parametrize("last", [0, 2 * PART])
def test_all_differ_across_parts(last):
    """The second mention may be in another part than the first."""
    falling = np.arange(2 * PART, 0, -1)
    falling[-1] = last
    assert all_differ(falling) is (last == 0)


@pytest.mark.parametrize("offset", [0, FAR])
def test_first_of_each(offset):
    """The first position of each value, in order of position, by table and by sorting."""
    assert first_of_each(batch(3, 1, 3, offset, 1, offset)).tolist() == [0, 1, 3]


@pytest.mark.parametrize("known", [batch(2, 4, 6, 8), batch(8, 4, 2, 6)])
def test_positions(known):
    """Values are found when they are asked for in turn, and in any other order."""
    positions = Positions(known)
    assert positions.of(known[:2]).tolist() == [0, 1]
    assert positions.of(known[2:]).tolist() == [2, 3]
    assert positions.of(known[[3, 0]]).tolist() == [3, 0]


def test_positions_of_the_parts_of_a_folio():
    """A page of a THP that was split is where its head was."""
    assert Positions(batch(512, 0, 1024)).of(batch(3, 1025, 512)).tolist() == [1, 2, 0]

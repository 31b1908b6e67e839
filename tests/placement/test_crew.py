"""More workers are taken only where a measurement says that they are faster."""

from __future__ import annotations

import pytest

from movepages.errors import ArgumentError
from movepages.placement.crew import Crew


def worked(crew, rates, turns=40):
    """Let a crew work where so many workers move so many bytes a second; return who worked."""
    seen = []
    for _ in range(turns):
        seen.append(crew.workers)
        seconds = min(crew.turn_s, 1.0)
        crew.learn(int(rates[crew.workers] * seconds), seconds)
    return seen


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_a_number_stays(workers):
    """A crew of a fixed number has nothing to measure: one turn is all."""
    crew = Crew(workers)
    assert (crew.settled, crew.workers, crew.turn_s) == (True, workers, float("inf"))
    assert set(worked(crew, {workers: 0})) == {workers}


def test_by_turns():
    """One worker and two take turns; two pairs settle what is no faster, four pairs what is."""
    assert worked(Crew(1, 2), {1: 1000, 2: 1000})[:6] == [1, 2, 1, 2, 1, 1]
    assert worked(Crew(1, 2), {1: 1000, 2: 2000})[:10] == [1, 2, 1, 2, 1, 2, 1, 2, 2, 2]


@pytest.mark.parametrize(
    ("faster", "workers"),
    [("yyyy", 2), ("nyyyy", 2), ("yyyny", 2), ("nn", 1), ("nyyyn", 1), ("yyynn", 1)],
)
def test_four_pairs_of_five(faster, workers):
    """Two workers must be faster in four pairs of turns of five; it ends when that is decided."""
    crew = Crew(1, 2)
    for is_faster in faster:
        assert not crew.settled
        crew.learn(100, 0.1)
        crew.learn(200 if is_faster == "y" else 100, 0.1)
    assert (crew.settled, crew.workers) == (True, workers)


@pytest.mark.parametrize(
    ("rate", "workers"), [(500, 1), (1000, 1), (1149, 1), (1150, 2), (2000, 2)]
)
def test_twice_as_many_must_be_clearly_faster(rate, workers):
    """Two workers are kept at 1.15 times the rate of one, and not at less."""
    crew = Crew(1, 2)
    worked(crew, {1: 100_000, 2: rate * 100})
    assert (crew.settled, crew.workers) == (True, workers)


@pytest.mark.parametrize(
    ("most", "tried"), [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (6, [1, 2, 4, 6])]
)
def test_never_more_than_there_may_be(most, tried):
    """Where more are always faster the crew doubles, and ends at the most."""
    crew = Crew(1, most)
    seen = worked(crew, {workers: workers * 1000 for workers in range(1, 7)})
    assert sorted(set(seen)) == tried
    assert (crew.settled, crew.workers) == (True, most)


def test_it_stays_with_the_last_that_was_faster():
    """Two are twice as fast as one and four no faster than two: two are kept."""
    crew = Crew(1, 16)
    worked(crew, {1: 1000, 2: 2000, 4: 2000})
    assert (crew.settled, crew.workers) == (True, 2)


def test_where_nothing_moves_there_is_no_rate():
    """Turns in which no page came to its node speak for nobody."""
    crew = Crew(1, 4)
    worked(crew, {1: 0, 2: 0})
    assert (crew.settled, crew.workers) == (True, 1)


def test_turns_count_by_their_length():
    """A turn is as long as it is: rates are compared; one that took no time has none."""
    crew = Crew(1, 2)
    for _ in range(4):
        crew.learn(100, 0.1)
        crew.learn(300, 0.2)
    assert (crew.settled, crew.workers) == (True, 2)
    crew = Crew(1, 2)
    for moved_bytes, seconds in [(100, 0.1), (300, 0.3), (100, 0.1), (300, 0.0)]:
        crew.learn(moved_bytes, seconds)
    assert (crew.settled, crew.workers) == (True, 1)


@pytest.mark.parametrize(("workers", "most"), [(0, None), (-1, 4), (0, 4), (3, 2)])
def test_no_crew(workers, most):
    """Fewer than one worker, and more than the most, are refused."""
    with pytest.raises(ArgumentError, match="workers make no sense"):
        Crew(workers, most)

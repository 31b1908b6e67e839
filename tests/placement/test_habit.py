"""Only what has lasted for some looks is taken for where a process runs."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from movepages.errors import ArgumentError
from movepages.placement.habit import Habit, Patience
from movepages.placement.running import Running

THREE = Patience(samples=3, least_share=0.8)


def settled(*samples, patience=THREE):
    """Return the shares of where a process runs, None for nowhere yet, after these looks."""
    habit = Habit(patience)
    for share in samples:
        habit.note(Running(share, ran=True))
    home = habit.settled()
    return home and dict(home.share)


def test_as_many_looks_as_asked_for():
    """Two looks of three are too few; a fourth replaces the first."""
    assert settled() is None
    assert settled({1: 1.0}, {1: 1.0}) is None
    assert settled({1: 1.0}, {1: 1.0}, {1: 1.0}) == {1: 1.0}
    assert settled({0: 1.0}, {1: 1.0}, {1: 1.0}) is None
    assert settled({0: 1.0}, {1: 1.0}, {1: 1.0}, {1: 1.0}) == {1: 1.0}


@pytest.mark.parametrize(("share", "found"), [(0.8, {1: 1.0}), (0.79, None)])
def test_nearly_all_of_the_running(share, found):
    """In each look four fifths have to be on nodes that are in all of them."""
    rest = 1 - share
    looks = [{1: share, 0: rest}, {1: share, 2: rest}, {1: share, 3: rest}]
    assert settled(*looks) == found


def test_several_nodes():
    """Threads that stay on two nodes have settled there, with their mean shares."""
    looks = [{0: 0.5, 1: 0.5}, {0: 0.75, 1: 0.25}, {0: 0.25, 1: 0.75}]
    assert settled(*looks) == pytest.approx({0: 0.5, 1: 0.5})


def test_noise_is_left_out():
    """A helper thread with less than a tenth of the busiest node's running changes nothing."""
    assert settled({1: 0.95, 0: 0.05}, {1: 1.0}, {1: 0.93, 2: 0.07}) == {1: 1.0}


def test_a_look_without_running_tells_nothing():
    """A process that sleeps is still where it ran; a look at it does not count for another node."""
    habit = Habit(THREE)
    for share, ran in (({1: 1.0}, True), ({0: 1.0}, False), ({1: 1.0}, True), ({}, True)):
        habit.note(Running(share, ran=ran))
    assert habit.settled() is None
    habit.note(Running({1: 1.0}, ran=True))
    assert habit.settled() == Running({1: 1.0}, ran=True)


@given(st.integers(2, 5), st.integers(0, 3), st.integers(0, 3), st.integers(0, 12))
def test_who_hops_at_every_look_never_settles(samples, one, other, looks):
    """To and fro between two nodes, however long: nowhere."""
    hops = [{(one, other)[number % 2]: 1.0} for number in range(looks)]
    patience = Patience(samples=samples)
    found = settled(*hops, patience=patience)
    assert found == ({one: 1.0} if one == other and looks >= samples else None)


@pytest.mark.parametrize(
    "nonsense",
    [
        {"every_s": 0.0},
        {"every_s": -1.0},
        {"every_s": float("nan")},
        {"samples": 0},
        {"least_share": 0.0},
        {"least_share": 1.01},
        {"pause_s": -0.1},
        {"least_gain_bytes": -1},
    ],
)
def test_nonsense_is_refused(nonsense):
    """Just outside each limit it is an error; the limits themselves are allowed."""
    with pytest.raises(ArgumentError):
        Patience(**nonsense)
    Patience(samples=1, least_share=1.0, pause_s=0.0, least_gain_bytes=0)

"""The arithmetic of the benchmarks: samples, turns, medians and bars."""

from __future__ import annotations

import gc
import itertools

import harness
import pytest
from harness import Measure, Row, Timing


def timing(median_s):
    """Return a timing of which only the median matters."""
    return Timing(median_s, median_s, median_s, 7)


@pytest.fixture
def clock(monkeypatch):
    """Make the CPU clock go on by 5 ms each time it is read."""
    ticks = itertools.count(0, 5_000_000)
    monkeypatch.setattr(harness.time, "thread_time_ns", lambda: next(ticks))


def test_timing_has_median_and_quartiles():
    """Of the samples 1 to 5 s, 3 is the median, 2 and 4 the quartiles."""
    assert Timing.of([5.0, 1.0, 4.0, 2.0, 3.0]) == Timing(3.0, 2.0, 4.0, 5)


def test_one_slow_sample_does_not_move_the_median():
    """What else the machine did for a moment does not show."""
    assert Timing.of([1.0, 1.0, 1.0, 1.0, 900.0]).median_s == 1.0


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("calls", [1, 4])
def test_sample_is_the_time_of_one_call(calls):
    """The time of all calls is divided by their number."""
    done = []
    sample = harness.cpu_time(lambda: done.append(1), calls)
    assert sample() == 0.005 / calls
    assert len(done) == calls


@pytest.mark.usefixtures("clock")
def test_both_clocks_time_the_same_run(monkeypatch):
    """The wall clock is read around the work, not around its preparation, and once a run."""
    wall = itertools.count(0.0, 2.0)
    monkeypatch.setattr(harness.time, "perf_counter", lambda: next(wall))
    done = []
    cpu, said = harness.both_clocks(lambda: done.append("work"), lambda: done.append("prepare"))
    assert (cpu(), said()) == (0.005, 2.0)
    assert said() == 2.0
    assert done == ["prepare", "work"]


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize(("least_s", "calls"), [(0.05, 10), (0.005, 1), (0.001, 1)])
def test_short_work_is_repeated(monkeypatch, least_s, calls):
    """Work of 5 ms is done until a sample is long enough, and at least once."""
    monkeypatch.setattr(harness, "SAMPLE_SECONDS", least_s)
    assert harness.calls_a_sample(lambda: None) == calls


def test_ways_take_turns(monkeypatch):
    """After a round to warm up the samples are taken A B A B, and each way gets its own."""
    monkeypatch.setattr(harness, "FEWEST_ROUNDS", 3)
    monkeypatch.setattr(harness, "MOST_ROUNDS", 3)
    order = []
    values = {"A": itertools.count(100.0), "B": itertools.count(200.0)}

    def way(name):
        def sample():
            order.append(name)
            return next(values[name])

        return sample

    timings = harness.compare({name: way(name) for name in values})
    assert order == ["A", "B"] * 4
    assert timings == {"A": Timing(102.0, 101.5, 102.5, 3), "B": Timing(202.0, 201.5, 202.5, 3)}


@pytest.mark.parametrize("enabled", [True, False])
def test_no_garbage_is_collected_meanwhile(monkeypatch, enabled):
    """The collector is off while samples are taken, and afterwards as it was."""
    monkeypatch.setattr(harness, "MOST_ROUNDS", harness.FEWEST_ROUNDS)
    seen = []
    was_enabled = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        harness.compare({"A": lambda: seen.append(gc.isenabled()) or 1.0})
        after = gc.isenabled()
    finally:
        (gc.enable if was_enabled else gc.disable)()
    assert set(seen) == {False}
    assert after == enabled


@pytest.mark.parametrize(
    ("round_s", "rounds"),
    [
        (0.1, 30),
        (3.0, harness.FEWEST_ROUNDS),
        (1e-6, harness.MOST_ROUNDS),
        (0.0, harness.MOST_ROUNDS),
    ],
)
def test_rounds_fit_into_the_budget(round_s, rounds):
    """As many rounds are run as fit into 3 s, but neither too few nor too many."""
    assert harness.rounds_within(3.0, round_s) == rounds


@pytest.mark.parametrize(
    ("measure", "ours_s", "peer_s", "value"),
    [
        (Measure.RATIO, 2.1, 2.0, 1.05),
        (Measure.SPEEDUP, 0.5, 2.0, 4.0),
        (Measure.EXTRA, 3e-6, 1e-6, 2.0),
        (Measure.OWN, 0.15, None, 150.0),
    ],
)
def test_value_of_a_measure(measure, ours_s, peer_s, value):
    """Each measure is computed from the medians, in the unit of its name."""
    row = Row("x", timing(ours_s), measure, peer=None if peer_s is None else timing(peer_s))
    assert row.value == pytest.approx(value)


def test_cost_of_a_page():
    """A call of 4 pages that takes 100 ns takes 25 ns a page."""
    assert Row("x", timing(100e-9), Measure.PER_PAGE, pages=4).value == pytest.approx(25)


def test_a_count_is_its_own_value():
    """What is counted is not a time."""
    assert Row("x", 3, Measure.COUNT, 2).value == 3


@pytest.mark.parametrize("measure", [Measure.RATIO, Measure.SPEEDUP, Measure.EXTRA])
def test_a_comparison_needs_a_peer(measure):
    """A measure against nothing is refused, not taken for zero."""
    with pytest.raises(ValueError, match="needs a peer"):
        _ = Row("x", timing(1.0), measure).value


@pytest.mark.parametrize(("bar", "met"), [(1.5, True), (1.4, False), (None, None)])
def test_costs_must_not_exceed_the_bar(bar, met):
    """A ratio of exactly the bar is good enough, more is not."""
    assert Row("x", timing(1.5), Measure.RATIO, bar, "C", timing(1.0)).met is met


@pytest.mark.parametrize(("bar", "met"), [(4.0, True), (4.1, False), (None, None)])
def test_speedups_must_reach_the_bar(bar, met):
    """A speed-up of exactly the bar is good enough, less is not."""
    assert Row("x", timing(0.5), Measure.SPEEDUP, bar, "plain", timing(2.0)).met is met


@pytest.mark.parametrize(("count", "met"), [(0, True), (1, False)])
def test_counts_must_not_exceed_the_bar(count, met):
    """Where nothing may be read, one read is too many."""
    assert Row("x", count, Measure.COUNT, 0).met is met

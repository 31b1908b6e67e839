from __future__ import annotations

import pytest

from movepages.abi import MoveFlag
from movepages.errors import ArgumentError
from movepages.placement import Options
from movepages.placement.clock import SystemClock, wait
from movepages.placement.rate import Throttle
from movepages.placement.retry import pauses


@pytest.mark.parametrize(
    "bad",
    [
        {"least_batch_pages": 0},
        {"least_batch_pages": 10, "largest_batch_pages": 9},
        {"most_tries": 0},
        {"most_tries": 256},
        {"rate_bytes_per_s": 0.0},
        {"rate_bytes_per_s": float("nan")},
        {"time_limit_s": -1.0},
        {"latency_s": 0.0},
        {"backoff_s": -0.1},
    ],
)
def test_options_that_make_no_sense_are_refused(bad):
    """They are named, before anything moves."""
    with pytest.raises(ArgumentError, match=r"make no sense|must be"):
        Options(**bad)


def test_limits_that_make_sense():
    """The smallest and largest values that are taken."""
    Options(least_batch_pages=1, largest_batch_pages=1, most_tries=1, backoff_s=0.0)
    assert Options(most_tries=255).flags == MoveFlag.MOVE
    assert Options(shared=True).flags == MoveFlag.MOVE_ALL


def test_a_throttle_holds_its_rate():
    """Waits follow from what was moved; time that went by unused is not saved up."""
    throttle = Throttle(100.0, 10.0)
    assert throttle.delay(10.0) == 0
    throttle.moved(50, 10.0)
    assert throttle.delay(10.1) == pytest.approx(0.4)
    throttle.moved(50, 20.0)
    assert throttle.delay(20.0) == pytest.approx(0.5)
    assert Throttle(None, 0.0).delay(0.0) == 0


def test_there_is_one_pause_less_than_tries():
    """A page that may be tried once is not waited for."""
    assert list(pauses(Options(most_tries=1))) == []
    assert list(pauses(Options(most_tries=4, backoff_s=0.03))) == [0.03, 0.06, 0.1]


def test_waiting_ends_when_it_is_time_to_stop():
    """Whoever presses Ctrl-C does not wait for a pause to end."""
    asked = []

    class Still(SystemClock):
        def now(self):
            return 5.0

        def sleep(self, seconds):
            asked.append(seconds)

    wait(Still(), 100.0, lambda: len(asked) == 3)
    assert asked == [0.05] * 3


def test_the_clock_of_this_machine_goes_forward():
    """It never goes back."""
    clock = SystemClock()
    before = clock.now()
    clock.sleep(0.0)
    assert clock.now() >= before

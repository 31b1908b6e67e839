"""What every benchmark shares: interleaved samples, their medians, and bars to hold them against.

A sample is the CPU time of a way of doing the work, user and kernel together, in seconds. Ways that
are compared take turns, A B A B ..., with the garbage collector off, so that what else happens on
the machine happens to all of them.
"""

from __future__ import annotations

import gc
import itertools
import statistics
import time
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    Sample = Callable[[], float]

Name = TypeVar("Name")

FEWEST_ROUNDS = 7
MOST_ROUNDS = 301
BUDGET_SECONDS = 3.0
"""How long a comparison takes, unless the fewest rounds take longer."""

SAMPLE_SECONDS = 0.01
"""How long a sample takes at least. What ran before it has evicted its code from the caches; where
the work is short it is repeated, and all but the first time find it there, as in a loop."""


class LeftOutError(Exception):
    """A benchmark cannot run here; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What could not be measured here, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Timing:
    """The CPU seconds that one way took: the median of its samples, and the quartiles as noise."""

    median_s: float
    lower_quartile_s: float
    upper_quartile_s: float
    samples: int

    @classmethod
    def of(cls, samples: Sequence[float]) -> Timing:
        """Sum up at least two samples."""
        lower, median, upper = statistics.quantiles(samples, n=4, method="inclusive")
        return cls(median, lower, upper, len(samples))


class Measure(Enum):
    """What is looked at; a speed-up is to reach its bar, everything else not to exceed it."""

    RATIO = "ratio_to_peer"
    SPEEDUP = "times_faster_than_peer"
    EXTRA = "extra_us"
    OWN = "own_ms"
    PER_PAGE = "own_ns_per_page"
    COUNT = "count"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the results: a timing, or a count of something, held against a bar.

    `bar` is in the unit of the measure; None where there is none, and the row is for comparison.
    `pages` is how many the work was on.
    """

    name: str
    ours: Timing | int
    measure: Measure
    bar: float | None = None
    peer_name: str = ""
    peer: Timing | None = None
    pages: int = 1

    @property
    def value(self) -> float:
        """The measure, of our median and the peer's. Raises ValueError where a peer is missing."""
        if isinstance(self.ours, int):
            return self.ours
        ours_s = self.ours.median_s
        if self.measure is Measure.OWN:
            return ours_s * 1e3
        if self.measure is Measure.PER_PAGE:
            return ours_s / self.pages * 1e9
        if self.peer is None:
            raise ValueError(f"{self.name}: {self.measure.value} needs a peer")
        if self.measure is Measure.RATIO:
            return ours_s / self.peer.median_s
        if self.measure is Measure.SPEEDUP:
            return self.peer.median_s / ours_s
        return (ours_s - self.peer.median_s) * 1e6

    @property
    def met(self) -> bool | None:
        """Whether the bar is met; None without a bar."""
        if self.bar is None:
            return None
        at_least = self.measure is Measure.SPEEDUP
        return self.value >= self.bar if at_least else self.value <= self.bar


@dataclass(frozen=True, slots=True)
class Benchmark:
    """Measurements that share what is set up for them; all are left out on a LeftOutError."""

    name: str
    rows: Callable[[], Iterable[Row | LeftOut]]


def cpu_time(work: Callable[[], object], calls: int = 1) -> Sample:
    """Return a way to time some work: the calling thread's CPU seconds for one of `calls` calls."""

    def sample() -> float:
        repeated = itertools.repeat(None, calls)
        start = time.thread_time_ns()
        for _ in repeated:
            work()
        return (time.thread_time_ns() - start) / calls / 1e9

    return sample


def both_clocks(work: Callable[[], object], prepare: Callable[[], object]) -> tuple[Sample, Sample]:
    """Return two ways to time the same runs of some work, to be compared in this order.

    The first prepares and then does it, for the CPU time; the second tells what the wall clock said
    of the same run. Neither times the preparation.
    """
    wall_s = 0.0
    timed = cpu_time(work)

    def cpu() -> float:
        nonlocal wall_s
        prepare()
        start = time.perf_counter()
        took_s = timed()
        wall_s = time.perf_counter() - start
        return took_s

    return cpu, lambda: wall_s


def calls_a_sample(work: Callable[[], object]) -> int:
    """Return how often to do some work for a sample; it is done twice to find out."""
    work()
    took_s = cpu_time(work)()
    return max(1, round(SAMPLE_SECONDS / took_s)) if took_s > 0 else 1


def compare(ways: Mapping[Name, Sample], budget_s: float = BUDGET_SECONDS) -> dict[Name, Timing]:
    """Let the ways take turns, always in the same order, and sum each up.

    The first round is for warming up, and tells how many rounds fit into the budget.
    """
    with _no_garbage_collection():
        start = time.perf_counter()
        for sample in ways.values():
            sample()
        rounds = rounds_within(budget_s, time.perf_counter() - start)
        samples: dict[Name, list[float]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, sample in ways.items():
                samples[name].append(sample())
    return {name: Timing.of(taken) for name, taken in samples.items()}


def rounds_within(budget_s: float, round_s: float) -> int:
    """Return how many rounds fit into the budget, but not too few and not too many."""
    fitting = int(budget_s / round_s) if round_s > 0 else MOST_ROUNDS
    return min(max(fitting, FEWEST_ROUNDS), MOST_ROUNDS)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()

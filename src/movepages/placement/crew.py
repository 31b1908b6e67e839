"""How many workers carry out a plan: more as long as that is faster, which is measured.

More CPUs copy more pages in the same time only where one cannot saturate the way between two nodes,
and where the kernel's locks and the other work on the machine let them. No rule tells; so parts of
the plan itself are done by so many workers and by twice as many, in turns.
"""

from __future__ import annotations

from movepages.errors import ArgumentError

_TURN_S = 0.1
_PAIRS = 5
_WINS = 4
"""Of so many pairs of turns, one after the other, more workers must be clearly faster in these."""
_CLEARLY = 1.15
"""What is called that, in bytes a second: less may be chance, and costs twice the CPU time."""


class Crew:
    """So many workers, or more, up to `most`, as far as more are faster."""

    def __init__(self, workers: int, most: int | None = None) -> None:
        """Begin with a number of workers; without `most` it stays. Raises ArgumentError."""
        self._most = workers if most is None else most
        if not 0 < workers <= self._most:
            raise ArgumentError(
                f"{workers} to {self._most} workers make no sense; the first must be at least 1, "
                "and the second no less"
            )
        self._compare(workers, min(2 * workers, self._most))

    def _compare(self, few: int, many: int) -> None:
        self._few, self._many = few, many
        self._pairs = self._wins = 0
        self._rate_of_few: float | None = None
        """What the few have reached in this pair, in bytes a second, if they had their turn."""

    @property
    def settled(self) -> bool:
        """Whether there is nothing left to compare."""
        return self._few == self._many

    @property
    def workers(self) -> int:
        """How many are to work in the next turn."""
        return self._few if self._rate_of_few is None else self._many

    @property
    def turn_s(self) -> float:
        """How long the next turn lasts, in seconds."""
        return float("inf") if self.settled else _TURN_S

    def learn(self, moved_bytes: int, seconds: float) -> None:
        """Take note of what was moved in a turn."""
        if self.settled:
            return
        rate = moved_bytes / seconds if seconds > 0 else 0.0
        if self._rate_of_few is None:
            self._rate_of_few = rate
            return
        self._pairs += 1
        self._wins += rate > 0 and rate >= _CLEARLY * self._rate_of_few
        self._rate_of_few = None
        if self._wins == _WINS:
            self._compare(self._many, min(2 * self._many, self._most))
        elif self._pairs - self._wins > _PAIRS - _WINS:
            self._compare(self._few, self._few)

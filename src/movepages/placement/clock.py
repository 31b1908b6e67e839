"""Time as the mover sees it. Tests hand it a clock of their own, which waits for nobody."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

_PATIENCE_S = 0.05


class Clock(Protocol):
    """What tells the time, and waits."""

    def now(self) -> float:
        """Return the time in seconds, from any beginning on; it never goes back."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait for so many seconds."""
        ...


class SystemClock:
    """The clock of this machine."""

    def now(self) -> float:
        """Return the time in seconds since some moment."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait for so many seconds."""
        time.sleep(seconds)


def wait(clock: Clock, seconds: float, stop: Callable[[], bool]) -> None:
    """Wait for so many seconds, or until it is time to stop."""
    end = clock.now() + seconds
    while not stop() and (left := end - clock.now()) > 0:
        clock.sleep(min(left, _PATIENCE_S))

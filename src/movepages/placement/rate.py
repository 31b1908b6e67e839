"""Hold a rate: no more bytes than so many a second."""

from __future__ import annotations


class Throttle:
    """Tells how long to wait before the next call. All times are those of one clock, in seconds."""

    def __init__(self, bytes_per_s: float | None, now: float) -> None:
        """Start counting; None is no limit."""
        self._bytes_per_s = bytes_per_s
        self._free_at = now

    def moved(self, size_bytes: int, began: float) -> None:
        """Take note of a call that moved so much. Time that went by unused is not saved up."""
        if self._bytes_per_s is not None:
            self._free_at = max(self._free_at, began) + size_bytes / self._bytes_per_s

    def delay(self, now: float) -> float:
        """Return how many seconds to wait."""
        return max(0.0, self._free_at - now)

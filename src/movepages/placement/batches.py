"""How many pages to give to a call: as many as it moves within the time that it may take.

A call holds up its target for as long as it lasts, and costs 5 to 50 microseconds before the first
page. So calls are as long as the latency budget lets them be, found out from those before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from movepages.placement.options import Options

_FIRST_PAGES = 4096
_TICK_S = 1e-9
_STEP = 4
"""A batch is at most so many times larger or smaller than the one before."""
_RATE_WINDOW_S = 0.1
"""Under a limit of rate, a call moves no more than may be moved in this time, or the least."""


class BatchSizer:
    """The size of the next batch, in base pages."""

    def __init__(self, options: Options, page_size_bytes: int) -> None:
        """Begin with a batch of a moderate size."""
        self._least = options.least_batch_pages
        self._largest = options.largest_batch_pages
        if options.rate_bytes_per_s is not None:
            in_window = int(options.rate_bytes_per_s * _RATE_WINDOW_S / page_size_bytes)
            self._largest = max(self._least, min(self._largest, in_window))
        self._latency_s = options.latency_s
        self._pages = min(max(_FIRST_PAGES, self._least), self._largest)
        self._cap = self._largest
        """At most so many for now, for calls stop early: see `stopped`."""

    @property
    def pages(self) -> int:
        """How many base pages the next call should have at most."""
        return min(self._pages, self._cap)

    def took(self, pages: int, seconds: float) -> None:
        """Learn from a call that went through to its end."""
        self._cap = min(self._cap * 2, self._largest)
        if pages < min(self._pages, self._least):
            return  # too few to tell: what a call costs before its first page is most of it
        wanted = int(pages * self._latency_s / max(seconds, _TICK_S))
        wanted = min(max(wanted, self._pages // _STEP), self._pages * _STEP)
        self._pages = min(max(wanted, self._least), self._largest)

    def stopped(self, pages: int) -> None:
        """Learn that a call went no further than so many pages.

        The next should not ask for far more, or pages behind would be copied in again and again.
        """
        self._cap = max(1, min(self._cap, 2 * pages))

    def shrink(self) -> None:
        """Learn that the kernel takes no call of this size (-E2BIG, or no memory for its array)."""
        self._largest = self._pages = self._cap = max(1, self.pages // 2)
        self._least = min(self._least, self._largest)

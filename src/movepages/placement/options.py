"""How a plan is to be carried out."""

from __future__ import annotations

from dataclasses import dataclass

from movepages.abi import MoveFlag
from movepages.errors import ArgumentError

LEAST_BATCH_PAGES = 256
LARGEST_BATCH_PAGES = 65_536


@dataclass(frozen=True, slots=True)
class Options:
    """How `execute` goes about a plan. Pages are base pages here: a huge page counts as many.

    A page is asked for in at most `most_tries` calls; between those the mover waits `backoff_s`,
    and each time twice as long. Raises ArgumentError for what makes no sense.
    """

    shared: bool = False
    """Move pages that other processes map, too (MPOL_MF_MOVE_ALL)."""
    spill: bool = False
    """Where a node is full, go on with the nearest one that has room."""
    verify: bool = False
    """Ask at the end where all pages are."""
    rate_bytes_per_s: float | None = None
    time_limit_s: float | None = None
    """Begin no call after so many seconds."""
    latency_s: float = 0.020
    """How long a call should take at most: meanwhile a thread that faults on its pages waits."""
    least_batch_pages: int = LEAST_BATCH_PAGES
    largest_batch_pages: int = LARGEST_BATCH_PAGES
    most_tries: int = 5
    backoff_s: float = 0.002

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        if not 0 < self.least_batch_pages <= self.largest_batch_pages:
            raise ArgumentError(
                f"batches of {self.least_batch_pages} to {self.largest_batch_pages} pages make no "
                "sense; the first must be at least 1, and the second no less"
            )
        if not 0 < self.most_tries < 1 << 8:
            raise ArgumentError(f"{self.most_tries} tries make no sense; give 1 to 255")
        for name in ("rate_bytes_per_s", "time_limit_s", "latency_s"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ArgumentError(f"{name} must be more than 0, not {value}")
        if not self.backoff_s >= 0:
            raise ArgumentError(f"backoff_s must be 0 or more, not {self.backoff_s}")

    @property
    def flags(self) -> MoveFlag:
        """The flags of move_pages(2)."""
        return MoveFlag.MOVE_ALL if self.shared else MoveFlag.MOVE

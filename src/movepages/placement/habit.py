"""When to follow: only what has lasted, for pages cost more to move than threads.

A process follows its threads only to nodes where they have been in several looks in a row, so that
threads that hop to and fro take no memory with them.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from movepages.errors import ArgumentError
from movepages.placement.running import Running


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to look on before pages follow threads. Raises ArgumentError for nonsense."""

    every_s: float = 1.0
    """Seconds between two looks at the threads."""
    samples: int = 3
    """So many looks in a row have to find the threads on the same nodes."""
    least_share: float = 0.8
    """In each of those looks, at least this much of the running was on those nodes together."""
    pause_s: float = 10.0
    """At least so many seconds between the end of a move of a process and its next."""
    least_gain_bytes: int = 1 << 20
    """What a move must gain: bytes times distance saved, in local distances (`saved_distance`)."""

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        if not self.every_s > 0:
            raise ArgumentError(f"every_s must be more than 0, not {self.every_s}")
        if self.samples < 1:
            raise ArgumentError(f"{self.samples} samples make no sense; give 1 or more")
        if not 0 < self.least_share <= 1:
            raise ArgumentError(
                f"a least share of {self.least_share} makes no sense; give more than 0, up to 1"
            )
        if not (self.pause_s >= 0 and self.least_gain_bytes >= 0):
            raise ArgumentError("a pause and a gain must be 0 or more")


class Habit:
    """Where a process has run in the last looks at it."""

    def __init__(self, patience: Patience) -> None:
        """Begin with a process of which nothing is known."""
        self._least_share = patience.least_share
        self._samples: deque[Running] = deque(maxlen=patience.samples)

    def note(self, running: Running) -> None:
        """Take note of a look. One that found no running tells nothing, for or against."""
        if running.ran and running.share:
            self._samples.append(running)

    def settled(self) -> Running | None:
        """Return where the process runs, None while that is not the same from look to look.

        Those are the nodes that counted (`Running.main_nodes`) in every one of the last looks; and
        in each look nearly all of the running, as `least_share` says, was on those together.
        """
        samples = self._samples
        if len(samples) < (samples.maxlen or 0):
            return None
        nodes = set.intersection(*(set(sample.main_nodes()) for sample in samples))
        parts = [{node: sample.share[node] for node in sorted(nodes)} for sample in samples]
        if min(sum(part.values()) for part in parts) < self._least_share:
            return None
        sums = {node: sum(part[node] for part in parts) for node in parts[0]}
        whole = sum(sums.values())
        return Running({node: share / whole for node, share in sums.items()}, ran=True)

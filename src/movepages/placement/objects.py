"""The memory of files and segments: where it is, and how it is moved, by way of a mapping of it.

The kernel tells of, and moves, only pages that a process has mapped. So an object is mapped and
handled window by window: what is mapped at a time stays small, however large the object is.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from movepages.placement.account import untouched
from movepages.placement.clock import Clock, SystemClock
from movepages.placement.mover import Progress, execute
from movepages.placement.planning import in_turn, make_plan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from contextlib import AbstractContextManager

    from movepages.errors import CallError
    from movepages.machine import Machine
    from movepages.placement.options import Options
    from movepages.values import Ledger, Placement, Plan


class Memory(Protocol):
    """An object whose pages this process can map: `linux.object_memory` has files and segments."""

    def windows(self) -> Iterable[tuple[int, int]]:
        """Go through its parts as (offset, end), in rising order."""
        ...

    def mapped(self, offset: int, end: int) -> AbstractContextManager[tuple[int, int] | None]:
        """Map the pages of a part that are in memory while the block lasts.

        The block gets the addresses from start to end, or None where no page is in memory.
        """
        ...


@dataclass(frozen=True, slots=True)
class Sums:
    """What became of the pages of an object, by the ledgers of its windows; a huge page is one.

    `planned` has pages and bytes by source and target node. Windows that the work did not come to
    are not in it: `ended` says why, in a ledger's words.
    """

    asked: int = 0
    moved_pages: int = 0
    moved_bytes: int = 0
    already_there: int = 0
    already_there_bytes: int = 0
    untried_pages: int = 0
    spilled_pages: int = 0
    calls: int = 0
    seconds: float = 0.0
    failures: Mapping[int, int] = field(default_factory=dict)
    strays: Mapping[int, int] = field(default_factory=dict)
    planned: Mapping[tuple[int, int], tuple[int, int]] = field(default_factory=dict)
    ended: str = "done"
    error: CallError | None = None
    verified: bool = False

    @property
    def complete(self) -> bool:
        """Whether every page came to its node."""
        return self.ended == "done" and not self.failures and not self.untried_pages

    def failed(self) -> dict[int, int]:
        """Count the pages that were tried and did not come to their node, by status."""
        return dict(self.failures)

    def strayed(self) -> dict[int, int]:
        """Count the pages that came to their node and are elsewhere now, by node or status."""
        return dict(self.strays)

    def plus(self, ledger: Ledger) -> Sums:
        """Return the sums with another window."""
        return Sums(
            asked=self.asked + ledger.asked,
            moved_pages=self.moved_pages + ledger.moved_pages,
            moved_bytes=self.moved_bytes + ledger.moved_bytes,
            already_there=self.already_there + ledger.already_there,
            already_there_bytes=self.already_there_bytes + ledger.plan.there_bytes,
            untried_pages=self.untried_pages + ledger.untried_pages,
            spilled_pages=self.spilled_pages + ledger.spilled_pages,
            calls=self.calls + ledger.calls,
            seconds=self.seconds + ledger.seconds,
            failures=Counter(self.failures) + Counter(ledger.failed()),
            strays=Counter(self.strays) + Counter(ledger.strayed()),
            planned=_joined(self.planned, _planned(ledger.plan)),
            ended=ledger.ended,
            error=self.error or ledger.error,
            verified=ledger.verified and (self.verified or not self.asked),
        )


def bytes_by_node(machine: Machine, memory: Memory) -> dict[int, int]:
    """Return how much of an object is on each node. Raises CallError."""
    found: Counter[int] = Counter()
    for window in memory.windows():
        with memory.mapped(*window) as span:
            if span:
                found.update(machine.locate(0, [span]).bytes_by_node)
    return dict(sorted(found.items()))


def bytes_to_come(now: Mapping[int, int], to: Iterable[int]) -> dict[int, int]:
    """Return how many bytes come to each node where pages go to nodes by turns."""
    nodes = sorted(set(to))
    share = -(-sum(now.values()) // len(nodes))
    coming = {node: share - now.get(node, 0) for node in nodes}
    return {node: size_bytes for node, size_bytes in coming.items() if size_bytes > 0}


class ObjectMover:
    """Moves objects to nodes, by turns where there are several, one object after the other.

    Limits of time and of pages are for all of them together. `ended` says why the work is over:
    `done` while it is not.
    """

    def __init__(
        self,
        machine: Machine,
        to: Iterable[int],
        options: Options,
        *,
        max_pages: int | None = None,
        total_bytes: int = 0,
        clock: Clock | None = None,
        stop: Callable[[], bool] | None = None,
        progress: Callable[[Progress], None] | None = None,
        mover: Callable[..., Ledger] = execute,
    ) -> None:
        """Take `total_bytes` to be what is to move in all, for the progress that is told."""
        self.ended = "done"
        self._machine, self._to, self._options = machine, sorted(set(to)), options
        self._task = machine.task(0).id
        self._pages_left = max_pages
        self._total_bytes = total_bytes
        self._clock = clock or SystemClock()
        self._began = self._clock.now()
        self._stop, self._progress = stop or _never, progress
        self._mover = mover
        self._done_pages = self._done_bytes = self._moved_bytes = 0

    def plan(self, memory: Memory) -> Sums:
        """Return what would be moved; nothing is tried. Raises CallError."""
        return self._each_window(memory, lambda plan: untouched(plan, "done"))

    def move(self, memory: Memory) -> Sums:
        """Move what is in memory of an object, and return what became of it. Raises CallError."""
        return self._each_window(memory, self._carry_out)

    def _each_window(self, memory: Memory, carry_out: Callable[[Plan], Ledger]) -> Sums:
        sums = Sums()
        for window in memory.windows():
            if self.ended == "done" and self._stop():
                self.ended = "interrupted"
            if self.ended != "done" or self._pages_left == 0:
                break
            with memory.mapped(*window) as span:
                if not span:
                    continue
                ledger = carry_out(self._limited(self._machine.locate(0, [span])))
            sums = sums.plus(ledger)
            self.ended = sums.ended
        return replace(sums, ended=self.ended)

    def _limited(self, placement: Placement) -> Plan:
        """Plan for a window, for no more pages than are allowed."""
        runs, targets = in_turn(placement, self._to)
        plan = make_plan(self._task, runs, targets, reasons=("asked for",))
        if self._pages_left is None:
            return plan
        plan = plan.first(self._pages_left)
        self._pages_left -= plan.page_count
        return plan

    def _carry_out(self, plan: Plan) -> Ledger:
        options, limit = self._options, self._options.time_limit_s
        if limit is not None:
            left = self._began + limit - self._clock.now()
            if left <= 0:
                return untouched(plan, "time limit")
            options = replace(options, time_limit_s=left)
        ledger = self._mover(
            plan,
            self._machine,
            options,
            clock=self._clock,
            stop=self._stop,
            progress=self._tell,
        )
        self._done_pages += plan.page_count
        self._done_bytes += plan.total_bytes
        self._moved_bytes += ledger.moved_bytes
        return ledger

    def _tell(self, window: Progress) -> None:
        """Tell how far all of the work has come, when a window has come on."""
        if self._progress is None:
            return
        size_bytes = self._done_bytes + window.size_bytes
        total_bytes = max(self._total_bytes, size_bytes)
        self._progress(
            Progress(
                self._done_pages + window.pages,
                max(total_bytes // self._machine.page_size_bytes, self._done_pages + window.pages),
                size_bytes,
                total_bytes,
                self._moved_bytes + window.moved_bytes,
                self._clock.now() - self._began,
            )
        )


def _never() -> bool:
    return False


def _planned(plan: Plan) -> dict[tuple[int, int], tuple[int, int]]:
    sizes = plan.pages * plan.page_size_bytes
    found = {}
    for source, target in {*zip(plan.from_node.tolist(), plan.to_node.tolist(), strict=True)}:
        alike = (plan.from_node == source) & (plan.to_node == target)
        found[source, target] = (int(np.sum(plan.pages[alike])), int(np.sum(sizes[alike])))
    return found


def _joined(
    one: Mapping[tuple[int, int], tuple[int, int]], other: Mapping[tuple[int, int], tuple[int, int]]
) -> dict[tuple[int, int], tuple[int, int]]:
    return {
        way: (
            one.get(way, (0, 0))[0] + other.get(way, (0, 0))[0],
            one.get(way, (0, 0))[1] + other.get(way, (0, 0))[1],
        )
        for way in sorted({*one, *other})
    }

"""Carry out a plan, batch by batch, so that every page of it is accounted for.

The pages go in the plan's order, by target node. A call that fails is looked into (`attempt`); the
pages that it could not move are set aside, and those behind them go on at once, so that one pinned
page holds up nobody. What was set aside is tried again when all others are done, a few times, with
longer and longer pauses. A full node is told from a single failing allocation by asking for one
page alone; then its other pages are given up, or sent to the next node.
"""

from __future__ import annotations

from collections import deque
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from movepages.abi import UNWRITTEN, Errno
from movepages.errors import CallError
from movepages.placement.account import Account
from movepages.placement.attempt import Attempt, HeldProcess, attempt
from movepages.placement.batches import BatchSizer
from movepages.placement.clock import Clock, SystemClock, wait
from movepages.placement.options import Options
from movepages.placement.rate import Throttle
from movepages.placement.retry import pauses
from movepages.placement.rows import RowIndex, chosen, count, part
from movepages.placement.spill import Spill

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from movepages.machine import Machine
    from movepages.placement.rows import Rows
    from movepages.values import Ledger, Plan

_REFUSED_NODE = {Errno.ENODEV, Errno.EACCES}
"""A call that ends so says something of its node, and nothing of the others."""
_VERIFY_PAGES = 1 << 16


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the work has come, after a call: pages and bytes tried, of all; seconds so far.

    `moved_bytes` are those that came to their node: what stays is no part of a rate.
    """

    pages: int
    total_pages: int
    size_bytes: int
    total_bytes: int
    moved_bytes: int
    seconds: float


class EndedError(Exception):
    """The work ends before its time; the word says why, as in the ledger."""


def execute(
    plan: Plan,
    machine: Machine,
    options: Options | None = None,
    *,
    clock: Clock | None = None,
    stop: Callable[[], bool] | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Ledger:
    """Move the pages of a plan, and return the account of all of them.

    `stop` is asked before each call whether to end; a KeyboardInterrupt ends the work after the
    call in flight, too, and leaves the account exact. What the kernel refuses stands in the ledger;
    raises NoSuchProcessError only where the process had ended, or its pid was another's, before.
    """
    with HeldProcess(machine, plan.task) as process:
        work = Work(plan, machine, process, options or Options(), clock or SystemClock())
        work.stop, work.progress = stop or _never, progress or _unheard
        return work.run()


def _never() -> bool:
    return False


def _unheard(_progress: Progress) -> None:
    pass


class Work:
    """One plan being carried out, by one worker; `parallel` has several."""

    def __init__(
        self,
        plan: Plan,
        machine: Machine,
        process: HeldProcess,
        options: Options,
        clock: Clock,
    ) -> None:
        """Begin with nothing tried."""
        self.plan, self.options, self.clock, self.process = plan, options, clock, process
        self.page_size_bytes = machine.page_size_bytes
        self.index = RowIndex(plan.page_runs())
        self.account = Account(plan)
        self.sizer = BatchSizer(options, self.page_size_bytes)
        self.spill = Spill(machine, plan.task) if options.spill else None
        self.stop: Callable[[], bool] = _never
        self.progress: Callable[[Progress], None] = _unheard
        self.began = clock.now()
        self.throttle = Throttle(options.rate_bytes_per_s, self.began)
        self.queue: deque[tuple[int, Rows]] = deque(_by_target(plan))
        self.refused: set[int] = set()
        self.full: dict[int, int] = {}
        """For each node that is full, the smallest page that found no room there, in bytes."""
        self.error: CallError | None = None
        self.in_flight: Rows | None = None
        self.tried_pages = self.tried_bytes = self.moved_bytes = 0
        self.total_bytes = plan.total_bytes

    def run(self) -> Ledger:
        """Do it all."""
        ended = "done"
        try:
            self._move_all()
            self._try_again()
            if self.options.verify:
                self._verify()
        except EndedError as early:
            ended = str(early)
        except KeyboardInterrupt:
            ended = "interrupted"
            self._look_after_interrupt()
        return self.account.close(
            calls=self.process.calls,
            seconds=self.clock.now() - self.began,
            ended=ended,
            error=self.error,
        )

    def _move_all(self) -> None:
        """Try every page once, and those of a full node where they spill to."""
        while self.queue:
            node, rows = self.queue.popleft()
            self._fill(node, rows, counted=True)

    def _try_again(self) -> None:
        """Try again what was set aside."""
        for pause in pauses(self.options) if self.account.troubled else ():
            rows = self.account.passing(self.options.most_tries)
            to = self.account.to[rows]
            targets = [node for node in np.unique(to).tolist() if not self._closed(node)]
            if not targets:
                return
            wait(self.clock, pause, self.stop)
            for node in targets:
                self._fill(node, rows[to == node], counted=False)
            self._move_all()

    def _fill(self, node: int, rows: Rows, *, counted: bool) -> None:
        """Move pages to their node; what is left on the stack when that is closed stays."""
        stack = [rows]
        while stack and not self._closed(node):
            rows = stack.pop()
            if not count(rows):
                continue
            self._wait_for_turn()
            batch, rest = self._cut(rows)
            stack.append(rest)
            made = self._call(node, batch)
            if counted:
                self._tell(part(batch, 0, made.reached))
            if made.error is None:
                if made.reached < count(batch):
                    stack.append(part(batch, made.reached, count(batch)))
                    self.sizer.stopped(made.reached)
                continue
            self._face(made, node, batch, stack)

    def _cut(self, rows: Rows) -> tuple[Rows, Rows]:
        """Return what the next call should have of some rows, and the rest."""
        size = self.index.fitting(rows, self.sizer.pages * self.page_size_bytes)
        size = min(size, count(rows))
        return part(rows, 0, size), part(rows, size, count(rows))

    def _closed(self, node: int) -> bool:
        """Tell whether no page at all can go to a node."""
        return node in self.refused or self.full.get(node, 1 << 63) <= self.page_size_bytes

    def _call(self, node: int, batch: Rows) -> Attempt:
        """Make one call, and write down what came of it."""
        self.in_flight = batch
        addresses = self.index.addresses(batch)
        size_bytes = self.index.total_bytes(batch)
        before = self.clock.now()
        self.throttle.moved(size_bytes, before)
        with self._away():
            last_parts = partial(self.index.last_parts, batch, self.page_size_bytes)
            made = attempt(self.process, addresses, node, self.options.flags, last_parts)
            after = self.clock.now()
        self.account.record(batch, made)
        self.in_flight = None
        arrived = made.answer == node
        self.moved_bytes += (
            size_bytes if arrived.all() else self.index.total_bytes(chosen(batch, arrived))
        )
        if made.error is None and made.reached == count(batch):
            self.sizer.took(size_bytes // self.page_size_bytes, after - before)
        return made

    def _away(self) -> AbstractContextManager[object]:
        """Return what goes around a call of the kernel: nothing, where one worker is all."""
        return nullcontext()

    def _face(self, made: Attempt, node: int, batch: Rows, stack: list[Rows]) -> None:
        """Decide what an error of a call means for the pages that are still to move."""
        errno = made.error.errno if made.error else 0
        if errno == Errno.ENOMEM:
            self._face_no_memory(made, node, batch, stack)
        elif errno == Errno.E2BIG and count(batch) > 1:
            self.sizer.shrink()
            stack.append(batch)
        elif errno in _REFUSED_NODE:
            self.refused.add(node)
            self.error = self.error or made.error
        elif errno != Errno.ENOENT:  # that: before 2.6.28, where no page of a call needs to move
            self.error = self.error or made.error
            raise EndedError("error")

    def _face_no_memory(self, made: Attempt, node: int, batch: Rows, stack: list[Rows]) -> None:
        """Try again what a failed allocation kept from moving, one page alone if nothing moved."""
        left = chosen(batch, made.answer == UNWRITTEN)
        if count(batch) == 1:
            if len(left):
                self._close(node, left, stack)
            return
        again = self.account.tries[left] < self.options.most_tries
        self.account.no_memory(left[~again])
        stack.append(left[again])
        self.sizer.stopped(int((made.answer == node).sum()))

    def _close(self, node: int, page: NDArray[np.int64], stack: list[Rows]) -> None:
        """Give up a node that has no room for a page, for all pages that are no smaller."""
        size_bytes = int(self.index.sizes(page)[0])
        homeless, smaller = [page], []
        for rows in stack:
            too_large = self.index.sizes(rows) >= size_bytes
            homeless.append(chosen(rows, too_large))
            smaller.append(chosen(rows, ~too_large))
        stack[:] = smaller
        self.full[node] = min(size_bytes, self.full.get(node, size_bytes))
        self._give_up(node, np.concatenate(homeless), size_bytes)

    def _give_up(self, node: int, rows: NDArray[np.int64], size_bytes: int) -> None:
        """Note that pages find no room; if they may spill, send them to the nearest node with."""
        self.account.no_memory(rows)
        if self.spill is None:
            return
        try:
            full = {other for other, size in self.full.items() if size <= size_bytes}
            other = self.spill.next_node(node, full | self.refused, size_bytes)
        except CallError as error:
            self.error = self.error or error
            raise EndedError("error") from None
        if other is None:
            return
        rows = rows[self.account.tries[rows] < self.options.most_tries]
        rows = rows[self.account.origins(rows) != other]  # what is there already stays, not moved
        self.account.redirect(rows, other)
        self.queue.append((other, rows))

    def _wait_for_turn(self) -> None:
        """Wait until the rate allows a call, and see whether there is to be another."""
        delay = self.throttle.delay(self.clock.now())
        limit = self.options.time_limit_s
        if limit is not None:
            delay = min(delay, max(0.0, self.began + limit - self.clock.now()))
        if delay:
            wait(self.clock, delay, self.stop)
        if self.stop():
            raise EndedError("interrupted")
        if limit is not None and self.clock.now() - self.began >= limit:
            raise EndedError("time limit")

    def _tell(self, rows: Rows) -> None:
        self.tried_pages = min(self.tried_pages + count(rows), len(self.account.to))
        self.tried_bytes = min(self.tried_bytes + self.index.total_bytes(rows), self.total_bytes)
        seconds = self.clock.now() - self.began
        self.progress(
            Progress(
                self.tried_pages,
                len(self.account.to),
                self.tried_bytes,
                self.total_bytes,
                self.moved_bytes,
                seconds,
            )
        )

    def _verify(self) -> None:
        """Ask where all pages are now. A page that arrived and has left again is found here."""
        for first in range(0, len(self.account.to), _VERIFY_PAGES):
            rows = slice(first, min(first + _VERIFY_PAGES, len(self.account.to)))
            try:
                last_parts = self.index.last_parts(rows, self.page_size_bytes)
                self.account.now[rows] = self.process.query(last_parts)
            except CallError as error:
                self.error = self.error or error
                raise EndedError("error") from None
        self.account.verified = True

    def _look_after_interrupt(self) -> None:
        """Find out what became of the pages of the call that was interrupted."""
        rows = self.in_flight
        if rows is None:
            return
        try:
            now = self.process.query(self.index.last_parts(rows, self.page_size_bytes))
        except CallError as error:
            self.error = self.error or error
            return
        answer = np.where(now == self.account.to[rows], now, UNWRITTEN)
        self.account.record(rows, Attempt(answer, now, count(rows)))


def _by_target(plan: Plan) -> Iterator[tuple[int, Rows]]:
    """Yield each target node with its rows; a plan is sorted by target."""
    if not len(plan):
        return
    targets, first = np.unique(plan.to_node, return_index=True)
    ends = np.append(0, np.cumsum(plan.pages))
    lows, highs = ends[first], np.append(ends[first[1:]], ends[-1])
    for node, low, high in zip(targets.tolist(), lows.tolist(), highs.tolist(), strict=True):
        yield node, slice(low, high)

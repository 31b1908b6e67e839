"""Carry out a plan with several workers, each with a call of its own in the kernel.

There is one queue, one account and one limit of rate, as for one worker, and all that the workers
do to them is done by one at a time: a lock is let go only around the calls. So whatever holds for
one worker holds for several, and the account needs no joining. A worker takes the next batch of the
queue, as large as calls have shown that it should be: nobody has a share of the plan that keeps the
others waiting at the end. What was set aside is tried again by one, for those are few pages.
"""

from __future__ import annotations

from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from movepages.abi import UNWRITTEN
from movepages.placement.attempt import HeldProcess
from movepages.placement.clock import Clock, SystemClock
from movepages.placement.mover import Work
from movepages.placement.options import Options
from movepages.placement.rows import count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from movepages.machine import Machine
    from movepages.placement.crew import Crew
    from movepages.placement.mover import Progress
    from movepages.placement.rows import Rows
    from movepages.values import Ledger, Plan


def execute_in_parallel(
    plan: Plan,
    machine: Machine,
    options: Options | None = None,
    *,
    crew: Crew,
    clock: Clock | None = None,
    stop: Callable[[], bool] | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Ledger:
    """Do what `execute` does, with as many workers as a crew finds to be of use.

    Several threads call the machine at the same time: LinuxMachine bears that, SimulatedMachine
    does not. `stop` and `progress` are called by one thread at a time, which may be any. After a
    KeyboardInterrupt or an error every worker ends after its call in flight.
    """
    with HeldProcess(machine, plan.task) as process:
        work = _Shared(plan, machine, process, options or Options(), clock or SystemClock(), crew)
        work.stop = lambda: work.halted or (stop is not None and stop())
        work.progress = progress or work.progress
        return work.run()


class _Shared(Work):
    """A plan that several workers carry out. Whoever touches it holds its lock."""

    def __init__(
        self,
        plan: Plan,
        machine: Machine,
        process: HeldProcess,
        options: Options,
        clock: Clock,
        crew: Crew,
    ) -> None:
        super().__init__(plan, machine, process, options, clock)
        self.crew = crew
        self.halted = False
        """Whether no worker is to begin another call."""
        self._lock = Lock()

    def run(self) -> Ledger:
        """Do it all."""
        with self._lock:
            return super().run()

    @contextmanager
    def _away(self) -> Iterator[None]:
        """Let others work meanwhile."""
        self._lock.release()
        try:
            yield
        finally:
            self._lock.acquire()

    def _move_all(self) -> None:
        """Try every page once, and those of a full node where they spill to."""
        while self.queue:
            while self.queue:
                self._take_a_turn()
            self._give_up_all()

    def _take_a_turn(self) -> None:
        """Let the crew work until its turn is over, or the queue is empty."""
        began, moved_bytes = self.clock.now(), self.moved_bytes
        with self._away():
            self._work_until(began + self.crew.turn_s)
        self.crew.learn(self.moved_bytes - moved_bytes, self.clock.now() - began)

    def _work_until(self, end: float) -> None:
        """Run the workers, and wait for all of them. Raises what ended the first one early."""
        # what this imports costs 10 ms, which a command without workers need not pay
        from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

        with ThreadPoolExecutor(self.crew.workers) as pool:
            workers = [pool.submit(self._take_batches, end) for _ in range(self.crew.workers)]
            try:
                ended = wait(workers, return_when=FIRST_EXCEPTION).done
            finally:
                self.halted = True
        for worker in ended:
            worker.result()
        self.halted = False

    def _take_batches(self, end: float) -> None:
        """Carry out one batch after the other."""
        with self._lock:
            while self.queue and self.clock.now() < end:
                self._fill(*self._next_batch(), counted=True)

    def _next_batch(self) -> tuple[int, Rows]:
        """Take pages for a call out of the queue, and leave the rest to whoever comes next."""
        node, rows = self.queue.popleft()
        batch, rest = self._cut(rows)
        if count(rest):
            self.queue.appendleft((node, rest))
        return node, batch

    def _give_up_all(self) -> None:
        """Give up what is left of nodes that one worker found full while others filled them."""
        for node, size_bytes in [*self.full.items()]:
            left = (self.account.to == node) & (self.account.answer == UNWRITTEN)
            rows = np.flatnonzero(left)
            rows = rows[self.index.sizes(rows) >= size_bytes]
            if len(rows):
                self._give_up(node, rows, size_bytes)

"""Keep the pages of processes near to their threads: look, wait, and move what is worth it.

    for followed in keep_near(machine, tasks, select.everything(), carry_out):
        print(followed.ledger.moved_pages)

Each process is judged for itself (`habit`), and no more is moved than gains enough. What could not
be moved is not tried again and again: a later move must gain as much beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from movepages.errors import NoSuchProcessError
from movepages.placement.clock import SystemClock, wait
from movepages.placement.follow import NEAR_DISTANCE, plan_follow, saved_distance
from movepages.placement.habit import Habit, Patience
from movepages.placement.running import running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from movepages.machine import Hold, Machine
    from movepages.placement.clock import Clock
    from movepages.placement.running import Running
    from movepages.placement.select import Selection
    from movepages.values import Ledger, Plan, TaskInfo, ThreadInfo

    CarryOut = Callable[[Plan], Ledger]


@dataclass(frozen=True, slots=True)
class Followed:
    """A move: of whom, how many seconds after the beginning it ended, why, and what it did."""

    task: TaskInfo
    seconds: float
    running: Running
    ledger: Ledger


@dataclass(frozen=True, slots=True)
class Ended:
    """A process has ended, and so has following it: whose, how many seconds after the beginning."""

    task: TaskInfo
    seconds: float


def keep_near(
    machine: Machine,
    tasks: Sequence[TaskInfo],
    selection: Selection,
    carry_out: CarryOut,
    patience: Patience | None = None,
    *,
    near_distance: int = NEAR_DISTANCE,
    clock: Clock | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Followed | Ended]:
    """Look at processes again and again; yield each move that was made, and who has ended.

    `carry_out` makes a ledger of a plan, as `execute` does. It ends when `stop` says so, which is
    asked before each look, or when no process is left; one whose move met an error is followed no
    more. Raises NotPermittedError where the memory of a process may not be looked at.
    """
    patience, clock = patience or Patience(), clock or SystemClock()
    everyone = [_Follower(machine, task, selection, patience, near_distance) for task in tasks]
    followers, begin, times = everyone, clock.now(), 0
    try:
        while not stop():
            for follower in followers:
                made = follower.look(clock, carry_out)
                if made:
                    yield Followed(follower.task, clock.now() - begin, *made)
                if follower.ended:
                    yield Ended(follower.task, clock.now() - begin)
                if stop():
                    return
            followers = [follower for follower in followers if follower.going_on]
            if not followers:
                return
            times = max(times + 1, int((clock.now() - begin) / patience.every_s) + 1)
            wait(clock, begin + times * patience.every_s - clock.now(), stop)
    finally:
        for follower in everyone:
            follower.close()


class _Follower:
    """One process that is looked at."""

    def __init__(
        self,
        machine: Machine,
        task: TaskInfo,
        selection: Selection,
        patience: Patience,
        near_distance: int,
    ) -> None:
        self.machine, self.task, self.selection = machine, task, selection
        self.patience, self.near_distance = patience, near_distance
        self.habit = Habit(patience)
        self.ended = self.failed = False
        self.hold: Hold | None = None
        self.threads: Sequence[ThreadInfo] = ()
        self.rest_until = 0.0
        self.weighed: tuple[frozenset[int], float] = frozenset(), 0.0
        """The nodes for which the pages were looked at last, and when to do it again."""
        self.stuck_gain = 0.0
        """What the last move would have gained by the pages that it could not move."""

    @property
    def going_on(self) -> bool:
        """Whether to look at it once more."""
        return not (self.ended or self.failed)

    def look(self, clock: Clock, carry_out: CarryOut) -> tuple[Running, Ledger] | None:
        """Look at the threads, and move pages if it is worth it. The first look only begins."""
        try:
            if self.hold is None:
                self.hold = self.machine.hold(self.task.id)
                self.threads = self.machine.threads(self.task.pid)
                return None
            made = self._look(clock, carry_out)
            self.ended = not self.hold.alive()
        except NoSuchProcessError:
            self.ended = True
            return None
        return made

    def close(self) -> None:
        """Hold the process no longer."""
        if self.hold is not None:
            self.hold.close()

    def _look(self, clock: Clock, carry_out: CarryOut) -> tuple[Running, Ledger] | None:
        topology = self.machine.topology()
        before, self.threads = self.threads, self.machine.threads(self.task.pid)
        self.habit.note(running(self.threads, topology, before))
        home = self.habit.settled()
        if home is None or not self._due(home, clock.now()):
            return None
        task = self.machine.task(self.task.pid)
        plan = plan_follow(
            self.machine, task, self.selection, home, near_distance=self.near_distance
        )
        gain = saved_distance(plan, home.share, topology) - self.stuck_gain
        if not len(plan) or gain < self.patience.least_gain_bytes:
            return None
        ledger = carry_out(plan)
        self.rest_until = clock.now() + self.patience.pause_s
        self.stuck_gain = saved_distance(ledger.plan, home.share, topology, _left(ledger))
        self.failed = ledger.error is not None
        return home, ledger

    def _due(self, home: Running, now: float) -> bool:
        """Tell whether to weigh the pages: where the threads are on new nodes, and now and then."""
        nodes, again = self.weighed
        if now < self.rest_until or (nodes == home.share.keys() and now < again):
            return False
        if nodes != home.share.keys():
            self.stuck_gain = 0.0
        self.weighed = frozenset(home.share), now + self.patience.pause_s
        return True


def _left(ledger: Ledger) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Count the pages of each run of a plan that did not come to their node, int64[n]."""
    run = np.repeat(np.arange(len(ledger.plan)), ledger.plan.pages)
    return np.bincount(run[~ledger.arrived], minlength=len(ledger.plan)).astype(np.int64)

"""Who touched a page first: from the log of faults where there is one, else by assumption.

Without a log a page is taken to be touched by the task that asks about it, on the CPU where that
runs now: right for programs of one thread, or whose threads have one policy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from movepages.emulator.first_touch import Touch
from movepages.emulator.overlay import distinct

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from numpy.typing import NDArray

    from movepages.emulator.fault_log import FaultRecorder
    from movepages.emulator.processes import LiveTask
    from movepages.kernel.mempolicy import Surroundings

    Pages = NDArray[np.int64]
    Touches = Iterator[tuple[Touch, Pages]]
    LastFaults = tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.bool_]]


class Touchers(Protocol):
    """Says who touched pages."""

    def all_of(self, task: LiveTask, pages: Pages, order: int) -> Touches:
        """Go through the touchers of folios of a task: each, and which folios, as indices.

        `pages` has a page of each folio, and each folio has 2**order pages.
        """
        ...

    def certain(self, task: LiveTask, pages: Pages, order: int) -> Touches:
        """Go through those that are known for certain by now."""
        ...

    def touched(self, task: LiveTask, pages: Pages) -> NDArray[np.bool_]:
        """Tell which pages the process is known to have touched since they were last placed."""
        ...

    def forget(self, pid: int, start: int, end: int) -> None:
        """Forget who touched a range of pages of a process: they are about to be unmapped."""
        ...

    def creator_of(self, tid: int) -> int | None:
        """Return which thread made a task, None if that is not known."""
        ...

    def report(self) -> dict[str, int]:
        """Return what was lost, by kind."""
        ...


@dataclass(slots=True, eq=False)
class Assumed:
    """The touchers where there is no log: whoever asks."""

    on_cpu: Callable[[int], Surroundings]

    def all_of(self, task: LiveTask, pages: Pages, order: int) -> Touches:
        """All were touched by the task itself."""
        del order
        yield Touch(task, self.on_cpu(task.stat().cpu)), np.arange(len(pages))

    certain = all_of

    def touched(self, task: LiveTask, pages: Pages) -> NDArray[np.bool_]:
        """Nobody has said."""
        del task
        return np.zeros(len(pages), dtype=np.bool_)

    def forget(self, pid: int, start: int, end: int) -> None:
        """Nothing is known."""

    def creator_of(self, tid: int) -> int | None:
        """Nobody has said."""
        del tid
        return None

    def report(self) -> dict[str, int]:
        """Nothing can be lost."""
        return {}


@dataclass(slots=True, eq=False)
class Logged:
    """The touchers by the log of page faults. What is not in it was touched by whoever asks.

    That is what the kernel does not log: pages mapped around a fault, populated, or pinned. A fault
    counts for the page that it brought about: once that is placed, it is forgotten.
    """

    recorder: FaultRecorder
    on_cpu: Callable[[int], Surroundings]
    task_of: Callable[[int], LiveTask]
    """Returns a thread by its id, also one that has ended."""

    def all_of(self, task: LiveTask, pages: Pages, order: int) -> Touches:
        """Go through the touchers that are logged, then those of the other pages."""
        unknown = yield from self._logged(task, pages, order)
        if len(unknown):
            yield Touch(task, self.on_cpu(task.stat().cpu)), unknown

    def certain(self, task: LiveTask, pages: Pages, order: int) -> Touches:
        """Go through the touchers that are logged."""
        yield from self._logged(task, pages, order)

    def touched(self, task: LiveTask, pages: Pages) -> NDArray[np.bool_]:
        """Tell which pages the process has faulted on since they were last placed."""
        return self.recorder.who_faulted(task.tgid, pages.astype(np.uint64))[2]

    def forget(self, pid: int, start: int, end: int) -> None:
        """Forget the faults of a range of pages."""
        self.recorder.forget(pid, start, end)

    def creator_of(self, tid: int) -> int | None:
        """Return which thread made a task that has not ended."""
        return self.recorder.creator_of(tid)

    def report(self) -> dict[str, int]:
        """Return how many faults the kernel could not log."""
        lost = self.recorder.lost
        return {"page faults that were not logged": lost} if lost else {}

    def _logged(
        self, task: LiveTask, pages: Pages, order: int
    ) -> Generator[tuple[Touch, Pages], None, Pages]:
        """Go through the logged touchers; return the pages that have none."""
        tid, cpu, known = self._last_faults(task.tgid, pages, order)
        who = (tid.astype(np.int64) << 32 | cpu)[known]
        positions = np.flatnonzero(known)
        for one in distinct(who).tolist():
            try:
                toucher = self.task_of(one >> 32)
            except ProcessLookupError:  # a thread that has ended since
                toucher = task
            yield Touch(toucher, self.on_cpu(one & 0xFFFF_FFFF)), positions[who == one]
        return np.flatnonzero(~known)

    def _last_faults(self, pid: int, pages: Pages, order: int) -> LastFaults:
        """Return who faulted each folio last, by whichever of its pages: tid, CPU, known."""
        if not order:
            return self.recorder.take_faults(pid, pages.astype(np.uint64))
        size = 1 << order
        all_pages = (pages & -size)[:, None] + np.arange(size)
        tid, cpu, known = self.recorder.take_faults(pid, all_pages.ravel().astype(np.uint64))
        one = np.argmax(known.reshape(-1, size), axis=1) + np.arange(len(pages)) * size
        return tid[one], cpu[one], known[one]

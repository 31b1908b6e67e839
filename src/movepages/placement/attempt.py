"""One call of move_pages(2) to one node, and what it did: for each page, an answer that is true.

Since Linux 4.17 the call stops at the first batch that fails, writes no status for any page of that
batch, moved or not, and never looks at the pages behind. (A batch goes up to the next page that
cannot be queued: shared, absent, there already.) So whatever has no status is asked for again, and
the pages behind the place where it stopped are told apart: nobody tried to move them.

A node without room for a huge page may still have some for its parts: then the kernel divides the
page and moves them, from the first on, as far as they go. The address of such a page tells where
its first part is, so its last part is asked for as well. Torn between two nodes it has failed, and
counts where its last part is.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from movepages.abi import UNWRITTEN, Errno
from movepages.errors import CallError, InvalidCallError, no_such_process
from movepages.values import CallResult

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType
    from typing import Self

    from numpy.typing import NDArray

    from movepages.machine import Machine
    from movepages.values import TaskId

_NOT_BEGUN = {
    Errno.ESRCH,
    Errno.EPERM,
    Errno.EINVAL,
    Errno.ENOSYS,
    Errno.ENODEV,
    Errno.EACCES,
    Errno.E2BIG,
}
"""A call to one node that ends so has touched no page."""

_ABSENT = np.array([-Errno.ENOENT, -Errno.EFAULT], dtype=np.int32)


class HeldProcess:
    """A process of a machine, held: no call is made for it once its pid may be another's.

    Several threads may use it at once, if they may use the machine.
    """

    def __init__(self, machine: Machine, task: TaskId) -> None:
        """Hold it. Raises NoSuchProcessError."""
        self._machine = machine
        self._pid = task.pid
        self._hold = machine.hold(task)
        self.calls = 0
        """Calls that were to move pages."""
        self._counting = Lock()

    def __enter__(self) -> Self:
        """Begin a block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let the process go."""
        self._hold.close()

    def move(self, addresses: NDArray[np.uint64], node: int, flags: int) -> CallResult:
        """Move pages to a node. Raises CallError."""
        self._require_alive("move_pages")
        with self._counting:
            self.calls += 1
        nodes = np.full(len(addresses), node, dtype=np.int32)
        with self._told_apart("move_pages"):
            return self._machine.move_pages(self._pid, addresses, nodes, flags)

    def query(self, addresses: NDArray[np.uint64]) -> NDArray[np.int32]:
        """Ask where pages are. Raises CallError."""
        self._require_alive("query_pages")
        with self._told_apart("query_pages"):
            return self._machine.query_pages(self._pid, addresses).status

    @contextmanager
    def _told_apart(self, call: str) -> Iterator[None]:
        """Say of a process that ended in the last moment that it did: of a zombie it is -EINVAL."""
        try:
            yield
        except InvalidCallError as error:
            if self._hold.alive():
                raise
            raise no_such_process(self._pid, call) from error

    def _require_alive(self, call: str) -> None:
        if not self._hold.alive():
            raise no_such_process(self._pid, call)


@dataclass(frozen=True, slots=True, eq=False)
class Attempt:
    """What a call did to each of n pages. The first `reached` of them it tried, or refused.

    answer int32[n]: the node where the page arrived, or why it did not (UNWRITTEN: no word of it).
    now int32[n]: where the page is, as far as known. `error` is what the call ended with, if not
    well; of pages before `reached` some may not have been tried where it is -ENOMEM.
    """

    answer: NDArray[np.int32]
    now: NDArray[np.int32]
    reached: int
    error: CallError | None = None


def attempt(
    process: HeldProcess,
    addresses: NDArray[np.uint64],
    node: int,
    flags: int,
    last_parts: Callable[[], NDArray[np.uint64]],
) -> Attempt:
    """Make one call, and find out what became of every page. No CallError leaves it.

    `last_parts` returns the address of the last base page of each page, uint64[n], if need be.
    """
    try:
        result, error = process.move(addresses, node, flags), None
    except CallError as raised:
        result, error = raised.result or _unwritten(raised, len(addresses)), raised
    status = result.status
    if (status == node).all():
        return Attempt(status, status, len(status), error)
    reached = _reached(status, error)
    answer, now = status.copy(), status.copy()
    now[status < 0] = UNWRITTEN
    absent = np.isin(status, _ABSENT)
    now[absent] = status[absent]
    asked = np.flatnonzero((now == UNWRITTEN)[: max(reached, _last_doubtful(error, len(status)))])
    try:
        now[asked] = process.query(addresses[asked])
        torn = _torn(process, now, node, addresses, asked, last_parts)
    except CallError as raised:
        return Attempt(answer, now, reached, error or raised)
    answer[now == node] = node
    answer[torn] = -Errno.ENOMEM
    gone = (answer == UNWRITTEN) & np.isin(now, _ABSENT)
    answer[gone] = now[gone]
    return Attempt(answer, now, reached, error)


def _torn(
    process: HeldProcess,
    now: NDArray[np.int32],
    node: int,
    addresses: NDArray[np.uint64],
    asked: NDArray[np.int64],
    last_parts: Callable[[], NDArray[np.uint64]],
) -> NDArray[np.int64]:
    """Return which pages seem to have arrived, and have not with their last part; correct `now`."""
    arrived: NDArray[np.int64] = asked[now[asked] == node]
    if len(arrived):
        last = last_parts()[arrived]
        large = last != addresses[arrived]
        arrived, last = arrived[large], last[large]
    if not len(arrived):
        return arrived
    where = process.query(last)
    torn = where != node
    arrived = arrived[torn]
    now[arrived] = where[torn]
    return arrived


def _unwritten(error: CallError, count: int) -> CallResult:
    return CallResult(-(error.errno or 0), np.full(count, UNWRITTEN, dtype=np.int32))


def _last_doubtful(error: CallError | None, count: int) -> int:
    """Return up to where pages may have moved although the call seems not to have come there."""
    return 0 if error is None or error.errno in {Errno.ESRCH, Errno.EPERM} else count


def _reached(status: NDArray[np.int32], error: CallError | None) -> int:
    """Return how many pages the call came to.

    A page without a status before one that has: there a batch failed, and the call stopped behind
    the last status. Only pages without a status at the end: the last batch failed, or all is well.
    """
    if error is not None and error.errno in _NOT_BEGUN:
        return 0
    written = np.flatnonzero(status != UNWRITTEN)
    if not len(written):
        return len(status)
    last = int(written[-1])
    return len(status) if len(written) == last + 1 else last + 1

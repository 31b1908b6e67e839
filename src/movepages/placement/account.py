"""The account of a plan while it is carried out: 13 bytes a page, and a ledger at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from movepages.abi import UNWRITTEN, Errno
from movepages.placement.retry import passing
from movepages.values import Ledger

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from movepages.errors import CallError
    from movepages.placement.attempt import Attempt
    from movepages.placement.rows import Rows
    from movepages.values import Plan


class Account:
    """What is known of each page so far: one row for each, written as answers come in."""

    def __init__(self, plan: Plan) -> None:
        """Begin with pages of which nothing has been heard."""
        self._plan = plan
        self.to = np.repeat(plan.to_node, plan.pages)
        self.answer = np.full(len(self.to), UNWRITTEN, dtype=np.int32)
        self.now = self.answer.copy()
        self.tries = np.zeros(len(self.to), dtype=np.uint8)
        self.troubled = False
        """Whether any page is not where it should be, after it was tried."""
        self.verified = False

    def record(self, rows: Rows, made: Attempt) -> None:
        """Write down what a call did; of pages that it did not come to, only where they are."""
        self.answer[rows] = made.answer
        self.now[rows] = made.now
        tried = made.answer != UNWRITTEN
        tried[: made.reached] = True
        self.tries[rows] += tried
        self.troubled |= bool((made.answer != self.to[rows]).any())

    def no_memory(self, rows: NDArray[np.int64]) -> None:
        """Write down that there is no room for pages."""
        self.answer[rows] = -Errno.ENOMEM
        self.troubled = True

    def origins(self, rows: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return where pages were when the plan was made, int32[n]."""
        run = np.searchsorted(np.cumsum(self._plan.pages), rows, side="right")
        return self._plan.from_node[run]

    def redirect(self, rows: NDArray[np.int64], node: int) -> None:
        """Send pages to another node than planned."""
        self.to[rows] = node
        self.answer[rows] = UNWRITTEN

    def passing(self, most_tries: int) -> NDArray[np.int64]:
        """Return the rows of pages that may move the next time, and may be tried again."""
        again = (self.tries > 0) & (self.tries < most_tries)
        rows: NDArray[np.int64] = np.flatnonzero(again)
        return rows[passing(self.answer[rows], self.to[rows])]

    def close(self, *, calls: int, seconds: float, ended: str, error: CallError | None) -> Ledger:
        """Return the ledger. The account must not be written to any more."""
        return Ledger(
            plan=self._plan,
            to=self.to,
            answer=self.answer,
            now=self.now,
            tries=self.tries,
            calls=calls,
            seconds=seconds,
            ended=ended,
            error=error,
            verified=self.verified,
        )


def untouched(plan: Plan, ended: str, error: CallError | None = None) -> Ledger:
    """Return the ledger of a plan of which nothing was tried."""
    return Account(plan).close(calls=0, seconds=0.0, ended=ended, error=error)

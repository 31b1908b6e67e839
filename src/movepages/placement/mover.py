"""Move pages so that none is lost from the account: every page asked for has an outcome.

Since Linux 4.17 move_pages(2) stops at the first batch that fails, and writes no status for any
page of that batch, moved or not. One pinned page would starve all behind it. So the pages go sorted
by target (the largest batches the kernel allows); after each call those without a status are
queried, and the ones that are not where they should be are tried again in halves, until the pages
that cannot move stand alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from movepages.abi import UNWRITTEN, Errno
from movepages.errors import ArgumentError, CallError, NodeFullError
from movepages.values import CallResult

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from movepages.machine import Machine

BATCH_PAGES = 4096
"""Pages in a call: enough to hide its fixed cost, few enough not to block the process for long."""


@dataclass(frozen=True, slots=True)
class MoveReport:
    """What became of the pages that were to move. Counts are pages, one for each address given.

    `failed` counts by status: a negative errno, or UNWRITTEN for pages that the kernel could not
    move and gave no status. `error` is what ended the work early, if anything did: pages that were
    never tried count as UNWRITTEN then.
    """

    asked: int
    moved: int
    already_there: int
    failed: Mapping[int, int] = field(default_factory=dict)
    bytes_moved: int = 0
    error: CallError | None = None

    @property
    def complete(self) -> bool:
        """Whether every page is where it was asked to be."""
        return not self.failed and self.error is None


def move(
    machine: Machine,
    pid: int,
    addresses: NDArray[np.uint64],
    nodes: NDArray[np.int32],
    flags: int,
    *,
    page_sizes: NDArray[np.int64] | None = None,
) -> MoveReport:
    """Move each page to its node, and account for all of them.

    addresses uint64[n], one for each folio; nodes int32[n]; page_sizes int64[n] in bytes, the base
    page by default. Raises ArgumentError; a call's failure stands in the report.
    """
    if not len(addresses) == len(nodes):
        raise ArgumentError(f"there are {len(addresses)} addresses but {len(nodes)} nodes")
    if page_sizes is None:
        page_sizes = np.full(len(addresses), machine.page_size_bytes, dtype=np.int64)
    work = _Work(
        machine, pid, addresses, nodes, flags, np.full(len(addresses), UNWRITTEN, np.int32)
    )
    error = work.run()
    outcome = work.outcome
    there = work.outcome == nodes
    moved = there & ~work.was_there
    failed = np.where((outcome >= 0) & ~there, UNWRITTEN, outcome)[~there]
    codes, counts = np.unique(failed, return_counts=True)
    return MoveReport(
        asked=len(addresses),
        moved=int(moved.sum()),
        already_there=int(work.was_there.sum()),
        failed=dict(zip(codes.tolist(), counts.tolist(), strict=True)),
        bytes_moved=int(page_sizes[moved].sum()),
        error=error,
    )


@dataclass(slots=True, eq=False)
class _Work:
    """The pages of one move, by index, and what became of each."""

    machine: Machine
    pid: int
    addresses: NDArray[np.uint64]
    nodes: NDArray[np.int32]
    flags: int
    outcome: NDArray[np.int32]
    was_there: NDArray[np.bool_] = field(init=False)
    held: NDArray[np.bool_] = field(init=False)
    """Pages that the kernel would not move even when asked for alone."""

    def __post_init__(self) -> None:
        self.was_there = np.zeros(len(self.addresses), dtype=np.bool_)
        self.held = self.was_there.copy()

    def run(self) -> CallError | None:
        """Do it all; return what ended it early."""
        try:
            for batch in _batches(np.arange(len(self.addresses))):
                self.outcome[batch] = self._query(batch)
                self.was_there[batch] = self.outcome[batch] == self.nodes[batch]
            present = np.flatnonzero((self.outcome >= 0) & ~self.was_there)
            self.outcome[present] = UNWRITTEN
            for node in np.unique(self.nodes[present]).tolist():
                self._fill(present[self.nodes[present] == node])
        except CallError as error:
            return error
        return None

    def _fill(self, pages: NDArray[np.intp]) -> None:
        """Move pages to their one target node, until it is full."""
        for batch in _batches(pages):
            try:
                self._move(batch)
            except NodeFullError:
                left = (self.outcome[pages] == UNWRITTEN) & ~self.held[pages]
                self.outcome[pages[left]] = -Errno.ENOMEM
                return

    def _move(self, pages: NDArray[np.intp]) -> None:
        """Move a batch; try again in halves what the kernel left, down to single pages."""
        result, error = self._call(pages)
        self.outcome[pages] = result.status
        doubtful = pages[(result.status == UNWRITTEN) | (result.status == -Errno.EBUSY)]
        if len(doubtful):  # moved all the same, perhaps, or with another address of its folio
            now = self._query(doubtful)
            arrived = now == self.nodes[doubtful]
            gone = now < 0
            self.outcome[doubtful[arrived | gone]] = now[arrived | gone]
        if error:
            raise error
        left = pages[self.outcome[pages] == UNWRITTEN]
        if len(pages) == 1:
            self.held[left] = True
            return
        if not len(left):
            return
        half = (len(left) + 1) // 2
        self._move(left[:half])
        if len(left) > half:
            self._move(left[half:])

    def _call(self, pages: NDArray[np.intp]) -> tuple[CallResult, CallError | None]:
        try:
            result = self.machine.move_pages(
                self.pid, self.addresses[pages], self.nodes[pages], self.flags
            )
        except CallError as error:
            return error.result or CallResult(-(error.errno or 0), self.outcome[pages]), error
        return result, None

    def _query(self, pages: NDArray[np.intp]) -> NDArray[np.int32]:
        return self.machine.query_pages(self.pid, self.addresses[pages]).status


def _batches(pages: NDArray[np.intp]) -> Iterator[NDArray[np.intp]]:
    for first in range(0, len(pages), BATCH_PAGES):
        yield pages[first : first + BATCH_PAGES]

"""move_pages as Linux 6.12 walks its list: mm/migrate.c, do_pages_move().

The arrays are read as the walk goes. Entries gather in a batch as long as they have one target node
and need to move; any other entry ends the batch, which is then migrated at once. The call stops at
the first batch that does not move whole, and writes no status for any of its entries.

The walk looks at windows of entries. Inside a window no page that is to move is named again, so
that no look-up depends on a batch that was migrated just before; a second mention ends the window.
The batch that is open at the end of a window stays open, its pages isolated. Windows grow from
1,024 entries on, so that a walk that stops early has looked at little. Batches of which every page
is sure to move are migrated together; one that is not is migrated alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

from movepages.abi import UNWRITTEN, Errno
from movepages.kernel.migrate import follow_pages, migrate_pages
from movepages.kernel.ports import LATER, NONE
from movepages.kernel.positions import Positions, all_differ, as_run, parts

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from movepages.kernel.ports import AddressSpace, Frames
    from movepages.kernel.semantics import Semantics

    Addresses = NDArray[np.uint64]
    Handles = NDArray[np.int64]
    Statuses = NDArray[np.int32]

_FIRST_WINDOW = 1 << 10
_LARGEST_WINDOW = 1 << 16
_QUEUED = UNWRITTEN


class ListArguments(Protocol):
    """The three arrays of a call in user memory."""

    @property
    def nr_pages(self) -> int:
        """Entries that the caller says there are."""
        ...

    def read(self, first: int, count: int) -> tuple[Addresses, Statuses, int]:
        """Return pages and nodes of entries, and the errno that ends them early, or 0.

        The errno is that of the first entry that cannot be read, or whose node is refused.
        """
        ...

    def store(self, first: int, status: Statuses) -> bool:
        """Store statuses one after the other; False if one could not be written."""
        ...

    def storable(self, first: int, count: int) -> int:
        """Return how many statuses from `first` on can be written."""
        ...

    def may_allocate(self, nodes: Statuses) -> NDArray[np.bool_]:
        """Tell on which nodes the caller may allocate: its own cpuset (__GFP_HARDWALL)."""
        ...


class _Stop(Exception):  # noqa: N818 - not an error: how a walk ends early
    """The call returns `ret`."""

    def __init__(self, ret: int) -> None:
        super().__init__(ret)
        self.ret = ret


@dataclass(slots=True, eq=False)
class _OpenBatch:
    """Entries from `start` on that wait, isolated, for their batch to end."""

    start: int
    node: int
    pages: list[Handles] = field(default_factory=list)


def do_pages_move(
    space: AddressSpace,
    frames: Frames,
    arguments: ListArguments,
    semantics: Semantics,
    *,
    migrate_all: bool,
) -> int:
    """Move the pages of a list; return 0, a negative errno, or how many were not moved or tried."""
    frames.disable_lru_cache()
    try:
        return _Walk(space, frames, arguments, semantics, migrate_all).run()
    finally:
        frames.enable_lru_cache()


@dataclass(slots=True, eq=False)
class _Walk:
    space: AddressSpace
    frames: Frames
    arguments: ListArguments
    semantics: Semantics
    migrate_all: bool
    open: _OpenBatch | None = None

    def run(self) -> int:
        """Go through the list, window by window."""
        at, size, total = 0, _FIRST_WINDOW, self.arguments.nr_pages
        try:
            while at < total:
                addr, node, errno = self.arguments.read(at, min(size, total - at))
                done = self._window(at, addr, node)
                at += done
                if errno and done == len(addr):
                    return self._end(at, errno)
                cut = done < len(addr)
                size = max(2 * done, _FIRST_WINDOW) if cut else min(size * 2, _LARGEST_WINDOW)
            return self._end(at, 0)
        except _Stop as stop:
            return stop.ret

    def _end(self, at: int, errno: int) -> int:
        """Migrate what is pending (out_flush); an error that is there already is kept."""
        try:
            self._flush(at)
        except _Stop as stop:
            return errno or stop.ret
        return errno

    def _window(self, at: int, addr: Addresses, node: Statuses) -> int:
        """Do as many entries as can be looked up before anything moves; return how many."""
        if not len(addr):
            return 0
        if self.open and node[0] != self.open.node:
            self._flush(at)
        status, page = self._look_up(addr, node)
        count = self._before_second_mention(status, page)
        status, page, node = status[:count], page[:count], node[:count]
        queued = np.flatnonzero(status == _QUEUED)
        status[queued[~self.frames.isolate(page[queued])]] = -Errno.EBUSY
        self._settle(at, status, page, node)
        return count

    def _look_up(self, addr: Addresses, node: Statuses) -> tuple[Statuses, Handles]:
        """Return for each entry its status, or _QUEUED with its page if it is to move."""
        status = np.full(len(addr), _QUEUED, dtype=np.int32)
        page = np.full(len(addr), NONE, dtype=np.int64)
        found = follow_pages(self.space, self.frames, addr, status, self.semantics)
        at = as_run(found.index)
        page[at] = found.page
        there = self.frames.node(found.page) == node[at]
        status[found.index[there]] = node[found.index[there]]
        if not self.migrate_all:
            index, pages = found.index[~there], found.page[~there]
            status[index[self.semantics.is_shared(self.frames, pages)]] = -Errno.EACCES
        return status, page

    def _before_second_mention(self, status: Statuses, page: Handles) -> int:
        """Return how many entries come before one whose page is to move already.

        A page that is off the LRU may be one of the open batch: what it answers depends on whether
        that ends before. It is looked at as the first of a window.
        """
        mentions = np.flatnonzero(page != NONE)
        count = len(page)
        if self.open:
            pending = mentions[~self.frames.on_lru(page[mentions])]
            pending = pending[pending > 0]
            count = int(pending[0]) if len(pending) else count
            mentions = mentions[mentions < count]
        pages = page[as_run(mentions)]
        if all_differ(pages):
            return count
        _, which = np.unique(pages, return_inverse=True)
        first = np.full(len(pages), count)
        moving = status[mentions] == _QUEUED
        np.minimum.at(first, which[moving], mentions[moving])
        again = mentions[mentions > first[which]]
        return int(again[0]) if len(again) else count

    # -- from outcomes to batches -------------------------------------------------------------

    def _settle(self, at: int, status: Statuses, page: Handles, node: Statuses) -> None:
        """Migrate the batches that end in a window, store statuses, and keep the last one open."""
        queued = status == _QUEUED
        if queued.all() and (node == node[0]).all():  # nothing ends here
            self.open = self.open or _OpenBatch(at, int(node[0]))
            self.open.pages.append(page)
            return
        if self.open:  # its entries are the first of the window from here on
            batch, self.open = self.open, None
            waiting = at - batch.start
            at = batch.start
            status = np.concatenate([np.full(waiting, _QUEUED, np.int32), status])
            node = np.concatenate([np.full(waiting, batch.node, np.int32), node])
            page = np.concatenate([*batch.pages, page])
            batch.pages.clear()  # a long list is not to be there twice
        window = _Window(at, status, page, node)
        try:
            self._settle_closed(window)
        except _Stop:
            self.frames.putback(window.not_handed_over())
            raise
        if window.closed < len(status):
            pages = page[window.closed :]
            self.open = _OpenBatch(at + window.closed, int(node[-1]), [pages])

    def _settle_closed(self, window: _Window) -> None:
        doubtful = window.queued[: window.closed].copy()
        for part in parts(window.closed):
            queued = np.flatnonzero(doubtful[part])
            doubtful[part][queued] = ~self.frames.surely_moves(window.page[part][queued])
        doubtful[self.arguments.storable(window.at, window.closed) :] = True
        doubts = np.flatnonzero(doubtful)
        done = 0
        while done < window.closed:
            doubts = doubts[np.searchsorted(doubts, done) :]
            end = window.batch_start(int(doubts[0])) if len(doubts) else window.closed
            if end > done:
                self._move_batches(window, done, end)
                done = end
            elif window.queued[done]:
                done = self._move_batch(window, done)
            else:
                raise _Stop(-Errno.EFAULT)  # its status cannot be stored

    def _move_batches(self, window: _Window, low: int, high: int) -> None:
        """Move all batches of a part of a window at once: every page is sure to move."""
        queued = as_run(low + np.flatnonzero(window.queued[low:high]))
        window.handed_over = high
        rc, outcome = self._migrate(window.page[queued], window.node[queued])
        window.status[queued] = outcome
        if rc == 0:
            self._store(window.at + low, window.status[low:high])
            return
        stayed = window.queued[low:high] & (window.status[low:high] < 0)
        failed = window.batch_start(low + int(np.argmax(stayed)))
        self._store(window.at + low, window.status[low:failed])
        end = window.batch_end(failed)
        if not self._store_trigger(window, end):
            raise _Stop(-Errno.EFAULT)  # an error that is there already is kept
        not_moved = int((window.status[failed:end] < 0).sum())
        raise _Stop(self._returned(min(rc, not_moved), window, end))

    def _move_batch(self, window: _Window, start: int) -> int:
        """Move one batch, and store the entry that ends it; return the first entry after."""
        end = window.batch_end(start)
        window.handed_over = end
        stored = self._store_trigger(window, end)
        rc, _ = self._migrate(window.page[start:end], window.node[start:end])
        if not rc:
            self._store(window.at + start, window.node[start:end])
        if not stored:
            raise _Stop(-Errno.EFAULT)
        if rc:
            raise _Stop(self._returned(rc, window, end))
        return end + window.ends_with_status(end)

    def _flush(self, at: int) -> None:
        """Migrate the open batch, which entry `at` or the end of the list ends."""
        batch, self.open = self.open, None
        if batch is None:
            return
        pages = np.concatenate(batch.pages)
        batch.pages.clear()  # a long list is not to be there twice
        nodes = np.full(len(pages), batch.node, dtype=np.int32)
        rc, _ = self._migrate(pages, nodes)
        if rc:
            raise _Stop(rc if rc < 0 else rc + self.arguments.nr_pages - at)
        self._store(batch.start, nodes)

    def _migrate(self, pages: Handles, nodes: Statuses) -> tuple[int, Statuses]:
        """Migrate pages to their nodes; return the count or errno, and the outcome of each page."""
        outcome = np.full(len(pages), UNWRITTEN, dtype=np.int32)
        positions = Positions(pages)

        def new_page(old: Handles, _: object) -> tuple[Handles, Handles]:
            entry = positions.of(old)
            return self._allocate(old, nodes[entry]), entry

        rc = migrate_pages(self.frames, pages, new_page, None, outcome)
        return rc, outcome

    def _allocate(self, old: Handles, nodes: Statuses) -> Handles:
        """Allocate on the target nodes; none where the caller, not the target, may not."""
        allowed = self.arguments.may_allocate(nodes)
        if allowed.all():
            return self.frames.allocate(old, nodes, exact=True)
        new = np.full(len(old), LATER, dtype=np.int64)
        refused = int(np.argmin(allowed))
        if refused:
            new[:refused] = self.frames.allocate(old[:refused], nodes[:refused], exact=True)
        else:
            new[0] = NONE
        return new

    def _returned(self, rc: int, window: _Window, end: int) -> int:
        """Return what the call returns when the batch that entry `end` of a window ends fails.

        A count is of what did not move and what was not tried; an entry that has its status counts
        as tried.
        """
        if rc < 0:
            return rc
        return rc + self.arguments.nr_pages - (window.at + end) - window.ends_with_status(end)

    def _store_trigger(self, window: _Window, end: int) -> bool:
        """Store the status of the entry that ends a batch, if it has one; False if it cannot be."""
        if not window.ends_with_status(end):
            return True
        return self.arguments.store(window.at + end, window.status[end : end + 1])

    def _store(self, first: int, status: Statuses) -> None:
        if not self.arguments.store(first, status):
            raise _Stop(-Errno.EFAULT)


class _Window:
    """Entries of a list from `at` on, looked up: those queued, and the batches they form."""

    def __init__(self, at: int, status: Statuses, page: Handles, node: Statuses) -> None:
        self.at, self.status, self.page, self.node = at, status, page, node
        self.queued = status == _QUEUED
        self.handed_over = 0
        """Entries up to here have been given to migrate_pages, which puts back what it leaves."""
        begins = self.queued.copy()
        begins[1:] &= ~self.queued[:-1] | (node[1:] != node[:-1])
        self._starts = np.flatnonzero(begins)
        ends = self.queued.copy()
        ends[:-1] &= ~self.queued[1:] | (node[1:] != node[:-1])
        self._ends = np.flatnonzero(ends) + 1
        self.closed = int(self._starts[-1]) if self.queued[-1] else len(status)
        """Entries up to here belong to batches that end in the window, or to none."""

    def batch_start(self, entry: int) -> int:
        """Return the first entry of the batch that an entry is in; itself if it is in none."""
        if not self.queued[entry]:
            return entry
        return int(self._starts[np.searchsorted(self._starts, entry, side="right") - 1])

    def batch_end(self, start: int) -> int:
        """Return the entry that ends the batch beginning at an entry."""
        return int(self._ends[np.searchsorted(self._starts, start)])

    def ends_with_status(self, end: int) -> bool:
        """Tell whether the entry that ends a batch has its status before the batch is migrated.

        One that is to move has none, and one for another node is looked at only afterwards.
        """
        return bool(not self.queued[end] and self.node[end] == self.node[end - 1])

    def not_handed_over(self) -> Handles:
        """Return the isolated pages that no batch was migrated with."""
        left = np.flatnonzero(self.queued)
        return self.page[left[left >= self.handed_over]]

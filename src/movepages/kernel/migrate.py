"""Page migration as the patch of 2006 has it: mm/migrate.c, in its order, on batches.

Three steps, as in Documentation/vm/page_migration: isolate pages from the LRU; have a function of
type `new_page_t` that supplies a new page for each; call `migrate_pages()`, which puts back what it
could not move. `do_move_pages` and `do_pages_stat` are the patch's own two uses of page lookups.

A `new_page_t` takes the whole list once per pass and may say where the outcome of each page goes:
    (old: int64[n], private) -> (new: int64[n] with -1 for none, result_slot: int64[n], -1 for none)
`per_page` adapts a function written as in C.

In batches the outcome must be what the kernel gets page by page. One place needs care: the memory
of a page that moved may serve the next allocation. Where that could matter, a new_page_t answers
LATER for the rest of the list, and is asked again when the pages before it have moved.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from movepages.abi import Errno
from movepages.kernel.ports import LATER, NONE
from movepages.kernel.positions import PART, Positions, all_differ, as_run, first_of_each, parts
from movepages.kernel.split_folios import SplitFolios

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from movepages.kernel.ports import AddressSpace, Frames
    from movepages.kernel.semantics import Semantics

    Addresses = NDArray[np.uint64]
    Handles = NDArray[np.int64]
    Statuses = NDArray[np.int32]
    NewPage = Callable[[Handles, object], tuple[Handles, Handles]]

PASSES = 10
_FORCED_AFTER_PASS = 2
"""From the fourth pass on (`pass > 2`) page locks and writeback are waited for."""


def per_page(new_page: Callable[[int, object], tuple[int, int]]) -> NewPage:
    """Adapt a new_page_t written for one page, as in C: (page, private) -> (new, slot or -1)."""

    def batch(old: Handles, private: object) -> tuple[Handles, Handles]:
        new = np.full(len(old), LATER, dtype=np.int64)
        slots = np.full(len(old), NONE, dtype=np.int64)
        for position, page in enumerate(old.tolist()):
            made, slots[position] = new_page(page, private)
            if made == NONE and position:
                break  # the pages before may free some memory: asked again then
            new[position] = made
            if made == NONE:
                break
        return new, slots

    return batch


def migrate_pages(
    frames: Frames,
    pagelist: Handles,
    new_page: NewPage,
    private: object,
    result: Statuses,
    *,
    stop_without_memory: bool = True,
) -> int:
    """Migrate isolated pages, and put back those that did not move.

    Return how many did not, or -ENOMEM, which stops the whole list. Up to ten passes go over the
    pages that answered -EAGAIN; other errors are final. The outcome of a page, a node or a negative
    errno, is stored in `result` at the slot that new_page named for it.

    A THP for which there is no memory, or of which only a part is mapped, is split. That is one
    failure, unless all its pages move, which are tried once, and all else does.
    """
    failed, stuck, forced = 0, False, False
    split = SplitFolios(frames)
    for number in range(PASSES):
        if not len(pagelist):
            break
        undisturbed = frames.begin_pass(number)
        force = number > _FORCED_AFTER_PASS
        if undisturbed and stuck and force is forced:
            continue  # it would do what the pass before did: nothing
        pagelist = split.split_partially_mapped(pagelist, force=force)
        rc = unmap_and_move(frames, pagelist, new_page, private, result, force, stop_without_memory)
        while stop_without_memory and -Errno.ENOMEM in rc:
            short = _leading(rc != -Errno.ENOMEM)  # those after it were not tried
            if not split.split(int(pagelist[short]), force=force):
                left = pagelist[(rc == -Errno.ENOMEM) | (rc == -Errno.EAGAIN)]
                frames.putback(np.concatenate([left, split.pages]))
                return -Errno.ENOMEM
            rc[short] = 0
            rest = pagelist[short + 1 :]
            rc[short + 1 :] = unmap_and_move(
                frames, rest, new_page, private, result, force, stop_without_memory
            )
        again = rc == -Errno.EAGAIN
        failed += int(((rc != 0) & ~again).sum())
        stuck = number > 0 and force is forced and bool(again.all())
        forced = force
        pagelist = pagelist[again]
    frames.putback(pagelist)
    failed += len(pagelist)
    all_moved = _move_parts(frames, split.pages, new_page, private, result)
    return failed + split.count if failed or not all_moved else 0


def _move_parts(
    frames: Frames, pages: Handles, new_page: NewPage, private: object, result: Statuses
) -> bool:
    """Try the pages of split THPs once; tell whether all moved."""
    rc = unmap_and_move(frames, pages, new_page, private, result, False, True)  # noqa: FBT003
    frames.putback(pages[(rc == -Errno.ENOMEM) | (rc == -Errno.EAGAIN)])
    return not rc.any()


def unmap_and_move(
    frames: Frames,
    pages: Handles,
    get_new_page: NewPage,
    private: object,
    result: Statuses,
    force: bool,  # noqa: FBT001 - as in the C prototype
    stop_without_memory: bool,  # noqa: FBT001
) -> Statuses:
    """Get a new page for each page and move it there: 0 or a negative errno for each.

    The new page is allocated first, on every pass. A page that fails for good goes back to the LRU
    here; one with -EAGAIN stays isolated, and so do all from the first -ENOMEM on if that stops.
    """
    rc = np.full(len(pages), -Errno.ENOMEM, dtype=np.int32)
    at = 0
    while at < len(pages):
        new, slots = get_new_page(pages[at : at + PART], private)
        decided = _leading(new != LATER)
        if stop_without_memory:
            decided = min(decided, _leading(new != NONE))
            frames.free_pages(new[decided:][new[decided:] >= 0])
            if not decided:
                break
        chosen = slice(at, at + decided)
        rc[chosen] = _move_to(frames, pages[chosen], new[:decided], force)
        _store(frames, rc[chosen], new[:decided], slots[:decided], result)
        at += decided
    if rc.any():
        final = (rc != 0) & (rc != -Errno.EAGAIN)
        final &= (rc != -Errno.ENOMEM) | (not stop_without_memory)
        frames.putback(pages[final])
    return rc


def _move_to(frames: Frames, old: Handles, new: Handles, force: bool) -> Statuses:  # noqa: FBT001
    """Move pages for which there is a new one; the new pages that are not used are freed."""
    there = new != NONE
    if there.all():
        rc = frames.migrate(old, new, force=force)
        if rc.any():
            frames.free_pages(new[rc != 0])
        return rc
    rc = np.full(len(old), -Errno.ENOMEM, dtype=np.int32)
    rc[there] = frames.migrate(old[there], new[there], force=force)
    frames.free_pages(new[there & (rc != 0)])
    return rc


def _store(frames: Frames, rc: Statuses, new: Handles, slots: Handles, result: Statuses) -> None:
    """Store the outcomes of pages in their result slots: the error, or the node of the new page."""
    outcome, moved = rc.copy(), np.flatnonzero(rc == 0)
    outcome[as_run(moved)] = frames.node(new[as_run(moved)])
    named = as_run(np.flatnonzero(slots != NONE))
    result[as_run(slots[named])] = outcome[named]


def _leading(chosen: NDArray[np.bool_]) -> int:
    """Count how many are chosen before the first that is not."""
    return len(chosen) if chosen.all() else int(np.argmin(chosen))


# -- Move a list of individual pages ----------------------------------------------------------


class PageToNode:
    """The array `pm` of struct page_to_node: addresses, where their pages are to go, and statuses.

    `page` is NONE where the kernel puts its never-matching sentinel, ZERO_PAGE(0).
    """

    def __init__(self, addr: Addresses, node: Statuses) -> None:
        """Begin with no page and no status known."""
        self.addr = addr
        self.node = node
        self.page = np.full(len(addr), NONE, dtype=np.int64)
        self.status = np.zeros(len(addr), dtype=np.int32)
        self._first: Handles | None = None
        self._positions: Positions | None = None

    def first_entry(self, pages: Handles) -> Handles:
        """Return the first entry of each page: where new_page_node's search ends."""
        if self._positions is None:
            self._positions = self._of_first_entries()
        position = self._positions.of(pages)
        return position if self._first is None else self._first[position]

    def _of_first_entries(self) -> Positions:
        """Make the search; `_first` is None where each entry has a page of its own."""
        if NONE not in self.page and all_differ(self.page):
            return Positions(self.page)
        known = np.flatnonzero(self.page != NONE)
        self._first = known[first_of_each(self.page[known])]
        return Positions(self.page[self._first])


def new_page_node(frames: Frames, *, exact: bool) -> NewPage:
    """Return the new_page_t of move_pages: on the node of the page's first entry (D14)."""

    def new_page(old: Handles, private: object) -> tuple[Handles, Handles]:
        assert isinstance(private, PageToNode)  # noqa: S101 - `private` is void * in C
        entry = private.first_entry(old)
        return frames.allocate(old, private.node[entry], exact=exact), entry

    return new_page


def do_move_pages(
    space: AddressSpace,
    frames: Frames,
    pm: PageToNode,
    semantics: Semantics,
    *,
    migrate_all: bool,
) -> int:
    """Move the pages that `pm` names, with a status for each (do_move_pages of 2006).

    Return the number of pages that did not move, -ENOMEM, or -ENOENT if there was nothing to move.
    """
    frames.drain()  # migrate_prep()
    queued = look_up_pages(space, frames, pm, semantics, migrate_all=migrate_all)
    if not len(queued):
        return semantics.nothing_queued(pm)
    pagelist = pm.page[as_run(queued)]
    del queued  # as long as the list, and no longer needed
    new_page = new_page_node(frames, exact=semantics.exact_target)
    rc = migrate_pages(
        frames,
        pagelist,
        new_page,
        pm,
        pm.status,
        stop_without_memory=semantics.stops_without_memory,
    )
    return semantics.list_result(pm, rc)


def look_up_pages(
    space: AddressSpace,
    frames: Frames,
    pm: PageToNode,
    semantics: Semantics,
    *,
    migrate_all: bool,
) -> Handles:
    """Find the pages and isolate those to move; every entry gets its status for now.

    Each check is made on the entries that no earlier one has decided, in the kernel's order. Return
    the entries whose pages are isolated; their status stays 0 until the move stores another.
    """
    queued = np.zeros(len(pm.addr), dtype=np.bool_)
    for part in parts(len(pm.addr)):
        addr, node, status = pm.addr[part], pm.node[part], pm.status[part]
        entry = follow_pages(space, frames, addr, status, semantics)
        index, page = entry.index, entry.page
        pm.page[part][as_run(index)] = page
        there = frames.node(page) == node[as_run(index)]
        status[index[there]] = node[index[there]]
        index, page = index[~there], page[~there]

        if not migrate_all:
            shared = semantics.is_shared(frames, page)
            status[index[shared]] = -Errno.EACCES
            index, page = index[~shared], page[~shared]

        isolated = frames.isolate(page)
        status[index[~isolated]] = -Errno.EBUSY
        queued[part][index[isolated]] = True
    return np.flatnonzero(queued)


@dataclass(frozen=True, slots=True, eq=False)
class Followed:
    """Entries that have a page, and the page of each."""

    index: Handles
    page: Handles


def follow_pages(
    space: AddressSpace,
    frames: Frames,
    addr: Addresses,
    status: Statuses,
    semantics: Semantics,
    *,
    to_move: bool = True,
) -> Followed:
    """Find the page at each address; where there is none to speak of, store why.

    The steps that do_move_pages and do_pages_stat share: find_vma, follow_page, the zero page.
    """
    area = space.find_vma(addr)
    index = np.arange(len(addr))
    outside = ~space.contains(area, addr)
    if outside.any():
        in_hole = -Errno.EFAULT if semantics.vma_must_contain else -Errno.ENOENT  # D2
        status[outside] = np.where(area[outside] == NONE, -Errno.EFAULT, in_hole)
        index, area, addr = index[~outside], area[~outside], addr[~outside]
    if to_move and semantics.tests_migratable:
        device = ~space.migratable(area)
        if device.any():
            status[index[device]] = -Errno.EFAULT
            index, area, addr = index[~device], area[~device], addr[~device]
    page = space.follow_page(area, addr)
    absent = page == NONE
    if absent.any():
        status[index[absent]] = -Errno.ENOENT
        index, page = index[~absent], page[~absent]
    zero = frames.is_zero_page(page)
    if zero.any():
        status[index[zero]] = semantics.zero_page_status  # D1
        index, page = index[~zero], page[~zero]
    return Followed(index, page)


def do_pages_stat(
    space: AddressSpace, frames: Frames, addr: Addresses, semantics: Semantics
) -> Statuses:
    """Return the node of the page at each address, or why there is none (do_pages_stat)."""
    status = np.zeros(len(addr), dtype=np.int32)
    for part in parts(len(addr)):
        found = follow_pages(space, frames, addr[part], status[part], semantics, to_move=False)
        status[part][as_run(found.index)] = frames.node(found.page)
    return status

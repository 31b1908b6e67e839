"""What unmap_and_move does between the allocation of a new page and the putback of the old one.

`move_to_new_page`, the migrate methods of the backing stores, `migrate_page_move_mapping` and
`migrate_page_copy` of mm/migrate.c, on batches. The references decide whether a page can move: when
nothing maps it any more, only its isolation and its backing store may hold one. Any other holder
(a pin: I/O in flight, RDMA, a pipe) makes it -EAGAIN.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from movepages.abi import Errno
from movepages.kernel.frames import NO_MAPPING, PageFlag
from movepages.kernel.mappings import Backing, File, KsmNode
from movepages.kernel.positions import as_run, distinct

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from movepages.kernel.memory import Memory

    Handles = NDArray[np.int64]
    Statuses = NDArray[np.int32]

_COPIED = (
    PageFlag.REFERENCED
    | PageFlag.UPTODATE
    | PageFlag.DIRTY
    | PageFlag.ACTIVE
    | PageFlag.PRIVATE
    | PageFlag.SWAPBACKED
    | PageFlag.SWAPCACHE
    | PageFlag.UNEVICTABLE
    | PageFlag.ANON
    | PageFlag.KSM
    | PageFlag.THP
    | PageFlag.PAGE_CACHE
)
_COPIED_BITS = np.uint32(_COPIED)
_HELD_BY_STORE = (PageFlag.PAGE_CACHE, PageFlag.SWAPCACHE, PageFlag.PRIVATE)
_ANY_STORE = np.uint32(_HELD_BY_STORE[0] | _HELD_BY_STORE[1] | _HELD_BY_STORE[2])
_WRITTEN_BACK_FIRST = frozenset({Backing.NO_METHOD, Backing.WRITE_FAILS, Backing.NO_WRITEPAGE})


def move_to_new_pages(memory: Memory, old: Handles, new: Handles, *, force: bool) -> Statuses:
    """Move isolated pages into new ones; return 0 or a negative errno for each.

    On 0 the old page is freed and the new one is on the LRU. Else the old page is mapped as before,
    and the new one is untouched.
    """
    frames = memory.frames
    unused = frames.references[as_run(old)] == 1  # freed from under us: only our reference is left
    if not unused.any():
        return _unmap_and_move(memory, old, new, force=force)
    _drop_unused(memory, old[unused], new[unused])
    rc = np.zeros(len(old), dtype=np.int32)
    rc[~unused] = _unmap_and_move(memory, old[~unused], new[~unused], force=force)
    return rc


def may_fail(memory: Memory, pages: Handles) -> NDArray[np.bool_]:
    """Tell which isolated pages might not move at once, had they a new page."""
    frames = memory.frames
    at = as_run(pages)
    expected = 1 + frames.mapcount[at] + held_by_store(memory, pages)
    held: NDArray[np.bool_] = frames.references[at] != expected
    held |= frames.has(pages, PageFlag.LOCKED | PageFlag.WRITEBACK)
    if frames.had_large:
        held |= frames.order[pages] > 0  # splits where memory is short
    if not memory.semantics.moves_mlocked:
        held |= memory.is_locked(pages)
    dirty = frames.has(pages, PageFlag.DIRTY)
    for mapping, chosen in _by_mapping(memory, pages):
        backing = memory.mappings[mapping].backing
        if backing is Backing.REFUSES:
            held |= chosen
        elif backing in _WRITTEN_BACK_FIRST:
            held |= chosen & dirty
    return held


def held_by_store(memory: Memory, pages: Handles) -> Statuses:
    """Count the references that the page cache, the swap cache and buffers hold."""
    flags = memory.frames.flags[as_run(pages)]
    held = np.zeros(len(pages), dtype=np.int32)
    if not (flags & _ANY_STORE).any():
        return held  # anonymous pages are in no store
    for flag in _HELD_BY_STORE:
        held += (flags & np.uint32(flag)) != 0
    return held


def _drop_unused(memory: Memory, old: Handles, new: Handles) -> None:
    """Let go of a page that nobody uses any more, and of the one that was to take its place."""
    memory.frames.clear(old, PageFlag.ISOLATED)
    memory.frames.put(old)
    memory.frames.put(new)


def _unmap_and_move(memory: Memory, old: Handles, new: Handles, *, force: bool) -> Statuses:
    frames = memory.frames
    moves_mlocked = memory.semantics.moves_mlocked
    if moves_mlocked and not frames.has(old, PageFlag.LOCKED | PageFlag.WRITEBACK).any():
        return _migrate_unlocked(memory, old, new)
    rc = np.zeros(len(old), dtype=np.int32)
    for flag in (PageFlag.LOCKED, PageFlag.WRITEBACK):
        busy = frames.has(old, flag)
        if force:  # waits until whoever holds the lock, or writes, is done
            frames.clear(old[busy], flag)
        else:
            rc[busy] = -Errno.EAGAIN
    if not moves_mlocked:
        locked = np.flatnonzero(rc == 0)
        rc[locked[memory.is_locked(old[locked])]] = -Errno.EPERM
    chosen = np.flatnonzero(rc == 0)
    rc[chosen] = _migrate_unlocked(memory, old[chosen], new[chosen])
    return rc


def _migrate_unlocked(memory: Memory, old: Handles, new: Handles) -> Statuses:
    """Establish migration entries, move, and map again: the new pages or, failing that, the old."""
    frames = memory.frames
    mapped = memory.rmap.try_to_unmap(old)
    rc = move_to_new_page(memory, old, new)
    moved = rc == 0
    all_moved = bool(moved.all())
    source, target = (old, new) if all_moved else (old[moved], new[moved])
    now = new if all_moved else np.where(moved, new, old)
    memory.rmap.remove_migration_ptes(mapped, old, now)
    memory.lru.add_moved(target)
    frames.put(target)
    frames.put(source)
    return rc


def move_to_new_page(memory: Memory, old: Handles, new: Handles) -> Statuses:
    """Move unmapped pages by the method of their mapping; return 0 or a negative errno for each."""
    rc = np.zeros(len(old), dtype=np.int32)
    for mapping, chosen in _by_mapping(memory, old):
        backing = memory.mappings[mapping].backing
        if backing is Backing.REFUSES:
            rc[chosen] = -Errno.EIO
        elif backing in _WRITTEN_BACK_FIRST:
            rc[chosen] = _write_out(memory, old[chosen], backing)
    held = memory.frames.references[as_run(old)] != 1 + held_by_store(memory, old)
    rc[(rc == 0) & held] = -Errno.EAGAIN
    if rc.any():
        old, new = old[rc == 0], new[rc == 0]
    if len(old):
        _move_mapping(memory, old, new)
        _copy(memory, old, new)
    return rc


def _write_out(memory: Memory, pages: Handles, backing: Backing) -> Statuses:
    """Write back dirty pages (fallback_migrate_page, writeout): they are tried again when clean."""
    rc = np.zeros(len(pages), dtype=np.int32)
    dirty = memory.frames.has(pages, PageFlag.DIRTY)
    if backing is Backing.NO_WRITEPAGE:
        rc[dirty] = -Errno.EINVAL
        return rc
    memory.frames.clear(pages[dirty], PageFlag.DIRTY)
    rc[dirty] = -Errno.EIO if backing is Backing.WRITE_FAILS else -Errno.EAGAIN
    return rc


def _move_mapping(memory: Memory, old: Handles, new: Handles) -> None:
    """Put the new pages into the places of the old (migrate_page_move_mapping)."""
    frames = memory.frames
    held = held_by_store(memory, old)
    source, target = as_run(old), as_run(new)
    frames.mapping[target] = frames.mapping[source]
    frames.index[target] = frames.index[source]
    if held.any():
        frames.references[target] += held
        frames.references[source] -= held
    elif not frames.has(old, PageFlag.KSM).any():
        return
    for mapping_id, chosen in _by_mapping(memory, old):
        mapping = memory.mappings[mapping_id]
        if isinstance(mapping, File):
            cached = chosen & frames.has(old, PageFlag.PAGE_CACHE)
            _move_in_cache(memory, mapping, old[cached], new[cached])
        elif isinstance(mapping, KsmNode):
            for before, after in zip(old[chosen].tolist(), new[chosen].tolist(), strict=True):
                mapping.mappers[after] = mapping.mappers.pop(before)


def _move_in_cache(memory: Memory, file: File, old: Handles, new: Handles) -> None:
    """Let the page cache hold the new frames, of folios every one."""
    for order in np.unique(memory.frames.order[old]).tolist():
        alike = memory.frames.order[old] == order
        pages = memory.frames.members(memory.frames.index[old[alike]].astype(np.int64), order)
        file.cache[pages] = memory.frames.members(new[alike], order)


def _copy(memory: Memory, old: Handles, new: Handles) -> None:
    """Copy contents and flags (migrate_page_copy); the old page is nobody's any more."""
    frames = memory.frames
    if not frames.had_large:
        frames.copy(old, new, 0)
    else:
        orders = frames.order[old]
        for order in distinct(orders):
            frames.copy(old[orders == order], new[orders == order], order)
        hugetlb = frames.has(old, PageFlag.HUGETLB)
        memory.pools.moved(old[hugetlb], new[hugetlb])
    source = as_run(old)
    frames.flags[as_run(new)] |= frames.flags[source] & _COPIED_BITS
    frames.flags[source] &= ~(_COPIED_BITS | np.uint32(PageFlag.ISOLATED))
    frames.mapping[source] = NO_MAPPING


def _by_mapping(memory: Memory, pages: Handles) -> Iterator[tuple[int, NDArray[np.bool_]]]:
    """Go through the mappings of some pages, as (id, which pages)."""
    of_page = memory.frames.mapping[as_run(pages)]
    if len(of_page) and (of_page == of_page[0]).all():
        if of_page[0] != NO_MAPPING:
            yield int(of_page[0]), np.ones(len(pages), dtype=np.bool_)
        return
    for mapping in np.unique(of_page).tolist():
        if mapping != NO_MAPPING:
            yield mapping, of_page == mapping

"""Pages that others hold as well: shared, copied on write, of files, locked, pinned."""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path

import pytest
from guestkit.memory import lock, pinned
from guestkit.pages import PAGE_BYTES

from movepages.abi import MoveFlag

pytestmark = [pytest.mark.lab, pytest.mark.needs_nodes(4)]


def test_shared_mapping_moves_only_with_move_all(memory, fork):
    """Rows `MAP_SHARED in 2 procs, MF_MOVE`, `MAP_SHARED in 2 procs, MF_MOVE_ALL (root)`."""
    pages = memory.shared(8).touch()

    def sharer():
        pages.data.sum()  # maps them here too
        yield "mapped"
        yield pages.intact(), pages.where()

    child = fork(sharer)
    child.step()
    assert pages.move(1) == "0 | {-EACCES:8}"
    assert pages.move(1, MoveFlag.MOVE_ALL) == "0 | {1:8}"
    assert child.step() == (True, "{1:8}")


def test_pages_shared_by_a_fork(memory, fork):
    """What a fork shares moves for both, from either side, with MOVE_ALL; alone again with MOVE.

    Rows `private COW-shared after fork, MF_MOVE`, `private COW-shared, MF_MOVE_ALL`,
    `child's COW-shared via pid, MOVE_ALL`, `same pages once child is gone, MF_MOVE`.
    """
    pages = memory.private(8).touch()

    def sharer():
        while True:
            yield pages.where()

    child = fork(sharer)
    assert pages.move(1) == "0 | {-EACCES:8}"
    assert (pages.move(2, MoveFlag.MOVE_ALL), child.step()) == ("0 | {2:8}", "{2:8}")
    by_pid = pages.move(3, MoveFlag.MOVE_ALL, child.pid)
    assert (by_pid, pages.where()) == ("0 | {3:8}", "{3:8}")
    child.kill()
    assert pages.move(1) == "0 | {1:8}"
    assert pages.intact()


def test_private_pages_of_a_child(memory, fork):
    """Row `root moves child's private pages by pid`: the parent's stay where they are."""
    pages = memory.private(8).touch()
    pages.move(1)

    def writer():
        pages.touch()
        yield "written"
        yield pages.intact()

    child = fork(writer)
    child.step()
    assert pages.move(3, pid=child.pid) == "0 | {3:8}"
    assert pages.where() == "{1:8}"
    assert child.step()


def test_tmpfs_file_with_one_mapper(memory):
    """Row `tmpfs file MAP_SHARED, one mapper`: shared as a mapping, but mapped once."""
    descriptor = os.memfd_create("shared")
    os.truncate(descriptor, 8 * PAGE_BYTES)
    pages = memory.shared_file(descriptor, 8).touch()
    os.close(descriptor)
    assert pages.move(2) == "0 | {2:8}"
    assert pages.intact()


def test_page_cache_of_a_file(memory):
    """Rows `file page cache (virtiofs/ro) query`, `file page cache move -> 3`."""
    path = Path(sysconfig.get_path("stdlib"), "pydoc_data", "topics.py")
    descriptor = os.open(path, os.O_RDONLY)
    expected = os.pread(descriptor, 8 * PAGE_BYTES, 0)
    pages = memory.read_only_file(descriptor, 8)
    os.close(descriptor)
    assert pages.data.tobytes() == expected
    assert pages.query() == "0 | {0:8}"
    assert pages.move(3) == "0 | {3:8}"
    assert pages.data.tobytes() == expected


def test_locked_pages_move(memory):
    """Row `mlocked pages`: since 2.6.18 mlock(2) keeps them in memory, not on their node."""
    pages = memory.private(64).touch()
    lock(pages)
    assert pages.move(2) == "0 | {2:64}"
    assert pages.intact()


def test_pinned_pages_leave_the_whole_batch_unwritten(memory):
    """Rows `4 pages referenced by pipe (vmsplice 16384)`, `after pipe drained`.

    The free half moves, though no status says so: only a query tells the truth.
    """
    pages = memory.private(8).touch()
    with pinned(pages[:4]) as held_bytes:
        assert held_bytes == 16384
        assert pages.move(3) == "4 | {99:8}"
        assert pages.where_each() == "[0, 0, 0, 0, 3, 3, 3, 3]"
    assert pages.move(3) == "0 | {3:8}"
    assert pages.intact()

"""Swap, and the reclaim that fills it."""

from __future__ import annotations

import errno

import numpy as np
import pytest

from movepages.abi import MoveFlag
from movepages.kernel import SimulatedMachine

MOVE = int(MoveFlag.MOVE)
PAGE = 4096


def full_target(swap_pages, pages=8, *, real_bytes=False):
    """Return a machine whose node 1 is full of one process's pages, and another's pages on 0."""
    machine = SimulatedMachine("2 x 256K", swap_bytes=swap_pages * PAGE, real_bytes=real_bytes)
    hog = machine.spawn(cpu=1)
    full = hog.mmap(64)
    hog.poke(full, range(1, 65))
    p = machine.spawn(cpu=0)
    a = p.mmap(pages)
    p.poke(a, range(101, 101 + pages))
    machine.memory.lru.drain_all()
    machine.check()
    return machine, hog, full, p, a


def test_a_full_target_without_swap_has_no_memory():
    """Without swap the move ends with -ENOMEM (decision table)."""
    machine, _, _, p, a = full_target(0)
    assert p.move_pages(0, p.addresses(a, 8), [1] * 8, MOVE)[0] == -errno.ENOMEM
    machine.check()


def test_a_full_target_with_swap_takes_the_pages():
    """With swap all move, and the coldest pages of the target are -ENOENT (decision table)."""
    machine, hog, full, p, a = full_target(64)
    ret, status = p.move_pages(0, p.addresses(a, 8), [1] * 8, MOVE)
    assert (ret, status.tolist()) == (0, [1] * 8)
    machine.check()
    there = hog.move_pages(0, hog.addresses(full, 64), None, 0)[1]
    assert (there == -errno.ENOENT).sum() == 8
    assert (there[:8] == -errno.ENOENT).all()


def test_swapped_pages_come_back_with_their_contents():
    """A page that was swapped out is read in again by the next touch."""
    machine, hog, full, p, a = full_target(64)
    p.move_pages(0, p.addresses(a, 8), [1] * 8, MOVE)
    p.exit()
    assert hog.peek(full, 64).tolist() == list(range(1, 65))
    machine.check()
    assert not machine.memory.swap.users.any()


def test_real_bytes_survive_swap():
    """Bytes, not only tags, go to swap and come back."""
    _, hog, full, p, a = full_target(64, real_bytes=True)
    hog.store(full + 10, b"first")
    p.move_pages(0, p.addresses(a, 8), [1] * 8, MOVE)
    assert hog.frames(full, 1).tolist() == [-1]
    p.exit()
    assert hog.load(full + 10, 5) == b"first"


def test_fork_shares_swapped_pages():
    """A swap slot is in use until the last process that has it is gone."""
    machine, hog, _, p, a = full_target(64)
    p.move_pages(0, p.addresses(a, 4), [1] * 4, MOVE)
    child = hog.fork()
    machine.check()
    assert (machine.memory.swap.users == 2).sum() == 4
    child.exit()
    machine.check()
    hog.exit()
    machine.check()
    assert not machine.memory.swap.users.any()


@pytest.mark.parametrize(("swap_pages", "moved"), [(3, 3), (4, 4)])
def test_swap_runs_out(swap_pages, moved):
    """Reclaim frees as much as swap takes: with one slot too few the last page has no memory."""
    machine, _, _, p, a = full_target(swap_pages, pages=4)
    ret, _ = p.move_pages(0, p.addresses(a, 4), [1] * 4, MOVE)
    assert ret == (0 if moved == 4 else -errno.ENOMEM)
    assert int((p.nodes(a, 4) == 1).sum()) == moved
    machine.check()


def test_locked_and_shared_pages_are_not_swapped():
    """Reclaim leaves mlocked pages and pages with several mappings where they are."""
    machine, hog, full, p, a = full_target(64)
    hog.mlock(full, 64)
    assert p.move_pages(0, p.addresses(a, 4), [1] * 4, MOVE)[0] == -errno.ENOMEM
    hog.munlock(full, 64)
    hog.fork()
    assert p.move_pages(0, p.addresses(a, 4), [1] * 4, MOVE)[0] == -errno.ENOMEM
    assert np.count_nonzero(machine.memory.swap.users) == 0
    machine.check()

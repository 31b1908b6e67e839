"""LRU lists and the per-CPU batches in front of them."""

from __future__ import annotations

import numpy as np
import pytest

from movepages.kernel import LINUX_2_6_18, LINUX_6_12, SimulatedMachine
from movepages.kernel.frames import PageFlag
from movepages.kernel.positions import first_of_each


@pytest.fixture(params=[LINUX_2_6_18, LINUX_6_12], ids=lambda semantics: semantics.name)
def machine(request):
    """Return a machine with batches of 14, and one with batches of 31."""
    return SimulatedMachine("2 x 8M", semantics=request.param)


def touched(machine, pages):
    """Start a process that has touched so many pages; return it and their frames."""
    p = machine.spawn()
    a = p.mmap(pages)
    p.write(a, pages)
    return p, p.frames(a, pages)


def test_new_pages_wait_in_a_batch_until_it_is_full(machine):
    """One page less than a batch waits whole; the page that fills it sends all to the LRU."""
    size = machine.semantics.lru_batch_pages
    _, frames = touched(machine, size - 1)
    assert len(machine.memory.lru.waiting()) == size - 1
    assert not machine.memory.on_lru(frames).any()
    touched(machine, 1)
    assert machine.memory.on_lru(frames).all()
    machine.check()


def test_draining_empties_the_batches_of_all_cpus(machine):
    """lru_add_drain_all puts what waits on any CPU on the LRU."""
    for cpu in (0, 1):
        p = machine.spawn(cpu=cpu)
        p.write(p.mmap(1))
    assert len(machine.memory.lru.waiting()) == 2
    machine.memory.lru.drain_all()
    assert len(machine.memory.lru.waiting()) == 0
    machine.check()


def test_pages_pass_by_a_batch_that_is_disabled(machine):
    """While the cache is disabled new pages go to the LRU at once, also when it nests."""
    lru = machine.memory.lru
    lru.disable_cache()
    lru.disable_cache()
    lru.enable_cache()
    _, frames = touched(machine, 1)
    assert machine.memory.on_lru(frames).all()
    lru.enable_cache()
    _, frames = touched(machine, 1)
    assert not machine.memory.on_lru(frames).any()
    machine.check()


def test_a_page_is_isolated_once(machine):
    """Of two mentions of a page the first isolates it; one in a batch cannot be isolated."""
    lru = machine.memory.lru
    _, frames = touched(machine, 2)
    assert not lru.isolate(frames).any()
    lru.drain_all()
    assert lru.isolate(frames[[0, 1, 0]]).tolist() == [True, True, False]
    assert machine.memory.frames.references[frames].tolist() == [2, 2]
    machine.check()
    lru.putback(frames)
    assert machine.memory.on_lru(frames).all()
    machine.check()


def test_putback_frees_what_nobody_wants_any_more(machine):
    """A page that was unmapped while isolated goes with the reference of isolation."""
    p, frames = touched(machine, 1)
    machine.memory.lru.drain_all()
    machine.memory.lru.isolate(frames)
    p.exit()
    assert not machine.memory.frames.free[frames].any()
    machine.memory.lru.putback(frames)
    assert machine.memory.frames.free[frames].all()
    machine.check()


def test_pages_in_a_batch_leave_it_when_they_are_freed(machine):
    """A page that is freed while it waits does not haunt the batch."""
    p, _ = touched(machine, 3)
    p.exit()
    assert len(machine.memory.lru.waiting()) == 0
    machine.check()


def test_large_folios_do_not_wait():
    """A THP goes to the LRU at once and takes along what waits on its CPU (lru_cache_add)."""
    machine = SimulatedMachine("2 x 8M")
    p = machine.spawn()
    small = p.mmap(1)
    p.write(small)
    a = p.mmap(512)
    p.madvise(a, 512, "hugepage")
    p.write(a)
    assert len(machine.memory.lru.waiting()) == 0
    assert machine.memory.on_lru(p.frames(small, 1)).all()
    machine.check()


def test_the_coldest_page_is_the_one_added_first():
    """Pages leave the inactive list in the order of their addition; active ones come last."""
    machine = SimulatedMachine("2 x 8M")
    _, frames = touched(machine, 4)
    machine.memory.lru.drain_all()
    machine.memory.frames.set(frames[:1], PageFlag.ACTIVE)
    assert machine.memory.lru.oldest(0, 4).tolist() == frames[[1, 2, 3, 0]].tolist()


def test_stamps_are_renumbered_before_they_overflow():
    """When the stamps run out the pages on the lists keep their order with new ones from 0 on."""
    machine = SimulatedMachine("2 x 8M")
    lru = machine.memory.lru
    lru._stamp = (1 << 31) - 1 - 2
    _, frames = touched(machine, 2)
    lru.drain_all()
    _, more = touched(machine, 1)
    lru.drain_all()
    assert lru.oldest(0, 3).tolist() == [*frames.tolist(), *more.tolist()]
    assert machine.memory.frames.lru_stamp.max() == 2
    machine.check()


def test_first_of_each_value():
    """The first position of each value, in order of position."""
    assert first_of_each(np.array([3, 1, 3, 2, 1])).tolist() == [0, 1, 3]
    assert first_of_each(np.array([1, 2, 3])).tolist() == [0, 1, 2]
    assert first_of_each(np.array([], dtype=np.int64)).tolist() == []

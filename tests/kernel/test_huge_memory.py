"""Huge pages that are mapped in part, and how they are split."""

from __future__ import annotations

import errno

import numpy as np
import pytest

from movepages.kernel import SimulatedMachine
from movepages.kernel.address_space import Prot
from movepages.kernel.frames import ZERO_PFN, PageFlag
from movepages.kernel.huge_memory import find_partially_mapped, guess_mapcounts, split_folios
from movepages.kernel.inject import Busy, Pin

MOVE, MOVE_ALL = 2, 4
PAGE = 4096
HUGE = 512


@pytest.fixture
def machine():
    """Return a machine of two nodes, checked at the end."""
    machine = SimulatedMachine("2 x 16M")
    yield machine
    machine.check()


@pytest.fixture
def p(machine):
    """A process."""
    return machine.spawn()


def huge(p):
    """Map a huge page, of which nothing is written yet; return its address and its frame."""
    a = p.mmap(HUGE)
    p.madvise(a, HUGE, "hugepage")
    p.poke(a, [1])
    return a, p.frames(a, 1)


def test_one_process_maps_by_pages_what_the_other_maps_whole(machine, p):
    """Each mapping is split for itself: one entry there, one for each page here."""
    a, head = huge(p)
    child = p.fork()
    child.mprotect(a, 8, Prot.READ)
    assert machine.memory.frames.mapcount[head].tolist() == [1 + HUGE]
    assert machine.memory.rmap.page_mapcounts(p.frames(a, HUGE)).tolist() == [2] * HUGE
    assert not find_partially_mapped(machine.memory, head)[0]


def test_a_folio_is_mapped_in_part_once_nobody_maps_a_page(machine, p):
    """Not while another process maps all of it, nor while the parts of two make a whole."""
    a, head = huge(p)
    child = p.fork()
    child.munmap(a, 8)
    assert not find_partially_mapped(machine.memory, head)[0]
    p.munmap(a + 8 * PAGE, 8)
    assert not find_partially_mapped(machine.memory, head)[0]
    p.munmap(a, 1)
    assert find_partially_mapped(machine.memory, head)[0]
    p.munmap(a, HUGE)
    assert find_partially_mapped(machine.memory, head)[0]
    child.munmap(a + PAGE, HUGE)
    assert machine.memory.frames.free[head].all()


def test_the_last_page_of_a_folio_is_mapped_once_and_in_part(machine, p):
    """One mapping is that of a page, where it might have been that of a huge one."""
    a, head = huge(p)
    p.munmap(a + PAGE, HUGE - 1)
    assert machine.memory.frames.mapcount[head].tolist() == [1]
    assert find_partially_mapped(machine.memory, head)[0]
    assert p.move_pages(0, [a], [1], MOVE)[0] == 0
    assert machine.memory.frames.order[p.frames(a, 1)].tolist() == [0]
    assert machine.memory.frames.free[head[0] : head[0] + HUGE].all()


@pytest.mark.parametrize(
    ("kept", "expected"),
    [(slice(0, 0), 1), (slice(1, HUGE), 1), (slice(0, 1), 2), (slice(0, HUGE), 2 * HUGE)],
)
def test_sharing_is_guessed_by_the_first_page(machine, p, kept, expected):
    """By pages, and no more often than there are, but for the last (folio_likely_mapped_shared)."""
    a, head = huge(p)
    p.mprotect(a, 8, Prot.READ)
    child = p.fork()
    pages = range(HUGE)[kept]
    for page in sorted(set(range(HUGE)) - set(pages)):
        child.munmap(a + page * PAGE, 1)
    if len(pages) < HUGE:  # as many mappings as pages, at most
        p.munmap(a + PAGE, len(pages) if pages else 1)
    assert guess_mapcounts(machine.memory, head).tolist() == [expected]


def test_a_split_maps_the_zero_page_for_pages_full_of_zeroes(machine, p):
    """Of pages that nobody has written to none is left, but where memory is locked."""
    a, head = huge(p)
    p.write(a + PAGE)
    p.poke(a + 2 * PAGE, [0])
    p.mlock(a + 8 * PAGE, 2)
    free = machine.memory.frames.nodes[0].free_pages
    split_folios(machine.memory, head)
    frames = p.frames(a, HUGE)
    assert np.flatnonzero(frames != ZERO_PFN).tolist() == [0, 1, 8, 9]
    assert machine.memory.frames.nodes[0].free_pages == free + HUGE - 4
    assert p.peek(a, 3).tolist() == [1, 0, 0]
    p.poke(a + 2 * PAGE, [5])
    assert p.peek(a + 2 * PAGE).tolist() == [5]


def test_real_bytes_decide_what_is_full_of_zeroes():
    """A page is looked at to its last byte."""
    machine = SimulatedMachine("2 x 16M", real_bytes=True)
    p = machine.spawn()
    a = p.mmap(HUGE)
    p.madvise(a, HUGE, "hugepage")
    p.store(a + PAGE - 1, b"x")
    p.store(a + PAGE, bytes(PAGE))
    p.munmap(a + 8 * PAGE, 1)
    assert p.move_pages(0, [a], [1], MOVE)[0] == 0
    assert p.nodes(a, 1).tolist() == [1]
    assert p.frames(a + PAGE, 1).tolist() == [ZERO_PFN]
    assert p.load(a + PAGE - 1, 2) == b"x\0"
    machine.check()


def test_a_pin_keeps_a_folio_mapped_in_part_whole(machine, p):
    """It is not split, does not move, and counts once (split_huge_page: -EAGAIN)."""
    a, head = huge(p)
    p.munmap(a + 8 * PAGE, 1)
    with machine.inject(Pin(p, a)):
        assert p.move_pages(0, [a], [1], MOVE)[0] == 1
        assert machine.memory.frames.order[head].tolist() == [9]
    assert p.move_pages(0, [a], [1], MOVE)[0] == 0


def test_a_lock_is_waited_for_before_a_split(machine, p):
    """A folio that is locked for some passes is split after them, and moves."""
    a, _ = huge(p)
    p.munmap(a + 8 * PAGE, 1)
    with machine.inject(Busy(p, a, passes=2)):
        assert p.move_pages(0, [a], [1], MOVE)[0] == 0
    assert p.nodes(a, 1).tolist() == [1]


def test_a_split_counts_only_where_something_stays(machine, p):
    """With a pinned page beside it the call counts two, the split as well; alone it counts none."""
    a, _ = huge(p)
    b = p.mmap(1)
    p.write(b)
    p.munmap(a + 8 * PAGE, 1)
    with machine.inject(Pin(p, b)):
        assert p.move_pages(0, [a, b], [1, 1], MOVE)[0] == 2
    assert p.nodes(a, 1).tolist() == [1]


def test_pages_of_a_split_folio_that_find_no_memory_stay(machine, p):
    """The target has room for some of them only: they are all mapped, and the call counts one."""
    a, _ = huge(p)
    p.write(a, HUGE)
    p.munmap(a + 8 * PAGE, 1)
    frames = machine.memory.frames
    taken = frames.allocate(1, frames.nodes[1].available_pages - 100)
    frames.references[taken] = 0
    machine.memory.pin(taken)
    assert p.move_pages(0, [a], [1], MOVE)[0] == 1
    assert np.bincount(p.nodes(a, 8)).tolist() == [0, 8]
    assert np.bincount(p.nodes(a + 9 * PAGE, HUGE - 9)).tolist() == [HUGE - 101, 92]
    assert not frames.has(p.frames(a, 8), PageFlag.ISOLATED).any()


def test_what_is_shared_is_split_for_all(p):
    """Both processes map the pages where they go, and the zero page where those were empty."""
    a, _ = huge(p)
    child = p.fork()
    for one in (p, child):
        one.munmap(a + 8 * PAGE, 1)
    assert p.move_pages(0, [a], [1], MOVE) == (0, [-errno.EACCES])
    assert p.move_pages(0, [a], [1], MOVE_ALL)[0] == 0
    assert child.frames(a, HUGE).tolist() == p.frames(a, HUGE).tolist()
    assert child.nodes(a, 1).tolist() == [1]
    assert child.frames(a + PAGE, 1).tolist() == [ZERO_PFN]


def test_offline_memory_leaves_no_part_behind(machine, p):
    """Hotplug moves what is left of a folio too."""
    a, _ = huge(p)
    p.write(a, 4)
    p.munmap(a + 8 * PAGE, 1)
    machine.offline(1)
    machine.online(1)
    assert p.move_pages(0, [a], [1], MOVE)[0] == 0
    b, _ = huge(p)
    p.munmap(b, 1)
    p.write(b + PAGE)
    assert p.move_pages(0, [b + PAGE], [1], MOVE)[0] == 0
    assert machine.offline(1) == 0
    assert p.nodes(a, 4).tolist() == [0] * 4

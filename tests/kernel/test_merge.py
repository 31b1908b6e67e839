"""Merging of equal pages."""

from __future__ import annotations

import errno

import pytest

from movepages.abi import MoveFlag
from movepages.errors import UnsupportedError
from movepages.kernel import DOCUMENTED_2006, LINUX_2_6_18, PATCH_2006, SimulatedMachine
from movepages.kernel.frames import PageFlag
from movepages.kernel.inject import Pin

PAGE = 4096


@pytest.fixture
def machine():
    """Return a machine of two nodes."""
    machine = SimulatedMachine("2 x 16M")
    yield machine
    machine.check()


def mergeable(machine, tags, cpu=0):
    """Start a process with pages of those contents, to be merged; return it and where they are."""
    p = machine.spawn(cpu=cpu)
    a = p.mmap(len(tags))
    p.poke(a, tags)
    p.madvise(a, len(tags), "mergeable")
    return p, a


def test_equal_pages_become_one(machine):
    """Of equal pages one is kept; others differ and stay as they are."""
    p, a = mergeable(machine, [5, 6, 5, 5])
    free = machine.free_bytes()[0]
    assert machine.merge() == 2
    machine.check()
    frames = p.frames(a, 4)
    assert frames[0] == frames[2] == frames[3] != frames[1]
    assert p.peek(a, 4).tolist() == [5, 6, 5, 5]
    assert machine.free_bytes()[0] == free + 2 * PAGE
    assert machine.memory.frames.mapcount[frames].tolist() == [3, 1, 3, 3]
    assert machine.merge() == 0


def test_pages_are_merged_across_processes_and_nodes(machine):
    """Equal pages of two processes on two nodes become one frame."""
    p, a = mergeable(machine, [1, 2], cpu=0)
    q, b = mergeable(machine, [2, 3], cpu=1)
    assert machine.merge() == 1
    assert p.frames(a + PAGE, 1)[0] == q.frames(b, 1)[0]


def test_only_mergeable_memory_is_merged(machine):
    """Memory without the advice, and shared memory, is left alone."""
    p, _ = mergeable(machine, [9])
    other = p.mmap(2)
    p.poke(other, [9, 9])
    shared = p.mmap(1, shared=True)
    p.poke(shared, [9])
    p.madvise(shared, 1, "mergeable")
    assert machine.merge() == 0


def test_a_write_breaks_a_merged_page_up(machine):
    """The writer gets a page of its own, even the last who maps a merged page."""
    p, a = mergeable(machine, [5, 5])
    machine.merge()
    p.poke(a, [7])
    machine.check()
    assert p.peek(a, 2).tolist() == [7, 5]
    merged = p.frames(a + PAGE, 1)
    p.poke(a + PAGE, [8])
    assert p.frames(a + PAGE, 1)[0] != merged[0]
    assert machine.memory.frames.free[merged].all()


def test_merged_pages_move_for_all_or_not_at_all(machine):
    """MOVE is -EACCES, MOVE_ALL moves it for every sharer (decision table, KSM row)."""
    p, a = mergeable(machine, [5])
    q, b = mergeable(machine, [5])
    machine.merge()
    assert p.move_pages(0, [a], [1], MoveFlag.MOVE)[1].tolist() == [-errno.EACCES]
    ret, status = p.move_pages(0, [a], [1], MoveFlag.MOVE_ALL)
    assert (ret, status.tolist()) == (0, [1])
    machine.check()
    assert q.nodes(b, 1).tolist() == [1]
    assert q.peek(b).tolist() == [5]
    assert machine.memory.frames.has(q.frames(b, 1), PageFlag.KSM).all()


def test_merged_pages_survive_fork_mremap_and_exit(machine):
    """Who maps a merged page is known through fork, mremap, munmap and exit."""
    p, a = mergeable(machine, [5, 5, 4])
    machine.merge()
    child = p.fork()
    machine.check()
    b = child.mremap(a, 2)
    machine.check()
    p.munmap(a, 1)
    machine.check()
    p.exit()
    machine.check()
    assert child.move_pages(0, [b], [1], MoveFlag.MOVE_ALL)[1].tolist() == [1]
    assert child.peek(b, 2).tolist() == [5, 5]


def test_a_merged_page_takes_in_more(machine):
    """A later scan maps new equal pages to the page that is merged already."""
    p, a = mergeable(machine, [5, 5])
    machine.merge()
    kept = p.frames(a, 1)[0]
    q, b = mergeable(machine, [5, 1])
    assert machine.merge() == 1
    assert q.frames(b, 1)[0] == kept


def test_pinned_pages_are_not_merged(machine):
    """A page that someone else holds keeps its frame."""
    p, a = mergeable(machine, [5, 5])
    with machine.inject(Pin(p, a)):
        assert machine.merge() == 0
    assert machine.merge() == 1


def test_thps_are_split_to_be_merged(machine):
    """Equal pages inside THPs are merged, which splits the THPs."""
    p = machine.spawn()
    a = p.mmap(512)
    p.madvise(a, 512, "hugepage")
    p.poke(a, [3] * 512)
    p.madvise(a, 512, "mergeable")
    assert machine.merge() == 511
    assert machine.memory.frames.mapcount[p.frames(a, 1)].tolist() == [512]


def test_real_bytes_decide(machine):
    """With real bytes pages of one tag but other bytes are not equal."""
    machine = SimulatedMachine("2 x 8M", real_bytes=True)
    p = machine.spawn()
    a = p.mmap(3)
    p.store(a, b"same" * 1024 + b"same" * 1024 + b"diff" * 1024)
    p.madvise(a, 3, "mergeable")
    assert machine.merge() == 1
    assert p.load(a + PAGE, 8) == b"samesame"
    machine.check()


@pytest.mark.parametrize(
    "semantics", [DOCUMENTED_2006, PATCH_2006, LINUX_2_6_18], ids=lambda s: s.name
)
def test_there_is_no_merging_in_2006(semantics):
    """KSM is younger than these kernels."""
    with pytest.raises(UnsupportedError, match="merged"):
        SimulatedMachine("2", semantics=semantics).merge()

"""Areas that are alike again are one again (vma_merge)."""

from __future__ import annotations

import pytest

from movepages.abi import Mode
from movepages.kernel import SimulatedMachine
from movepages.kernel.address_space import Prot

PAGE = 4096
R, RW = Prot.READ, Prot.READ | Prot.WRITE


@pytest.fixture
def machine():
    """Return a machine of two nodes; nothing may be lost on it."""
    machine = SimulatedMachine("2 x 16M")
    yield machine
    machine.check()


@pytest.fixture
def p(machine):
    """Return a process with nothing mapped."""
    return machine.spawn()


def spans(p) -> list[int]:
    """Return the lengths of a process's areas in pages."""
    return [vma.pages for vma in p.struct.mm.areas]


def test_a_change_cuts_and_its_undoing_merges(p):
    """Protecting the middle makes three areas of one, and undoing it makes one of three."""
    a = p.mmap(8)
    p.poke(a, range(8))
    p.mprotect(a + 2 * PAGE, 3, R)
    assert spans(p) == [2, 3, 3]
    p.mprotect(a + 2 * PAGE, 3, RW)
    assert spans(p) == [8]
    assert p.peek(a, 8).tolist() == list(range(8))


def test_a_change_that_changes_nothing_does_not_cut(p):
    """Allowing what is allowed already leaves one area, as mprotect_fixup does."""
    a = p.mmap(8)
    p.mprotect(a + 2 * PAGE, 3, RW)
    assert spans(p) == [8]


@pytest.mark.parametrize(
    ("there", "back"),
    [
        (lambda p, a: p.mlock(a, 3), lambda p, a: p.munlock(a, 3)),
        (
            lambda p, a: p.mbind(a, 3, Mode.BIND, {1}),
            lambda p, a: p.mbind(a, 3, Mode.DEFAULT),
        ),
        (
            lambda p, a: p.madvise(a, 3, "mergeable"),
            lambda p, a: p.madvise(a + 3 * PAGE, 5, "mergeable"),
        ),
    ],
    ids=["mlock", "mbind", "madvise"],
)
def test_whatever_made_areas_differ(p, there, back):
    """Locks, policies and advice cut an area, and merge it when they are alike again."""
    a = p.mmap(8)
    there(p, a)
    assert spans(p) == [3, 5]
    back(p, a)
    assert spans(p) == [8]


def test_areas_on_slots_far_apart_are_brought_together(machine, p):
    """A child's areas may lie apart in the page tables; merged, they keep their pages and rmap."""
    hole = p.mmap(2)
    a = p.mmap(6)
    p.munmap(hole, 2)
    p.mprotect(a, 2, R)
    p.mprotect(a, 2, RW)
    p.poke(a, range(1, 7))
    p.mprotect(a, 2, R)
    child = p.fork()
    lower, upper = child.struct.mm.areas
    assert lower.slot + lower.pages != upper.slot
    child.mprotect(a, 2, RW)
    assert spans(child) == [6]
    machine.check()
    assert child.peek(a, 6).tolist() == [1, 2, 3, 4, 5, 6]
    child.write(a, 6)
    assert child.move_pages(0, child.addresses(a, 6), 1, 2)[1].tolist() == [1] * 6
    assert p.nodes(a, 6).tolist() == [0] * 6


def test_merged_pages_follow_their_area(machine, p):
    """Pages that KSM has merged are found at their new slots when areas are brought together."""
    hole = p.mmap(2)
    a = p.mmap(6)
    p.munmap(hole, 2)
    p.poke(a, [7] * 6)
    p.madvise(a, 6, "mergeable")
    assert machine.merge() == 5
    p.mprotect(a, 2, R)
    child = p.fork()
    child.mprotect(a, 2, RW)
    assert spans(child) == [6]
    machine.check()
    assert child.peek(a, 6).tolist() == [7] * 6


@pytest.mark.parametrize(
    "kwargs", [{"huge": True}, {"device": True}], ids=["hugetlb", "device memory"]
)
def test_special_areas_are_never_merged(p, kwargs, machine):
    """Hugetlb and device memory stays cut once it is (VM_SPECIAL, VM_DONTEXPAND)."""
    machine.resize_pool(0, 2)
    a = p.mmap(1024, **kwargs)
    p.mprotect(a, 512, R)
    p.mprotect(a, 512, RW)
    assert spans(p) == [512, 512]


def test_neighbours_that_show_different_places_stay_apart(machine, p):
    """Two mappings side by side of pages of a file that are not are two areas."""
    file = machine.shmem_file(8)
    a = p.mmap(2, shared=True, file=file, offset=4)
    p.mmap(2, shared=True, file=file, offset=0, at=a + 2 * PAGE)
    p.mlock(a, 4)
    assert spans(p) == [2, 2]


def test_a_read_maps_around_over_what_was_cut(p):
    """A read fault maps the pages around it as far as the area goes, once it is whole again."""
    a = p.mmap(16, shared=True)
    p.write(a, 16)
    p.mprotect(a + 5 * PAGE, 11, R)
    p.mprotect(a + 5 * PAGE, 11, RW)
    child = p.fork()
    child.read(a + 8 * PAGE)
    assert (child.nodes(a, 16) >= 0).all()


def test_what_is_not_changed_is_not_merged(p):
    """A child inherits the cut but not the lock that made it; allowing the same keeps the cut."""
    a = p.mmap(5, shared=True)
    p.mlock(a + 2 * PAGE, 3)
    child = p.fork()
    child.mprotect(a + 2 * PAGE, 3, RW)
    assert spans(child) == [2, 3]

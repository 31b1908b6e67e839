"""Page faults: how pages come to be mapped."""

from __future__ import annotations

import numpy as np
import pytest

from movepages.errors import ArgumentError
from movepages.kernel import SimulatedMachine
from movepages.kernel.address_space import Prot
from movepages.kernel.faults import OutOfMemoryError
from movepages.kernel.frames import ZERO_PFN, PageFlag

PAGE = 4096


@pytest.fixture
def machine():
    """Return a machine of two nodes, checked at the end."""
    machine = SimulatedMachine("2 x 16M")
    yield machine
    machine.check()


def test_a_read_maps_the_zero_page_and_a_write_replaces_it(machine):
    """Untouched anonymous memory reads as the zero page; the first write allocates."""
    p = machine.spawn()
    a = p.mmap(2)
    p.read(a, 2)
    assert p.frames(a, 2).tolist() == [ZERO_PFN, ZERO_PFN]
    p.write(a)
    assert p.frames(a, 1)[0] != ZERO_PFN
    assert p.frames(a + PAGE, 1)[0] == ZERO_PFN


def test_pages_come_from_the_node_of_the_cpu(machine):
    """First touch: each task's pages lie on the node it runs on."""
    for cpu in (0, 1):
        p = machine.spawn(cpu=cpu)
        a = p.mmap(4)
        p.write(a, 4)
        assert (p.nodes(a, 4) == cpu).all()


def test_a_full_node_falls_back_to_the_next():
    """When the near node is full a fault takes from the next nearest; when all are, it fails."""
    machine = SimulatedMachine("2 x 64K")
    p = machine.spawn()
    a = p.mmap(64)
    p.write(a, 15)
    p.write(a + 15 * PAGE, 16)
    assert p.nodes(a, 31).tolist() == [0] * 15 + [1] * 16
    with pytest.raises(OutOfMemoryError, match="larger nodes"):
        p.write(a + 31 * PAGE)
    machine.check()


def test_a_thp_is_mapped_where_a_whole_block_is_untouched(machine):
    """Only aligned blocks with nothing in them become THPs; the rest is base pages."""
    p = machine.spawn()
    a = p.mmap(1536)
    p.write(a)
    p.madvise(a, 1536, "hugepage")
    p.write(a, 1536)
    order = machine.memory.frames.order[p.frames(a, 1536)]
    assert (order[:512] == 0).all()
    assert (order[512:] == 9).all()


def test_a_thp_that_loses_a_page_is_mapped_page_by_page(machine):
    """It stays one folio, with the same contents and a mapping of each page that is left."""
    p = machine.spawn()
    a = p.mmap(512)
    p.madvise(a, 512, "hugepage")
    p.poke(a, np.arange(1, 513))
    head = p.frames(a, 1)
    p.munmap(a + 5 * PAGE, 1)
    frames = p.frames(a, 512)
    assert (machine.memory.frames.order[frames[frames >= 0]] == 9).all()
    assert machine.memory.frames.mapcount[head].tolist() == [511]
    assert machine.memory.frames.references[head].tolist() == [511]
    assert p.peek(a + 6 * PAGE, 2).tolist() == [7, 8]


def test_what_was_one_processs_own_is_not_copied(machine):
    """Rights that come back find the same page: it was never anybody else's (PageAnonExclusive)."""
    p = machine.spawn()
    a = p.mmap(512)
    p.madvise(a, 512, "hugepage")
    p.write(a, 512)
    before = p.frames(a, 512)
    p.mprotect(a, 8, Prot.READ)
    p.mprotect(a, 8, Prot.READ | Prot.WRITE)
    p.write(a, 512)
    assert p.frames(a, 512).tolist() == before.tolist()


def test_a_page_of_a_large_folio_that_was_shared_is_copied(machine):
    """Mapped by pages and shared once, it is copied even for the last (wp_can_reuse_anon_folio)."""
    p = machine.spawn()
    a, b = p.mmap(512), p.mmap(512)
    for start in (a, b):
        p.madvise(start, 512, "hugepage")
        p.write(start, 512)
    before = [p.frames(start, 2) for start in (a, b)]
    p.mprotect(a, 8, Prot.READ)
    p.mprotect(a, 8, Prot.READ | Prot.WRITE)
    p.fork().exit()
    p.write(a)
    p.write(b)
    assert (p.frames(a, 2) == before[0]).tolist() == [False, True]
    assert (p.frames(b, 2) == before[1]).tolist() == [True, True]  # mapped whole: all of it again


def test_a_write_to_a_shared_thp_copies_the_page_only(machine):
    """After fork a write maps the THP page by page, and gives the writer one page of its own."""
    p = machine.spawn()
    a = p.mmap(512)
    p.madvise(a, 512, "hugepage")
    p.poke(a, np.arange(1, 513))
    child = p.fork()
    child.poke(a + 3 * PAGE, [99])
    assert p.peek(a + 3 * PAGE).tolist() == [4]
    same = p.frames(a, 512) == child.frames(a, 512)
    assert np.flatnonzero(~same).tolist() == [3]


def test_hugetlb_comes_from_the_pool_and_runs_out(machine):
    """A hugetlb fault takes a page of the pool; without one it is SIGBUS."""
    machine.resize_pool(0, 1)
    p = machine.spawn()
    a = p.mmap(1024, huge=True)
    p.write(a)
    with pytest.raises(OutOfMemoryError, match="SIGBUS"):
        p.write(a + 512 * PAGE)
    assert machine.memory.frames.has(p.frames(a, 1), PageFlag.HUGETLB).all()


def test_private_hugetlb_is_copied_on_write(machine):
    """After fork a write to private hugetlb memory goes to a page of the writer's own."""
    machine.resize_pool(0, 2)
    p = machine.spawn()
    a = p.mmap(512, huge=True)
    p.poke(a, [1])
    child = p.fork()
    child.poke(a, [2])
    machine.check()
    assert (p.peek(a).tolist(), child.peek(a).tolist()) == ([1], [2])
    shared = p.mmap(512, huge=True, shared=True)
    machine.resize_pool(0, 3)
    p.poke(shared, [3])
    child = p.fork()
    child.poke(shared, [4])
    assert p.peek(shared).tolist() == [4]


def test_an_odd_number_of_pages_of_hugetlb_is_rounded_up(machine):
    """As mmap(2) does with MAP_HUGETLB, a length is made a whole number of huge pages."""
    machine.resize_pool(0, 1)
    p = machine.spawn()
    a = p.mmap(100, huge=True)
    p.write(a, 512)
    with pytest.raises(ArgumentError, match="SIGSEGV"):
        p.write(a + 512 * PAGE)


def test_device_memory_cannot_be_faulted(machine):
    """There is nothing to fault in where a device's memory is mapped."""
    p = machine.spawn()
    a = p.mmap(1, device=True)
    with pytest.raises(ArgumentError, match="device"):
        p.read(a)


@pytest.mark.parametrize("pages", [0, -3])
def test_touching_nothing_is_refused(machine, pages):
    """A count of pages below one is an error, not a no-op."""
    p = machine.spawn()
    a = p.mmap(1)
    with pytest.raises(ArgumentError, match="not mapped"):
        p.write(a, pages)

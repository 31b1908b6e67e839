"""What a process does to its address space."""

from __future__ import annotations

import pytest

from movepages.errors import ArgumentError, UnsupportedError
from movepages.kernel import LINUX_2_6_18, SimulatedMachine
from movepages.kernel.address_space import Prot
from movepages.kernel.mappings import NOT_CACHED, Backing

PAGE = 4096


@pytest.fixture
def machine():
    """Return a machine of two nodes."""
    machine = SimulatedMachine("2 x 16M")
    yield machine
    machine.check()


@pytest.fixture
def p(machine):
    """Return a process."""
    return machine.spawn()


def used(machine) -> int:
    """Count the frames in use."""
    return sum(n.pages - n.free_pages for n in machine.memory.frames.nodes.values())


@pytest.mark.parametrize(
    ("pages", "how", "problem"),
    [
        (0, {}, "at least one page"),
        (-1, {}, "at least one page"),
        (1 << 36, {}, "no room"),
        (1, {"at": -PAGE}, "0 or more"),
        (1, {"at": 1 << 47}, "end of user space"),
        (1, {"at": 1 << 60}, "end of user space"),
        (512, {"at": PAGE, "huge": True}, "huge pages"),
    ],
)
def test_mappings_that_make_no_sense_are_refused(p, pages, how, problem):
    """A mapping without pages, outside user space or unaligned is an error that says so."""
    with pytest.raises(ArgumentError, match=problem):
        p.mmap(pages, **how)


def test_fixed_mappings_may_not_overlap(p):
    """A fixed mapping over the last page of another is refused; right behind it it is not."""
    a = p.mmap(4)
    with pytest.raises(ArgumentError, match="mapped already"):
        p.mmap(1, at=a + 3 * PAGE)
    assert p.mmap(1, at=a + 4 * PAGE) == a + 4 * PAGE


def test_negative_offsets_are_refused(machine, p):
    """A file is not mapped from before its beginning."""
    with pytest.raises(ArgumentError, match="0 or more"):
        p.mmap(1, file=machine.file("/f", 4), offset=-1)


def test_unmapping_frees_and_cuts(machine, p):
    """Unmapping the middle leaves both ends as they were, and frees what was between."""
    a = p.mmap(8)
    p.poke(a, range(1, 9))
    before = used(machine)
    p.munmap(a + 2 * PAGE, 3)
    assert used(machine) == before - 3
    assert p.peek(a, 2).tolist() == [1, 2]
    assert p.peek(a + 5 * PAGE, 3).tolist() == [6, 7, 8]
    with pytest.raises(ArgumentError, match="SIGSEGV"):
        p.read(a + 2 * PAGE)


def test_unmapping_needs_a_range(p):
    """A range of no pages is refused; holes in a range are not."""
    a = p.mmap(2)
    with pytest.raises(ArgumentError, match="no range"):
        p.munmap(a, 0)
    p.munmap(a - 4 * PAGE, 5)
    p.read(a + PAGE)


def test_protection_decides_who_may_write(p):
    """Protection takes the right to write away and gives it back, and keeps the pages."""
    a = p.mmap(4)
    p.poke(a, [1, 2, 3, 4])
    p.mprotect(a + PAGE, 2, Prot.READ)
    with pytest.raises(ArgumentError, match="SIGSEGV"):
        p.write(a + PAGE)
    assert p.peek(a, 4).tolist() == [1, 2, 3, 4]
    p.mprotect(a, 4, Prot.READ | Prot.WRITE)
    p.poke(a + PAGE, [9])
    with pytest.raises(ArgumentError, match="end to end"):
        p.mprotect(a, 5, Prot.READ)


def test_dontneed_lets_go_of_pages(machine, p):
    """Anonymous pages that were let go of are zeroes again, and their frames free."""
    a = p.mmap(3)
    p.poke(a, [1, 2, 3])
    before = used(machine)
    p.madvise(a, 2, "dontneed")
    assert used(machine) == before - 2
    assert p.peek(a, 3).tolist() == [0, 0, 3]


def test_mremap_takes_the_pages_along(p):
    """A mapping that is moved has the same frames at its new place, and none at the old."""
    a = p.mmap(4)
    p.poke(a, [1, 2, 3, 4])
    frames = p.frames(a, 4).tolist()
    b = p.mremap(a, 4)
    assert p.frames(b, 4).tolist() == frames
    with pytest.raises(ArgumentError, match="SIGSEGV"):
        p.read(a)
    assert p.move_pages(0, p.addresses(b, 4), [1] * 4, 2)[1].tolist() == [1] * 4
    assert p.peek(b, 4).tolist() == [1, 2, 3, 4]


def test_mremap_maps_a_thp_page_by_page_only_where_it_must(p):
    """A THP that is moved whole stays mapped as one; at an odd distance its pages are."""
    a = p.mmap(1024)
    p.madvise(a, 1024, "hugepage")
    p.write(a, 1024)
    frames = p.machine.memory.frames
    b = p.mremap(a, 512)
    assert frames.mapcount[frames.head(p.frames(b, 1))].tolist() == [1]
    c = p.mremap(a + 513 * PAGE, 511)
    assert frames.mapcount[frames.head(p.frames(c, 1))].tolist() == [512]
    assert frames.order[p.frames(c, 1)].tolist() == [9]


def test_mlock_faults_in_and_is_not_inherited(p):
    """Locked pages are there at once; a child does not have the lock (mlock(2))."""
    a = p.mmap(4)
    p.mlock(a, 4)
    assert (p.nodes(a, 4) == 0).all()
    memory = p.machine.memory
    assert memory.is_locked(p.frames(a, 4)).all()
    child = p.fork()
    p.exit()
    assert not memory.is_locked(child.frames(a, 4)).any()


def test_fork_shares_until_someone_writes(machine, p):
    """After fork both see the same frames; a write gives the writer one of its own."""
    a = p.mmap(2)
    p.poke(a, [1, 2])
    child = p.fork()
    assert child.frames(a, 2).tolist() == p.frames(a, 2).tolist()
    assert machine.memory.frames.mapcount[p.frames(a, 2)].tolist() == [2, 2]
    child.poke(a, [7])
    assert p.peek(a, 2).tolist() == [1, 2]
    assert child.peek(a, 2).tolist() == [7, 2]
    assert child.frames(a, 2)[1] == p.frames(a, 2)[1]


def test_shared_memory_stays_shared_after_fork(p):
    """What one writes to shared memory the other reads."""
    a = p.mmap(1, shared=True)
    p.poke(a, [1])
    child = p.fork()
    child.poke(a, [5])
    assert p.peek(a).tolist() == [5]


def test_anonymous_shared_memory_goes_with_its_last_mapping(machine):
    """The frames of a shmem object without a name are free when the last of two processes ends."""
    before = used(machine)
    p = machine.spawn()
    a = p.mmap(4, shared=True)
    p.write(a, 4)
    child = p.fork()
    p.exit()
    assert child.peek(a, 4).tolist() == [0] * 4
    assert used(machine) == before + 4
    child.munmap(a, 4)
    assert used(machine) == before


def test_a_named_file_outlives_its_mappings(machine, p):
    """The page cache of a file keeps what was written when nobody maps it, until it is evicted."""
    file = machine.file("/data", 4)
    before = used(machine)
    a = p.mmap(4, file=file, shared=True)
    p.poke(a, [1, 2, 3, 4])
    p.munmap(a, 4)
    assert used(machine) == before + 4
    q = machine.spawn()
    b = q.mmap(4, file=file, shared=True)
    assert q.peek(b, 2).tolist() == [1, 2]
    kept = int((q.frames(b, 4) >= 0).sum())
    assert machine.evict(file) == 4 - kept
    q.exit()
    assert machine.evict(file) == kept
    assert (file.cache == NOT_CACHED).all()
    assert used(machine) == before


def test_private_file_pages_are_copied_on_write(machine, p):
    """A write through a private mapping changes this process's copy, never the file."""
    file = machine.file("/data", 1)
    shared = p.mmap(1, file=file, shared=True)
    private = p.mmap(1, file=file)
    p.poke(shared, [3])
    assert p.peek(private).tolist() == [3]
    p.poke(private, [4])
    assert p.peek(shared).tolist() == [3]
    assert p.peek(private).tolist() == [4]


def test_hugetlb_is_cut_at_huge_pages_only(machine, p):
    """Nothing may be done to a part of a hugetlb page; whole ones can be unmapped."""
    machine.resize_pool(0, 2)
    a = p.mmap(1024, huge=True)
    p.write(a, 1024)
    for action in (
        lambda: p.munmap(a, 100),
        lambda: p.mprotect(a + PAGE, 1, Prot.READ),
        lambda: p.madvise(a, 511, "dontneed"),
    ):
        with pytest.raises(ArgumentError, match="inside a hugetlb page"):
            action()
    p.munmap(a, 512)
    assert p.nodes(a + 512 * PAGE, 1).tolist() == [0]


@pytest.mark.parametrize("advice", ["hugepage", "mergeable"])
def test_kernels_of_2006_have_no_thp_and_no_merging(advice):
    """Advice that these kernels do not know is refused when it is given."""
    p = SimulatedMachine("2 x 8M", semantics=LINUX_2_6_18).spawn()
    a = p.mmap(4)
    with pytest.raises(UnsupportedError, match=r"Linux 2\.6\.18"):
        p.madvise(a, 4, advice)


@pytest.mark.parametrize("backing", [Backing.SHMEM, Backing.BUFFERS, Backing.NO_METHOD])
def test_pages_beyond_the_end_of_a_file(machine, p, backing):
    """The last page of a file can be read; the one after it is SIGBUS."""
    a = p.mmap(3, file=machine.file("/f", 2, backing))
    p.read(a + PAGE)
    with pytest.raises(ArgumentError, match="SIGBUS"):
        p.read(a + 2 * PAGE)

"""The memory of a live process behind the `AddressSpace` port, and what is seen of its pages."""

from __future__ import annotations

import mmap
import os

import numpy as np
import pytest
from live_machine import ABSENT, PAGE

from movepages.abi import Errno, Mode, MoveFlag
from movepages.emulator.objects import ZERO_PAGE
from movepages.errors import NoSuchProcessError
from movepages.kernel.address_space import VmFlag
from movepages.kernel.ports import NONE

pytestmark = pytest.mark.host

ALL = MoveFlag.MOVE_ALL
USER_END = 1 << 47


def addresses(*values):
    """Return addresses as the port takes them."""
    return np.array(values, dtype=np.uint64)


@pytest.fixture
def process(live):
    """A process."""
    return live.world.process()


# -- areas ------------------------------------------------------------------------------------


def test_area_is_found_from_below_and_from_within(live, process):
    """find_vma has the first area that ends above an address, in whatever order they come."""
    start = process.mmap(4)
    space = live.space(process.pid)
    end = start + 4 * PAGE
    asked = addresses(end - 1, start - PAGE, start, end, start)
    found = space.find_vma(asked)
    assert found[0] == found[1] == found[2] == found[4] != found[3]
    assert space.contains(found, asked).tolist() == [True, False, True, False, True]
    assert space.area_at(start // PAGE - 1) is None
    assert space.area_at(end // PAGE - 1).end == end // PAGE


def test_nothing_is_above_the_last_area(live, process):
    """Beyond user space there is no area, and no page is looked for."""
    space = live.space(process.pid)
    asked = addresses(USER_END)
    found = space.find_vma(asked)
    assert found.tolist() == [NONE]
    assert not space.contains(found, asked).any()
    assert not space.has_area_from(USER_END // PAGE)
    assert space.areas(USER_END // PAGE, USER_END // PAGE + 1) == []


def test_areas_of_a_range_leave_holes_out(live, process):
    """A hole in the middle makes two areas of one; a range in the hole has none."""
    start = process.mmap(6)
    process.munmap(start + 2 * PAGE, 2)
    first = start // PAGE
    space = live.space(process.pid)
    found = [(area.start - first, area.end - first) for area in space.areas(first, first + 6)]
    assert found == [(0, 2), (4, 6)]
    assert space.areas(first + 2, first + 4) == []


def test_kernels_own_pages_do_not_migrate(live, process):
    """The kernel's data page is a device's memory; a program's is not."""
    start = process.mmap(1)
    space = live.space(process.pid)
    found = space.find_vma(addresses(process.vvar(), start))
    assert space.migratable(found).tolist() == [False, True]


def test_kinds_of_areas_are_told_apart(live):
    """Private, shared, of memory and of a file: each has its flags and its object."""
    memfd, ordinary = live.world.shmem(4), live.world.cached_file()
    process = live.world.process()
    shared = process.mmap(2, shared=True, file=memfd)
    cached = process.mmap(2, prot="r", file=ordinary)
    private = process.mmap(2)
    space = live.space(process.pid)
    memory, file, anonymous = (space.area_at(at // PAGE) for at in (shared, cached, private))
    assert (memory.shared, memory.page_cache) == (True, False)
    assert (file.shared, file.page_cache) == (False, True)
    assert (anonymous.file, anonymous.flags) == (None, VmFlag(0))
    assert len({memory.file, file.file}) == 2


# -- pages ------------------------------------------------------------------------------------


def test_only_touched_pages_are_there(live, process):
    """An untouched page is absent; one that was only read is the zero page, without a node."""
    start = process.mmap(4)
    process.write(start)
    process.read(start + 2 * PAGE)
    assert live.where(process.pid, start, 4) == [
        live.where(process.pid, start)[0],
        ABSENT,
        -Errno.EFAULT,
        ABSENT,
    ]
    space = live.space(process.pid)
    asked = addresses(start, start + PAGE, start + 2 * PAGE)
    pages = space.follow_page(space.find_vma(asked), asked)
    assert pages[0] > ZERO_PAGE
    assert pages[1:].tolist() == [NONE, ZERO_PAGE]
    assert space.present(start // PAGE, start // PAGE + 4).tolist() == [
        start // PAGE,
        start // PAGE + 2,
    ]
    assert space.folios(start // PAGE, start // PAGE + 4).tolist() == [pages[0]]


def test_process_that_ends_while_it_is_looked_at_is_no_process(live, process):
    """A scan that comes to the end of a process raises what asking for it would have raised."""
    space = live.space(process.pid)
    assert len(space.present(0, live.machine.user_pages))
    process.exit()
    with pytest.raises(NoSuchProcessError):
        space.present(0, live.machine.user_pages)
    with pytest.raises(NoSuchProcessError):
        space.settle(0, live.machine.user_pages)


def test_page_keeps_its_node_while_nothing_happens_to_it(live, process):
    """Reading, writing and changing protection of a moved page leave it where it is."""
    start = process.mmap(2)
    process.write(start, 2)
    live.put(process.pid, start, [3, 2])
    process.write(start, 2)
    process.read(start, 2)
    process.mprotect(start, 2, "r")
    process.mlock(start, 2)
    assert live.where(process.pid, start, 2) == [3, 2]


def test_faulting_in_goes_by_what_the_process_may_read(live):
    """A readable page comes in; one without rights, a hole, and the end of a file do not."""
    file = live.world.shmem(1)
    reader = live.world.process()
    start, beyond = reader.mmap(3), reader.mmap(2, shared=True, file=file)
    reader.mprotect(start + PAGE, 1, "")
    reader.munmap(start + 2 * PAGE, 1)
    space = live.space(reader.pid)
    assert [space.fault_in(start + number * PAGE) for number in range(3)] == [True, False, False]
    assert [space.fault_in(beyond + number * PAGE) for number in range(2)] == [True, False]
    assert space.present(start // PAGE, start // PAGE + 1).tolist() == [start // PAGE]


# -- fork and copy on write -------------------------------------------------------------------


@pytest.mark.parametrize("seen_before", [True, False])
def test_child_has_its_pages_where_its_parent_has_them(live, process, seen_before):
    """Pages that a fork shares are on one node for both, placed before the fork or not."""
    start = process.mmap(4)
    assert live.set_mempolicy(process.pid, Mode.BIND, [2]) == 0
    process.write(start, 4)
    if seen_before:
        live.put(process.pid, start, [1, 1])
    child = process.fork()
    expected = [1, 1, 2, 2] if seen_before else [2] * 4
    assert live.where(child.pid, start, 4) == expected
    assert live.where(process.pid, start, 4) == expected


@pytest.mark.parametrize("writer", ["parent", "child"])
def test_who_writes_first_after_a_fork_has_a_new_page(live, process, writer):
    """The copy goes by its writer's policy, and the other keeps the page where it was."""
    start = process.mmap(2)
    process.write(start, 2)
    live.put(process.pid, start, [1, 1])
    child = process.fork()
    assert live.where(child.pid, start, 2) == [1, 1]
    one, other = (process, child) if writer == "parent" else (child, process)
    assert live.set_mempolicy(one.pid, Mode.BIND, [3]) == 0
    one.write(start)
    assert live.where(one.pid, start, 2) == [3, 1]
    assert live.where(other.pid, start, 2) == [1, 1]
    other.write(start)  # it is alone with the page now, and writes to it in place
    assert live.where(other.pid, start, 2) == [1, 1]


def test_copy_of_a_page_that_was_never_asked_about(live, process):
    """A child that is first seen after it has written has a page of its own, and shares one."""
    start = process.mmap(2)
    process.write(start, 2)
    live.put(process.pid, start, [1, 1])
    child = process.fork()
    child.write(start)
    local = live.machine.surroundings(live.machine.processes.task(child.pid)).local
    assert live.where(child.pid, start, 2) == [local, 1]
    assert live.where(process.pid, start, 2) == [1, 1]


def test_own_copies_are_counted_and_shared_pages_are_not(live, process):
    """A fork costs no memory; a copy costs a page, which the end of its process gives back."""
    start = process.mmap(8)
    process.write(start, 8)
    live.put(process.pid, start, [1] * 8)
    child = process.fork()
    live.where(child.pid, start, 8)
    before = live.used()
    assert live.set_mempolicy(child.pid, Mode.BIND, [3]) == 0
    settled = live.used()
    assert settled[1] == before[1]
    child.write(start, 3)
    assert live.where(child.pid, start, 8) == [3] * 3 + [1] * 5
    assert live.used()[3] == settled[3] + 3
    held = live.used()
    own = live.machine.processes.task(child.pid).mm.anonymous.pages
    child.exit()
    live.machine.reclaim()
    gone = held[3] - live.used()[3]
    assert 3 <= gone <= (own.nodes(own.placed()) == 3).sum() + 3
    assert live.used()[1] == before[1]


def test_new_page_of_a_child_among_inherited_ones_is_given_back(live, process):
    """A page that only the child has touched is counted for it, also beside its parent's."""
    start = process.mmap(8)
    process.write(start, 4)
    live.put(process.pid, start, [1] * 4)
    child = process.fork()
    live.where(child.pid, start, 4)
    child.write(start + 4 * PAGE, 4)
    live.where(child.pid, start, 8)
    live.put(child.pid, start + 4 * PAGE, [3] * 4)
    before = live.used()
    live.lets_through("munmap", child.pid, start, 8 * PAGE)
    assert live.used() == [before[0], before[1], before[2], before[3] - 4]


# -- files ------------------------------------------------------------------------------------


def test_file_is_the_same_wherever_it_is_mapped(live):
    """Another process, another address, another part: a page of a file has one node."""
    file = live.world.shmem(4)
    one, other = live.world.process(), live.world.process()
    mine, theirs = one.mmap(4, shared=True, file=file), other.mmap(4, shared=True, file=file)
    one.write(mine, 4)
    live.put(one.pid, mine, [0, 1, 2, 3])
    other.read(theirs, 4)
    assert live.where(other.pid, theirs, 4) == [0, 1, 2, 3]


def test_private_copy_of_a_file_page_is_not_the_file(live):
    """What is written to a private mapping is the process's own; the file stays where it is."""
    file = live.world.shmem(2)
    one, other = live.world.process(), live.world.process()
    shared, private = one.mmap(2, shared=True, file=file), other.mmap(2, file=file)
    one.write(shared, 2)
    live.put(one.pid, shared, [1, 1])
    other.read(private, 2)
    assert live.where(other.pid, private, 2) == [1, 1]
    assert live.set_mempolicy(other.pid, Mode.BIND, [3]) == 0
    other.write(private)
    assert live.where(other.pid, private, 2) == [3, 1]
    assert live.where(one.pid, shared, 2) == [1, 1]


def test_files_with_the_same_name_are_two(live):
    """Two shared objects of one name are told apart: each has its own nodes."""
    one, other = live.world.shmem(1), live.world.shmem(1)
    process = live.world.process()
    first, second = (process.mmap(1, shared=True, file=file) for file in (one, other))
    process.write(first)
    process.write(second)
    live.put(process.pid, first, [1])
    live.put(process.pid, second, [2])
    assert (live.where(process.pid, first), live.where(process.pid, second)) == ([1], [2])


def test_shared_memory_goes_with_its_last_mapping(live):
    """Memory without a name that nobody maps any more is given back."""
    file = os.memfd_create("gone")
    os.ftruncate(file, 8 * PAGE)
    process = live.world.process()
    os.close(file)
    start = process.mmap(8, shared=True, file=file)
    process.write(start, 8)
    live.put(process.pid, start, [3] * 8)
    used = live.used()[3]
    live.machine.reclaim()
    assert live.used()[3] == used
    process.munmap(start, 8)
    live.machine.reclaim()
    assert live.used()[3] == used - 8


# -- huge pages -------------------------------------------------------------------------------


def test_huge_page_is_one_folio(live, process):
    """All 512 pages have one handle, that of the first; the memory is counted whole."""
    huge = mmap.PAGESIZE * 512
    start = process.mmap(512)
    process.madvise(start, 512, "hugepage")
    process.write(start)
    assert start % huge == 0
    before = live.used()
    folios = live.space(process.pid).folios(start // PAGE, start // PAGE + 512)
    assert len(folios) == 1
    assert live.machine.frames.order(folios).tolist() == [9]
    assert sum(live.used()) - sum(before) == 512
    live.lets_through("munmap", process.pid, start, 512 * PAGE)
    assert live.used() == before


def huge(live, process):
    """Return the address of a huge page on node 3, amid nothing else, and the use of nodes."""
    start = process.mmap(512)
    process.madvise(start, 512, "hugepage")
    process.write(start)
    live.put(process.pid, start, [3])
    return start, live.used()


def test_huge_page_that_is_mapped_page_by_page_stays_one(live, process):
    """With a half of it protected it is where it was, counted once, and moves whole."""
    start, used = huge(live, process)
    process.mprotect(start + 256 * PAGE, 256, "r")
    assert live.where(process.pid, start, 512) == [3] * 512
    assert live.used() == used
    live.put(process.pid, start + 5 * PAGE, [1])
    assert live.where(process.pid, start, 512) == [1] * 512
    assert live.used() == [used[0], used[1] + 512, used[2], used[3] - 512]


def test_what_is_left_of_a_huge_page_is_split_to_be_moved(live, process):
    """Each page is then on its own, what is empty is the zero page, until it is written to."""
    start, used = huge(live, process)
    process.write(start + 9 * PAGE)
    live.lets_through("munmap", process.pid, start + 100 * PAGE, 100)
    process.munmap(start + 100 * PAGE, 1)
    live.put(process.pid, start, [1])
    where = live.where(process.pid, start, 11)
    assert where == [1, *[-Errno.EFAULT] * 8, 1, -Errno.EFAULT]
    assert live.used() == [used[0], used[1] + 2, used[2], used[3] - 512]
    live.put(process.pid, start + 9 * PAGE, [2])
    process.write(start + 5 * PAGE)
    where = live.where(process.pid, start, 11)
    assert (where[0], where[9], where[10]) == (1, 2, -Errno.EFAULT)
    assert where[5] in range(4)
    assert sum(live.used()) == sum(used) - 512 + 3


def test_a_huge_page_that_others_map_whole_moves_whole(live, process):
    """A process that maps a part, beside a child that maps all, moves it without losing count."""
    start, _ = huge(live, process)
    child = process.fork()
    live.where(child.pid, start)
    live.lets_through("munmap", process.pid, start + 100 * PAGE, PAGE)
    process.munmap(start + 100 * PAGE, 1)
    assert live.move(process.pid, [start], [1], MoveFlag.MOVE) == (0, [-Errno.EACCES])
    assert live.move(process.pid, [start], [1], MoveFlag.MOVE_ALL) == (0, [1])
    assert live.where(child.pid, start, 512) == [1] * 512
    assert live.used()[1:] == [511, 0, 0]
    live.lets_through("munmap", process.pid, start, 512 * PAGE)
    assert live.used()[1:] == [0, 0, 0]


@pytest.mark.parametrize("first", [0, 100, 512 - 100])
def test_what_is_left_of_a_huge_page_stays_where_it_is(live, process, first):
    """Unmapping a part, wherever it begins, gives back that part and leaves the rest in place."""
    start, used = huge(live, process)
    live.lets_through("munmap", process.pid, start + first * PAGE, 100 * PAGE)
    process.munmap(start + first * PAGE, 100)
    assert live.used() == [used[0], used[1], used[2], used[3] - 100]
    there = live.where(process.pid, start, 512)
    assert there[first : first + 100] == [-Errno.EFAULT] * 100
    assert there.count(3) == 412
    assert live.used() == [used[0], used[1], used[2], used[3] - 100]

"""Calls after which an address means other pages: what is forgotten, and what is kept."""

from __future__ import annotations

import ctypes
import mmap

import pytest
from guestkit.memory import Memory
from live_machine import ABSENT, PAGE, bind

from movepages.abi import Mode, PolicyQuery

pytestmark = pytest.mark.host

FIXED = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x10
DONTNEED, FREE, REMOVE = 4, 8, 9
MAYMOVE, REMAP_FIXED = 1, 2
WHOLE_SPACE = (1 << 64) - PAGE


@pytest.fixture
def process(live):
    """A process."""
    return live.world.process()


@pytest.fixture
def placed(live, process):
    """Eight pages of it on node 3, and the use of nodes since."""
    start = process.mmap(8)
    process.write(start, 8)
    live.put(process.pid, start, [3] * 8)
    return start


def again(live, process, start, count):
    """Write to pages under a policy, and return where they are."""
    assert live.set_mempolicy(process.pid, Mode.BIND, [1]) == 0
    process.write(start, count)
    return live.where(process.pid, start, count)


@pytest.mark.parametrize("call", ["munmap", "mmap"])
def test_range_that_is_unmapped_is_forgotten_to_the_page(live, process, placed, call):
    """Pages 2 to 4 give their memory and policy back; those before and behind keep theirs."""
    live.mbind(process.pid, placed, 8, Mode.BIND, [3])
    used = live.used()[3]
    arguments = (placed + 2 * PAGE, 3 * PAGE, 3, FIXED)
    live.lets_through(call, process.pid, *arguments)
    process.madvise(placed + 2 * PAGE, 3, "dontneed")  # what the kernel makes of the old pages
    assert live.used()[3] == used - 3
    assert live.where(process.pid, placed, 8) == [3, 3, ABSENT, ABSENT, ABSENT, 3, 3, 3]
    assert live.get_mempolicy(process.pid, PolicyQuery.ADDR, placed + 2 * PAGE) == (0, Mode.DEFAULT)
    assert live.get_mempolicy(process.pid, PolicyQuery.ADDR, placed + 5 * PAGE) == (0, Mode.BIND)
    assert again(live, process, placed + PAGE, 5) == [3, 1, 1, 1, 3]


def test_length_counts_in_whole_pages(live, process, placed):
    """A length of one byte unmaps a page, and one of a page and a byte two."""
    used = live.used()[3]
    live.lets_through("munmap", process.pid, placed, 1)
    assert live.used()[3] == used - 1
    live.lets_through("munmap", process.pid, placed + 2 * PAGE, PAGE + 1)
    assert live.used()[3] == used - 3


@pytest.mark.parametrize("call", ["munmap", "mmap", "madvise", "mremap"])
@pytest.mark.parametrize(
    ("offset", "length"),
    [(1, PAGE), (PAGE // 2, 8 * PAGE), (0, 0), (0, WHOLE_SPACE), (0, (1 << 64) - 1)],
)
def test_call_that_the_kernel_refuses_changes_nothing(live, process, placed, call, offset, length):
    """An address that is no page's, no length, one that wraps round: nothing is forgotten."""
    used = live.used()
    live.lets_through(call, process.pid, placed + offset, length, DONTNEED, FIXED)
    assert live.used() == used
    assert live.where(process.pid, placed, 8) == [3] * 8


@pytest.mark.parametrize("call", ["munmap", "mmap"])
def test_length_beyond_user_space_changes_nothing(live, process, placed, call):
    """A range that ends above what a program may have is refused by the kernel whole."""
    used = live.used()
    live.lets_through(call, process.pid, placed, 1 << 56, 3, FIXED)
    assert live.used() == used
    assert live.where(process.pid, placed, 8) == [3] * 8


def test_dropped_pages_come_back_by_policy_which_stays(live, process, placed):
    """After MADV_DONTNEED pages are new; the policy of their range is as it was."""
    live.mbind(process.pid, placed, 2, Mode.BIND, [2])
    live.lets_through("madvise", process.pid, placed, 4 * PAGE, DONTNEED)
    process.madvise(placed, 4, "dontneed")
    assert again(live, process, placed, 8) == [2, 2, 1, 1, 3, 3, 3, 3]


def test_freed_pages_stay_until_memory_is_short(live, process, placed):
    """After MADV_FREE pages are where they were."""
    live.lets_through("madvise", process.pid, placed, 8 * PAGE, FREE)
    assert live.where(process.pid, placed, 8) == [3] * 8


def test_removed_pages_of_shared_memory_are_new_for_all(live):
    """MADV_REMOVE makes a hole in the file: who touches it next decides, whoever maps it."""
    file = live.world.shmem(4)
    one, other = live.world.process(), live.world.process()
    mine, theirs = one.mmap(4, shared=True, file=file), other.mmap(4, shared=True, file=file)
    one.write(mine, 4)
    live.put(one.pid, mine, [3] * 4)
    used = live.used()[3]
    live.lets_through("madvise", one.pid, mine + PAGE, 2 * PAGE, REMOVE)
    assert live.used()[3] == used - 2
    assert again(live, other, theirs, 4) == [3, 1, 1, 3]


def test_child_keeps_what_its_parent_unmaps(live, process, placed):
    """A fork that nobody has seen yet is looked for before its parent's pages are forgotten."""
    child = process.fork()
    live.lets_through("munmap", process.pid, placed, 8 * PAGE)
    process.munmap(placed, 8)
    assert live.where(child.pid, placed, 8) == [3] * 8


HUGE = 512
"""Pages in a huge page."""


@pytest.mark.usefixtures("huge_pages")
@pytest.mark.parametrize(
    ("call", "first", "pages", "gone"),
    [
        ("munmap", 0, 2 * HUGE, 2),
        ("munmap", 0, HUGE, 1),
        ("munmap", 0, HUGE - 1, 0),
        ("munmap", 0, HUGE + 1, 0),
        ("munmap", 1, HUGE, 0),
        ("madvise", 0, 2 * HUGE - 1, 1),
        ("madvise", HUGE, HUGE, 1),
        ("madvise", 1, 2 * HUGE - 1, 0),
    ],
)
def test_page_of_a_pool_goes_in_one_piece(live, call, first, pages, gone):
    """A range that ends within one is refused by munmap, and cut to its beginning by madvise."""
    process = live.world.process()
    start = process.mmap(2 * HUGE, huge=True)
    for page in (0, HUGE):
        process.write(start + page * PAGE)
        live.put(process.pid, start + page * PAGE, [3])
    own = live.machine.processes.task(process.pid).mm.own
    (pool,) = (thing for order, thing in own.items() if order)
    assert len(pool.pages.placed()) == 2
    live.lets_through(call, process.pid, start + first * PAGE, pages * PAGE, DONTNEED)
    assert len(pool.pages.placed()) == 2 - gone


@pytest.mark.parametrize(
    ("flags", "pages", "target"),
    [
        (8 | MAYMOVE, 4, 0),
        (REMAP_FIXED, 4, 1 << 40),
        (MAYMOVE | REMAP_FIXED, 4, (1 << 40) + 1),
        (MAYMOVE | REMAP_FIXED, 4, WHOLE_SPACE),
        (MAYMOVE | 4, 16, 0),
        (4, 8, 0),
        (0, 1 << 45, 0),
    ],
)
def test_mremap_that_the_kernel_refuses_changes_nothing(
    live, process, placed, flags, pages, target
):
    """Unknown flags, a place that is none, sizes that do not fit: pages stay, and none is cut."""
    live.lets_through("mremap", process.pid, placed, 8 * PAGE, pages * PAGE, flags, target)
    assert live.where(process.pid, placed, 8) == [3] * 8
    assert live.machine.processes.task(process.pid).mm.remaps == []


def test_mremap_that_has_failed_leaves_nothing_behind(live, process, placed):
    """A call without a trace is given up once its thread makes another: it has ended by then."""
    live.lets_through("mremap", process.pid, placed, 8 * PAGE, 16 * PAGE, MAYMOVE)
    mm = live.machine.processes.task(process.pid).mm
    assert len(mm.remaps) == 1
    assert live.where(process.pid, placed, 8) == [3] * 8
    assert len(mm.remaps) == 1
    live.get_mempolicy(process.pid, PolicyQuery.ADDR, placed)
    assert mm.remaps == []
    assert live.where(process.pid, placed, 8) == [3] * 8


class Mapped:
    """A child that remaps memory of its own."""

    @staticmethod
    def body(pages, size, *, grow=False, onto=False):
        """Touch pages, remap them to another size or onto touched ones, touch what is new."""
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mremap.restype = ctypes.c_void_p
        size_t, pointer = ctypes.c_size_t, ctypes.c_void_p
        libc.mremap.argtypes = (pointer, size_t, size_t, ctypes.c_int, pointer)
        memory = Memory().private(pages).touch()
        yield memory.start
        target, flags = 0, MAYMOVE
        if onto:
            target, flags = Memory().private(size).touch().start, MAYMOVE | REMAP_FIXED
            yield target
        new = libc.mremap(memory.start, pages * PAGE, size * PAGE, flags, target)
        yield new
        while grow:
            ctypes.memset(new + pages * PAGE, 1, (size - pages) * PAGE)
            yield


def test_pages_keep_their_node_where_they_are_remapped(live, fork):
    """Pages move with their mapping: the new address has the old nodes."""
    child = fork(lambda: Mapped.body(4, 2048, grow=True))
    start = child.step()
    live.put(child.pid, start, [3, 2, 1, 3])
    used = live.used()
    live.lets_through("mremap", child.pid, start, 4 * PAGE, 2048 * PAGE, MAYMOVE)
    new = child.step()
    assert new != start
    assert live.where(child.pid, new, 4) == [3, 2, 1, 3]
    assert live.used() == used
    assert live.set_mempolicy(child.pid, Mode.BIND, [0]) == 0
    child.step()
    assert live.where(child.pid, new, 5) == [3, 2, 1, 3, 0]


def test_pages_that_mremap_cuts_off_are_given_back(live, fork):
    """What a smaller mapping no longer has takes no memory, and no later page takes its node."""
    child = fork(lambda: Mapped.body(8, 2))
    start = child.step()
    live.put(child.pid, start, [3] * 8)
    used = live.used()[3]
    live.lets_through("mremap", child.pid, start, 8 * PAGE, 2 * PAGE, 0)
    assert child.step() == start
    assert live.where(child.pid, start, 8)[:2] == [3, 3]
    assert live.used()[3] == used - 6


def test_pages_that_were_never_asked_about_are_placed_before_they_move(live, fork):
    """What was touched before mremap goes by the policy of that time, at its new address too."""
    child = fork(lambda: Mapped.body(4, 2048))
    start = child.step()
    live.machine.processes.task(child.pid).policy = bind(2)
    live.lets_through("mremap", child.pid, start, 4 * PAGE, 2048 * PAGE, MAYMOVE)
    live.machine.processes.task(child.pid).policy = bind(3)
    assert live.where(child.pid, child.step(), 4) == [2] * 4


def test_pages_that_are_mapped_over_others_replace_them(live, fork):
    """With MREMAP_FIXED the target's own pages are gone: the moved ones keep their nodes there."""
    child = fork(lambda: Mapped.body(4, 4, onto=True))
    start = child.step()
    target = child.step()
    live.put(child.pid, start, [1, 2, 1, 2])
    live.put(child.pid, target, [3] * 4)
    live.lets_through("mremap", child.pid, start, 4 * PAGE, 4 * PAGE, MAYMOVE | REMAP_FIXED, target)
    assert child.step() == target
    assert live.where(child.pid, target, 4) == [1, 2, 1, 2]
    assert live.used()[1:] == [2, 2, 0]

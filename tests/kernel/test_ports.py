"""The contract of `kernel.ports`, kept by the model, dictionaries and live processes."""

# ruff: noqa: D102, D107 - the two worlds speak for themselves, side by side

from __future__ import annotations

from errno import EACCES, EBUSY, EFAULT, EINVAL, ENOENT, ENOMEM, ESRCH

import numpy as np
import pytest
from decision.bench import SEMANTICS
from dict_ports import PAGE, DictAddressSpace, DictFrames, DictPage, DictTaskTable, DictUserMemory
from live_ports import OnLiveProcess

from movepages import kernel
from movepages.kernel.inject import Pin
from movepages.kernel.migrate import PageToNode, do_move_pages, do_pages_stat
from movepages.kernel.ports import LATER, NONE
from movepages.kernel.syscalls.move_pages import MovePages
from movepages.kernel.task_table import SimulatedTaskTable

U = -(2**31)
TAGS = (11, 22, 33, 44)
MOVE, MOVE_ALL = 2, 4
NOBODY = 1 << 23
"""A pid beyond all that there can be (PID_MAX_LIMIT)."""


class OnModel:
    """Two nodes of 64 pages and a process with four pages, a zero page and a hole, on the model."""

    def __init__(self, semantics):
        self.machine = kernel.SimulatedMachine("2 x 256K", semantics=semantics)
        self.process = self.machine.spawn()
        self.start = self.process.mmap(8)
        self.process.poke(self.start, TAGS)
        self.process.read(self.start + 4 * PAGE)
        self.process.munmap(self.start + 6 * PAGE, 1)  # the hole; 5 and 7 are untouched
        self.frames, self.user = self.machine.memory, self.machine.user
        self.frames.drain()
        self.tasks = SimulatedTaskTable(
            self.process.struct, self.machine.task_structs, self.frames, self.machine.lsm
        )
        self.space = self.tasks.address_space(self.process.pid)
        self.kernel_thread = kernel.machine.KTHREADD

    def place(self, values, dtype, **ends):
        array = self.machine.user.place(np.array(values, dtype=dtype), **ends)
        return array.pointer, array.data

    def pin(self, at):
        self.machine.inject(Pin(self.process, self.start + at * PAGE))

    def share(self):
        self.process.fork()

    def contents(self):
        return self.process.peek(self.start, 4).tolist()

    def fill(self, node):
        memory = self.frames.frames
        taken = memory.allocate(node, memory.nodes[node].free_pages)
        self.frames.pins.update(taken.tolist())

    def close(self):
        self.machine.check()


class OnDictionaries:
    """The same on dictionaries."""

    def __init__(self, _):
        self.frames, self.user = DictFrames({0: 60, 1: 64}), DictUserMemory()
        self.start = 16 * PAGE
        hole, end = self.start + 6 * PAGE, self.start + 8 * PAGE
        self.space = DictAddressSpace([(self.start, hole, True), (hole + PAGE, end, True)])
        for i, tag in enumerate(TAGS):
            self._map(i, DictPage(0, tag))
        self._map(4, DictPage(0, zero=True))
        self.kernel_thread = 2
        self.tasks = DictTaskTable({1: self.space, 2: None}, {0, 1})

    def _map(self, at, page):
        self.space.map(self.frames, self.start + at * PAGE, self.frames.add(page))

    def place(self, values, dtype, **ends):
        pointer = self.user.place(values, dtype, **ends)
        return pointer, self.user.values(pointer)

    def _page(self, at):
        return self.frames.pages[self.space.table[self.start + at * PAGE]]

    def pin(self, at):
        self._page(at).pinned = True

    def share(self):
        child = DictAddressSpace(self.space.areas)
        for address, handle in self.space.table.items():
            child.map(self.frames, address, handle)

    def contents(self):
        return [self._page(i).content for i in range(4)]

    def fill(self, node):
        self.frames.free[node] = 0

    def close(self):
        pass


ALL = (OnModel, OnDictionaries, pytest.param(OnLiveProcess, marks=pytest.mark.host))
PINNABLE = (OnModel, OnDictionaries)
"""Where a page can be pinned: a live process shows no pins, so none keeps a page there."""


def kind(make):
    """Return the name of a kind of world."""
    return make.__name__.removeprefix("On")


@pytest.fixture
def build():
    """Build worlds; they are closed at the end."""
    built = []

    def make_world(make, semantics):
        built.append(make(semantics, TAGS) if make is OnLiveProcess else make(semantics))
        return built[-1]

    yield make_world
    for world in built:
        world.close()


@pytest.fixture(params=ALL, ids=kind)
def world(request, build):
    """A small world behind the ports, as Linux 6.12 has it."""
    return build(request.param, kernel.LINUX_6_12)


@pytest.fixture(params=PINNABLE, ids=kind)
def pinnable(request, build):
    """The same, where pages can be pinned."""
    return build(request.param, kernel.LINUX_6_12)


@pytest.fixture(params=SEMANTICS)
def semantics(request):
    """Each of the four semantics."""
    return getattr(kernel, request.param)


@pytest.fixture(params=ALL, ids=kind)
def any_world(request, build, semantics):
    """The small world, and each of the four semantics."""
    return build(request.param, semantics), semantics


def addresses(world, *numbers):
    """Return the addresses of pages by number."""
    return np.array([world.start + n * PAGE for n in numbers], dtype=np.uint64)


def above_all(world):
    """Return the number of the last page of user space, where nothing is."""
    return ((1 << 47) - world.start) // PAGE - 1


def pages_of(world, *numbers):
    """Return the handles of pages by number."""
    where = addresses(world, *numbers)
    return world.space.follow_page(world.space.find_vma(where), where)


# -- the contract -----------------------------------------------------------------------------


def test_user_memory_is_read_as_far_as_it_goes(world):
    """An array that ends gives what is there; NULL and strange pointers give nothing."""
    pointer, _ = world.place([1, 2, 3, 4], np.int32, readable=3)

    assert world.user.read(pointer, np.int32, 2).tolist() == [1, 2]
    assert world.user.read(pointer, np.int32, 4).tolist() == [1, 2, 3]
    assert world.user.read(pointer + 4, np.int32, 4).tolist() == [2, 3]
    assert world.user.read(pointer + 12, np.int32, 1).tolist() == []
    assert world.user.read(0, np.int32, 1).tolist() == []


def test_user_memory_is_written_as_far_as_it_goes(world):
    """How many elements can be stored is what `writable` says, and only those are."""
    pointer, stored = world.place([9, 9, 9, 9], np.int32, writable=2)
    values = np.array([1, 2, 3], dtype=np.int32)

    assert world.user.writable(pointer, np.int32, 3) == 2
    assert world.user.write(pointer, values) == 2
    assert world.user.writable(pointer + 8, np.int32, 1) == 0
    assert world.user.write(0, values) == 0
    assert list(stored) == [1, 2, 9, 9]


def test_an_area_is_found_from_below(world):
    """The first area that ends above is found; `contains` tells whether it is really there."""
    where = addresses(world, 0, 5, 6, 7, above_all(world))
    area = world.space.find_vma(where)

    assert area[0] == area[1] != area[2] == area[3]
    assert area[4] == NONE
    assert world.space.contains(area, where).tolist() == [True, True, False, True, False]
    assert world.space.migratable(area[:4]).all()


def test_follow_page_finds_pages_by_any_address_in_them(world):
    """Each page has a handle of its own; an untouched one has none."""
    pages = pages_of(world, 0, 1, 5, 7)
    inside = addresses(world, 0) + np.uint64(77)

    assert pages[0] != pages[1]
    assert pages[2:].tolist() == [NONE, NONE]
    assert world.space.follow_page(world.space.find_vma(inside), inside).tolist() == [pages[0]]


def test_frames_tell_about_pages(world):
    """Nodes, counts of mappings and of processes, the zero page, the LRU."""
    pages = pages_of(world, 0, 1)
    zero = pages_of(world, 4)

    assert world.frames.node(pages).tolist() == [0, 0]
    assert world.frames.mapcount(pages).tolist() == [1, 1]
    assert world.frames.is_zero_page(np.concatenate([pages, zero])).tolist() == [False, False, True]
    assert world.frames.on_lru(pages).all()
    assert not world.frames.is_locked(pages).any()
    world.share()
    pages = pages_of(world, 0, 1)
    assert world.frames.mapcount(pages).tolist() == [2, 2]
    assert world.frames.processes(pages).tolist() == [2, 2]


def test_a_page_is_isolated_once(world):
    """The second mention of a page, in one call or the next, is not isolated; putback undoes it."""
    pages = pages_of(world, 0, 1, 0)

    assert world.frames.isolate(pages).tolist() == [True, True, False]
    assert world.frames.surely_moves(pages[:2]).all()
    assert not world.frames.isolate(pages[:1]).any()
    world.frames.putback(pages[:2])
    assert world.frames.isolate(pages[:1]).all()
    world.frames.putback(pages[:1])


def test_pages_migrate_with_mappings_and_contents(pinnable):
    """On 0 the address maps the new page, which is on the LRU; -EAGAIN leaves all as it was."""
    world = pinnable
    world.pin(1)
    pages = pages_of(world, 0, 1)
    assert world.frames.isolate(pages).all()
    new = world.frames.allocate(pages, np.array([1, 1], np.int32), exact=True)

    rc = world.frames.migrate(pages, new, force=False)
    world.frames.free_pages(new[1:])
    world.frames.putback(pages[1:])

    assert rc.tolist() == [0, -11]
    assert pages_of(world, 0, 1).tolist() == [new[0], pages[1]]
    assert world.frames.node(pages_of(world, 0, 1)).tolist() == [1, 0]
    assert world.frames.on_lru(pages_of(world, 0, 1)).all()
    assert world.contents() == list(TAGS)


def test_pages_that_nothing_holds_migrate(world):
    """On 0 the address is on the node of the new page, on the LRU, with what was in it."""
    pages = pages_of(world, 0, 1)
    assert world.frames.isolate(pages).all()
    new = world.frames.allocate(pages, np.array([1, 1], np.int32), exact=True)

    assert world.frames.node(new).tolist() == [1, 1]
    assert world.frames.migrate(pages, new, force=False).tolist() == [0, 0]
    assert world.frames.node(pages_of(world, 0, 1, 2)).tolist() == [1, 1, 0]
    assert world.frames.on_lru(pages_of(world, 0, 1)).all()
    assert world.contents() == list(TAGS)


def test_a_full_node_gives_nothing_exactly_and_something_nearby(world):
    """NONE where a page must come from a full node; another node's page where it need not."""
    world.fill(1)
    pages, nodes = pages_of(world, 0), np.array([1], np.int32)

    assert world.frames.allocate(pages, nodes, exact=True).tolist() == [NONE]
    nearby = world.frames.allocate(pages, nodes, exact=False)
    assert nearby[0] not in (NONE, LATER)
    assert world.frames.node(nearby).tolist() == [0]
    world.frames.free_pages(nearby)


def test_tasks_are_found_by_pid(world):
    """The caller is pid 0; a kernel thread has no memory; who is not there is None."""
    caller = world.tasks.find(0)

    assert world.tasks.address_space(caller) is not None
    assert world.tasks.find(caller) == caller
    assert world.tasks.find(NOBODY) is None
    assert world.tasks.address_space(world.tasks.find(world.kernel_thread)) is None
    assert set(world.tasks.online()) == set(world.tasks.with_memory()) == {0, 1}
    assert set(world.tasks.cpuset_mems(caller)) == {0, 1}


# -- the kernel's functions over it -------------------------------------------------------------


def test_do_pages_stat_runs_on_all(any_world):
    """A page, the zero page, an untouched one, a hole, above all: as the decision table says."""
    world, semantics = any_world
    hole = zero = -ENOENT if semantics.name.endswith(("code, 2006", "2.6.18")) else -EFAULT

    found = do_pages_stat(
        world.space, world.frames, addresses(world, 0, 4, 5, 6, above_all(world)), semantics
    )

    assert found.tolist() == [0, zero, -ENOENT, hole, -EFAULT]


@pytest.mark.parametrize("name", ["DOCUMENTED_2006", "PATCH_2006", "LINUX_2_6_18"])
@pytest.mark.parametrize("make", PINNABLE)
def test_do_move_pages_runs_on_all(make, name, build):
    """[pinned, ok, ok, ok again, untouched] to 1: return value, statuses, places and contents."""
    semantics = getattr(kernel, name)
    world = build(make, semantics)
    world.pin(0)
    pm = PageToNode(addresses(world, 0, 1, 2, 1, 5), np.ones(5, dtype=np.int32))

    ret = do_move_pages(world.space, world.frames, pm, semantics, migrate_all=False)

    documented = name == "DOCUMENTED_2006"
    assert ret == (0 if documented else 1)
    assert pm.status.tolist() == [-EBUSY if documented else -11, 1, 1, -EBUSY, -ENOENT]
    assert world.frames.node(pages_of(world, 0, 1, 2, 3)).tolist() == [0, 1, 1, 0]
    assert world.contents() == list(TAGS)


def call(world, semantics, numbers, nodes, *, flags=MOVE, pid=0, readable=None):
    """Make the system call over the ports; return its answer and the statuses."""
    where = addresses(world, *numbers).tolist()
    pages, _ = world.place(where, np.uint64, readable=readable)
    status, stored = world.place([U] * len(where), np.int32)
    to = 0 if nodes is None else world.place(nodes, np.int32)[0]
    move_pages = MovePages(world.user, world.frames, world.tasks, semantics, 1 << 30)
    return move_pages(pid, len(where), pages, to, status, flags), list(stored)


def test_the_call_of_today_runs_on_all(world):
    """do_pages_move: [ok, untouched, zero, hole, ok, ok again] in batches, stored as it goes."""
    ret, status = call(world, kernel.LINUX_6_12, [0, 5, 4, 6, 1, 1], [1] * 6)

    assert (ret, status) == (0, [1, -ENOENT, -EFAULT, -EFAULT, 1, -EBUSY])
    assert world.frames.node(pages_of(world, 0, 1, 2)).tolist() == [1, 1, 0]
    assert world.contents() == list(TAGS)


def test_the_call_of_today_stops_at_a_failing_batch_on_all(pinnable):
    """A pinned page: no status of its batch, and what was not tried is counted."""
    pinnable.pin(0)

    assert call(pinnable, kernel.LINUX_6_12, [0, 6, 1], [1, 1, 1]) == (2, [U, -EFAULT, U])


def test_a_full_node_stops_the_call_of_today_on_all(world):
    """-ENOMEM, with no status of the batch, and the pages as they were."""
    world.fill(1)

    assert call(world, kernel.LINUX_6_12, [0, 1], [1, 1]) == (-ENOMEM, [U, U])
    assert world.frames.on_lru(pages_of(world, 0, 1)).all()


def test_arguments_are_checked_on_all(any_world):
    """Flags, pid, kernel thread, an array that ends: each answers its errno on every world."""
    world, semantics = any_world

    assert call(world, semantics, [0], [1], flags=1)[0] == -EINVAL
    assert call(world, semantics, [0], [1], pid=NOBODY)[0] == -ESRCH
    assert call(world, semantics, [0], [1], pid=world.kernel_thread)[0] == -EINVAL
    assert call(world, semantics, [0, 1], None, readable=1) == (-EFAULT, [U, U])


def test_a_shared_page_is_refused_on_all(any_world):
    """MOVE leaves a page alone that a fork shares; MOVE_ALL takes it for both."""
    world, semantics = any_world
    world.share()
    alone = call(world, semantics, [0], [1])

    assert alone in ((-ENOENT, [U]), (0, [-EACCES]))
    assert call(world, semantics, [0], [1], flags=MOVE_ALL) == (0, [1])

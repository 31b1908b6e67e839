"""Memory that the caller holds: placed on the model, by its addresses, and on this kernel.

tests/emulator/programs/test_held_memory.py has several nodes and real arrays at once.
"""

from __future__ import annotations

import mmap
import weakref
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import movepages
from movepages.abi import Mode
from movepages.errors import (
    ArgumentError,
    InvalidCallError,
    NodeSetError,
    NoSuchNodeError,
    OutsideCpusetError,
    call_error,
)
from movepages.kernel import SimulatedMachine
from movepages.kernel.tasks import Cpuset
from movepages.nodeset import NodeSet
from movepages.placement import Options

PAGES = 12
QUICK = Options(backoff_s=0.0)


class Tensor:
    """Memory of a process of the model, as a tensor says where it is."""

    def __init__(self, address, size_bytes):
        """Take where it is."""
        self._address, self.shape = address, (size_bytes,)

    def data_ptr(self):
        """Return the address."""
        return self._address

    def stride(self):
        """Return that the bytes lie side by side."""
        return (1,)

    def element_size(self):
        """Return the size of a byte."""
        return 1


@pytest.fixture(params=[4096, 65536])
def held(request):
    """A process with twelve pages on node 0 in the middle of others, and a tensor over them."""
    machine = SimulatedMachine(
        "4 x 16M" if request.param == 4096 else "4 x 64M", page_size_bytes=request.param
    )
    task = machine.spawn(cpuset=Cpuset(NodeSet([0, 1, 2])))
    start = task.mmap(PAGES + 4) + 2 * request.param
    return SimpleNamespace(
        machine=machine,
        task=task,
        view=machine.as_task(task),
        page=request.param,
        start=start,
        all=Tensor(start, PAGES * request.param),
    )


def touch(held, first=-2, count=PAGES + 4):
    """Write to pages, counted from the first of the tensor."""
    held.task.write(held.start + first * held.page, count)


def nodes(held, first=-2, count=PAGES + 4):
    """Return where pages are, counted from the first of the tensor."""
    start = held.start + first * held.page
    held.machine.check()
    return held.view.locate(0, [(start, start + count * held.page)]).page_nodes().tolist()


def test_locate_says_where_the_pages_are(held):
    """Untouched pages are on no node, and not in it; nothing is touched by asking."""
    assert len(movepages.locate(held.all, machine=held.view)) == 0
    touch(held, 3, 2)
    where = movepages.locate(held.all, machine=held.view)
    assert where.bytes_by_node == {0: 2 * held.page}
    assert where.start.tolist() == [held.start + 3 * held.page]


def test_locate_takes_less_than_a_page(held):
    """A single byte is on the node of its page."""
    touch(held)
    one = Tensor(held.start + 17, 1)
    assert movepages.locate(one, machine=held.view).bytes_by_node == {0: held.page}


def test_place_moves_what_is_there(held):
    """All of its pages move, no others, and the ledger says so."""
    touch(held)
    ledger = movepages.place(held.all, 2, options=QUICK, machine=held.view)
    assert (ledger.moved_pages, ledger.complete, ledger.failed()) == (PAGES, True, {})
    assert nodes(held) == [0, 0, *[2] * PAGES, 0, 0]


def test_place_decides_where_later_pages_come(held):
    """Pages that nobody has touched yet come to the node as well, and those beside do not."""
    ledger = movepages.place(held.all, 1, options=QUICK, machine=held.view)
    assert len(ledger) == 0
    touch(held)
    assert nodes(held) == [0, 0, *[1] * PAGES, 0, 0]


def test_place_again_has_nothing_to_do(held):
    """What is there already is only counted."""
    touch(held)
    movepages.place(held.all, 1, options=QUICK, machine=held.view)
    ledger = movepages.place(held.all, 1, options=QUICK, machine=held.view)
    assert (len(ledger), ledger.already_there, ledger.calls) == (0, PAGES, 0)


@pytest.mark.parametrize(
    ("before", "after", "placed"),
    [(0, 0, (0, 4)), (1, -1, (-1, 4)), (-16, -1, (0, 4)), (16, 16, (-1, 5))],
)
def test_pages_at_the_ends_come_along(held, before, after, placed):
    """Every page that has a byte of it is placed, so that all of it is where it was asked to be."""
    touch(held)
    ends = Tensor(held.start - before, 4 * held.page + before + after)
    movepages.place(ends, 1, options=QUICK, machine=held.view)
    wanted = [1 if placed[0] <= page < placed[1] else 0 for page in range(-2, PAGES + 2)]
    assert nodes(held) == wanted


def test_less_than_a_page_is_not_placed(held):
    """What fills a page is placed; a byte less in each of two pages is refused, and stays."""
    touch(held)
    full, less = Tensor(held.start, held.page), Tensor(held.start + 1, 2 * held.page - 2)
    assert movepages.place(full, 1, options=QUICK, machine=held.view).moved_pages == 1
    for call in (movepages.place, movepages.interleave):
        with pytest.raises(ArgumentError, match=r"fills no page .* movepages\.empty\(\) gives"):
            call(less, [1], machine=held.view)
    assert nodes(held) == [0, 0, 1, *[0] * (PAGES + 1)]


def test_a_shared_page_stays_and_is_accounted_for(held):
    """After a fork its pages are the child's too: they stay, unless they are asked for."""
    touch(held)
    held.task.fork()
    ledger = movepages.place(held.all, 1, options=QUICK, machine=held.view)
    assert (ledger.moved_pages, ledger.failed()) == (0, {-13: PAGES})
    assert nodes(held) == [0] * (PAGES + 4)


def turn(held, page, cycle):
    """Return whose turn a page is, counted from the first of the tensor."""
    return cycle[(held.start // held.page + page) % len(cycle)]


@pytest.mark.parametrize(
    ("to", "weights", "cycle"),
    [
        ([0, 1], None, [0, 1]),
        ({2, 0, 1}, None, [0, 1, 2]),
        ([1], None, [1]),
        ([1, 2], {1: 3, 2: 1}, [1, 1, 1, 2]),
        ([2, 0], {0: 1, 2: 2}, [0, 2, 2]),
    ],
)
def test_interleave_goes_by_turns(held, to, weights, cycle):
    """The address of a page says whose turn it is; a second call has nothing to do."""
    touch(held)
    movepages.interleave(held.all, to, weights, options=QUICK, machine=held.view)
    wanted = [turn(held, page, cycle) for page in range(PAGES)]
    assert nodes(held, 0, PAGES) == wanted
    again = movepages.interleave(held.all, to, weights, options=QUICK, machine=held.view)
    assert (len(again), again.already_there) == (0, PAGES)


def test_the_kernel_goes_on_with_the_turns(held):
    """Pages that are touched later take the turns that the others have left them."""
    touch(held, 0, 5)
    movepages.interleave(held.all, [0, 1, 2], options=QUICK, machine=held.view)
    touch(held, 5, PAGES - 5)
    assert nodes(held, 0, PAGES) == [turn(held, page, [0, 1, 2]) for page in range(PAGES)]


@pytest.mark.parametrize("weights", [{0: 1}, {0: 1, 1: 0}, {0: 1, 1: 1, 2: 1}])
def test_weights_that_do_not_fit(held, weights):
    """Each node has a whole number from 1 on; nothing is changed otherwise."""
    touch(held)
    with pytest.raises(ArgumentError, match="do not fit nodes 0-1"):
        movepages.interleave(held.all, [0, 1], weights, machine=held.view)
    assert nodes(held) == [0] * (PAGES + 4)


@pytest.mark.parametrize(
    ("call", "to", "error", "told"),
    [
        (movepages.place, 9, NoSuchNodeError, "node 9 does not exist"),
        (movepages.place, 3, OutsideCpusetError, "node 3 lies outside the cpuset"),
        (movepages.place, -1, NodeSetError, "-1 is not a node number"),
        (movepages.place, "1", ArgumentError, "nodes are numbers"),
        (movepages.place, [0, 1], ArgumentError, "one node is wanted, not 0-1"),
        (movepages.place, [], ArgumentError, "there is no node given"),
        (movepages.interleave, [0, 9], NoSuchNodeError, "node 9 does not exist"),
        (movepages.interleave, [0, 3], OutsideCpusetError, "node 3 lies outside the cpuset"),
        (movepages.interleave, [], ArgumentError, "there is no node given"),
        (movepages.interleave, "01", ArgumentError, "nodes are numbers"),
    ],
)
def test_bad_nodes(held, call, to, error, told):
    """Each is refused with its sentence before anything is changed."""
    touch(held)
    with pytest.raises(error, match=told):
        call(held.all, to, machine=held.view)
    assert nodes(held) == [0] * (PAGES + 4)
    assert {mapping.policy for mapping in held.view.mappings(0)} == {"default"}


class Undividable:
    """The model, with a mapping of huge pages that mbind(2) does not divide, as hugetlb is."""

    def __init__(self, view, huge):
        """Take the size of its pages."""
        self._view, self._huge, self.bound = view, huge, []

    def __getattr__(self, name):
        """Answer all else as the model does."""
        return getattr(self._view, name)

    def mappings(self, pid):
        """Return the mappings with the size of their pages."""
        return [replace(m, page_size_bytes=self._huge) for m in self._view.mappings(pid)]

    def mbind(self, start, length_bytes, mode, nodes, flags):
        """Refuse a part of a huge page: hugetlb_vm_op_split in mm/hugetlb.c."""
        if start % self._huge or length_bytes % self._huge:
            raise call_error(-22, "mbind")
        self.bound.append((start, length_bytes, mode, nodes, flags))


def test_policy_of_huge_pages():
    """Where a mapping cannot be divided within a huge page, whole ones get the policy."""
    huge = 1 << 16
    machine = SimulatedMachine("2 x 16M")
    task = machine.spawn()
    start = task.mmap(64, at=0x10000000)
    view = Undividable(machine.as_task(task), huge)
    movepages.place(Tensor(start + huge + 4096, huge), 1, machine=view)
    assert view.bound == [(start + huge, 2 * huge, Mode.PREFERRED, NodeSet([1]), 0)]


def test_an_invalid_call_is_not_hidden():
    """Where no huge page explains it, what the kernel calls invalid is an error."""
    machine = SimulatedMachine("2 x 16M")
    task = machine.spawn()
    start = task.mmap(8, at=0x10000000)
    view = Undividable(machine.as_task(task), 4096)
    view.mbind = invalid
    with pytest.raises(InvalidCallError):
        movepages.place(Tensor(start, 8 * 4096), 1, machine=view)


def invalid(*_):
    """Call everything invalid."""
    raise call_error(-22, "mbind")


# -- real arrays, on this kernel ------------------------------------------------------------------


@pytest.fixture
def home():
    """A node of this process."""
    return min(movepages.read_topology().with_memory)


@pytest.mark.host
def test_empty_is_memory_of_its_own(home):
    """It starts at a page, is zero, of the shape and type asked for, and of the policy `prefer`."""
    array = movepages.empty((3, 1000), np.float32, node=home)
    start = array.ctypes.data
    assert (array.shape, array.dtype, start % mmap.PAGESIZE) == ((3, 1000), np.float32, 0)
    assert len(movepages.locate(array)) == 0
    assert not array.any()
    array[:] = 7
    assert movepages.locate(array).bytes_by_node == {home: 3 * mmap.PAGESIZE}
    policies = {m.start: m.policy for m in movepages.Process().mappings()}
    assert policies[start] == f"prefer:{home}"


@pytest.mark.host
def test_empty_lasts_as_long_as_its_views(home):
    """A view keeps it; with the last one the memory is given back to the kernel."""
    array = movepages.empty(5 * mmap.PAGESIZE, np.uint8, interleave=[home])
    mapping = weakref.ref(array)
    view, start = array[1:], array.ctypes.data
    del array
    assert any(m.start <= start < m.end for m in movepages.Process().mappings())
    assert view[0] == 0
    del view
    assert mapping() is None
    assert f"interleave:{home}" not in {
        m.policy for m in movepages.Process().mappings() if m.start <= start < m.end
    }


@pytest.mark.host
@pytest.mark.parametrize(
    ("shape", "dtype", "settings", "error", "told"),
    [
        (5, float, {}, ArgumentError, "give either a node, or the nodes"),
        (5, float, {"node": 0, "interleave": [0]}, ArgumentError, "give either a node, or"),
        (0, float, {"node": 0}, ArgumentError, "has no memory that could be anywhere"),
        ((3, 0), float, {"node": 0}, ArgumentError, "has no memory that could be anywhere"),
        (5, "V0", {"node": 0}, ArgumentError, "has no memory that could be anywhere"),
        ((2, -1), float, {"node": 0}, ArgumentError, "is no shape of an array"),
        ("5", float, {"node": 0}, ArgumentError, "is no shape of an array"),
        (5, object, {"node": 0}, ArgumentError, "an array of objects holds references"),
        (1 << 60, np.uint8, {"node": 0}, MemoryError, "cannot be mapped"),
        (5, float, {"node": 4000}, NoSuchNodeError, "node 4000 does not exist"),
        (5, float, {"interleave": []}, ArgumentError, "there is no node given"),
    ],
)
def test_empty_refuses(shape, dtype, settings, error, told):
    """What makes no array, or no place for it, is an error with a sentence."""
    with pytest.raises(error, match=told):
        movepages.empty(shape, dtype, **settings)


@pytest.mark.host
def test_bytes_stay_what_they_are(home):
    """Arrays, read-only ones too, mappings and bytes keep their bytes while they are placed."""
    pages = 5
    array = np.arange(pages * mmap.PAGESIZE // 8)
    frozen = np.array(array)
    frozen.flags.writeable = False
    with mmap.mmap(-1, pages * mmap.PAGESIZE) as mapped:
        mapped.write(array.tobytes())
        for held in (array, frozen, mapped, array.tobytes()):
            size_bytes = movepages.locate(held).total_bytes
            assert size_bytes in {pages * mmap.PAGESIZE, (pages + 1) * mmap.PAGESIZE}
            ledger = movepages.place(held, home)
            assert (ledger.complete, ledger.ended) == (True, "done")
            assert Counter(movepages.locate(held).page_nodes().tolist()).keys() == {home}
            assert bytes(held) == array.tobytes()
            del held

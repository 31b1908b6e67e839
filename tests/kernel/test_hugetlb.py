"""Pools of hugetlb pages."""

from __future__ import annotations

import errno

import pytest

from movepages.abi import MoveFlag
from movepages.errors import ArgumentError
from movepages.kernel import (
    DOCUMENTED_2006,
    LINUX_2_6_18,
    PATCH_2006,
    SimulatedMachine,
)
from movepages.kernel.crash import KernelBugError
from movepages.kernel.inject import Pin

MOVE = int(MoveFlag.MOVE)
HUGE = 512
PAGE = 4096


def start(semantics=None, pools=(2, 2)):
    """Return a machine with pools, a process, and a hugetlb page it has touched on node 0."""
    chosen = {} if semantics is None else {"semantics": semantics}
    machine = SimulatedMachine("2 x 16M", **chosen)
    for node, pages in enumerate(pools):
        assert machine.resize_pool(node, pages) == pages
    p = machine.spawn()
    a = p.mmap(HUGE, huge=True)
    p.poke(a, [3])
    machine.check()
    return machine, p, a


def totals(machine):
    """Return the sizes of the pools."""
    return [machine.memory.pools.pool(node, 9).total for node in (0, 1)]


def test_a_moved_page_takes_a_free_one_of_the_target():
    """With a free page in the target's pool both pools keep their size (observed on 6.12)."""
    machine, p, a = start()
    assert p.move_pages(0, [a], [1], MOVE)[1].tolist() == [1]
    assert totals(machine) == [2, 2]
    assert len(machine.memory.pools.pool(0, 9).free) == 2
    assert p.peek(a).tolist() == [3]
    machine.check()


def test_a_moved_page_takes_its_place_in_the_pool_along():
    """With an empty pool at the target the place moves too (section 6, trap 17)."""
    machine, p, a = start(pools=(2, 0))
    assert p.move_pages(0, [a], [1], MOVE)[1].tolist() == [1]
    assert totals(machine) == [1, 1]
    machine.check()
    p.exit()
    assert totals(machine) == [1, 1]
    machine.check()


def test_head_and_tail_of_one_page():
    """[head, tail] to 1 is [1 -EBUSY], and a tail alone moves the page (decision table)."""
    machine, p, a = start()
    assert p.move_pages(0, [a, a + PAGE], [1, 1], MOVE)[1].tolist() == [1, -errno.EBUSY]
    assert p.move_pages(0, [a + 7 * PAGE], [0], MOVE)[1].tolist() == [0]
    assert p.move_pages(0, p.addresses(a, HUGE), None, 0)[1].tolist() == [0] * HUGE
    machine.check()


def test_pools_grow_as_far_as_memory_goes():
    """More huge pages than fit: the pool gets what there is; shrinking gives it back."""
    machine = SimulatedMachine("2 x 8M")
    assert machine.resize_pool(1, 100) == 4
    machine.check()
    assert machine.resize_pool(1, 1) == 1
    assert machine.free_bytes()[1] == 6 << 20
    machine.check()


def test_pages_in_use_are_not_taken_from_a_pool():
    """A pool does not shrink below what is in use."""
    machine, p, a = start()
    assert machine.resize_pool(0, 0) == 1
    assert p.peek(a).tolist() == [3]
    p.exit()
    assert machine.resize_pool(0, 0) == 0
    machine.check()


def test_negative_pools_are_refused():
    """A pool of less than nothing, or of a node without memory, is an error."""
    machine, _, _ = start()
    with pytest.raises(ArgumentError, match="cannot have"):
        machine.resize_pool(0, -1)


def test_a_pinned_hugetlb_page_stays():
    """A page that does not move gives back what it was to move into, temporary or pooled."""
    for pools in ((2, 2), (2, 0)):
        machine, p, a = start(pools=pools)
        with machine.inject(Pin(p, a)):
            assert p.move_pages(0, [a], [1], MOVE)[0] == 1
            assert totals(machine) == list(pools)
            machine.check()


@pytest.mark.parametrize("semantics", [PATCH_2006, LINUX_2_6_18], ids=lambda s: s.name)
def test_moving_a_hugetlb_page_in_2006_is_a_kernel_bug(semantics):
    """A query tells the node; a move is the BUG_ON that it was (D15), even where it already is."""
    machine, p, a = start(semantics)
    assert p.move_pages(0, [a, a + PAGE], None, 0)[1].tolist() == [0, 0]
    b = p.mmap(1)
    p.write(b)
    for node in (0, 1):
        with pytest.raises(KernelBugError, match=f"{a:#x}"):
            p.move_pages(0, [b, a], [node, node], MOVE)
    machine.check()


def test_by_the_text_of_2006_a_hugetlb_page_moves():
    """Where the code of 2006 is undefined, its text does as Linux 6.12."""
    machine, p, a = start(DOCUMENTED_2006)
    assert p.move_pages(0, [a], [1], MOVE)[1].tolist() == [1]
    machine.check()

"""Packing takes the fewest nodes that have room, and moves no more than those need."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, strategies as st

from movepages.errors import NodeFullError, NoSuchProcessError
from movepages.kernel import SimulatedMachine
from movepages.kernel.tasks import Cpuset
from movepages.nodeset import NodeSet
from movepages.placement import Options, execute, select
from movepages.placement.pack import pack_nodes, plan_pack
from movepages.values import Placement

PAGE, HUGE = 4096, 2 << 20
QUICK = Options(backoff_s=0.0)


def placed(nodes, sizes=PAGE):
    """Return a placement of pages with their sizes, far enough from each other, on their nodes."""
    count = len(nodes)
    start = np.arange(count, dtype=np.uint64) * np.uint64(2 * HUGE)
    every = np.broadcast_to(np.asarray(sizes, np.int64), count).copy()
    return Placement(start, np.ones(count, np.int64), every, np.array(nodes, np.int32))


def process(*pages_on_nodes, machine="4 x 32M", page_size_bytes=PAGE, **facts):
    """Return a model with a process, and a mapping with so many pages on each node, in order."""
    made = SimulatedMachine(machine, page_size_bytes=page_size_bytes)
    task = made.spawn(**facts)
    total = sum(pages_on_nodes)
    first = task.mmap(total)
    task.poke(first, range(1, total + 1))
    nodes = np.repeat(np.arange(len(pages_on_nodes), dtype=np.int32), pages_on_nodes)
    made.move_pages(task.pid, task.addresses(first, total), nodes, 2)
    return made, task, first


def packed(machine, task, preferred=()):
    """Plan, carry out, and return pages by node after it, and the ledger; nothing is lost."""
    made = plan_pack(machine, machine.task(task.pid), select.everything(), preferred)
    ledger = execute(made, machine, QUICK)
    machine.check()
    where = machine.locate(task.pid)
    assert ledger.complete
    return dict(Counter(where.page_nodes().tolist())), ledger


@pytest.mark.parametrize("page_size_bytes", [4096, 65536])
def test_all_come_to_where_most_are(page_size_bytes):
    """On an empty machine one node holds all: the one from which most would have to move."""
    machine, task, first = process(3, 7, 2, page_size_bytes=page_size_bytes)
    pages, ledger = packed(machine, task)
    assert pages == {1: 12}
    assert (ledger.moved_pages, ledger.already_there) == (5, 7)
    assert task.peek(first, 12).tolist() == list(range(1, 13))


def test_preferred_nodes_go_before_what_need_not_move():
    """All come to the preferred node, though it has no page yet."""
    machine, task, _ = process(3, 7, 2)
    pages, ledger = packed(machine, task, [3])
    assert (pages, ledger.moved_pages) == ({3: 12}, 12)


def test_fewer_nodes_go_before_preferred_ones():
    """Of two that are preferred one is enough, and takes the one with more pages."""
    machine, task, _ = process(1, 9, 4)
    pages, _ = packed(machine, task, [0, 2])
    assert pages == {2: 14}


def test_the_cpuset_bounds_the_choice():
    """Nodes outside the cpuset get nothing, and pages there come in."""
    machine, task, _ = process(2, 7, 3)
    task.attach(Cpuset(NodeSet([0, 2]), migrates=False))
    pages, ledger = packed(machine, task)
    assert (pages, ledger.moved_pages) == ({2: 12}, 9)


def test_what_is_packed_stays():
    """To pack again moves nothing."""
    machine, task, _ = process(3, 7, 2)
    packed(machine, task)
    pages, ledger = packed(machine, task)
    assert (pages, ledger.asked, ledger.already_there) == ({1: 12}, 12, 12)


def test_as_many_nodes_as_it_takes():
    """Where no node holds all, two do, filled to the last page, and nothing is lost."""
    machine, task, _ = process(100, 100, 100, machine="3 x 1M")
    free = {node: size // PAGE for node, size in machine.free_bytes().items()}
    pages, _ = packed(machine, task)
    assert len(pages) == 2
    assert sum(pages.values()) == 300
    assert all(count <= free[node] + 100 for node, count in pages.items())


def chosen(nodes, free_pages, sizes=PAGE, preferred=()):
    """Return pages by node after packing, with so many free base pages on each node."""
    free = {node: pages * PAGE for node, pages in enumerate(free_pages)}
    where, to = pack_nodes(placed(nodes, sizes), free, preferred)
    assert len(where) == len(to)
    return dict(Counter(to.tolist()))


@pytest.mark.parametrize(("free", "after"), [(3, {0: 6}), (2, {0: 3, 1: 3})])
def test_room_to_the_page(free, after):
    """Three pages need room for three; with less, two nodes are needed, and nothing has to move."""
    assert chosen([0, 0, 0, 1, 1, 1], [free, 0]) == after


def test_the_least_moves_of_sets_alike():
    """Two nodes are needed; those with most pages together have room, and nothing else moves."""
    assert chosen([0] * 5 + [1] * 4 + [2] * 3, [2, 1, 5]) == {0: 7, 1: 5}
    assert chosen([0] * 5 + [1] * 4 + [2] * 3, [2, 0, 5]) == {0: 7, 2: 5}


def test_huge_pages_need_room_in_one_piece():
    """Two nodes with half a huge page free each have no room for one; the third has."""
    half = HUGE // PAGE // 2
    assert chosen([0, 0, 1], [half, half, 4 * half], [PAGE, PAGE, HUGE]) == {1: 3}
    assert chosen([0, 1], [half, half - 1, 0], [HUGE, HUGE]) == {0: 1, 1: 1}
    assert chosen([0, 1], [half, 2 * half, 0], [HUGE, HUGE]) == {1: 2}


def test_no_room_at_all():
    """Pages outside the nodes that may be chosen, which have no room, cannot be packed."""
    with pytest.raises(NodeFullError, match="nodes 0-1 have no room for 8K"):
        chosen([7, 7], [1, 0])
    assert chosen([7, 7], [1, 1]) == {0: 1, 1: 1}


def test_nothing_to_pack():
    """No page is a plan without pages, even where no node has room."""
    assert chosen([], [0, 0]) == {}


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=12),
    st.lists(st.integers(0, 8), min_size=4, max_size=4),
    st.sets(st.integers(0, 3)),
)
def test_no_choice_is_better(nodes, free, preferred):
    """Tried one by one, no set of nodes is smaller, nor as small and better."""
    before = Counter(nodes)
    after = chosen(nodes, free, preferred=preferred)
    assert sum(after.values()) == len(nodes)
    assert all(after[node] <= before[node] + free[node] for node in after)

    def merit(some):
        here = sum(before[node] for node in some)
        return -len(some), sum(node in preferred for node in some), here

    holding = [
        some
        for count in range(1, 5)
        for some in combinations(range(4), count)
        if sum(before[node] + free[node] for node in some) >= len(nodes)
    ]
    moved = sum(max(0, after.get(node, 0) - before[node]) for node in range(4))
    best = max(map(merit, holding))
    assert (-len(after), sum(node in preferred for node in after)) == best[:2]
    assert len(nodes) - moved == best[2]


def test_many_nodes_are_packed_all_the_same():
    """Of more nodes than can be compared set by set, the roomiest hold all."""
    nodes = [node for node in range(64) for _ in range(4)]
    after = chosen(nodes, [4] * 64)
    assert (len(after), sum(after.values())) == (32, 256)


def test_a_process_that_has_ended():
    """Its pages cannot be found."""
    machine, task, _ = process(2)
    info = machine.task(task.pid)
    task.exit()
    with pytest.raises(NoSuchProcessError):
        plan_pack(machine, info, select.everything())

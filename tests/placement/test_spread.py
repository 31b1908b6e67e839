"""Spreading gives each node its share, exactly, and moves only what is beyond a share."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, strategies as st

from movepages.abi import UNWRITTEN
from movepages.errors import ArgumentError, NoSuchProcessError
from movepages.kernel import SimulatedMachine
from movepages.kernel.inject import Pin
from movepages.placement import Options, execute, select
from movepages.placement.spread import plan_spread, shares, spread_nodes
from movepages.values import Placement

PAGE, HUGE = 4096, 2 << 20
QUICK = Options(backoff_s=0.0)


def placed(nodes, size=PAGE):
    """Return a placement of pages that follow each other, each on its node."""
    count = len(nodes)
    start = np.arange(count, dtype=np.uint64) * np.uint64(size)
    ones = np.ones(count, np.int64)
    return Placement(start, ones, ones * size, np.array(nodes, np.int32))


def process(*pages_on_nodes, page_size_bytes=PAGE):
    """Return a model with a process, and a mapping with so many pages on each node, in order."""
    machine = SimulatedMachine("4 x 32M", page_size_bytes=page_size_bytes)
    task = machine.spawn()
    total = sum(pages_on_nodes)
    first = task.mmap(total)
    task.poke(first, range(1, total + 1))
    addresses = task.addresses(first, total)
    nodes = np.repeat(np.arange(len(pages_on_nodes), dtype=np.int32), pages_on_nodes)
    machine.move_pages(task.pid, addresses, nodes, 2)
    return machine, task, first


def spread(machine, task, to, weights=None):
    """Plan, carry out, and return pages by node after it, and the ledger; nothing is lost."""
    made = plan_spread(machine, machine.task(task.pid), select.anon(), to, weights)
    ledger = execute(made, machine, QUICK)
    machine.check()
    where = machine.locate(task.pid)
    pages = Counter(np.repeat(where.node, where.pages).tolist())
    return dict(pages), ledger


@pytest.mark.parametrize("page_size_bytes", [4096, 65536])
def test_all_on_one_node_come_to_all(page_size_bytes):
    """Sixteen pages of one node are four on each, neighbours on different nodes, bytes intact."""
    machine, task, first = process(16, page_size_bytes=page_size_bytes)
    pages, ledger = spread(machine, task, range(4))
    assert pages == dict.fromkeys(range(4), 4)
    assert (ledger.moved_pages, ledger.already_there) == (12, 4)
    nodes = machine.locate(task.pid).page_nodes().tolist()
    assert nodes == [0, 1, 2, 3] * 4
    assert task.peek(first, 16).tolist() == list(range(1, 17))


def test_pages_inside_the_set_are_spread_again():
    """Where all pages are on nodes of the set, mbind moves none: here the surplus moves."""
    machine, task, _ = process(10, 2)
    pages, ledger = spread(machine, task, [0, 1])
    assert pages == {0: 6, 1: 6}
    assert ledger.moved_pages == 4


def test_pages_outside_the_set_come_in():
    """A node that is not named keeps no page, and what is missing is filled from it."""
    machine, task, _ = process(3, 3, 6)
    pages, ledger = spread(machine, task, [0, 1])
    assert pages == {0: 6, 1: 6}
    assert ledger.moved_pages == 6
    assert {ledger.plan.reasons[why] for why in ledger.plan.reason} == {"its node has no share"}


def test_what_is_spread_stays():
    """To spread again moves nothing, also where the pages cannot be divided."""
    machine, task, _ = process(11)
    first, _ = spread(machine, task, [0, 1, 2])
    again, ledger = spread(machine, task, [0, 1, 2])
    assert sorted(first.values()) == [3, 4, 4]
    assert (again, ledger.asked, ledger.already_there) == (first, 11, 11)


def test_weights():
    """Each node gets as much as it weighs."""
    machine, task, _ = process(12)
    pages, ledger = spread(machine, task, [1, 2, 3], {1: 3, 2: 2, 3: 1})
    assert pages == {1: 6, 2: 4, 3: 2}
    assert ledger.moved_pages == 12


def test_a_pinned_page_is_told():
    """A page that does not move is in the ledger, and the others are spread."""
    machine, task, first = process(8)
    with machine.inject(Pin(task, first + PAGE)):
        pages, ledger = spread(machine, task, [0, 1])
    assert pages == {0: 5, 1: 3}
    assert (ledger.moved_pages, ledger.failed()) == (3, {UNWRITTEN: 1})


def test_sizes_are_spread_each_for_itself():
    """Huge pages are shared out among themselves, so that bytes are even as well as counts."""
    huge = placed([0, 0], HUGE)
    base = placed([0] * 4)
    both = Placement(
        np.concatenate([base.start, huge.start + np.uint64(HUGE)]),
        np.concatenate([base.pages, huge.pages]),
        np.concatenate([base.page_size_bytes, huge.page_size_bytes]),
        np.concatenate([base.node, huge.node]),
    )
    _, nodes = spread_nodes(both, [0, 1])
    assert Counter(nodes[:4].tolist()) == {0: 2, 1: 2}
    assert Counter(nodes[4:].tolist()) == {0: 1, 1: 1}


def test_huge_pages_move_whole():
    """Of four huge pages two move, each as one page, beside half of the base pages."""
    machine = SimulatedMachine("2 x 32M")
    task = machine.spawn()
    huge = task.mmap(4 * HUGE // PAGE)
    task.madvise(huge, 4 * HUGE // PAGE, "hugepage")
    task.write(huge, 4 * HUGE // PAGE)
    task.write(task.mmap(6), 6)
    made = plan_spread(machine, machine.task(task.pid), select.everything(), [0, 1])
    assert execute(made, machine, QUICK).complete
    machine.check()
    where = machine.locate(task.pid)
    pages = Counter()
    for _, count, size, node in where.runs():
        pages[node, size] += count
    assert pages == {(0, HUGE): 2, (1, HUGE): 2, (0, PAGE): 3, (1, PAGE): 3}


@pytest.mark.parametrize(
    ("here", "weights", "share"),
    [
        ({0: 7}, {0: 1, 1: 1}, {0: 4, 1: 3}),
        ({1: 7}, {0: 1, 1: 1}, {0: 3, 1: 4}),
        ({5: 7}, {0: 1, 1: 1}, {0: 4, 1: 3}),
        ({0: 5}, {0: 1, 1: 2}, {0: 2, 1: 3}),
        ({0: 1}, {0: 1, 1: 2}, {0: 0, 1: 1}),
        ({}, {0: 1}, {0: 0}),
    ],
)
def test_what_is_left_over(here, weights, share):
    """By the largest remainder, of equal ones where most pages are, then by number."""
    assert shares(here, weights) == share


NODES = st.lists(st.integers(0, 4), max_size=40)
WEIGHTS = st.dictionaries(st.integers(0, 4), st.integers(1, 9), min_size=1)


@given(NODES, WEIGHTS)
def test_shares_are_exact_and_as_few_as_can_be_move(nodes, weights):
    """Each node has its weight's part, to less than a page; as many leave as are beyond shares."""
    _, to = spread_nodes(placed(nodes), weights, weights)
    after, before = Counter(to.tolist()), Counter(nodes)
    total = sum(weights.values())
    for node, weight in weights.items():
        assert abs(after[node] * total - len(nodes) * weight) < total
    assert set(after) <= set(weights)
    beyond = sum(max(0, before[node] - after[node]) for node in before)
    assert int((to != np.array(nodes, np.int32)).sum()) == beyond


@given(NODES, st.sets(st.integers(0, 4), min_size=1))
def test_an_even_spread_moves_the_least(nodes, to):
    """No even spread moves fewer: whole shares and the pages left over stay where they can."""
    _, targets = spread_nodes(placed(nodes), to)
    here = Counter(nodes)
    each, left = divmod(len(nodes), len(to))
    stay = sum(min(here[node], each) for node in to)
    stay += min(left, sum(here[node] > each for node in to))
    assert int((targets == np.array(nodes, np.int32)).sum()) == stay


@pytest.mark.parametrize(
    ("to", "weights", "told"),
    [
        ([], None, "there is no node to spread over"),
        ([0, 1], {0: 1}, "do not fit nodes 0-1"),
        ([0], {0: 1, 1: 1}, "do not fit nodes 0"),
        ([0, 1], {0: 1, 1: 0}, "a whole number from 1 on"),
        ([0, 1], {0: -1, 1: 2}, "a whole number from 1 on"),
    ],
)
def test_bad_nodes_and_weights(to, weights, told):
    """Each is refused with what to give instead."""
    with pytest.raises(ArgumentError, match=told):
        spread_nodes(placed([0]), to, weights)


def test_nothing_to_spread():
    """No page is a plan without pages."""
    pages, nodes = spread_nodes(placed([]), [0, 1])
    assert (len(pages), len(nodes)) == (0, 0)


def test_a_process_that_has_ended():
    """Its pages cannot be found."""
    machine, task, _ = process(2)
    info = machine.task(task.pid)
    task.exit()
    with pytest.raises(NoSuchProcessError):
        plan_spread(machine, info, select.everything(), [0, 1])

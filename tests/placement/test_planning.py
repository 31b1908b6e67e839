from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st

from movepages.errors import ArgumentError
from movepages.kernel import SimulatedMachine
from movepages.placement import in_turn, make_plan, plan, select
from movepages.placement.planning import by_page, with_unlocated
from movepages.values import NO_NODE, Placement, TaskId

PAGE, HUGE = 4096, 2 << 20
TASK = TaskId("boot", 7, 5000)


def placed(*runs):
    """Return a placement of runs (first page, pages, node), of base pages."""
    first, pages, node = (np.array(column) for column in zip(*runs, strict=True))
    sizes = np.full(len(runs), PAGE)
    return Placement((first * PAGE).astype(np.uint64), pages, sizes, node.astype(np.int32))


def rows(made):
    """Return a plan's runs as (first page, pages, from, to)."""
    columns = (made.start // PAGE, made.pages, made.from_node, made.to_node)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def test_a_plan_is_sorted_by_target_and_joined():
    """Runs go by target, then address; neighbours alike are one; those in place are left out."""
    where = placed((0, 2, 0), (2, 3, 0), (5, 1, 1), (6, 4, 0), (20, 1, 2))
    made = make_plan(TASK, where, [1, 1, 1, 0, 0])
    assert rows(made) == [(20, 1, 2, 0), (0, 5, 0, 1)]
    assert (made.there_pages, made.there_bytes) == (5, 5 * PAGE)
    assert (made.page_count, made.total_bytes) == (6, 6 * PAGE)
    assert made.bytes_by_target == {0: PAGE, 1: 5 * PAGE}
    assert made.present_bytes == 11 * PAGE
    assert made.staying_bytes_by_node == {0: 4 * PAGE, 1: PAGE}
    assert made.bytes_by_node == {0: 9 * PAGE, 1: PAGE, 2: PAGE}
    assert made.bytes_by_node_planned == {0: 5 * PAGE, 1: 6 * PAGE}


def test_pages_in_place_can_be_kept():
    """To measure, what is there already is moved as well."""
    made = make_plan(TASK, placed((0, 2, 1)), 1, keep_there=True)
    assert rows(made) == [(0, 2, 1, 1)]
    assert made.there_pages == 0


def test_reasons_keep_runs_apart():
    """Neighbours that move for different reasons stay two runs."""
    made = make_plan(TASK, placed((0, 2, 0), (2, 2, 0)), 1, reason=[1, 0], reasons=("cold", "hot"))
    assert [made.reasons[reason] for reason in made.reason] == ["hot", "cold"]


@pytest.mark.parametrize("runs", [[(0, 2, 0), (1, 1, 0)], [(5, 1, 0), (0, 6, 1)]])
def test_a_page_in_two_runs_is_refused(runs):
    """A plan names each page once; runs that only touch are fine."""
    with pytest.raises(ArgumentError, match="is in two runs"):
        make_plan(TASK, placed(*runs), 3)
    make_plan(TASK, placed((0, 2, 0), (2, 1, 0)), 3)


@pytest.mark.parametrize("reason", [1, -1])
def test_a_reason_that_is_not_there_is_refused(reason):
    """A reason is an index into the reasons."""
    with pytest.raises(ArgumentError, match="a reason is an index"):
        make_plan(TASK, placed((0, 1, 0)), 1, reason=reason)


def test_an_empty_plan():
    """No page to move is a plan as well."""
    made = make_plan(TASK, placed((0, 1, 1)), 1)
    assert (len(made), made.page_count, made.total_bytes, made.bytes_by_target) == (0, 0, 0, {})
    assert len(made.first(5)) == 0


@pytest.mark.parametrize(
    ("pages", "kept"),
    [(0, []), (1, [1]), (3, [3]), (4, [3, 1]), (7, [3, 4]), (8, [3, 4])],
)
def test_the_first_pages_of_a_plan(pages, kept):
    """A plan for so many pages has whole runs, and a part of the last."""
    made = make_plan(TASK, placed((0, 3, 0), (10, 4, 0)), 1)
    assert made.first(pages).pages.tolist() == kept


def test_nodes_take_turns_by_page():
    """Several nodes get the pages in order of address; one node gets the runs as they are."""
    where = placed((0, 3, 0), (10, 2, 1))
    pages, nodes = in_turn(where, [2, 0, 0])
    assert (pages.start // PAGE).tolist() == [0, 1, 2, 10, 11]
    assert nodes.tolist() == [0, 2, 0, 2, 0]
    same, nodes = in_turn(where, {3})
    assert same is where
    assert nodes.tolist() == [3, 3]
    with pytest.raises(ArgumentError, match="no node to move to"):
        in_turn(where, ())


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(0, 2)), max_size=8))
def test_a_plan_has_every_page_once(shapes):
    """Each page is in the plan for its node, or counted as there; none is in it twice."""
    first, runs = 0, []
    for gap, pages, node in shapes:
        runs.append((first + gap, pages, node))
        first += gap + pages
    where = placed(*runs) if runs else placed((0, 0, 0))
    pages, nodes = in_turn(where, [0, 1, 2])
    made = make_plan(TASK, pages, nodes)
    wanted = {
        (address, node)
        for address, node, now in zip(
            pages.start.tolist(), nodes.tolist(), pages.node.tolist(), strict=True
        )
        if node != now
    }
    planned = np.repeat(made.to_node, made.pages).tolist()
    addresses = made.page_runs().addresses().tolist()
    assert len(addresses) == made.page_count == len(wanted)
    assert set(zip(addresses, planned, strict=True)) == wanted
    assert planned == sorted(planned)
    assert made.there_pages == len(pages) - len(wanted)


def test_single_addresses_without_a_page_stay_in_the_plan():
    """They are on no known node, so that the kernel says why; those in a run are not doubled."""
    where = with_unlocated(placed((2, 2, 0)), [0, 3 * PAGE, 9 * PAGE, 9 * PAGE], PAGE)
    assert (where.start // PAGE).tolist() == [0, 2, 9]
    assert where.node.tolist() == [NO_NODE, 0, NO_NODE]
    made = make_plan(TASK, where, 0)
    assert rows(made) == [(0, 1, -1, 0), (9, 1, -1, 0)]
    assert (made.there_pages, made.present_bytes) == (2, 2 * PAGE)


def test_pages_of_all_sizes_are_cut_out():
    """A run of huge pages becomes so many pages of their size."""
    huge = Placement(
        np.array([HUGE], np.uint64), np.array([3]), np.array([HUGE]), np.array([1], np.int32)
    )
    pages = by_page(huge)
    assert pages.start.tolist() == [HUGE, 2 * HUGE, 3 * HUGE]
    assert pages.page_size_bytes.tolist() == [HUGE] * 3


def test_some_runs_are_cut_and_others_stay_whole():
    """Rows keep their order; what is alike in all of them takes no memory, and is right."""
    where = placed((0, 2, 0), (2, 3, 1), (9, 2, 2))
    pages = by_page(where, which=np.array([True, False, True]))
    assert (pages.start // PAGE).tolist() == [0, 1, 2, 9, 10]
    assert pages.pages.tolist() == [1, 1, 3, 1, 1]
    assert pages.node.tolist() == [0, 0, 1, 2, 2]
    assert by_page(pages, which=pages.node != 1) is pages
    assert by_page(pages).pages.strides == (0,)
    assert len(by_page(placed((0, 0, 0)))) == 0


def test_plan_asks_the_machine():
    """What is selected, where it is, and who the process is come from the machine."""
    machine = SimulatedMachine("3 x 8M")
    task = machine.spawn()
    first = task.mmap(4)
    task.write(first, 3)
    made = plan(machine, machine.task(task.pid), select.anon(), {0, 2}, reason="spread")
    assert made.task == machine.task(task.pid).id
    assert rows(made) == [(first // PAGE + 1, 1, 0, 2)]
    assert (made.there_pages, made.reasons) == (2, ("spread",))


def test_pages_that_find_no_room_are_told_apart():
    """Of what stays where it is, some should be elsewhere: those are neither in place nor moved."""
    where = placed((0, 5, 0), (10, 3, 1), (20, 2, 1))
    made = make_plan(TASK, where, [1, 1, 1], crowded=[True, True, False])
    assert rows(made) == [(0, 5, 0, 1)]
    assert (made.there_pages, made.there_bytes) == (2, 2 * PAGE)
    assert (made.crowded_pages, made.crowded_bytes) == (3, 3 * PAGE)
    assert made.staying_bytes_by_node == {1: 5 * PAGE}
    assert made.present_bytes == 10 * PAGE

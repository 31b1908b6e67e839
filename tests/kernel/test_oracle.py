"""The oracle stands on its own, and answers as the specification's own examples do."""

from __future__ import annotations

import ast
from errno import EACCES, EAGAIN, EBUSY, EFAULT, ENOENT
from pathlib import Path

import oracle
import pytest
from oracle import Area, Call, Node, Page, Process, World, zonelists

PAGE = 4096
START = 16 * PAGE
ALL = ("DOCUMENTED_2006", "PATCH_2006", "LINUX_2_6_18", "LINUX_6_12")


def world_of(*pages):
    """Return a world of two nodes and a process, pid 1, that maps pages in a row from START on."""
    process = Process(1, 0, 0, 0, {"SYS_NICE", "SYS_PTRACE"}, {0, 1}, memory_of=1)
    process.areas = [Area(START, START + len(pages) * PAGE)]
    for i, page in enumerate(pages):
        if page is not None:
            process.table[START + i * PAGE] = page
            page.mappings.append((1, START + i * PAGE))
    nodes = {0: Node(0, 100, [0, 1]), 1: Node(1, 100, [1, 0])}
    return World(PAGE, nodes, {1: process})


def move(world, nodes, *, flags=2, semantics="LINUX_6_12"):
    """Name the pages from START on, one for each node."""
    pages = tuple(START + i * PAGE for i in range(len(nodes)))
    call = Call(1, 0, len(nodes), pages, tuple(nodes), len(nodes), flags)
    answer = oracle.move_pages(semantics, world, call)
    return answer.ret, [answer.status.get(i) for i in range(len(nodes))]


def test_the_oracle_imports_nothing_of_the_model():
    """What the model gets wrong the oracle cannot get wrong with it."""
    imported = set()
    for path in Path(oracle.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                imported.add(node.module.split(".")[0])
            elif isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}

    assert imported <= {"__future__", "dataclasses", "errno", "oracle", "typing"}


@pytest.mark.parametrize("semantics", ALL)
def test_a_page_moves_with_its_memory(semantics):
    """The page is on the target, and each node's free memory says so."""
    page = Page(0, [7])
    world = world_of(page)

    assert move(world, [1], semantics=semantics) == (0, [1])
    assert page.node == 1
    assert page.on_lru
    assert (world.nodes[0].free, world.nodes[1].free) == (101, 99)


@pytest.mark.parametrize(
    ("semantics", "answer"),
    [
        ("DOCUMENTED_2006", (0, [-EBUSY, 1, 1])),
        ("PATCH_2006", (1, [-EAGAIN, 1, 1])),
        ("LINUX_2_6_18", (1, [-EAGAIN, 1, 1])),
        ("LINUX_6_12", (1, [None, None, None])),
    ],
)
def test_a_pinned_page_is_answered_in_four_ways(semantics, answer):
    """[pinned, ok, ok] to 1, from the decision table."""
    world = world_of(Page(0, [1], pins=1), Page(0, [2]), Page(0, [3]))

    assert move(world, [1, 1, 1], semantics=semantics) == answer


def test_an_entry_for_another_node_is_looked_at_after_the_flush():
    """A failing batch that another node ends leaves that entry without a status, and counts it."""
    world = world_of(Page(0, [1], pins=1), None)

    assert move(world, [1, 0]) == (2, [None, None])


def test_an_entry_that_ends_a_batch_at_its_own_node_has_its_status():
    """The same with one node: the entry that is absent counts as tried."""
    world = world_of(Page(0, [1], pins=1), None)

    assert move(world, [1, 1]) == (1, [None, -ENOENT])


def test_nothing_to_do_is_an_error_in_2006_only():
    """Shared, zero and absent pages alone: -ENOENT and no status; today 0 and all of them."""
    shared = Page(0, [1], mappings=[(2, START)])

    def pages():
        return world_of(shared, Page(0, [0], reserved=True), None)

    assert move(pages(), [1] * 3) == (0, [-EACCES, -EFAULT, -ENOENT])
    assert move(pages(), [1] * 3, semantics="PATCH_2006") == (-ENOENT, [None] * 3)


def test_zonelists_prefer_what_is_near_then_above_then_without_cpus():
    """find_next_best_node() of mm/page_alloc.c, by hand, for four nodes at one distance."""
    near = {a: {b: 10 if a == b else 20 for b in range(4)} for a in range(4)}

    lists = zonelists(near, {0, 1})

    assert lists[0] == [0, 2, 3, 1]  # 2 and 3 have no CPUs
    assert lists[1] == [1, 3, 2, 0]  # 2 begins node 0's list already; 0 is below and has CPUs

from __future__ import annotations

import dataclasses
import errno
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, strategies as st

from movepages.abi import UNWRITTEN
from movepages.errors import NoSuchProcessError
from movepages.nodeset import NodeSet
from movepages.values import (
    NO_NODE,
    AccessLog,
    CallResult,
    Ledger,
    Mapping,
    PageRuns,
    Placement,
    Plan,
    Policy,
    TaskId,
    TaskInfo,
)

PAGE = 4096
HUGE = 2 << 20

runs = st.lists(
    st.tuples(
        st.integers(0, 2**40),
        st.integers(0, 40),
        st.sampled_from([PAGE, 65536, HUGE]),
        st.integers(0, 3),
    ),
    max_size=12,
)
"""Runs as (gap in pages before it, pages, page size, node)."""


def laid_out(gaps):
    """Lay runs one behind the other, as (start, pages, page size, node)."""
    rows, end = [], 0
    for gap, pages, size, node in gaps:
        start = -(-(end + gap * PAGE) // size) * size
        end = start + pages * size
        rows.append((start, pages, size, node))
    return rows


def placement_of(rows, way="pfn"):
    """Make a placement of rows."""
    start, pages, size, node = zip(*rows, strict=True) if rows else ((), (), (), ())
    return Placement(
        np.array(start, dtype=np.uint64),
        np.array(pages, dtype=np.int64),
        np.array(size, dtype=np.int64),
        np.array(node, dtype=np.int32),
        way,
    )


def result(ret, *status):
    """Make the result of a call."""
    return CallResult(ret, np.array(status, dtype=np.int32))


def test_written_tells_what_the_kernel_wrote():
    """Nodes and errnos are written; the sentinel is not."""
    assert result(1, 0, -2, UNWRITTEN, 3).written.tolist() == [True, True, False, True]


def test_counts_counts_each_status():
    """Statuses are counted by their plain number."""
    counts = result(0, 1, 1, -2, UNWRITTEN, 1).counts()
    assert counts == {1: 3, -2: 1, UNWRITTEN: 1}
    assert all(type(number) is int for pair in counts.items() for number in pair)


def test_counts_of_no_page_is_empty():
    """A call for no page has no statuses."""
    assert result(0).counts() == {}


@pytest.mark.parametrize("ret", [0, 1, 2**31])
def test_check_lets_zero_and_positive_returns_pass(ret):
    """A positive return says that pages stayed, not that the call failed."""
    answer = result(ret, UNWRITTEN)
    assert answer.check("move_pages") is answer


def test_check_raises_what_a_negative_return_stands_for():
    """The error has the class of the errno, the facts given, and the statuses."""
    answer = result(-3, 1, UNWRITTEN)
    with pytest.raises(NoSuchProcessError, match=r"^move_pages: it is gone$") as caught:
        answer.check("move_pages", detail="it is gone", pid=7)
    assert caught.value.result is answer
    assert caught.value.pid == 7


@pytest.mark.parametrize(
    "value",
    [result(0), Policy(0), Mapping(0, PAGE), placement_of([]), placement_of([]).page_runs()],
)
def test_values_are_frozen(value):
    """A value that flows on cannot be changed, and takes no new attributes."""
    name = dataclasses.fields(value)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(value, name, 1)
    with pytest.raises((AttributeError, TypeError)):
        value.something_new = 1


@given(runs)
def test_addresses_are_those_of_a_slow_loop(gaps):
    """One address for each page, its first byte, in rising order."""
    rows = laid_out(gaps)
    slow = [start + index * size for start, pages, size, _ in rows for index in range(pages)]
    addresses = placement_of(rows).page_runs().addresses()
    assert addresses.dtype == np.uint64
    assert addresses.tolist() == slow


def test_addresses_reach_the_top_of_the_address_space():
    """Addresses are unsigned: the last page of 64 bits has one."""
    top = PageRuns(np.array([2**64 - 2 * PAGE], np.uint64), np.array([2]), np.array([PAGE]))
    assert top.addresses().tolist() == [2**64 - 2 * PAGE, 2**64 - PAGE]


@given(runs)
def test_sums_are_those_of_a_slow_loop(gaps):
    """Totals, bytes by node, the node of each page and the runs themselves add up."""
    rows = laid_out(gaps)
    placement = placement_of(rows)
    by_node = {}
    for _, pages, size, node in rows:
        by_node[node] = by_node.get(node, 0) + pages * size
    assert placement.bytes_by_node == by_node
    assert placement.total_bytes == sum(by_node.values())
    assert placement.page_runs().total_bytes == sum(by_node.values())
    assert placement.page_nodes().tolist() == [node for _, n, _, node in rows for _ in range(n)]
    assert list(placement.runs()) == rows
    assert len(placement) == len(placement.page_runs()) == len(rows)


def test_sums_of_tera_bytes_do_not_overflow():
    """Sizes are 64 bits wide."""
    rows = [(0, 2**33, PAGE, 0), (2**46, 2**20, HUGE, 1)]
    assert placement_of(rows).bytes_by_node == {0: 2**45, 1: 2**41}


def test_an_empty_placement_is_empty():
    """Nothing located is nothing, in every view of it."""
    nothing = placement_of([])
    assert len(nothing) == nothing.total_bytes == 0
    assert nothing.bytes_by_node == {}
    assert list(nothing.runs()) == []
    assert nothing.page_nodes().tolist() == []
    assert nothing.page_runs().addresses().tolist() == []


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("", "anon"),
        ("[anon:glibc: malloc]", "anon"),
        ("[heap]", "heap"),
        ("[stack]", "stack"),
        ("[stack:123]", "stack"),
        ("[anon_shmem:ring]", "shm"),
        ("/dev/shm/ring", "shm"),
        ("/SYSV0000002a (deleted)", "shm"),
        ("/memfd:buffer (deleted)", "shm"),
        ("/dev/zero (deleted)", "shm"),
        ("[vdso]", "special"),
        ("[vsyscall]", "special"),
        ("/usr/lib/libc.so.6", "file"),
        ("/dev/dri/card0", "file"),
        ("/memory", "file"),
    ],
)
def test_a_mapping_has_a_kind(path, kind):
    """The name that maps prints tells a person's word for the mapping."""
    assert Mapping(0, PAGE, path=path).kind == kind


def test_hugetlb_is_a_kind_of_its_own():
    """Huge pages are named as such, whatever file is behind them."""
    assert Mapping(0, HUGE, path="/anon_hugepage (deleted)", hugetlb=True).kind == "huge"


def test_bytes_of_a_mapping_count_its_own_page_size():
    """numa_maps counts huge pages on hugetlb lines, so their size is the mapping's."""
    mapping = Mapping(
        HUGE, 5 * HUGE, page_size_bytes=HUGE, pages_by_node={0: 1, 2: 2}, hugetlb=True
    )
    assert mapping.size_bytes == 4 * HUGE
    assert mapping.span == (HUGE, 5 * HUGE)
    assert mapping.resident_bytes == 3 * HUGE
    assert mapping.bytes_by_node == {0: HUGE, 2: 2 * HUGE}
    assert mapping.only_node is None


def test_a_mapping_of_which_no_pages_are_known_has_none():
    """Without numa_maps all counts are 0, and nothing is said to be shared."""
    mapping = Mapping(0, PAGE)
    assert (mapping.anon_pages, mapping.dirty_pages, mapping.mapped_pages) == (0, 0, 0)
    assert (mapping.resident_bytes, mapping.bytes_by_node, mapping.most_mapped) == (0, {}, 1)
    assert (mapping.hugetlb, mapping.policy, mapping.kind) == (False, "default", "anon")


@pytest.mark.parametrize(("pages", "node"), [({}, None), ({3: 1}, 3), ({0: 1, 1: 1}, None)])
def test_only_node_is_the_one_with_all_pages(pages, node):
    """It needs exactly one node; node 0 is one as well."""
    assert Mapping(0, PAGE, page_size_bytes=PAGE, pages_by_node=pages).only_node == node


@pytest.mark.parametrize(("permissions", "shared"), [("rw-s", True), ("rw-p", False), ("", False)])
def test_shared_is_the_fourth_letter(permissions, shared):
    """MAP_SHARED is an s where private mappings have a p."""
    assert Mapping(0, PAGE, permissions).shared is shared


def test_values_without_arrays_compare_by_content():
    """Two readings of the same are equal, so that changes can be seen."""
    first = TaskInfo(1, "boot", 5, "sh", 0, "S", NodeSet([0]), (0,), (0,))
    assert first == TaskInfo(1, "boot", 5, "sh", 0, "S", NodeSet([0]), (0,), (0,))
    assert first != dataclasses.replace(first, start_ticks=6)
    assert Mapping(0, PAGE) == Mapping(0, PAGE)
    assert Policy(2, NodeSet([0])) != Policy(2, NodeSet([1]))


def test_the_module_does_not_load_numpy():
    """What starts without arrays starts without NumPy."""
    code = "import sys, movepages.values, movepages.machine; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# -- plans and ledgers ------------------------------------------------------------------------


def plan_of(*rows):
    """Make a plan of runs as (first page, pages, page size, from, to)."""
    first, pages, size, from_node, to_node = (list(column) for column in zip(*rows, strict=True))
    return Plan(
        task=TaskId("boot", 7, 5000),
        start=np.array(first, np.uint64) * np.uint64(PAGE),
        pages=np.array(pages),
        page_size_bytes=np.array(size),
        from_node=np.array(from_node, np.int32),
        to_node=np.array(to_node, np.int32),
        reason=np.zeros(len(rows), np.int32),
        there_pages=2,
        there_bytes=2 * PAGE,
    )


def ledger_of(plan, rows):
    """Make a ledger of rows as (to, answer, now, tries)."""
    to, answer, now, tries = zip(*rows, strict=True)
    return Ledger(
        plan,
        np.array(to, np.int32),
        np.array(answer, np.int32),
        np.array(now, np.int32),
        np.array(tries, np.uint8),
    )


def test_a_plan_counts_pages_and_bytes():
    """A huge page is one page and many bytes; what has no node is planned, but not present."""
    plan = plan_of((0, 3, PAGE, 0, 1), (512, 2, HUGE, -2, 1), (9000, 1, PAGE, 1, 2))
    assert (len(plan), plan.page_count) == (3, 6)
    assert plan.total_bytes == 4 * PAGE + 2 * HUGE
    assert plan.present_bytes == 6 * PAGE
    assert plan.bytes_by_target == {1: 3 * PAGE + 2 * HUGE, 2: PAGE}


@pytest.mark.parametrize(
    ("pages", "runs"), [(0, []), (3, [3]), (4, [3, 1]), (5, [3, 2]), (9, [3, 2, 1])]
)
def test_the_first_pages_of_a_plan(pages, runs):
    """Whole runs as long as they fit, then a part of one; what is there already is kept."""
    plan = plan_of((0, 3, PAGE, 0, 1), (512, 2, HUGE, 0, 1), (9000, 1, PAGE, 1, 2)).first(pages)
    assert plan.pages.tolist() == runs
    assert plan.there_pages == 2


def test_memory_by_node_adds_up():
    """Before, as planned, and after: what stays is in each, and what is on no node in none."""
    runs = plan_of((0, 3, PAGE, 0, 1), (512, 1, HUGE, 0, 3), (9000, 2, PAGE, -2, 1))
    plan = dataclasses.replace(
        runs, crowded_bytes=PAGE, crowded_pages=1, staying_bytes_by_node={0: PAGE, 1: 2 * PAGE}
    )
    assert plan.bytes_by_node == {0: 4 * PAGE + HUGE, 1: 2 * PAGE}
    assert plan.bytes_by_node_planned == {0: PAGE, 1: 5 * PAGE, 3: HUGE}
    assert sum(plan.bytes_by_node.values()) == plan.present_bytes
    moved, failed = (1, 1, 1, 1), (1, -errno.EACCES, 0, 1)
    untried, gone = (3, UNWRITTEN, UNWRITTEN, 0), (1, -errno.ENOENT, -errno.ENOENT, 1)
    ledger = ledger_of(plan, [moved, moved, failed, untried, gone, gone])
    assert ledger.bytes_by_node == {0: 2 * PAGE + HUGE, 1: 4 * PAGE}


def test_memory_that_stays_nobody_says_where():
    """A plan with sums alone has those bytes on no known node, before and after."""
    plan = plan_of((0, 1, PAGE, 0, 1))
    assert plan.bytes_by_node == {NO_NODE: 2 * PAGE, 0: PAGE}
    assert ledger_of(plan, [(1, 1, 1, 1)]).bytes_by_node == {NO_NODE: 2 * PAGE, 1: PAGE}


def test_each_page_of_a_ledger_has_one_outcome():
    """Arrived, failed or untried, by the kernel's last word; bytes by the size of each page."""
    plan = plan_of((0, 4, PAGE, 0, 1), (512, 2, HUGE, 0, 1))
    ledger = ledger_of(
        plan,
        [
            (1, 1, 1, 1),  # arrived
            (1, 1, 0, 2),  # arrived, and was pulled back
            (1, -errno.EACCES, 0, 1),  # shared
            (1, 0, 0, 5),  # an old kernel says where it stayed
            (3, 3, 3, 3),  # huge, spilled
            (1, UNWRITTEN, UNWRITTEN, 0),  # huge, not tried
        ],
    )
    assert ledger.arrived.tolist() == [True, True, False, False, True, False]
    assert ledger.untried.tolist() == [False] * 5 + [True]
    assert ledger.failed() == {-errno.EACCES: 1, UNWRITTEN: 1}
    assert (ledger.moved_pages, ledger.moved_bytes) == (3, 2 * PAGE + HUGE)
    assert (ledger.spilled_pages, ledger.untried_pages, ledger.strayed()) == (1, 1, {0: 1})
    assert (ledger.asked, ledger.already_there, ledger.complete) == (8, 2, False)
    assert ledger.page_origins().tolist() == [0] * 6


def test_no_room_counts_as_failed_though_nobody_tried():
    """What a full node left over is known to find no room: it is not untried."""
    ledger = ledger_of(plan_of((0, 1, PAGE, 0, 1)), [(1, -errno.ENOMEM, UNWRITTEN, 0)])
    assert (ledger.failed(), ledger.untried_pages) == ({-errno.ENOMEM: 1}, 0)


def test_a_task_is_named_for_good():
    """Its identity is the boot, the pid and the start time."""
    info = TaskInfo(7, "boot", 5000, "cat", 0, "S", NodeSet([0]), (0,), (0,))
    assert info.id == TaskId("boot", 7, 5000)
    assert dataclasses.replace(info, start_ticks=5001).id != info.id


def test_the_rows_of_one_process():
    """A log tells which processes it names, each once, and gives the rows of one in their order."""
    log = AccessLog(
        np.array([9, 7, 9], np.int32),
        np.array([1, 2, 3], np.uint64),
        np.array([0, 1, NO_NODE], np.int32),
        np.array([NO_NODE, NO_NODE, 4], np.int32),
        np.array([5, 6, 7], np.int64),
    )
    of_9 = log.of(9)
    assert (log.pids, len(log), len(of_9), len(log.of(8))) == ([7, 9], 3, 2, 0)
    assert (of_9.address.tolist(), of_9.node.tolist()) == ([1, 3], [0, NO_NODE])
    assert (of_9.cpu.tolist(), of_9.count.tolist()) == ([NO_NODE, 4], [5, 7])


def test_pages_that_find_no_room_were_meant():
    """They count as asked for and as present, and without them a ledger is not complete."""
    fits = plan_of((0, 2, PAGE, 0, 1))
    plan = dataclasses.replace(fits, crowded_pages=3, crowded_bytes=3 * PAGE)
    rows = [(1, 1, 1, 1), (1, 1, 1, 1)]
    ledger = ledger_of(plan, rows)
    assert (ledger.asked, ledger.moved_pages, ledger.complete) == (7, 2, False)
    assert plan.present_bytes == 7 * PAGE
    assert ledger_of(fits, rows).complete

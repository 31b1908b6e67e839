"""move_pages(2) itself: statuses, return values, and what stays unwritten.

`Row ...` in a docstring names the observation of Linux 6.12.117 that gives the expected value.
"""

from __future__ import annotations

import numpy as np
import pytest
from guestkit.memory import PROT_NONE, unmap
from guestkit.pages import Pages, said

from movepages.abi import MoveFlag
from movepages.linux import syscalls
from movepages.linux.page_calls import unwritten
from movepages.linux.syscalls import address_of

pytestmark = [pytest.mark.lab, pytest.mark.needs_nodes(4)]

KERNEL_ADDRESS = 0xFFFF_8000_0000_0000
VSYSCALL = 0xFFFF_FFFF_FF60_0000


@pytest.fixture
def four(memory) -> Pages:
    """Four touched pages on node 0."""
    return memory.private(4).touch()


def test_touched_pages_are_on_the_node_of_the_cpu(memory):
    """Row `touch on cpu0, query`: memory comes from the node of the CPU that touches it first."""
    assert memory.private(64).touch().query() == "0 | {0:64}"


@pytest.mark.parametrize(("node", "row"), [(1, "0 | {1:64}"), (2, "0 | {2:64}"), (3, "0 | {3:64}")])
def test_pages_move_to_a_node(memory, node, row):
    """Rows `move 64 -> node 1`, `move 64 -> node 2`, `move 64 -> node 3`: all arrive, intact."""
    pages = memory.private(64).touch()
    assert pages.move(node) == row
    assert pages.query() == row
    assert pages.numa_maps() == (
        f"default anon=64 dirty=64 active=0 N{node}=64 kernelpagesize_kB=4"
    )
    assert pages.intact()


def test_each_page_goes_to_its_own_node(memory):
    """Rows `move round-robin 0..3`, `data intact after moves`: one call serves four targets."""
    pages = memory.private(64).touch()
    assert pages.move(np.arange(64) % 4) == "0 | {0:16, 1:16, 2:16, 3:16}"
    assert pages.numa_maps() == (
        "default anon=64 dirty=64 active=0 N0=16 N1=16 N2=16 N3=16 kernelpagesize_kB=4"
    )
    assert pages.intact()


def test_untouched_pages_are_not_present(memory):
    """Rows `query half-touched`, `move half-touched -> 1`: the untouched half is -ENOENT."""
    pages = memory.private(16)
    pages[:8].touch()
    assert pages.query() == "0 | {-ENOENT:8, 0:8}"
    assert pages.move(1) == "0 | {-ENOENT:8, 1:8}"


def test_zero_page_does_not_move(memory):
    """Rows `query after READ fault of rest (zero page)`, `move incl. zero pages -> 2`."""
    pages = memory.private(16)
    pages[:8].touch()
    pages.move(1)
    assert not pages[8:].data.any()
    assert pages.query() == "0 | {-EFAULT:8, 1:8}"
    assert pages.move(2) == "0 | {-EFAULT:8, 2:8}"


def test_hole_in_a_mapping(memory):
    """Rows `query unmapped half`, `move unmapped half -> 1`: an address without mapping."""
    pages = memory.private(8).touch()
    unmap(pages[4:])
    assert pages.query() == "0 | {-EFAULT:4, 0:4}"
    assert pages.move(1) == "0 | {-EFAULT:4, 1:4}"


def test_unaligned_addresses_mean_the_page_around_them(memory):
    """Rows `query unaligned addresses`, `move unaligned addresses -> 1`."""
    inside = Pages(memory.private(64).touch().addresses + np.uint64(123))
    assert inside.query() == "0 | {0:64}"
    assert inside[:4].move(1) == "0 | {1:4}"
    assert inside.where() == "{0:60, 1:4}"


def test_page_named_three_times_ends_at_the_last_target(memory):
    """Row `same page 3x to 1,2,3`: each entry is carried out in its turn."""
    page = memory.private(1).touch()
    assert Pages(page.addresses.repeat(3)).move([1, 2, 3]) == "0 | {1:1, 2:1, 3:1}"
    assert page.where() == "{3:1}"


def test_untouchable_memory_is_not_present(memory):
    """Row `query PROT_NONE untouched`: a mapping without access has no pages."""
    assert memory.private(4, PROT_NONE).query() == "0 | {-ENOENT:4}"


def test_kernel_addresses():
    """Rows `query kernel addr, vsyscall`, `move kernel addr`: they are nobody's pages."""
    addresses = Pages(np.array([KERNEL_ADDRESS, VSYSCALL], dtype=np.uint64))
    assert addresses.where_each() == "[-EFAULT, -EFAULT]"
    assert addresses[:1].move(1) == "0 | {-EFAULT:1}"


@pytest.mark.parametrize("node", [9, -1, 5000])
def test_node_that_does_not_exist(four, node):
    """Rows `node 9 (never existed)`, `node -1`, `node 5000 (>=MAX_NUMNODES)`: nothing moves."""
    assert four.move(node) == "-ENODEV | {99:4}"
    assert four.where() == "{0:4}"


def test_bad_node_in_the_middle(four):
    """Row `nodes [1,9,2,2]`: the page before the bad node moves, those after it do not.

    The row's pages were on node 1 already; from node 0 the first one goes there alone.
    """
    assert four.move_each([1, 9, 2, 2]) == "-ENODEV | [1, 99, 99, 99]"
    assert four.where_each() == "[1, 0, 0, 0]"
    four.move(1)
    assert four.move_each([1, 9, 2, 2]) == "-ENODEV | [1, 99, 99, 99]"
    assert four.where_each() == "[1, 1, 1, 1]"


def test_no_flags_means_move(four):
    """Row `flags=0 with nodes`: MPOL_MF_MOVE need not be said."""
    assert four.move(1, flags=0) == "0 | {1:4}"


@pytest.mark.parametrize("flags", [MoveFlag.STRICT, 8])
def test_flags_that_the_call_does_not_know(four, flags):
    """Rows `flags=MPOL_MF_STRICT`, `flags=8`: the whole call is refused."""
    assert four.move(1, flags=flags) == "-EINVAL | {99:4}"


def test_no_pages(four):
    """Row `count=0`: to move nothing works, and writes nothing."""
    status = unwritten(4)
    nodes = np.ones(4, dtype=np.int32)
    arrays = address_of(four.addresses), address_of(nodes), address_of(status)
    assert syscalls.move_pages(0, 0, *arrays, MoveFlag.MOVE) == 0
    assert (status == unwritten(4)).all()


@pytest.mark.parametrize(
    ("missing", "moving"), [("pages", True), ("status", False), ("status", True)]
)
def test_null_arrays(four, missing, moving):
    """Rows `pages=NULL`, `status=NULL query`, `status=NULL move`: a fault, not a crash."""
    status, nodes = unwritten(4), np.ones(4, dtype=np.int32)
    ret = syscalls.move_pages(
        0,
        4,
        None if missing == "pages" else address_of(four.addresses),
        address_of(nodes) if moving else None,
        None if missing == "status" else address_of(status),
        MoveFlag.MOVE,
    )
    assert said(ret) == "-EFAULT"


@pytest.mark.parametrize(
    ("pid", "row"),
    [(999999, "-ESRCH | {99:1}"), (2, "-EINVAL | {99:1}"), (-5, "-ESRCH | {99:1}")],
)
def test_pids_that_are_no_process(four, pid, row):
    """Rows `pid 999999`, `pid 2 (kthread) query`, `pid -5`."""
    assert four[:1].query(pid) == row


def test_zombie(four, fork):
    """Rows `zombie pid query`, `zombie pid move`: it has no memory any more."""
    child = fork()
    child.kill()
    assert four[:1].query(child.pid) == "-EINVAL | {99:1}"
    assert four[:1].move(1, pid=child.pid) == "-EINVAL | {99:1}"


def test_query_reads_chunks_of_sixteen(memory):
    """An address array that ends in a hole: sixteen statuses of the readable eighteen are written.

    Source: do_pages_stat() of Linux 6.12 copies addresses sixteen at a time.
    """
    pages = memory.private(20).touch()
    array = memory.private(2).touch()
    readable = array[:1].data.reshape(-1)
    readable[-18:] = pages.addresses[:18]
    unmap(array[1:])
    status = unwritten(20)
    start = array.start + array[:1].size_bytes - 18 * 8
    ret = syscalls.move_pages(0, 20, start, None, address_of(status), 0)
    assert said(ret) == "-EFAULT"
    assert (status[:16] == 0).all()
    assert (status[16:] == unwritten(4)).all()

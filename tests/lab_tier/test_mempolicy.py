"""mbind(2), get_mempolicy(2), set_mempolicy(2), set_mempolicy_home_node(2)."""

from __future__ import annotations

import os

import numpy as np
import pytest
from guestkit.memory import unmap
from guestkit.pages import said

from movepages.abi import Mode, MoveFlag
from movepages.linux import mempolicy, syscalls
from movepages.linux.syscalls import address_of

pytestmark = [pytest.mark.lab, pytest.mark.needs_nodes(4)]

MOVE, MOVE_ALL, STRICT = MoveFlag.MOVE, MoveFlag.MOVE_ALL, MoveFlag.STRICT


@pytest.fixture
def pages(memory):
    """32 touched pages on node 0."""
    return memory.private(32).touch()


def test_policy_alone_moves_nothing(pages):
    """Row `mbind BIND{1} flags=0 on touched`: a policy is for pages to come."""
    assert pages.mbind(Mode.BIND, {1}) == "0"
    assert pages.where() == "{0:32}"
    assert pages.numa_maps().startswith("bind:1 anon=32 dirty=32 ")
    assert pages.numa_maps().endswith(" N0=32 kernelpagesize_kB=4")


def test_strict_refuses_misplaced_pages(pages):
    """Row `mbind BIND{1} STRICT (pages on wrong node)`: it moves nothing, and says so."""
    assert pages.mbind(Mode.BIND, {1}, STRICT) == "-EIO"
    assert pages.where() == "{0:32}"


@pytest.mark.parametrize(
    ("start", "mode", "nodes", "flags", "row", "numa_maps"),
    [
        (0, Mode.BIND, {1}, MOVE, "{1:32}", "bind:1"),
        (0, Mode.BIND, {2, 3}, MOVE | STRICT, "{2:32}", "bind:2-3"),
        (2, Mode.INTERLEAVE, {0, 1, 2, 3}, MOVE, "{2:32}", "interleave:0-3"),
        (2, Mode.PREFERRED, {3}, MOVE, "{3:32}", "prefer:3"),
        (2, Mode.WEIGHTED_INTERLEAVE, {0, 1, 2, 3}, MOVE, "{2:32}", "weighted interleave:0-3"),
        (2, Mode.LOCAL, set(), MOVE, "{0:32}", "local"),
        (0, Mode.DEFAULT, set(), MOVE, "{0:32}", "default"),
    ],
    ids=[
        "mbind BIND{1} MOVE",
        "mbind BIND{2,3} MOVE|STRICT",
        "mbind INTERLEAVE{0-3} MOVE",
        "mbind PREFERRED{3} MOVE",
        "mbind WEIGHTED_INTERLEAVE{0-3} MOVE",
        "mbind LOCAL MOVE",
        "mbind DEFAULT MOVE",
    ],
)
def test_policy_with_move(pages, start, mode, nodes, flags, row, numa_maps):
    """Pages outside the nodes of the policy move, those inside stay; the id names the row."""
    pages.move(start)
    assert (pages.mbind(mode, nodes, flags), pages.where()) == ("0", row)
    assert pages.numa_maps().startswith(f"{numa_maps} anon=32 dirty=32 ")
    assert pages.intact()


@pytest.mark.parametrize(("cpu", "nearest"), [(0, "{2:32}"), (1, "{3:32}")])
def test_preferred_many_takes_the_nearest(pages, cpu, nearest):
    """Row `mbind PREFERRED_MANY{1,2} MOVE`, with nodes at unequal distances from both CPUs.

    Of the preferred nodes pages go to the one nearest to the CPU that calls: from node 0 node 2 is
    at 31 and node 3 at 41, from node 1 at 42 and 32.
    """
    pages.move(1 - cpu)
    os.sched_setaffinity(0, {cpu})
    assert (pages.mbind(Mode.PREFERRED_MANY, {2, 3}, MOVE), pages.where()) == ("0", nearest)
    assert pages.numa_maps().startswith("prefer (many):2-3 anon=32 ")


@pytest.mark.parametrize("nodes", [{9}, set()], ids=["mbind BIND{9}", "mbind BIND{}"])
def test_bind_without_a_usable_node(pages, nodes):
    """The whole call is refused; the id names the row."""
    assert pages.mbind(Mode.BIND, nodes) == "-EINVAL"


def test_bind_drops_nodes_that_do_not_exist(pages):
    """Row `mbind BIND{1,9}`: node 9 is left out without a word."""
    assert pages.mbind(Mode.BIND, {1, 9}) == "0"
    assert pages.numa_maps().startswith("bind:1 anon=32 ")


def test_unaligned_range(pages):
    """Row `mbind unaligned`: unlike an address of move_pages, a range begins at a page."""
    mask, maxnode = mempolicy.mask_of({1})
    ret = syscalls.mbind(
        pages.start + 123, pages.size_bytes, Mode.BIND, address_of(mask), maxnode, 0
    )
    assert said(ret) == "-EINVAL"


def test_range_with_a_hole(pages):
    """Row `mbind over hole`: the range has to be mapped from end to end."""
    unmap(pages[8:16])
    assert pages.mbind(Mode.BIND, {1}) == "-EFAULT"


def test_strict_overlooks_shared_pages(memory, fork):
    """Rows `mbind BIND{1} MOVE|STRICT, page shared`, `mbind BIND{1} MOVE_ALL|STRICT, shared`."""
    pages = memory.private(8).touch()
    fork()
    assert (pages.mbind(Mode.BIND, {1}, MOVE | STRICT), pages.where()) == ("0", "{0:8}")
    assert (pages.mbind(Mode.BIND, {1}, MOVE_ALL | STRICT), pages.where()) == ("0", "{1:8}")


def test_default_policy():
    """Row `get_mempolicy default / home_node`: the call works, and the mode is MPOL_DEFAULT."""
    mode, mask = np.full(1, 77, dtype=np.int32), np.zeros(16, dtype=np.uint64)
    ret = syscalls.get_mempolicy(address_of(mode), address_of(mask), 1024, None, 0)
    assert (ret, int(mode[0])) == (0, Mode.DEFAULT)


def test_home_node(memory):
    """Row `set_mempolicy_home_node BIND{1,2} home 1`: node 1 is taken, node 9 is refused."""
    pages = memory.private(32)
    pages.mbind(Mode.BIND, {1, 2})
    home = [said(syscalls.set_mempolicy_home_node(*_span(pages), node, 0)) for node in (1, 9)]
    assert home == ["0", "-EINVAL"]


def test_home_node_decides_among_the_nodes_of_the_policy(memory):
    """New pages of BIND{1,2} with home 2 come from node 2, far though it is from CPU 0.

    Source: set_mempolicy_home_node(2): allocation starts at the home node.
    """
    pages = memory.private(32)
    pages.mbind(Mode.BIND, {1, 2})
    mempolicy.set_home_node(*_span(pages), 2)
    assert pages.touch().where() == "{2:32}"


def test_policy_of_the_thread(memory):
    """Pages touched under set_mempolicy(BIND{3}) come from node 3, which get_mempolicy reports."""
    mempolicy.set_mempolicy(Mode.BIND, {3})
    try:
        policy = mempolicy.get_mempolicy()
        pages = memory.private(32).touch()
    finally:
        mempolicy.set_mempolicy(Mode.DEFAULT, ())
    assert (policy.mode, str(policy.nodes)) == (Mode.BIND, "3")
    assert pages.where() == "{3:32}"
    assert mempolicy.get_mempolicy().mode == Mode.DEFAULT


def test_policy_of_an_address(memory):
    """get_mempolicy of an address tells the policy of its mapping, and touches no page."""
    pages = memory.private(32)
    pages.mbind(Mode.INTERLEAVE, {0, 2})
    policy = mempolicy.get_mempolicy(pages.start)
    assert (policy.mode, str(policy.nodes)) == (Mode.INTERLEAVE, "0,2")
    assert pages.where() == "{-ENOENT:32}"


def test_weighted_interleave_with_equal_weights(memory):
    """New pages under WEIGHTED_INTERLEAVE{0-3} spread evenly while all weights are 1."""
    pages = memory.private(64)
    pages.mbind(Mode.WEIGHTED_INTERLEAVE, range(4))
    assert pages.touch().where() == "{0:16, 1:16, 2:16, 3:16}"


def _span(pages):
    return pages.start, pages.size_bytes

"""The mover on a real kernel: its account is what a query finds."""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
import pytest
from guestkit.memory import pinned, unmap
from guestkit.pages import HUGE_BYTES, PAGE_BYTES

from movepages.abi import UNWRITTEN, Errno, MoveFlag
from movepages.errors import NoSuchNodeError
from movepages.linux.machine import LinuxMachine
from movepages.placement import mover
from movepages.placement.select import pages_of

pytestmark = [pytest.mark.lab, pytest.mark.needs_nodes(4)]


def move(pages, nodes, flags=MoveFlag.MOVE):
    """Move pages of this process to one node, or each to its own."""
    to = np.array(np.broadcast_to(nodes, len(pages)), dtype=np.int32)
    return mover.move(LinuxMachine(), 0, pages.addresses, to, flags)


def test_round_robin(memory):
    """Pages spread over four nodes: a quarter is there already, three quarters move."""
    pages = memory.private(4000).touch()
    report = move(pages, np.arange(4000) % 4)
    assert report.complete
    assert (report.asked, report.moved, report.already_there) == (4000, 3000, 1000)
    assert report.bytes_moved == 3000 * PAGE_BYTES
    assert pages.where() == "{0:1000, 1:1000, 2:1000, 3:1000}"
    assert pages.intact()


def test_pinned_pages_among_thousands(memory):
    """Six pages that pipes hold stay, all the others move, and the account says just that."""
    pages = memory.private(6000).touch()
    held = (slice(5, 6), slice(2000, 2004), slice(5999, 6000))
    with ExitStack() as stack:
        for part in held:
            stack.enter_context(pinned(pages[part]))
        report = move(pages, 2)
        assert (report.moved, report.failed, report.error) == (5994, {UNWRITTEN: 6}, None)
        assert pages.where() == "{0:6, 2:5994}"
        assert all(pages[part].where() == f"{{0:{len(pages[part])}}}" for part in held)
    assert move(pages, 2).already_there == 5994
    assert pages.where() == "{2:6000}"
    assert pages.intact()


def test_shared_pages(memory, fork):
    """Shared pages fail with -EACCES one by one, and move with MOVE_ALL."""
    shared, own = memory.private(100).touch(), memory.private(100)
    fork()
    own.touch()
    for pages, failed in ((shared, {-Errno.EACCES: 100}), (own, {})):
        assert move(pages, 1).failed == failed
    report = move(shared, 1, MoveFlag.MOVE_ALL)
    assert (report.complete, report.moved) == (True, 100)
    assert shared.where() == own.where() == "{1:100}"


def test_pages_of_every_kind(memory):
    """Untouched pages, zero pages and holes each fail with the status of their kind."""
    pages = memory.private(40)
    pages[:10].touch()
    assert not pages[10:20].data.any()
    unmap(pages[30:])
    report = move(pages, 3)
    assert report.moved == 10
    assert report.failed == {-Errno.EFAULT: 20, -Errno.ENOENT: 10}


def test_one_address_moves_a_huge_page(memory):
    """Selection names each THP once, and the report counts its bytes whole."""
    pages = memory.thp(4).touch()
    machine = LinuxMachine()
    runs = pages_of(machine, 0, [pages.range])
    addresses = runs.addresses()
    assert addresses.tolist() == [pages.start + n * HUGE_BYTES for n in range(4)]
    sizes = np.repeat(runs.page_size_bytes, runs.pages)
    to = np.array([1, 2, 1, 0], dtype=np.int32)
    report = mover.move(machine, 0, addresses, to, MoveFlag.MOVE, page_sizes=sizes)
    assert (report.moved, report.already_there, report.failed) == (3, 1, {})
    assert report.bytes_moved == 3 * HUGE_BYTES
    assert pages.where() == "{0:512, 1:1024, 2:512}"
    assert pages.intact()


def test_duplicates_in_a_huge_page(memory):
    """Where every base page of a THP is named, all count as moved: -EBUSY is looked into."""
    pages = memory.thp(1).touch()
    report = move(pages, 1)
    assert (report.moved, report.failed) == (512, {})
    assert pages.where() == "{1:512}"


def test_missing_node_ends_the_work(memory):
    """The report keeps what moved before the node that does not exist, and the error."""
    pages = memory.private(20).touch()
    report = move(pages, [1] * 10 + [9] * 10)
    assert (report.moved, report.failed) == (10, {UNWRITTEN: 10})
    assert isinstance(report.error, NoSuchNodeError)
    assert report.error.node == 9
    assert pages.where() == "{0:10, 1:10}"

"""The mover on a real kernel: its account is what a query finds."""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
import pytest
from guestkit.memory import pinned, unmap
from guestkit.moving import MACHINE, move
from guestkit.pages import HUGE_BYTES, PAGE_BYTES

from movepages.abi import UNWRITTEN, Errno
from movepages.errors import NoSuchNodeError
from movepages.placement import Options, execute, plan, select

pytestmark = [pytest.mark.lab, pytest.mark.needs_nodes(4)]


def test_round_robin(memory):
    """Pages spread over four nodes: a quarter is there already, three quarters move."""
    pages = memory.private(4000).touch()
    report = move(pages, np.arange(4000) % 4)
    assert report.complete
    assert (report.asked, report.moved_pages, report.already_there) == (4000, 3000, 1000)
    assert report.moved_bytes == 3000 * PAGE_BYTES
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
        assert (report.moved_pages, report.failed()) == (5994, {UNWRITTEN: 6})
        assert report.error is None
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
        assert move(pages, 1).failed() == failed
    report = move(shared, 1, shared=True)
    assert (report.complete, report.moved_pages) == (True, 100)
    assert shared.where() == own.where() == "{1:100}"


def test_pages_of_every_kind(memory):
    """Untouched pages, zero pages and holes each fail with the status of their kind."""
    pages = memory.private(40)
    pages[:10].touch()
    assert not pages[10:20].data.any()
    unmap(pages[30:])
    report = move(pages, 3)
    assert report.moved_pages == 10
    assert report.failed() == {-Errno.EFAULT: 20, -Errno.ENOENT: 10}


def test_one_address_moves_a_huge_page(memory):
    """Selection names each THP once; they go to three nodes by turns, and count whole."""
    pages = memory.thp(4).touch()
    made = plan(MACHINE, MACHINE.task(0), select.within(*pages.range) & select.thp(), {0, 1, 2})
    addresses = sorted(made.page_runs().addresses().tolist())
    assert addresses == [pages.start + HUGE_BYTES, pages.start + 2 * HUGE_BYTES]
    report = execute(made, MACHINE, Options(verify=True))
    assert (report.moved_pages, report.already_there, report.failed()) == (2, 2, {})
    assert (report.moved_bytes, report.strayed()) == (2 * HUGE_BYTES, {})
    assert pages.where() == "{0:1024, 1:512, 2:512}"
    assert pages.intact()


def test_duplicates_in_a_huge_page(memory):
    """Where every base page of a THP is named, all count as moved: -EBUSY is looked into."""
    pages = memory.thp(1).touch()
    report = move(pages, 1)
    assert (report.moved_pages, report.failed()) == (512, {})
    assert pages.where() == "{1:512}"


def test_missing_node_keeps_nobody_from_another(memory):
    """The ledger has what moved, what was not tried for its node does not exist, and the error."""
    pages = memory.private(20).touch()
    report = move(pages, [1] * 10 + [9] * 10)
    assert (report.moved_pages, report.untried_pages) == (10, 10)
    assert isinstance(report.error, NoSuchNodeError)
    assert report.error.node == 9
    assert pages.where() == "{0:10, 1:10}"

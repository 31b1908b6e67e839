"""migrate_pages(2): all pages of a process, from nodes to nodes."""

from __future__ import annotations

import pytest
from guestkit.pages import said

from movepages.linux import syscalls
from movepages.linux.mempolicy import mask_of
from movepages.linux.syscalls import address_of

pytestmark = [pytest.mark.lab, pytest.mark.needs_nodes(4)]


def migrate(pid, old, new, maxnode=65):
    """Make the raw call."""
    (old_mask, _), (new_mask, _) = mask_of(old), mask_of(new)
    return said(syscalls.migrate_pages(pid, maxnode, address_of(old_mask), address_of(new_mask)))


def test_all_pages_of_a_child(memory, fork):
    """Nodes correspond by rank: the second of the old, 3, becomes the second of the new, 2.

    Rows `migrate_pages(child, 0-3 -> 1)`, `migrate_pages(child, 1 -> 3)`,
    `migrate_pages(child, 3,1 -> 0,2) (relative)`.
    """
    pages = memory.private(64)

    def writer():
        pages.touch()
        yield "written"
        yield pages.intact()

    child = fork(writer)
    child.step()
    assert (migrate(child.pid, range(4), {1}), pages.where(child.pid)) == ("0", "{1:64}")
    assert (migrate(child.pid, {1}, {3}), pages.where(child.pid)) == ("0", "{3:64}")
    assert (migrate(child.pid, {3, 1}, {0, 2}), pages.where(child.pid)) == ("0", "{2:64}")
    assert child.step()


@pytest.mark.parametrize(
    ("old", "new", "maxnode", "row"),
    [
        (range(4), {9}, 65, "-EINVAL"),
        (range(4), set(), 65, "-EINVAL"),
        ({9}, {1}, 65, "0"),
        ({0}, {1}, 100000, "-EINVAL"),
    ],
    ids=[
        "migrate_pages to node 9",
        "migrate_pages empty to",
        "migrate_pages from 9 to 1",
        "migrate_pages maxnode 100000",
    ],
)
def test_nodes_that_make_no_sense(fork, old, new, maxnode, row):
    """Targets have to exist, sources need not; the id names the row."""
    assert migrate(fork().pid, old, new, maxnode) == row


@pytest.mark.parametrize(
    ("pid", "row"),
    [(999999, "-ESRCH"), (2, "-EINVAL")],
    ids=["migrate_pages bad pid", "migrate_pages kthread 2"],
)
def test_pids_that_are_no_process(pid, row):
    """Nothing to migrate there; the id names the row."""
    assert migrate(pid, {0}, {1}) == row

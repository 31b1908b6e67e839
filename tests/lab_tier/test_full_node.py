"""A target node that runs full: what has moved by then, and who says so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from guestkit.moving import move
from guestkit.pages import HUGE_BYTES, PAGE_BYTES, counted
from guestkit.settings import write

from movepages import api
from movepages.abi import UNWRITTEN, Errno, Mode, MoveFlag
from movepages.errors import NodeFullError
from movepages.linux import mempolicy
from movepages.linux.nodes import read_meminfo

pytestmark = [pytest.mark.lab, pytest.mark.needs_nodes(4)]

ROOM_BYTES = 48 << 20
"""About what is left on node 3; the kernel keeps about 23 MiB of it for itself."""
SURPLUS_BYTES = 16 << 20
"""What the pages have more than the node has free, for all that may still be freed there."""


@pytest.fixture
def pages(pools, memory):
    """More pages on node 0 than node 3 has room for; its pool of huge pages has taken the rest.

    Nothing that could be reclaimed stays there: mapped files move away, others are dropped.
    """
    mempolicy.migrate_pages(0, {3}, {0})
    write(Path("/proc/sys/vm/drop_caches"), "1")
    pools.set(3, (read_meminfo(3)["MemFree"] - ROOM_BYTES) // HUGE_BYTES)
    # Asked again: a pool that found too few whole huge pages is smaller than it was told to be.
    meminfo = read_meminfo(3)
    surplus = SURPLUS_BYTES + meminfo["FilePages"]
    return memory.private((meminfo["MemFree"] + surplus) // PAGE_BYTES).touch()


def on_node_3(pages):
    """Tell of each page whether it is on node 3."""
    return pages.call(None, 0, 0)[1] == 3


def test_call_that_fills_a_node(pages):
    """Rows `move more than node 3 has`, `again`: no status tells what has moved, a query does.

    The second call writes the status of what is there already, and of nothing else.
    """
    assert pages.move(3) == f"-ENOMEM | {{99:{len(pages)}}}"
    there = on_node_3(pages)
    assert 0 < there.sum() < len(pages)
    ret, status = pages.call(3, MoveFlag.MOVE, 0)
    assert ret == -Errno.ENOMEM
    assert (status == np.where(there, 3, UNWRITTEN)).all(), counted(status)
    assert pages.intact()


def test_policy_onto_a_full_node(pages, memory):
    """Rows `mbind BIND{3} MOVE|STRICT, 3 full`, `mbind BIND{3} MOVE, 3 full`: nothing moves."""
    pages.move(3)
    for flags, ret in ((MoveFlag.MOVE | MoveFlag.STRICT, "-EIO"), (MoveFlag.MOVE, "0")):
        late = memory.private(64).touch()
        assert (late.mbind(Mode.BIND, {3}, flags), late.where()) == (ret, "{0:64}")


def test_error_carries_the_statuses(pages):
    """NodeFullError has the result of the call, in which no page has a status."""
    with pytest.raises(NodeFullError) as full:
        api.move_pages(0, pages.addresses, 3)
    assert full.value.result.ret == -Errno.ENOMEM
    assert full.value.result.counts() == {UNWRITTEN: len(pages)}
    assert on_node_3(pages).any()


def test_mover_accounts_for_every_page(pages):
    """The report's counts are those of a query: so many moved, and so many found no memory."""
    report = move(pages, 3)
    there = int(on_node_3(pages).sum())
    assert 0 < there < len(pages)
    assert (report.asked, report.moved_pages, report.already_there) == (len(pages), there, 0)
    assert report.failed() == {-Errno.ENOMEM: len(pages) - there}
    assert report.moved_bytes == there * PAGE_BYTES
    assert pages.intact()

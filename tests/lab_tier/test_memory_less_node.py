"""A node that loses its memory, and gets it back: topology `hotplug`."""

from __future__ import annotations

import numpy as np
import pytest
from guestkit.moving import move
from guestkit.pages import said
from guestkit.settings import set_memory

from movepages import api
from movepages.abi import UNWRITTEN, Mode, MoveFlag
from movepages.errors import InvalidCallError, NoSuchNodeError
from movepages.linux import syscalls
from movepages.linux.mempolicy import mask_of
from movepages.linux.syscalls import address_of

pytestmark = [pytest.mark.hotplug, pytest.mark.needs_nodes(4)]


@pytest.fixture
def unplug():
    """Returns what takes all memory of node 3 offline; it comes back at the end."""
    yield lambda: set_memory(3, "offline")
    set_memory(3, "online_movable")


def test_pages_flee_and_may_return(memory, unplug):
    """Pages on the node go elsewhere intact; once its memory is back, they move there again."""
    pages = memory.private(64).touch()
    assert pages.move(3) == "0 | {3:64}"
    unplug()
    elsewhere = api.query_pages(0, pages.addresses).counts()
    assert sum(elsewhere.values()) == 64
    assert elsewhere.keys() <= {0, 1, 2}
    assert pages.intact()
    set_memory(3, "online_movable")
    assert pages.move(3) == "0 | {3:64}"
    assert pages.intact()


def test_topology_tells_it(unplug):
    """The node stays online and has no memory; no other node changes."""
    before = api.read_topology()
    assert str(before.with_memory) == "0-3"
    unplug()
    topology = api.read_topology()
    assert (str(topology.online), str(topology.with_memory)) == ("0-3", "0-2")
    assert [node.has_memory for node in topology] == [True, True, True, False]
    assert topology.node(3).memory_bytes == 0
    assert [node.distances for node in topology] == [node.distances for node in before]


def test_move_there_is_refused(memory, unplug):
    """The lab's notes, `node gone memoryless`: -ENODEV, with no status written."""
    pages = memory.private(4).touch()
    unplug()
    assert pages.move(3) == "-ENODEV | {99:4}"
    assert pages.move_each([1, 3, 2, 2]) == "-ENODEV | [1, 99, 99, 99]"
    assert pages.where_each() == "[1, 0, 0, 0]"


def test_error_names_the_node(memory, unplug):
    """NoSuchNodeError says which node has no memory, and which have."""
    pages = memory.private(4).touch()
    unplug()
    with pytest.raises(NoSuchNodeError) as refused:
        api.move_pages(0, pages.addresses, [1, 1, 3, 1])
    error = refused.value
    assert (error.errno, error.node) == (19, 3)
    assert "node 3 does not exist, is offline or has no memory" in str(error)
    assert "0-2" in str(error)
    assert error.result.counts() == {UNWRITTEN: 2, 1: 2}


def test_mover_reports_it(memory, unplug):
    """A move to four nodes of which one has no memory: the report ends with the error."""
    pages = memory.private(40).touch()
    unplug()
    nodes = np.arange(40, dtype=np.int32) % 4
    report = move(pages, nodes)
    assert (report.moved_pages, report.already_there) == (20, 10)
    assert report.untried_pages == 10
    assert report.error.node == 3


def test_policies_and_migration_there(memory, fork, unplug):
    """The lab's notes: mbind and migrate_pages to memoryless nodes only are -EINVAL."""
    pages = memory.private(4).touch()
    unplug()
    assert pages.mbind(Mode.BIND, {3}) == "-EINVAL"
    assert (pages.mbind(Mode.BIND, {1, 3}, MoveFlag.MOVE), pages.where()) == ("0", "{1:4}")
    (old, maxnode), (new, _) = mask_of({0}), mask_of({3})
    ret = syscalls.migrate_pages(0, maxnode, address_of(old), address_of(new))
    assert said(ret) == "-EINVAL"
    with pytest.raises(InvalidCallError):
        api.migrate_pages(fork().pid, {0}, {3})

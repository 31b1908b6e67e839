"""What the public interface raises on a real kernel: the right error, with its facts."""

from __future__ import annotations

import numpy as np
import pytest
from guestkit.memory import unmap

from movepages import api
from movepages.abi import UNWRITTEN, Mode, MoveFlag
from movepages.errors import (
    BadAddressError,
    InvalidCallError,
    MisplacedError,
    NoSuchNodeError,
    NoSuchProcessError,
)
from movepages.linux.machine import LinuxMachine

pytestmark = [pytest.mark.lab, pytest.mark.needs_nodes(4)]


@pytest.fixture
def pages(memory):
    """Eight touched pages on node 0."""
    return memory.private(8).touch()


def test_missing_node_is_named(pages):
    """NoSuchNodeError has the node, the statuses so far, and which nodes there are."""
    nodes = [1, 1, 9, 1, 1, 1, 1, 1]
    with pytest.raises(NoSuchNodeError) as refused:
        api.move_pages(0, pages.addresses, nodes)
    error = refused.value
    assert (error.errno, error.node, error.call) == (19, 9, "move_pages")
    assert "node 9 does not exist" in str(error)
    assert "0-3" in str(error)
    assert error.result.status.tolist() == [1, 1, *[UNWRITTEN] * 6]


def test_process_that_has_ended(pages, fork):
    """A pid that nobody has is no such process; one that is a zombie has no memory."""
    with pytest.raises(NoSuchProcessError, match="no process 999999"):
        api.query_pages(999999, pages.addresses)
    child = fork()
    child.kill()
    with pytest.raises(InvalidCallError, match=f"process {child.pid} has no memory of its own"):
        api.query_pages(child.pid, pages.addresses)


def test_kernel_thread(pages):
    """A kernel thread has no memory to move, no mapping to show, and nothing to locate."""
    with pytest.raises(InvalidCallError, match="kernel thread"):
        api.move_pages(2, pages.addresses, 1)
    assert list(api.Process(2).mappings()) == []
    assert LinuxMachine().task(2).kernel_thread


def test_flags_that_the_call_does_not_know(pages):
    """MPOL_MF_STRICT is for mbind alone."""
    with pytest.raises(InvalidCallError) as refused:
        api.move_pages(0, pages.addresses, 1, MoveFlag.STRICT)
    assert "flags" in str(refused.value)


def test_migration_without_a_usable_target(fork):
    """migrate_pages to a node that does not exist says so, with pid and nodes."""
    child = fork()
    with pytest.raises(InvalidCallError) as refused:
        api.migrate_pages(child.pid, {0}, {9})
    assert refused.value.pid == child.pid
    assert refused.value.arguments == {"from_nodes": "0", "to_nodes": "9"}


def test_policy_that_pages_do_not_follow(pages):
    """MPOL_MF_STRICT on misplaced pages raises MisplacedError, with the address."""
    machine = LinuxMachine()
    with pytest.raises(MisplacedError) as refused:
        machine.mbind(*_span(pages), Mode.BIND, {1}, MoveFlag.STRICT)
    assert (refused.value.errno, refused.value.address) == (5, pages.start)


def test_policy_over_a_hole(pages):
    """A range that is not mapped from end to end raises BadAddressError."""
    unmap(pages[2:4])
    with pytest.raises(BadAddressError, match="hole"):
        LinuxMachine().mbind(*_span(pages), Mode.BIND, {1}, 0)


def test_positive_return_does_not_raise(pages):
    """Pages without a status are told apart in the result of a call that worked."""
    result = api.move_pages(0, np.append(pages.addresses, np.uint64(0)), 1)
    assert result.ret == 0
    assert result.counts() == {-14: 1, 1: 8}
    assert result.written.all()


def _span(pages):
    return pages.start, pages.size_bytes

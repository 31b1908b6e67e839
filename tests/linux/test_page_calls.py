"""What a refusal of move_pages(2) means here: the node, the process or the right is named."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
from guestkit.pages import PAGE_BYTES

from movepages.abi import UNWRITTEN, Errno, MoveFlag
from movepages.errors import (
    BadAddressError,
    CallError,
    InvalidCallError,
    NoSuchNodeError,
    NoSuchProcessError,
    NotPermittedError,
    OutsideCpusetError,
)
from movepages.linux import page_calls
from movepages.linux.nodes import read_has_memory
from movepages.values import CallResult

pytestmark = pytest.mark.host

MOVE, MOVE_ALL = MoveFlag.MOVE, MoveFlag.MOVE_ALL


@pytest.fixture
def pages(memory):
    """Three touched pages."""
    return memory.private(3).touch()


@pytest.fixture
def home(pages):
    """The node that they are on."""
    return int(query(pages).status[0])


@pytest.fixture
def missing() -> int:
    """A node number without memory behind it."""
    return max(read_has_memory()) + 1


def query(pages, pid=0):
    """Ask about pages."""
    return page_calls.query_pages(pid, pages.addresses, page_calls.unwritten(len(pages)))


def move(pages, nodes, flags=MOVE, pid=0, **named):
    """Move pages."""
    to = np.array(np.broadcast_to(nodes, len(pages)), dtype=np.int32)
    status = page_calls.unwritten(len(pages))
    return page_calls.move_pages(pid, pages.addresses, to, status, flags, **named)


def outcome(function):
    """Return the CallError that a function raises, or what it returns."""
    try:
        return function()
    except CallError as error:
        return error


@pytest.mark.parametrize("count", [0, 1, 17])
def test_statuses_begin_unwritten(count):
    """A fresh status array holds the sentinel only, which the kernel never writes."""
    status = page_calls.unwritten(count)
    assert status.tolist() == [UNWRITTEN] * count
    assert status.dtype == np.int32


def test_a_query_has_the_node_of_each_page(pages):
    """The result has the return value, and the statuses in the array that was given."""
    status = page_calls.unwritten(3)
    result = page_calls.query_pages(0, pages.addresses, status)
    assert result.ret == 0
    assert result.status is status
    assert result.written.all()
    assert set(status.tolist()) <= read_has_memory()


def test_a_move_to_where_the_pages_are(pages, home):
    """Pages that are in place have their node as status."""
    result = move(pages, home)
    assert (result.ret, result.status.tolist()) == (0, [home] * 3)


def test_a_node_that_does_not_exist_is_named(pages, home, missing):
    """The error has the node, the nodes there are, the call's arguments, and what was done."""
    with pytest.raises(NoSuchNodeError) as caught:
        move(pages, [home, missing, home])
    error = caught.value
    assert str(error) == (
        f"move_pages: node {missing} does not exist, is offline or has no memory; "
        f"nodes with memory are {read_has_memory()}"
    )
    assert (error.node, error.pid, error.errno) == (missing, 0, Errno.ENODEV)
    assert error.arguments == {"nr_pages": 3, "flags": MOVE}
    assert error.result.status.tolist() == [home, UNWRITTEN, UNWRITTEN]


@pytest.mark.parametrize("node", [-1, 1024, 2**31 - 1, -(2**31)])
def test_a_number_that_no_node_can_have_is_named(pages, node):
    """Negative and huge numbers are no different."""
    with pytest.raises(NoSuchNodeError, match=f"node {node} does not exist") as caught:
        move(pages, node)
    assert caught.value.node == node


def test_several_missing_nodes_name_one_of_them(pages, missing):
    """One that is missing is enough to go on with."""
    with pytest.raises(NoSuchNodeError) as caught:
        move(pages, [missing, missing + 1, -1])
    assert caught.value.node in {missing, missing + 1, -1}


def test_where_nodes_are_not_shown_the_errno_speaks(pages, missing, tmp_path):
    """Without sysfs the node cannot be named, but the error is the same."""
    with pytest.raises(NoSuchNodeError, match="a target node does not exist") as caught:
        move(pages, missing, root=tmp_path)
    assert caught.value.node is None


@pytest.mark.parametrize("pid", [-1, -(2**31), 2**31 - 1, 2**32, -(2**40)])
def test_a_pid_that_nobody_has_is_named(pages, home, pid):
    """The pid stands in the message as it was given, and as an attribute."""
    for call in (lambda: query(pages, pid), lambda: move(pages, home, pid=pid)):
        with pytest.raises(NoSuchProcessError, match=f"no process {pid};") as caught:
            call()
        assert caught.value.pid == pid
        assert not caught.value.result.written.any()


@pytest.mark.usefixtures("root")
def test_a_kernel_thread_is_named_as_such(pages, kernel_threads):
    """A task without memory is told from wrong flags, which are the same errno."""
    for pid in kernel_threads:
        for look in (lambda: query(pages, pid), lambda: move(pages, 0, MOVE, pid)):  # noqa: B023 - called at once
            with pytest.raises(InvalidCallError, match=f"process {pid} has no memory of its own"):
                look()


@pytest.mark.usefixtures("root")
def test_a_zombie_is_named_as_such(pages, zombie):
    """A process that has ended has no memory either."""
    with pytest.raises(InvalidCallError, match=f"process {zombie} has no memory .* a zombie"):
        query(pages, zombie)


@pytest.mark.parametrize("flags", [1, 8, MOVE | 8, -1, 2**32])
def test_wrong_flags_are_named_as_such(pages, home, flags):
    """Flags that the call does not know are not blamed on the process."""
    with pytest.raises(InvalidCallError, match="use MOVE or MOVE_ALL only") as caught:
        move(pages, home, flags)
    assert caught.value.arguments["flags"] == flags


@pytest.mark.usefixtures("root")
def test_another_users_process_is_named_as_such(pages, unprivileged):
    """The error says whose process it is not, and what to do."""
    parent = os.getpid()
    refused = unprivileged(lambda: outcome(lambda: query(pages, parent)))
    assert type(refused) is NotPermittedError
    assert refused.pid == parent
    assert f"process {parent} is not yours to look at" in str(refused)


def test_a_missing_right_is_named_as_such(pages, home, unprivileged):
    """MOVE_ALL needs CAP_SYS_NICE, whoever's process it is."""
    refused = unprivileged(lambda: outcome(lambda: move(pages, home, MOVE_ALL)))
    assert type(refused) is NotPermittedError
    assert "(MPOL_MF_MOVE_ALL) needs CAP_SYS_NICE" in str(refused)


@pytest.mark.usefixtures("root")
def test_move_all_of_another_users_process_names_the_right_first(pages, home, unprivileged):
    """The kernel checks the right before the process, and so does the message."""
    parent = os.getpid()
    refused = unprivileged(lambda: outcome(lambda: move(pages, home, MOVE_ALL, parent)))
    assert "needs CAP_SYS_NICE" in str(refused)


def test_who_may_move_shared_pages(unprivileged):
    """CAP_SYS_NICE is in the effective set of root, and of no ordinary user."""
    assert page_calls.moves_shared() == (os.geteuid() == 0)
    assert unprivileged(page_calls.moves_shared) is False


@pytest.mark.parametrize(("allowed", "node"), [("0", 1), ("0-1", 2), ("2", 0), ("0,2", 1)])
def test_a_node_outside_the_cpuset_is_named(put_process, allowed, node):
    """The first forbidden node and the allowed ones are in the message."""
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    text = re.sub(r"(Mems_allowed_list:\t).*", rf"\g<1>{allowed}", text)
    root = put_process(status=text)
    nodes = np.array([0, 1, 2], dtype=np.int32)
    refused = page_calls._refusal(CallResult(-Errno.EACCES, nodes), 7, nodes, MOVE, root)
    assert type(refused) is OutsideCpusetError
    assert refused.node == node
    assert str(refused).startswith(
        f"move_pages: node {node} lies outside the cpuset of process 7, which allows {allowed};"
    )


def test_a_cpuset_that_has_changed_meanwhile_blames_no_node(put_process, no_pid, tmp_path):
    """Where no node is forbidden any more, or the process is gone, the errno speaks."""
    nodes = np.array([0], dtype=np.int32)
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    text = re.sub(r"(Mems_allowed_list:\t).*", r"\g<1>0", text)
    root = put_process(status=text)
    for pid, where in ((7, root), (no_pid, tmp_path)):
        refused = page_calls._refusal(CallResult(-Errno.EACCES, nodes), pid, nodes, MOVE, where)
        assert refused.node is None
        assert "outside the cpuset of the process" in str(refused)


def test_an_array_that_cannot_be_read_is_a_bad_address(memory):
    """Where memory ends before the array does, the statuses say how far the call came."""
    pages = memory.private(20).touch()
    room = memory.private(1)
    words = room.data.reshape(-1)[-18:]
    words[:] = pages.addresses[:18]
    beyond = np.lib.stride_tricks.as_strided(words, shape=(20,))
    assert room.range[1] - int(words.ctypes.data) == 18 * 8 < PAGE_BYTES
    with pytest.raises(BadAddressError, match="ends early") as caught:
        page_calls.query_pages(0, beyond, page_calls.unwritten(20))
    assert caught.value.result.written.tolist() == [True] * 16 + [False] * 4

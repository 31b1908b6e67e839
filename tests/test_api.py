"""The public interface on the kernel of this machine: what it takes, gives and refuses."""

from __future__ import annotations

import array
import os
import subprocess
import sys
import time

import numpy as np
import pytest
from guestkit.memory import unmap
from guestkit.pages import PAGE_BYTES

import movepages
from movepages.abi import UNWRITTEN, Errno
from movepages.errors import (
    ArgumentError,
    CallError,
    InvalidCallError,
    NoSuchNodeError,
    NoSuchProcessError,
    NotPermittedError,
)
from movepages.linux.nodes import read_has_memory
from movepages.nodeset import NodeSet
from movepages.values import CallResult, Placement

pytestmark = pytest.mark.host

KERNEL_ADDRESS = 0xFFFF_8000_0000_0000
TOP = 2**64


@pytest.fixture
def pages(memory):
    """Four touched pages."""
    return memory.private(4).touch()


@pytest.fixture
def home(pages):
    """The node that they are on."""
    return int(movepages.query_pages(0, pages.addresses).status[0])


@pytest.fixture
def missing() -> int:
    """A node number without memory behind it."""
    return max(read_has_memory()) + 1


@pytest.fixture
def no_pid() -> int:
    """A number that no process has."""
    with open("/proc/sys/kernel/pid_max", encoding="ascii") as limit:  # noqa: PTH123 - one number
        return int(limit.read())


def big_endian(addresses):
    """Return addresses in the byte order of other machines."""
    return addresses.astype(">u8")


FORMS = {
    "an array": lambda a: a,
    "a read-only array": lambda a: np.frombuffer(a.tobytes(), dtype=np.uint64),
    "an array with gaps": lambda a: np.repeat(a, 3)[::3],
    "a reversed view": lambda a: a[::-1][::-1],
    "an array of another byte order": big_endian,
    "a column of a table": lambda a: np.stack([a, a + np.uint64(1)], axis=1)[:, 0],
    "a list": lambda a: a.tolist(),
    "a tuple": lambda a: tuple(a.tolist()),
    "a list of NumPy scalars": list,
    "a generator": lambda a: (int(address) for address in a),
    "an iterator of NumPy scalars": iter,
    "a range": lambda a: range(int(a[0]), int(a[-1]) + 1, PAGE_BYTES),
    "an array.array": lambda a: array.array("Q", a.tolist()),
    "a memoryview": memoryview,
    "a memoryview with gaps": lambda a: memoryview(np.repeat(a, 2))[::2],
    "a dict's keys": lambda a: dict.fromkeys(a.tolist()),
}


@pytest.mark.parametrize("form", FORMS)
def test_addresses_come_in_many_forms(pages, home, form):
    """Sequences, iterators and buffers of integers name the same pages as an array does."""
    result = movepages.query_pages(0, FORMS[form](pages.addresses))
    assert isinstance(result, CallResult)
    assert (result.ret, result.status.tolist()) == (0, [home] * 4)
    moved = movepages.move_pages(0, FORMS[form](pages.addresses), home)
    assert (moved.ret, moved.status.tolist()) == (0, [home] * 4)


@pytest.mark.parametrize("one", [int, np.uint64])
def test_one_address_is_enough(pages, home, one):
    """A single number stands for a single page."""
    result = movepages.query_pages(0, one(pages.start))
    assert result.status.tolist() == [home]


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.uint32])
def test_narrow_unsigned_arrays_are_widened(kind):
    """Small unsigned numbers are addresses too, of pages that are not there."""
    status = movepages.query_pages(0, np.array([0, 200], dtype=kind)).status
    assert status.tolist() == [-Errno.EFAULT] * 2


@pytest.mark.parametrize(
    ("addresses", "problem"),
    [
        (np.array([4096.0]), "unsigned integers, not float64"),
        (np.array([4096]), "unsigned integers, not int64"),
        (np.array([4096], dtype=np.int32), "unsigned integers, not int32"),
        (np.array([True]), "unsigned integers, not bool"),
        (np.array(["4096"]), "unsigned integers, not <U4"),
        (np.array([4096], dtype=object), "unsigned integers, not object"),
        (array.array("q", [4096]), "unsigned integers, not int64"),
        (array.array("d", [4096]), "unsigned integers, not float64"),
        ([4096.0], "not float"),
        ([4096, "x"], "not str"),
        ([np.int64(4096)], "not int64"),
        ([None], "not NoneType"),
        (None, "not NoneType"),
        ("4096", "not str"),
        (b"4096", "not bytes"),
        (4096.0, "not float"),
        ([[4096]], "not list"),
        ([-1], "-0x1 is not between 0 and"),
        (-4096, "-0x1000 is not between 0 and"),
        ([0, TOP], "0x10000000000000000 is not between 0 and"),
        ([2**200], "is not between 0 and"),
        (np.zeros((2, 2), dtype=np.uint64), "one dimension, not 2"),
        (np.zeros((1, 1), dtype=np.uint64), "one dimension, not 2"),
        (np.array(4096, dtype=np.uint64), "one dimension, not 0"),
    ],
)
def test_what_is_no_address_is_refused(addresses, problem):
    """Floats, signed arrays, negative and too large numbers, text and tables: each says why."""
    for call in (
        lambda: movepages.query_pages(0, addresses),
        lambda: movepages.move_pages(0, addresses, 0),
    ):
        with pytest.raises(ArgumentError, match=problem):
            call()


def test_the_last_addresses_are_no_exception():
    """0 and 2**64 - 1 are addresses; nothing is mapped there."""
    result = movepages.query_pages(0, [0, TOP - 1, KERNEL_ADDRESS])
    assert (result.ret, result.status.tolist()) == (0, [-Errno.EFAULT] * 3)


@pytest.mark.parametrize("nothing", [[], (), np.empty(0, np.uint64), array.array("Q"), iter(())])
def test_no_addresses_are_no_pages(nothing):
    """An empty list is a call about nothing: 0, and no statuses."""
    result = movepages.query_pages(0, nothing)
    assert (result.ret, result.status.tolist(), result.counts()) == (0, [], {})


@pytest.mark.parametrize("nodes", [0, [], np.empty(0, np.int32), ()])
def test_no_addresses_move_nowhere(nodes):
    """Moving nothing works, to one node or to none."""
    assert movepages.move_pages(0, [], nodes).status.tolist() == []


@pytest.mark.parametrize(
    "form",
    [
        lambda n: n,
        np.int32,
        np.int64,
        lambda n: [n] * 4,
        lambda n: (n,) * 4,
        lambda n: np.full(4, n, dtype=np.int32),
        lambda n: np.full(4, n, dtype=np.int64),
        lambda n: np.full(4, n, dtype=np.uint8),
        lambda n: np.full(8, n, dtype=np.int32)[::2],
        lambda n: array.array("i", [n] * 4),
        lambda n: np.full(4, n, dtype=">i4"),
    ],
)
def test_nodes_come_in_many_forms(pages, home, form):
    """One node for all, or a node for each page in any integer form."""
    result = movepages.move_pages(0, pages.addresses, form(home))
    assert (result.ret, result.status.tolist()) == (0, [home] * 4)


@pytest.mark.parametrize(
    ("nodes", "problem"),
    [
        ([0] * 3, "4 addresses but 3 nodes"),
        ([0] * 5, "4 addresses but 5 nodes"),
        ([], "4 addresses but 0 nodes"),
        ([[0] * 4], "4 addresses but 4 nodes"),
        ([[0], [0, 0], [0], [0]], "one node, or a sequence of them"),
        (0.0, "integers, not float64"),
        ([0.0] * 4, "integers, not float64"),
        (np.zeros(4), "integers, not float64"),
        (True, "integers, not bool"),
        ("0", "integers, not <U1"),
        (None, "integers, not object"),
        (NodeSet([0]), "integers, not object"),
        ([2**31, 0, 0, 0], "fit in 32 bits"),
        ([0, 0, 0, -(2**31) - 1], "fit in 32 bits"),
        ([2**63, 0, 0, 0], "nodes must be integers"),
        ([2**70, 0, 0, 0], "integers, not object"),
    ],
)
def test_what_are_no_nodes_is_refused(pages, nodes, problem):
    """Wrong lengths, floats and numbers that 32 bits would cut are named before any call."""
    with pytest.raises(ArgumentError, match=problem):
        movepages.move_pages(0, pages.addresses, nodes)


@pytest.mark.parametrize("node", [2**31 - 1, -(2**31), -1])
def test_numbers_of_32_bits_are_the_kernels_to_judge(pages, node):
    """What fits is passed on, and refused by the kernel with the node named."""
    with pytest.raises(NoSuchNodeError, match=f"node {node} does not exist") as caught:
        movepages.move_pages(0, pages.addresses, node)
    assert caught.value.node == node
    assert not caught.value.result.written.any()


def test_a_node_that_does_not_exist_is_named(pages, home, missing):
    """The error has the node, and the statuses of the pages before it."""
    with pytest.raises(LookupError, match=f"node {missing} does not exist") as caught:
        movepages.move_pages(0, pages.addresses, [home, home, missing, home])
    assert caught.value.node == missing
    assert caught.value.result.status.tolist() == [home, home, UNWRITTEN, UNWRITTEN]


def test_statuses_go_where_they_are_wanted(pages, home):
    """An array that is given is used, whatever was in it; nothing of it is left over."""
    status = np.full(4, 77, dtype=np.int32)
    assert movepages.query_pages(0, pages.addresses, status=status).status is status
    assert status.tolist() == [home] * 4
    with pytest.raises(NoSuchProcessError):
        movepages.query_pages(-1, pages.addresses, status=status)
    assert status.tolist() == [UNWRITTEN] * 4


def read_only(status):
    """Return a status array that cannot be written."""
    status.flags.writeable = False
    return status


@pytest.mark.parametrize(
    ("status", "problem"),
    [
        (read_only(np.zeros(4, np.int32)), "writable and contiguous"),
        (np.zeros(8, np.int32)[::2], "writable and contiguous"),
        (np.zeros(3, np.int32), "3 elements for 4 addresses"),
        (np.zeros(5, np.int32), "5 elements for 4 addresses"),
        (np.zeros((2, 2), np.int32), "4 elements for 4 addresses"),
        (np.zeros(4, np.int64), "NumPy array of dtype int32"),
        (np.zeros(4, np.uint32), "NumPy array of dtype int32"),
        (np.zeros(4, ">i4"), "NumPy array of dtype int32"),
        ([0] * 4, "NumPy array of dtype int32"),
        (array.array("i", [0] * 4), "NumPy array of dtype int32"),
        (bytearray(16), "NumPy array of dtype int32"),
    ],
)
def test_a_status_array_that_does_not_fit_is_refused(pages, status, problem):
    """Read-only, too small, too large, with gaps or of another type: each says why."""
    for call in (
        lambda: movepages.query_pages(0, pages.addresses, status=status),
        lambda: movepages.move_pages(0, pages.addresses, 0, status=status),
    ):
        with pytest.raises(ArgumentError, match=problem):
            call()


def test_untouched_zero_and_unmapped_pages_have_statuses(memory):
    """What is not there, or not a page, is told per page; nothing is raised."""
    pages = memory.private(5)
    pages[:1].touch()
    assert not pages[2:3].data.any()
    unmap(pages[3:])
    status = movepages.query_pages(0, [*pages.addresses.tolist(), KERNEL_ADDRESS]).status
    assert status[0] >= 0
    assert status[1] in {-Errno.ENOENT, -Errno.EFAULT}
    assert status[2:].tolist() == [-Errno.EFAULT] * 4


def test_addresses_need_not_be_aligned(pages, home):
    """An address names the page that it is in."""
    inside = pages.addresses + np.array([1, 8, 4095, 2048], dtype=np.uint64)
    assert movepages.query_pages(0, inside).status.tolist() == [home] * 4


@pytest.mark.parametrize("pid", [-1, 2**31 - 1, 2**32, 2**64])
def test_a_pid_that_nobody_has(pages, home, pid):
    """It is named, by every call, and is never taken for the caller's 0."""
    for call in (
        lambda: movepages.query_pages(pid, pages.addresses),
        lambda: movepages.move_pages(pid, pages.addresses, home),
        lambda: movepages.migrate_pages(pid, [home], [home]),
        lambda: movepages.Process(pid),
    ):
        with pytest.raises(ProcessLookupError) as caught:
            call()
        assert caught.value.pid == pid


@pytest.mark.parametrize("flags", [1, 8, 7, -1, 2**32])
def test_flags_that_the_call_does_not_have(pages, home, flags):
    """Only MOVE and MOVE_ALL are flags of this call."""
    with pytest.raises(InvalidCallError, match="use MOVE or MOVE_ALL only"):
        movepages.move_pages(0, pages.addresses, home, flags)


@pytest.mark.usefixtures("root")
def test_shared_pages_can_be_asked_to_move(pages, home):
    """MOVE_ALL is taken from root."""
    assert movepages.move_pages(0, pages.addresses, home, movepages.MOVE_ALL).ret == 0


def test_shared_pages_are_not_everybodys_to_move(pages, home, unprivileged):
    """MOVE_ALL without CAP_SYS_NICE is a PermissionError that names the capability."""

    def move():
        try:
            movepages.move_pages(0, pages.addresses, home, movepages.MOVE_ALL)
        except CallError as error:
            return error

    refused = unprivileged(move)
    assert isinstance(refused, PermissionError)
    assert "CAP_SYS_NICE" in str(refused)


@pytest.mark.usefixtures("root")
def test_another_users_process_is_off_limits(pages, unprivileged):
    """Calls and mappings of a process of root refuse an ordinary user, and name the pid."""
    parent = os.getpid()

    def look():
        errors = []
        process = movepages.Process(parent)
        for call in (
            lambda: movepages.query_pages(parent, pages.addresses),
            process.mappings,
            process.locate,
        ):
            try:
                call()
            except CallError as error:
                errors.append(error)
        return errors

    refused = unprivileged(look)
    assert [type(error) for error in refused] == [NotPermittedError] * 3
    assert [error.pid for error in refused] == [parent] * 3


def test_migrating_to_where_the_pages_are(fork, home):
    """The count of folios that stayed is 0; node sets may be any iterables."""
    pid = fork().pid
    assert movepages.migrate_pages(pid, [home], (home,)) == 0
    assert movepages.migrate_pages(pid, NodeSet([home]), iter([home])) == 0


@pytest.mark.usefixtures("root")
def test_migrating_to_a_node_that_does_not_exist(missing, home):
    """Root is told that no target is usable; to others it lies outside the cpuset."""
    with pytest.raises(InvalidCallError, match="no target node is usable"):
        movepages.migrate_pages(0, [home], [missing])


def test_the_topology_has_the_nodes_of_sysfs():
    """The nodes with memory are those that the kernel lists."""
    assert movepages.read_topology().with_memory == read_has_memory()


def test_a_process_has_mappings_and_pages(fork, memory):
    """A child's mapping is found, and located on the node that its pages are on."""
    pages = memory.private(16).touch()
    process = movepages.Process(fork().pid)
    (mapping,) = [m for m in process.mappings() if m.start == pages.start]
    assert (mapping.size_bytes, mapping.kind) == (16 * PAGE_BYTES, "anon")
    placement = process.locate(pages.range)
    assert isinstance(placement, Placement)
    assert placement.total_bytes == mapping.resident_bytes == 16 * PAGE_BYTES
    assert placement.bytes_by_node == mapping.bytes_by_node
    assert process.locate().total_bytes >= 16 * PAGE_BYTES
    assert placement.way


def test_pid_0_is_the_caller():
    """Process 0 and the process of the caller's pid have the same mappings."""
    mine = [
        mapping.start for mapping in movepages.Process().mappings() if mapping.path == "[stack]"
    ]
    named = movepages.Process(os.getpid()).mappings()
    assert mine == [mapping.start for mapping in named if mapping.path == "[stack]"]
    assert repr(movepages.Process(12 * 0)) == "Process(0)"


@pytest.mark.parametrize("range_", [(5, 5), (9, 4), (-1, 4)])
def test_a_range_that_is_none_is_refused(range_):
    """Reversed, empty and negative ranges are named."""
    with pytest.raises(ArgumentError, match="empty, reversed or negative"):
        movepages.Process().locate(range_)


def test_a_process_that_has_ended_is_not_confused_with_another(fork):
    """Once it has ended the object refuses, whoever may have its pid by then."""
    child = fork()
    process = movepages.Process(child.pid)
    child.kill()
    for look in (process.mappings, process.locate):
        with pytest.raises(NoSuchProcessError):
            look()


def test_a_pid_that_is_used_again_is_refused(fork):
    """The object knows its process by the start time, not by the pid alone."""
    process = movepages.Process(fork().pid)
    process._started -= 1  # as if the pid had belonged to an earlier process
    for look in (process.mappings, process.locate):
        with pytest.raises(NoSuchProcessError, match=f"no process {process.pid}"):
            look()


def test_a_process_of_another_machine_asks_that_machine():
    """A Machine that is given is asked, and no pid of this one is looked up."""

    class Elsewhere:
        def mappings(self, pid):
            return [pid]

        def locate(self, pid, ranges):
            return pid, ranges

    process = movepages.Process(123456789, Elsewhere())
    assert process.mappings() == [123456789]
    assert process.locate((1, 2)) == (123456789, [(1, 2)])
    assert process.locate() == (123456789, None)


def test_ten_million_addresses_are_one_call(pages, home):
    """Their number is no limit: one call, answered in a few seconds, and a status for each."""
    addresses = np.resize(pages.addresses, 10_000_000)
    before = time.process_time()
    result = movepages.query_pages(0, addresses)
    assert time.process_time() - before < 6
    assert (result.ret, result.counts()) == (0, {home: 10_000_000})


def test_the_examples_of_the_docstring_work():
    """The call can be made as the README shows it, from a program of its own."""
    code = (
        "import movepages, ctypes\n"
        "buffer = ctypes.create_string_buffer(b'x' * 8192)\n"
        "result = movepages.query_pages(0, [ctypes.addressof(buffer)])\n"
        "print(result.ret, result.status[0] >= 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "0 True\n"

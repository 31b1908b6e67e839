"""The raw calls on the kernel of this machine: what one node can show of their answers."""

from __future__ import annotations

import ctypes
import mmap
import os
import threading

import numpy as np
import pytest
from guestkit.memory import unmap
from guestkit.pages import PAGE_BYTES

from movepages.abi import UNWRITTEN, Errno, Mode, MoveFlag, PolicyQuery
from movepages.linux import syscalls
from movepages.linux.nodes import read_has_memory
from movepages.linux.page_calls import unwritten
from movepages.linux.syscalls import address_of

KERNEL_ADDRESS = 0xFFFF_8000_0000_0000
VSYSCALL = 0xFFFF_FFFF_FF60_0000
UNTOUCHED = {-Errno.ENOENT, -Errno.EFAULT}
"""Memory that was never touched is -EFAULT on Linux 4.3 to 6.11."""

MOVE, MOVE_ALL = MoveFlag.MOVE, MoveFlag.MOVE_ALL
PROT_NONE = 0  # include/uapi/asm-generic/mman-common.h


@pytest.fixture
def pages(memory):
    """Four touched pages."""
    return memory.private(4).touch()


@pytest.fixture
def home(pages):
    """The node that the four pages are on."""
    _, status = call(pages.addresses)
    return int(status[0])


@pytest.fixture
def missing() -> int:
    """A node number without memory behind it."""
    return max(read_has_memory()) + 1


def call(addresses, nodes=None, flags=0, pid=0):
    """Make the raw call on arrays; return what it returned, and the statuses."""
    addresses = np.array(addresses, dtype=np.uint64)
    status = unwritten(len(addresses))
    if nodes is not None:
        nodes = np.array(np.broadcast_to(nodes, len(addresses)), dtype=np.int32)
    ret = syscalls.move_pages(
        pid,
        len(addresses),
        address_of(addresses),
        None if nodes is None else address_of(nodes),
        address_of(status),
        flags,
    )
    return ret, status


def at_the_end(memory, array, readable):
    """Put an array where its first elements can be read and a guard page follows."""
    page = memory.private(1).touch()
    start = page.range[1] - readable * array.itemsize
    ctypes.memmove(start, array.ctypes.data, readable * array.itemsize)
    return start


def test_an_array_has_the_address_of_its_first_element():
    """Writable, read-only and empty arrays and views all have their own address."""
    array = np.arange(8, dtype=np.uint64)
    assert address_of(array) == array.ctypes.data
    assert address_of(array[3:]) == array.ctypes.data + 24
    assert address_of(array[:0]) == array.ctypes.data
    array.flags.writeable = False
    assert address_of(array) == array.ctypes.data
    assert address_of(array[3:]) == array.ctypes.data + 24


@pytest.mark.parametrize("step", [2, -1])
@pytest.mark.parametrize("writeable", [True, False])
def test_an_array_with_gaps_has_no_address(step, writeable):
    """The kernel would take what lies between for elements; so such an array is refused."""
    array = np.arange(8, dtype=np.uint64)
    array.flags.writeable = writeable
    with pytest.raises(TypeError):
        address_of(array[::step])


def test_calls_of_an_unknown_architecture_do_not_exist(monkeypatch):
    """Without a number a call answers as a kernel that does not have it."""
    monkeypatch.setattr(syscalls, "_NUMBERS", {})
    assert syscalls._declare("move_pages", ctypes.c_int)(0) == -Errno.ENOSYS


def test_an_unknown_machine_has_no_numbers(monkeypatch):
    """A machine name that is in no table leaves all calls out, and does not fail the import."""
    uname = os.uname_result(("Linux", "host", "6.12", "#1", "pdp11"))
    monkeypatch.setattr(os, "uname", lambda: uname)
    assert syscalls._numbers() == {}


@pytest.mark.host
def test_query_tells_the_pages_apart(memory):
    """Touched, untouched, zero page, hole, kernel address and vsyscall each have their status."""
    pages = memory.private(4)
    pages[:1].touch()
    assert not pages[2:3].data.any()
    unmap(pages[3:4])
    ret, status = call([*pages.addresses, KERNEL_ADDRESS, VSYSCALL])
    assert ret == 0
    assert status[0] in read_has_memory()
    assert status[1] in UNTOUCHED
    assert status[2:].tolist() == [-Errno.EFAULT] * 4


@pytest.mark.host
def test_query_faults_nothing_in(memory):
    """Memory that was asked about is as untouched as before."""
    pages = memory.private(16)
    first = call(pages.addresses)[1].tolist()
    assert set(first) <= UNTOUCHED
    assert call(pages.addresses)[1].tolist() == first


@pytest.mark.host
@pytest.mark.parametrize("flags", [MOVE, 0])
def test_pages_in_place_have_their_node(pages, home, flags):
    """A move to where a page is returns 0 and the node; flags 0 act as MOVE."""
    ret, status = call(pages.addresses, home, flags)
    assert (ret, status.tolist()) == (0, [home] * 4)


@pytest.mark.host
@pytest.mark.usefixtures("root")
def test_move_all_in_place(pages, home):
    """Root may ask to move shared pages as well."""
    ret, status = call(pages.addresses, home, MOVE_ALL)
    assert (ret, status.tolist()) == (0, [home] * 4)


@pytest.mark.host
def test_an_address_inside_a_page_names_the_page(pages, home):
    """Addresses need not be aligned; the last byte counts as well as the first."""
    inside = pages.addresses + np.array([1, 8, 4095, 2048], dtype=np.uint64)
    assert call(inside)[1].tolist() == [home] * 4
    assert call(inside, home, MOVE)[1].tolist() == [home] * 4


@pytest.mark.host
@pytest.mark.parametrize("flags", [1, 8, 16, 6 | 8, 1 << 30, -1, 1 << 32, 1 << 64])
@pytest.mark.parametrize("pid", [0, -1])
def test_other_flags_are_invalid_before_all_else(pages, flags, pid):
    """Flags are checked first, before the pid, and those beyond 32 bits are not cut off."""
    ret, status = call(pages.addresses, 0, flags, pid)
    assert ret == -Errno.EINVAL
    assert (status == UNWRITTEN).all()


@pytest.mark.host
def test_move_all_needs_cap_sys_nice(pages, unprivileged, no_pid):
    """Without it MOVE_ALL is refused, for a query too and before the pid is looked up."""

    def answers():
        addresses = pages.addresses
        return [
            call(addresses, 0, MOVE_ALL)[0],
            call(addresses, None, MOVE_ALL)[0],
            call(addresses, None, MOVE_ALL, no_pid)[0],
            call(addresses, None, 0)[0],
        ]

    assert unprivileged(answers) == [-Errno.EPERM] * 3 + [0]


@pytest.mark.host
@pytest.mark.parametrize("pid", [-1, -5, -(2**31), 2**31 - 1, 2**31, 2**32, 2**64])
def test_a_pid_that_nobody_has(pages, pid):
    """Negative, unused and too large pids are no process; 2**32 is not cut to the caller's 0."""
    ret, status = call(pages.addresses, None, 0, pid)
    assert ret == -Errno.ESRCH
    assert (status == UNWRITTEN).all()


@pytest.mark.host
def test_a_pid_that_would_be_cut_to_a_real_one(pages):
    """A number of more than 32 bits does not name the process of its lower half."""
    assert call(pages.addresses, None, 0, os.getpid())[0] == 0
    assert call(pages.addresses, None, 0, os.getpid() + 2**32)[0] == -Errno.ESRCH


@pytest.mark.host
@pytest.mark.usefixtures("root")
def test_kernel_threads_have_no_memory(pages, kernel_threads, unprivileged):
    """Root is told that they have none (-EINVAL), others that they may not look (-EPERM)."""
    for pid in kernel_threads:
        assert call(pages.addresses, None, 0, pid)[0] == -Errno.EINVAL
    told = unprivileged(lambda: [call(pages.addresses, None, 0, pid)[0] for pid in kernel_threads])
    assert told == [-Errno.EPERM] * len(kernel_threads)


@pytest.mark.host
def test_a_zombie_has_no_memory(pages, zombie):
    """A process that has ended, and is not waited for, is invalid rather than gone."""
    for nodes in (None, 0):
        ret, status = call(pages.addresses, nodes, 0, zombie)
        assert ret in {-Errno.EINVAL, -Errno.EPERM}  # -EPERM for a caller without rights
        assert (status == UNWRITTEN).all()


@pytest.mark.host
@pytest.mark.usefixtures("root")
def test_another_users_process_is_off_limits(pages, unprivileged):
    """A process of root does not answer to an ordinary user."""
    parent = os.getpid()
    assert unprivileged(lambda: call(pages.addresses, None, 0, parent)[0]) == -Errno.EPERM


@pytest.mark.host
def test_a_process_that_is_not_dumpable_is_off_limits(memory, unprivileged):
    """The same user is not enough: the target must be dumpable, as for ptrace."""
    pages = memory.private(1).touch()

    def pair():
        answers = []
        for dumpable in (1, 0):
            child = os.fork()
            if not child:
                ctypes.CDLL(None).prctl(4, dumpable, 0, 0, 0)  # PR_SET_DUMPABLE
                os.kill(os.getpid(), 19)  # SIGSTOP
                os._exit(0)
            os.waitid(os.P_PID, child, os.WSTOPPED)
            answers.append(call(pages.addresses, None, 0, child)[0])
            os.kill(child, 9)
            os.waitpid(child, 0)
        return answers

    assert unprivileged(pair) == [0, -Errno.EPERM]


@pytest.mark.host
def test_a_node_without_memory_stops_the_call(pages, home, missing):
    """-ENODEV: the pages before it are done, those from it on are not looked at."""
    ret, status = call(pages.addresses, [home, missing, home, home], MOVE)
    assert ret == -Errno.ENODEV
    assert status.tolist() == [home, UNWRITTEN, UNWRITTEN, UNWRITTEN]


@pytest.mark.host
@pytest.mark.parametrize("node", [-1, 1024, 5000, 2**31 - 1, -(2**31)])
def test_numbers_that_no_node_can_have(pages, node):
    """Negative and huge nodes are -ENODEV, and nothing is written."""
    ret, status = call(pages.addresses, node, MOVE)
    assert ret == -Errno.ENODEV
    assert (status == UNWRITTEN).all()


@pytest.mark.host
def test_no_page_at_all():
    """A count of 0 is fine, with and without nodes, whatever the pointers."""
    assert syscalls.move_pages(0, 0, None, None, None, 0) == 0
    assert syscalls.move_pages(0, 0, 1, 1, 1, MOVE) == 0


@pytest.mark.host
@pytest.mark.parametrize("count", [2**31, 2**32, 2**63, 2**64 - 1])
def test_a_count_beyond_the_arrays(memory, count):
    """There is no limit but the arrays: the call ends with -EFAULT where they do."""
    pages = memory.private(20).touch()
    start = at_the_end(memory, pages.addresses, 20)
    status = memory.private(1).touch()
    assert syscalls.move_pages(0, count, start, None, status.start, 0) == -Errno.EFAULT


@pytest.mark.host
@pytest.mark.parametrize(("readable", "written"), [(18, 16), (16, 16), (15, 0), (0, 0)])
def test_addresses_that_end_early_in_a_query(memory, readable, written):
    """Statuses are written for the whole chunks of 16 before the end, and for no more."""
    pages = memory.private(20).touch()
    start = at_the_end(memory, pages.addresses, readable)
    status = unwritten(20)
    assert syscalls.move_pages(0, 20, start, None, address_of(status), 0) == -Errno.EFAULT
    assert (status >= 0).sum() == written
    assert (status[:written] >= 0).all()
    assert (status[written:] == UNWRITTEN).all()


@pytest.mark.host
@pytest.mark.parametrize("readable", [0, 1, 3])
@pytest.mark.parametrize("early", ["addresses", "nodes"])
def test_arrays_that_end_early_in_a_move(memory, pages, home, early, readable):
    """Pages before the end of either array are done."""
    arrays = {"addresses": pages.addresses, "nodes": np.full(4, home, dtype=np.int32)}
    pointers = {name: address_of(array) for name, array in arrays.items()}
    pointers[early] = at_the_end(memory, arrays[early], readable)
    status = unwritten(4)
    ret = syscalls.move_pages(0, 4, *pointers.values(), address_of(status), MOVE)
    assert ret == -Errno.EFAULT
    assert status.tolist() == [home] * readable + [UNWRITTEN] * (4 - readable)


@pytest.mark.host
@pytest.mark.parametrize("with_nodes", [False, True])
def test_a_status_array_that_is_read_only(memory, pages, home, with_nodes):
    """Statuses that cannot be written are -EFAULT, and stay as they were."""
    status = memory.private(1, mmap.PROT_READ)
    nodes = np.full(4, home, dtype=np.int32)
    ret = syscalls.move_pages(
        0,
        4,
        address_of(pages.addresses),
        address_of(nodes) if with_nodes else None,
        status.start,
        0,
    )
    assert ret == -Errno.EFAULT
    assert not status.data.any()


@pytest.mark.host
def test_a_status_array_that_ends_early(memory):
    """The statuses of the whole chunks before its end are written."""
    pages = memory.private(40).touch()
    room = at_the_end(memory, unwritten(40), 36)
    ret = syscalls.move_pages(0, 40, address_of(pages.addresses), None, room, 0)
    assert ret == -Errno.EFAULT
    written = np.ctypeslib.as_array((ctypes.c_int32 * 36).from_address(room))
    assert (written[:32] >= 0).all()


@pytest.mark.host
def test_null_pointers(pages, home):
    """NULL for addresses or statuses is -EFAULT."""
    where, to, status = pages.addresses, np.full(4, home, dtype=np.int32), unwritten(4)
    for nodes in (None, address_of(to)):
        assert syscalls.move_pages(0, 4, None, nodes, address_of(status), 0) == -Errno.EFAULT
        assert syscalls.move_pages(0, 4, address_of(where), nodes, None, 0) == -Errno.EFAULT


@pytest.mark.host
def test_memory_without_access_is_still_somewhere(memory):
    """Touched pages keep their node under PROT_NONE (6.1 does not see them)."""
    pages = memory.private(4).touch()
    node = call(pages.addresses)[1][0]
    ctypes.CDLL(None).mprotect(ctypes.c_void_p(pages.start), 4 * PAGE_BYTES, PROT_NONE)
    assert set(call(pages.addresses)[1].tolist()) <= {node, -Errno.ENOENT}


@pytest.mark.host
def test_each_thread_has_its_own_errno(pages):
    """Answers of threads that call at the same time do not mix."""
    wrong = []

    def ask(pid, expected):
        answers = [call(pages.addresses, None, 0, pid)[0] for _ in range(300)]
        wrong.extend(answer for answer in answers if answer != expected)

    threads = [
        threading.Thread(target=ask, args=pair)
        for pair in ((0, 0), (-1, -Errno.ESRCH), (0, 0), (-1, -Errno.ESRCH))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.host
def test_migrate_pages_checks_its_masks():
    """A mask that cannot be read, an unused pid and no target at all are told apart."""
    mask = np.zeros(1, dtype=np.uint64)
    assert syscalls.migrate_pages(0, 65, 1, address_of(mask)) == -Errno.EFAULT
    assert syscalls.migrate_pages(-1, 65, address_of(mask), address_of(mask)) == -Errno.ESRCH
    assert syscalls.migrate_pages(2**32, 65, address_of(mask), address_of(mask)) == -Errno.ESRCH
    assert syscalls.migrate_pages(0, 65, address_of(mask), address_of(mask)) == -Errno.EINVAL


@pytest.mark.host
def test_mbind_checks_its_range(memory):
    """An unaligned start and a mode that does not exist are invalid, a hole is -EFAULT."""
    pages = memory.private(4)
    assert syscalls.mbind(pages.start, 0, Mode.DEFAULT, None, 0, 0) == 0
    assert syscalls.mbind(pages.start + 1, PAGE_BYTES, 0, None, 0, 0) == -Errno.EINVAL
    assert syscalls.mbind(pages.start, PAGE_BYTES, 99, None, 0, 0) == -Errno.EINVAL
    assert syscalls.mbind(pages.start, PAGE_BYTES, 2**32, None, 0, 0) == -Errno.EINVAL
    assert syscalls.mbind(pages.start, PAGE_BYTES, 0, None, 0, MoveFlag.LAZY) == -Errno.EINVAL
    unmap(pages)
    assert syscalls.mbind(pages.start, PAGE_BYTES, 0, None, 0, 0) == -Errno.EFAULT


@pytest.mark.host
def test_set_mempolicy_checks_its_mode():
    """Modes that do not exist are invalid, also one that 32 bits would cut to DEFAULT."""
    assert syscalls.set_mempolicy(99, None, 0) == -Errno.EINVAL
    assert syscalls.set_mempolicy(2**32, None, 0) == -Errno.EINVAL
    assert syscalls.set_mempolicy(Mode.BIND, None, 0) == -Errno.EINVAL


@pytest.mark.host
def test_get_mempolicy_wants_room_for_all_nodes():
    """A mask that is too narrow is invalid, and so is an address without the flag."""
    mask = np.zeros(16, dtype=np.uint64)
    ask = (None, address_of(mask))
    assert syscalls.get_mempolicy(*ask, 0, None, PolicyQuery.MEMS_ALLOWED) == -Errno.EINVAL
    assert syscalls.get_mempolicy(*ask, 1024, None, PolicyQuery.MEMS_ALLOWED) == 0
    assert syscalls.get_mempolicy(*ask, 1024, address_of(mask), 0) == -Errno.EINVAL
    assert syscalls.get_mempolicy(*ask, 1024, 0, PolicyQuery.ADDR) == -Errno.EFAULT


@pytest.mark.host
def test_home_node_takes_no_flags(memory):
    """Flags are invalid; a kernel before 5.17 does not have the call."""
    pages = memory.private(1)
    answer = syscalls.set_mempolicy_home_node(pages.start, PAGE_BYTES, 0, 1)
    assert answer in {-Errno.EINVAL, -Errno.ENOSYS}

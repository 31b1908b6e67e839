"""Handlers of NUMA calls: what registers hold, bad arguments, and who is not there."""

from __future__ import annotations

import os

import pytest
from live_machine import MASK_BITS, PAGE

from movepages.abi import UNWRITTEN, Errno, Mode, MoveFlag, PolicyQuery
from movepages.kernel import LINUX_2_6_18, PATCH_2006

pytestmark = pytest.mark.host

JUNK = 0xDEAD_BEEF << 32
"""In the upper half of a register that holds a C int."""
NOBODY_HAS_THIS_PID = 1 << 30
KTHREADD = 2
NOWHERE = 0xFFFF_8000_0000_0000


@pytest.fixture
def process(live):
    """A process."""
    return live.world.process()


@pytest.fixture
def call(live, process):
    """Return a function that lets the process call move_pages on a page of its own, node 3."""
    start = process.mmap(1)
    process.write(start)
    pid = process.pid

    def called(**changed):
        arguments = {
            "pid": 0,
            "count": 1,
            "pages": live.stored(pid, 0, [start], "u8"),
            "nodes": live.stored(pid, 1, [3], "i4"),
            "status": live.stored(pid, 2, [UNWRITTEN], "i4"),
            "flags": MoveFlag.MOVE,
        }
        ret = live.call("move_pages", pid, *(arguments | changed).values())
        return ret, live.loaded(pid, 2, 1, "i4")[0]

    return called


def test_pages_move_and_their_statuses_are_written(call, process):
    """A page of the caller goes where it asked for it to be."""
    assert call() == (0, 3)
    assert call(nodes=0) == (0, 3)
    assert call(pid=process.pid) == (0, 3)


def test_ints_are_the_lower_half_of_their_register(call, process):
    """What the upper half holds is not looked at, for C passes ints so."""
    assert call(pid=JUNK | process.pid, flags=JUNK | MoveFlag.MOVE) == (0, 3)
    assert call(pid=0xFFFF_FFFF) == (-Errno.ESRCH, UNWRITTEN)
    assert call(pid=NOBODY_HAS_THIS_PID) == (-Errno.ESRCH, UNWRITTEN)


@pytest.mark.parametrize(
    ("changed", "errno"),
    [
        ({"flags": MoveFlag.STRICT}, Errno.EINVAL),
        ({"flags": 1 << 31}, Errno.EINVAL),
        ({"pages": 0}, Errno.EFAULT),
        ({"pages": NOWHERE}, Errno.EFAULT),
        ({"nodes": NOWHERE}, Errno.EFAULT),
        ({"status": NOWHERE}, Errno.EFAULT),
        ({"nodes": 0, "pages": NOWHERE}, Errno.EFAULT),
        ({"pid": KTHREADD}, Errno.EINVAL),
    ],
)
def test_bad_arguments_have_their_errno(call, changed, errno):
    """Flags that are none, pointers to nothing, a task without memory: as move_pages(2) says."""
    ret, status = call(**changed)
    assert ret == -errno
    assert status in {UNWRITTEN, 3} if "status" in changed else status == UNWRITTEN


def test_nothing_is_asked_of_no_page(call):
    """A count of 0 is no error, and writes nothing."""
    assert call(count=0) == (0, UNWRITTEN)


def test_node_that_is_not_there_is_refused(call, live, process):
    """A node beyond the declared ones, and a negative one, are -ENODEV."""
    for node in (4, -1, 1 << 30):
        nodes = live.stored(process.pid, 3, [node], "i4")
        assert call(nodes=nodes)[0] == -Errno.ENODEV


def test_cpu_and_its_node_are_told(live, process):
    """The call says a CPU that the caller may run on, and the declared node of it."""
    pid = process.pid
    cpu, node = (live.stored(pid, place, [77], "u4") for place in (0, 1))
    assert live.call("getcpu", pid, cpu, node, 0) == 0
    (cpu_told,), (node_told,) = (live.loaded(pid, place, 1, "u4") for place in (0, 1))
    assert cpu_told in os.sched_getaffinity(pid)
    assert node_told == live.machine.node_of_cpu(cpu_told)
    assert live.call("getcpu", pid, 0, 0, 0) == 0
    for pointers in ((NOWHERE, node), (cpu, NOWHERE)):
        assert live.call("getcpu", pid, *pointers, 0) == -Errno.EFAULT


def test_policy_of_a_thread_is_told_without_a_look_at_its_memory(live, process):
    """Mode and nodes are those that were set; the allowed nodes are the declared ones."""
    pid = process.pid
    assert live.set_mempolicy(pid, Mode.BIND, [1, 2]) == 0
    mode, mask = live.stored(pid, 0, [0], "i4"), live.mask(pid, [])
    assert live.call("get_mempolicy", pid, mode, mask, MASK_BITS, 0, 0) == 0
    assert live.loaded(pid, 0, 1, "i4") == [Mode.BIND]
    assert live.loaded(pid, 3, 1, "u8") == [0b0110]
    allowed = PolicyQuery.MEMS_ALLOWED
    assert live.call("get_mempolicy", pid, 0, mask, MASK_BITS, 0, allowed) == 0
    assert live.loaded(pid, 3, 1, "u8") == [0b1111]


@pytest.mark.parametrize(
    ("arguments", "errno"),
    [
        ((0, 0, 0, 0, 1 << 5), Errno.EINVAL),
        ((NOWHERE, 0, 0, 0, 0), Errno.EFAULT),
        ((0, NOWHERE, MASK_BITS, 0, 0), Errno.EFAULT),
        ((0, 0, 0, PAGE, PolicyQuery.MEMS_ALLOWED), 0),
        ((0, 0, 0, PAGE, 0), Errno.EINVAL),
        ((0, 0, 0, 0, PolicyQuery.ADDR), Errno.EFAULT),
    ],
)
def test_bad_queries_of_policy_have_their_errno(live, process, arguments, errno):
    """Unknown flags, pointers to nothing, an address that is not asked for or has no area."""
    assert live.call("get_mempolicy", process.pid, *arguments) == -errno


@pytest.mark.parametrize(
    ("name", "arguments", "errno"),
    [
        ("set_mempolicy", (Mode.BIND, NOWHERE, MASK_BITS), Errno.EFAULT),
        ("set_mempolicy", (JUNK | 99, 0, 0), Errno.EINVAL),
        ("mbind", (1, PAGE, Mode.DEFAULT, 0, 0, 0), Errno.EINVAL),
        ("mbind", (PAGE, PAGE, Mode.DEFAULT, 0, 0, 1 << 9), Errno.EINVAL),
        ("mbind", (PAGE, PAGE, Mode.DEFAULT, 0, 0, 0), Errno.EFAULT),
        ("set_mempolicy_home_node", (1, PAGE, 0, 0), Errno.EINVAL),
        ("set_mempolicy_home_node", (PAGE, PAGE, 99, 0), Errno.EINVAL),
        ("set_mempolicy_home_node", (PAGE, PAGE, 0, 1), Errno.EINVAL),
        ("migrate_pages", (0, MASK_BITS, NOWHERE, NOWHERE), Errno.EFAULT),
    ],
)
def test_bad_arguments_of_other_calls_have_their_errno(live, process, name, arguments, errno):
    """Pointers to nothing, modes and flags that are none, addresses of no page or no area."""
    assert live.call(name, process.pid, *arguments) == -errno


def test_upper_half_of_a_mode_is_not_looked_at(live, process):
    """set_mempolicy and mbind take an int, and with junk above it do what it says."""
    pid, start = process.pid, process.mmap(1)
    mask = live.mask(pid, [2])
    assert live.call("set_mempolicy", pid, JUNK | Mode.BIND, mask, MASK_BITS) == 0
    assert live.get_mempolicy(pid) == (0, Mode.BIND)
    length = PAGE
    assert live.call("mbind", pid, start, length, JUNK | Mode.BIND, mask, MASK_BITS, JUNK) == 0
    assert live.get_mempolicy(pid, PolicyQuery.ADDR, start) == (0, Mode.BIND)


@pytest.mark.parametrize("semantics", [PATCH_2006, LINUX_2_6_18])
def test_call_that_a_kernel_lacks_is_enosys(emulate, semantics):
    """Home nodes came much later than 2006; what there was then is served."""
    live = emulate(semantics=semantics)
    pid = live.world.process().pid
    assert live.call("set_mempolicy_home_node", pid, 0, 0, 0, 0) == -Errno.ENOSYS
    assert live.get_mempolicy(pid) == (0, Mode.DEFAULT)


def test_target_that_has_ended_is_no_task(call, live):
    """A zombie has no memory to move, and a pid that was reaped is nobody's."""
    other = live.world.process()
    other.exit()
    assert call(pid=other.pid)[0] == -Errno.EINVAL
    parent = live.world.process()
    child = parent.fork()
    assert call(pid=child.pid)[0] == 0
    child.exit()
    parent.wait()
    assert call(pid=child.pid)[0] == -Errno.ESRCH

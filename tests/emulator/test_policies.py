"""Policies of tasks, areas and shared memory, through the calls of live processes."""

from __future__ import annotations

import pytest
from live_machine import MASK_BITS, PAGE

from movepages.abi import Errno, Mode, ModeFlag, MoveFlag, PolicyQuery

pytestmark = pytest.mark.host

ADDR = PolicyQuery.ADDR
NODE_AT = PolicyQuery.NODE | PolicyQuery.ADDR
NOBODY_HAS_THIS_PID = 1 << 30


@pytest.fixture
def process(live):
    """A process."""
    return live.world.process()


def test_policy_of_a_task_decides_where_its_next_pages_are(live, process):
    """What was touched before a change stays where the policy before had put it."""
    start = process.mmap(6)
    pid = process.pid
    for first, mode, nodes in (
        (0, Mode.BIND, [1]),
        (2, Mode.PREFERRED, [3]),
        (4, Mode.DEFAULT, []),
    ):
        assert live.set_mempolicy(pid, mode, nodes) == 0
        assert live.get_mempolicy(pid) == (0, mode)
        process.write(start + first * PAGE, 2)
    local = live.machine.surroundings(live.machine.processes.task(pid)).local
    assert live.where(pid, start, 6) == [1, 1, 3, 3, local, local]


def test_policy_of_an_area_goes_before_the_tasks(live, process):
    """A part of an area has its own policy, and the address tells which."""
    start, pid = process.mmap(6), process.pid
    assert live.set_mempolicy(pid, Mode.BIND, [1]) == 0
    assert live.mbind(pid, start + 2 * PAGE, 2, Mode.BIND, [2]) == 0
    process.write(start, 6)
    assert live.where(pid, start, 6) == [1, 1, 2, 2, 1, 1]
    assert live.get_mempolicy(pid, ADDR, start + 2 * PAGE) == (0, Mode.BIND)
    assert live.get_mempolicy(pid, NODE_AT, start + 3 * PAGE) == (0, 2)
    assert live.mbind(pid, start, 6, Mode.DEFAULT, []) == 0
    assert live.get_mempolicy(pid, ADDR, start + 2 * PAGE) == (0, Mode.DEFAULT)


def test_interleaving_of_an_area_goes_by_address(live, process):
    """Pages alternate between the nodes by address, whatever the order of their touches."""
    start, pid = process.mmap(6), process.pid
    assert live.mbind(pid, start, 6, Mode.INTERLEAVE, [0, 2, 3]) == 0
    for page in (4, 0, 5, 2, 1, 3):
        process.write(start + page * PAGE)
    nodes = live.where(pid, start, 6)
    assert nodes[:3] == nodes[3:]
    assert sorted(nodes[:3]) == [0, 2, 3]
    after = {0: 2, 2: 3, 3: 0}
    assert [after[node] for node in nodes[:5]] == nodes[1:]


def test_next_node_of_interleaving_is_told(live, process):
    """A task that interleaves is told the lowest node first; one that does not, -EINVAL."""
    pid = process.pid
    assert live.get_mempolicy(pid, PolicyQuery.NODE)[0] == -Errno.EINVAL
    assert live.set_mempolicy(pid, Mode.INTERLEAVE, [1, 3]) == 0
    assert live.get_mempolicy(pid, PolicyQuery.NODE) == (0, 1)


def test_policy_of_shared_memory_belongs_to_it(live):
    """What one process sets for shared memory holds for another that maps it elsewhere."""
    file = live.world.shmem(6)
    one, other = live.world.process(), live.world.process()
    mine, theirs = one.mmap(6, shared=True, file=file), other.mmap(6, shared=True, file=file)
    assert live.mbind(one.pid, mine + 2 * PAGE, 2, Mode.BIND, [3]) == 0
    assert live.set_mempolicy(other.pid, Mode.BIND, [1]) == 0
    other.write(theirs, 6)
    assert live.where(other.pid, theirs, 6) == [1, 1, 3, 3, 1, 1]
    assert live.get_mempolicy(other.pid, ADDR, theirs + 2 * PAGE) == (0, Mode.BIND)


def test_policy_of_a_file_mapping_does_not_rule_the_page_cache(live):
    """Pages of an ordinary file go by the task's policy, though the area has one."""
    file = live.world.cached_file()
    process = live.world.process()
    start, pid = process.mmap(1, prot="r", file=file), process.pid
    assert live.set_mempolicy(pid, Mode.BIND, [1]) == 0
    assert live.mbind(pid, start, 1, Mode.BIND, [3]) == 0
    process.read(start)
    assert live.where(pid, start) == [1]


@pytest.mark.parametrize(
    ("flags", "expected", "nodes"),
    [
        (MoveFlag(0), 0, [1, 1]),
        (MoveFlag.STRICT, -Errno.EIO, [1, 1]),
        (MoveFlag.MOVE, 0, [2, 2]),
        (MoveFlag.MOVE | MoveFlag.STRICT, 0, [2, 2]),
    ],
)
def test_binding_moves_or_checks_what_is_there(live, process, flags, expected, nodes):
    """Misplaced pages stay without a flag, fail the call with STRICT, and move with MOVE."""
    start, pid = process.mmap(2), process.pid
    process.write(start, 2)
    live.put(pid, start, [1, 1])
    assert live.mbind(pid, start, 2, Mode.BIND, [2], flags) == expected
    assert live.where(pid, start, 2) == nodes


def test_node_of_an_address_is_that_of_a_page_that_is_faulted_in(live, process):
    """get_mempolicy(2) asks for the page: one that was never touched is there afterwards."""
    start, pid = process.mmap(2, shared=True), process.pid
    assert live.mbind(pid, start, 2, Mode.BIND, [2]) == 0
    assert live.get_mempolicy(pid, NODE_AT, start) == (0, 2)
    assert live.where(pid, start, 2)[0] == 2


def test_bad_addresses_are_refused(live, process):
    """A hole is -EFAULT for a query, and for a binding of a range that begins in it."""
    start, pid = process.mmap(3), process.pid
    process.munmap(start + PAGE, 1)
    assert live.get_mempolicy(pid, ADDR, start + PAGE)[0] == -Errno.EFAULT
    assert live.mbind(pid, start + PAGE, 1, Mode.BIND, [1]) == -Errno.EFAULT
    assert live.mbind(pid, start, 3, Mode.BIND, [1]) == -Errno.EFAULT
    process.mprotect(start, 1, "")
    assert live.get_mempolicy(pid, NODE_AT, start)[0] == -Errno.EFAULT


@pytest.mark.parametrize(
    ("mode", "nodes"),
    [
        (Mode.BIND, []),
        (Mode.BIND, [9]),
        (Mode.DEFAULT, [1]),
        (Mode.WEIGHTED_INTERLEAVE + 1, [1]),
        (Mode.BIND | ModeFlag.STATIC_NODES | ModeFlag.RELATIVE_NODES, [1]),
    ],
)
def test_bad_policies_are_refused_and_change_nothing(live, process, mode, nodes):
    """No nodes, none that has memory, nodes where there are none, unknown modes: -EINVAL."""
    pid, start = process.pid, process.mmap(1)
    assert live.set_mempolicy(pid, Mode.BIND, [2]) == 0
    assert live.set_mempolicy(pid, mode, nodes) == -Errno.EINVAL
    assert live.mbind(pid, start, 1, mode, nodes) == -Errno.EINVAL
    assert live.get_mempolicy(pid) == (0, Mode.BIND)


def test_home_node_is_for_policies_that_have_one(live, process):
    """No policy is -ENOENT, one without a home -EOPNOTSUPP; a bound range begins at its home."""
    pid, start = process.pid, process.mmap(4)

    def home(page, node):
        return live.call("set_mempolicy_home_node", pid, start + page * PAGE, PAGE, node, 0)

    assert home(0, 1) == -Errno.ENOENT
    assert live.mbind(pid, start, 1, Mode.INTERLEAVE, [1, 2]) == 0
    assert home(0, 1) == -Errno.EOPNOTSUPP
    assert live.mbind(pid, start + PAGE, 3, Mode.BIND, [1, 3]) == 0
    assert home(2, 3) == 0
    process.write(start + 2 * PAGE)
    assert live.where(pid, start + 2 * PAGE) == [3]


def test_migration_moves_what_is_on_the_old_nodes(live, process):
    """migrate_pages(2) of another process takes its pages from one node to another, no others."""
    start, pid = process.mmap(3), process.pid
    process.write(start, 3)
    live.put(pid, start, [1, 2, 3])
    caller = live.world.process().pid
    masks = live.mask(caller, [1, 3], place=2), live.mask(caller, [0, 2], place=3)
    assert live.call("migrate_pages", caller, pid, MASK_BITS, *masks) >= 0
    assert live.where(pid, start, 3) == [0, 2, 2]
    gone = live.call("migrate_pages", caller, NOBODY_HAS_THIS_PID, MASK_BITS, *masks)
    assert gone == -Errno.ESRCH


def test_highest_node_gives_the_size_of_masks(emulate):
    """A mask has room for every node that is declared."""
    from movepages.emulator.policies import LivePolicies

    live = emulate("8x(0cpu,1M)")
    task = live.machine.processes.task(live.world.process().pid)
    assert LivePolicies(live.machine, task).nr_node_ids == 8

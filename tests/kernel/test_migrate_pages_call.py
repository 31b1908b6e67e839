"""migrate_pages(2): what it answers, in what order, and where pages end up."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from movepages.abi import Errno, MoveFlag
from movepages.kernel.crash import KernelBugError
from movepages.kernel.machine import KTHREADD, SimulatedMachine
from movepages.kernel.semantics import (
    ALL_SEMANTICS,
    DOCUMENTED_2006,
    LINUX_2_6_18,
    LINUX_6_12,
    PATCH_2006,
)

FOUR_NODES = "2x(1cpu,16M) + 2x(0cpu,16M)"
OLD_KERNELS = (DOCUMENTED_2006, PATCH_2006, LINUX_2_6_18)


def by_name(value):
    """Name a semantics in the id of a test."""
    return getattr(value, "name", None)


def placed(task, address, pages):
    """Count the pages of a range by node."""
    return dict(Counter(task.nodes(address, pages).tolist()))


def spread(machine, nodes, *, uid=0, cpuset=None):
    """Start a process with a page on each of some nodes; return it and the address."""
    p = machine.spawn(uid=uid, cpuset=cpuset)
    a = p.mmap(len(nodes))
    p.write(a, len(nodes))
    moved, _ = p.move_pages(0, p.addresses(a, len(nodes)), nodes, MoveFlag.MOVE)
    assert moved in {0, -Errno.ENOENT}
    assert p.nodes(a, len(nodes)).tolist() == list(nodes)
    return p, a


@pytest.mark.parametrize(
    ("start", "old", "new", "end"),
    [
        pytest.param(0, range(4), [1], 1, id="migrate_pages(child, 0-3 -> 1)"),
        pytest.param(1, [1], [3], 3, id="migrate_pages(child, 1 -> 3)"),
        pytest.param(3, [3, 1], [0, 2], 2, id="migrate_pages(child, 3,1 -> 0,2) (relative)"),
        pytest.param(0, [9], [1], 0, id="migrate_pages from 9 to 1"),
    ],
)
def test_migrate_pages_as_observed(start, old, new, end):
    """All 64 pages of a child end up where Linux 6.12 put them, and the call returns 0."""
    machine = SimulatedMachine(FOUR_NODES)
    child, a = spread(machine, [start] * 64)
    assert machine.shell.migrate_pages(child.pid, old, new) == 0
    assert placed(child, a, 64) == {end: 64}
    machine.check()


@pytest.mark.parametrize(
    ("pid", "new", "ret"),
    [
        pytest.param(None, [9], -Errno.EINVAL, id="migrate_pages to node 9"),
        pytest.param(None, [], -Errno.EINVAL, id="migrate_pages empty to"),
        pytest.param(999999, [1], -Errno.ESRCH, id="migrate_pages bad pid"),
        pytest.param(KTHREADD, [1], -Errno.EINVAL, id="migrate_pages kthread 2"),
    ],
)
def test_migrate_pages_refuses_as_observed(pid, new, ret):
    """Targets that do not exist, and processes without memory."""
    machine = SimulatedMachine(FOUR_NODES)
    child, _ = spread(machine, [0])
    assert machine.shell.migrate_pages(child.pid if pid is None else pid, [0], new) == ret


def test_migrate_pages_maxnode_100000():
    """`migrate_pages maxnode 100000`: more bits than a page has are -EINVAL."""
    p = SimulatedMachine(FOUR_NODES).spawn()
    mask = p.user_array(np.zeros(2000, dtype=np.uint64))
    assert p.syscall("migrate_pages", 0, 100000, mask.pointer, mask.pointer) == -Errno.EINVAL


def test_uid_1000_as_observed():
    """`uid 1000: migrate_pages(root's pid)` is -EPERM, `migrate_pages(self)` 0."""
    machine = SimulatedMachine(FOUR_NODES)
    root = machine.spawn()
    p, a = spread(machine, [0] * 4, uid=1000)
    assert p.migrate_pages(root.pid, [0], [1]) == -Errno.EPERM
    assert p.migrate_pages(0, [0], [1]) == 0
    assert placed(p, a, 4) == {1: 4}


@pytest.mark.parametrize(
    ("new", "ret", "end"),
    [
        pytest.param([2], -Errno.EINVAL, 0, id="cpuset 0-1: migrate_pages self 0 -> 2"),
        pytest.param([1, 2], 0, 1, id="cpuset 0-1: migrate_pages self 0->{1,2}"),
    ],
)
def test_root_in_a_cpuset_as_observed(new, ret, end):
    """The caller's own cpuset cuts the targets, even root's; with none left it is -EINVAL."""
    machine = SimulatedMachine(FOUR_NODES)
    p, a = spread(machine, [0] * 4, cpuset=machine.new_cpuset([0, 1]))
    assert p.migrate_pages(0, [0], new) == ret
    assert placed(p, a, 4) == {end: 4}


def test_a_user_may_not_lead_a_process_out_of_its_cpuset():
    """Targets outside the target's cpuset are -EPERM, unless one has CAP_SYS_NICE."""
    machine = SimulatedMachine(FOUR_NODES)
    p, a = spread(machine, [0] * 4, uid=1000, cpuset=machine.new_cpuset([0, 1]))
    q = machine.spawn(uid=1000)
    assert q.migrate_pages(p.pid, [0], [1, 2]) == -Errno.EPERM
    assert machine.shell.migrate_pages(p.pid, [0], [2]) == 0
    assert placed(p, a, 4) == {2: 4}


# -- order of the checks ----------------------------------------------------------------------


CHECKS = {
    LINUX_6_12: ["old", "new", "pid", "owner", "cpuset", "empty", "memory"],
    LINUX_2_6_18: ["old", "new", "pid", "memory", "owner", "cpuset"],
}
ERRNOS = {
    "old": Errno.EFAULT,
    "new": Errno.EFAULT,
    "pid": Errno.ESRCH,
    "owner": Errno.EPERM,
    "cpuset": Errno.EPERM,
    "empty": Errno.EINVAL,
    "memory": Errno.EINVAL,
}


@pytest.mark.parametrize(
    ("semantics", "wrong"),
    [
        pytest.param(semantics, wrong, id=f"{semantics.name}: {wrong}")
        for semantics, checks in CHECKS.items()
        for wrong in checks
    ],
)
def test_checks_in_order(semantics, wrong):
    """Where all is wrong from one check on, that check decides."""
    checks = CHECKS[semantics]
    bad = set(checks[checks.index(wrong) :])
    machine = SimulatedMachine(FOUR_NODES, semantics=semantics)
    caller = machine.spawn(uid=1000, cpuset=machine.new_cpuset([0, 1]))
    parent = machine.spawn(uid=1001 if "owner" in bad else 1000)
    target = parent.fork()
    target.attach(machine.new_cpuset([0, 2] if "cpuset" in bad else [0, 1, 3]))
    if "memory" in bad:
        target.exit()
    new = [3] if bad & {"cpuset", "empty"} else [1]
    pointers = [
        caller.user_array([1 << node for node in nodes], dtype=np.uint64) for nodes in ([0], new)
    ]
    ret = caller.syscall(
        "migrate_pages",
        999999 if "pid" in bad else target.pid,
        65,
        4096 if "old" in bad else pointers[0].pointer,
        4096 if "new" in bad else pointers[1].pointer,
    )
    assert ret == -ERRNOS[wrong]


@pytest.mark.parametrize("semantics", ALL_SEMANTICS, ids=by_name)
def test_the_security_module_is_asked_last(semantics):
    """security_task_movememory() can refuse; the seed of 2006 did not ask it."""
    machine = SimulatedMachine(FOUR_NODES, semantics=semantics)
    child, _ = spread(machine, [0])
    machine.lsm = lambda _caller, _target: False
    ret = machine.shell.migrate_pages(child.pid, [0], [1])
    assert ret == (-Errno.EPERM if semantics.asks_lsm else 0)


@pytest.mark.parametrize("semantics", OLD_KERNELS, ids=by_name)
def test_2006_has_no_check_for_an_empty_target(semantics):
    """Without a target node pages map to themselves: 0, and nothing moves."""
    machine = SimulatedMachine(FOUR_NODES, semantics=semantics)
    child, a = spread(machine, [0] * 4)
    assert machine.shell.migrate_pages(child.pid, [0], []) == 0
    assert placed(child, a, 4) == {0: 4}


@pytest.mark.parametrize("semantics", ALL_SEMANTICS, ids=by_name)
def test_a_target_that_is_offline(semantics):
    """Today it is dropped if something is left; the kernels of 2006 went through a NULL pointer."""
    machine = SimulatedMachine(FOUR_NODES, semantics=semantics)
    child, a = spread(machine, [0, 1])
    if semantics.crashes:
        with pytest.raises(KernelBugError, match="not online"):
            machine.shell.migrate_pages(child.pid, [0, 1], [2, 9])
        machine.check()
        return
    assert machine.shell.migrate_pages(child.pid, [0, 1], [2, 9]) == 0
    assert child.nodes(a, 2).tolist() == [2, 2]


# -- who moves --------------------------------------------------------------------------------


def test_shared_pages_move_for_the_privileged():
    """CAP_SYS_NICE makes it MOVE_ALL; without it shared pages stay, and are not counted."""
    machine = SimulatedMachine(FOUR_NODES)
    p, a = spread(machine, [0] * 4, uid=1000)
    child = p.fork()
    assert p.migrate_pages(0, [0], [1]) == 0
    assert placed(p, a, 4) == {0: 4}
    p.grant("SYS_NICE")
    assert p.migrate_pages(0, [0], [1]) == 0
    assert placed(child, a, 4) == {1: 4}
    machine.check()


@pytest.mark.parametrize("semantics", ALL_SEMANTICS, ids=by_name)
def test_pages_that_cannot_be_isolated(semantics):
    """Since 6.7 they count among those not moved; before, nobody heard of them."""
    machine = SimulatedMachine(FOUR_NODES, semantics=semantics)
    child, a = spread(machine, [0] * 4)
    machine.memory.drain()
    page = child.frames(a, 1)
    assert machine.memory.isolate(page).all()
    counted = 1 if semantics is LINUX_6_12 else 0
    assert machine.shell.migrate_pages(child.pid, [0], [1]) == counted
    assert child.nodes(a, 4).tolist() == [0, 1, 1, 1]
    machine.memory.putback(page)
    machine.check()


@pytest.mark.parametrize("semantics", ALL_SEMANTICS, ids=by_name)
def test_a_pinned_page_counts_as_not_moved(semantics):
    """The return is the number of folios that stayed, in all kernels."""
    machine = SimulatedMachine(FOUR_NODES, semantics=semantics)
    child, a = spread(machine, [0] * 4)
    page = child.frames(a, 1)
    machine.memory.pin(page)
    assert machine.shell.migrate_pages(child.pid, [0], [1]) == 1
    assert child.nodes(a, 4).tolist() == [0, 1, 1, 1]
    machine.memory.unpin(page)
    machine.check()


# -- where pages go ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "today", "then"),
    [
        pytest.param([0, 1], [2, 3], [2, 3, 2, 3], [2, 3, 2, 3], id="pairwise"),
        pytest.param([0, 1], [1, 2], [1, 2, 2, 3], [1, 2, 2, 3], id="shift: 1 is emptied first"),
        pytest.param([1, 2], [1], [0, 1, 1, 3], [0, 1, 1, 3], id="common node stays"),
        pytest.param([0, 1, 2], [1, 2], [1, 1, 2, 3], [1, 2, 2, 3], id="fewer targets"),
        pytest.param([0, 1], [1, 0], [0, 1, 2, 3], [0, 1, 2, 3], id="the same set"),
        pytest.param([0, 1, 2, 3], [3], [3, 3, 3, 3], [3, 3, 3, 3], id="all to one"),
        pytest.param([0, 1, 2], [1, 2, 0], [0, 1, 2, 3], [0, 1, 2, 3], id="masks have no order"),
    ],
)
@pytest.mark.parametrize("semantics", ALL_SEMANTICS, ids=by_name)
def test_relative_places(semantics, old, new, today, then):
    """One page on each node: where do_migrate_pages takes it.

    With masks of different weight today's kernel leaves alone what is on a common node. That of
    2006 does not: 2 -> 1 goes first there, and with 1 -> 2 the page goes back.
    """
    machine = SimulatedMachine(FOUR_NODES, semantics=semantics)
    child, a = spread(machine, [0, 1, 2, 3])
    assert machine.shell.migrate_pages(child.pid, old, new) == 0
    expected = today if semantics is LINUX_6_12 else then
    assert child.nodes(a, 4).tolist() == expected
    machine.check()


def test_targets_are_emptied_before_they_are_filled():
    """0,1 -> 1,2 works with node 1 full of the process's own pages: they leave first."""
    machine = SimulatedMachine("4 x 1M")
    p = machine.spawn()
    pages = [machine.memory.frames.nodes[node].available_pages for node in (0, 1)]
    a = p.mmap(sum(pages))
    p.write(a, sum(pages))
    assert placed(p, a, sum(pages)) == {0: pages[0], 1: pages[1]}
    assert machine.shell.migrate_pages(p.pid, [0, 1], [1, 2]) == 0
    assert placed(p, a, sum(pages)) == {1: pages[0], 2: pages[1]}
    machine.check()


@pytest.mark.parametrize("semantics", ALL_SEMANTICS, ids=by_name)
def test_a_full_target(semantics):
    """Today -ENOMEM once the node is full; 2006 goes on with the next node of its list."""
    machine = SimulatedMachine("3 x 1M", semantics=semantics)
    hog = machine.spawn()
    free = machine.memory.frames.nodes[1].available_pages
    b = hog.mmap(free - 3)
    assert hog.mbind(b, free - 3, 2, [1]) == 0
    hog.write(b, free - 3)
    child, a = spread(machine, [0] * 8)
    ret = machine.shell.migrate_pages(child.pid, [0], [1])
    if semantics is LINUX_6_12:
        assert (ret, placed(child, a, 8)) == (-Errno.ENOMEM, {1: 3, 0: 5})
    else:
        assert (ret, placed(child, a, 8)) == (0, {1: 3, 2: 5})
    machine.check()


def test_huge_pages_move_whole():
    """A THP and a hugetlb page count as one folio each, and move as one."""
    machine = SimulatedMachine("2 x 32M")
    machine.resize_pool(0, 1)
    p = machine.spawn()
    a, b = p.mmap(512), p.mmap(512, huge=True)
    p.madvise(a, 512, "hugepage")
    for address in (a, b):
        p.write(address, 512)
    thp = p.frames(a, 1)
    machine.memory.pin(thp)
    assert machine.shell.migrate_pages(p.pid, [0], [1]) == 1
    assert (placed(p, a, 512), placed(p, b, 512)) == ({0: 512}, {1: 512})
    machine.memory.unpin(thp)
    assert machine.shell.migrate_pages(p.pid, [0], [1]) == 0
    assert placed(p, a, 512) == {1: 512}
    machine.check()


def test_mlocked_and_device_areas():
    """Today mlocked pages go along; 2006 passes over their areas. Nobody looks at a device."""
    for semantics in ALL_SEMANTICS:
        machine = SimulatedMachine(FOUR_NODES, semantics=semantics)
        p, a = spread(machine, [0] * 4)
        p.mmap(4, device=True)
        p.mlock(a, 2)
        assert machine.shell.migrate_pages(p.pid, [0], [1]) == 0
        locked = 1 if semantics is LINUX_6_12 else 0
        assert p.nodes(a, 4).tolist() == [locked, locked, 1, 1]
        machine.check()


def test_a_process_without_areas():
    """There is nothing to migrate: 0."""
    machine = SimulatedMachine(FOUR_NODES)
    assert machine.shell.migrate_pages(machine.spawn().pid, [0], [1]) == 0


def test_pages_of_64_kib():
    """Masks may have as many bits as a page of 64 KiB; pages move as ever."""
    machine = SimulatedMachine(FOUR_NODES, page_size_bytes=1 << 16)
    child, a = spread(machine, [0] * 4)
    words = np.zeros(8192, dtype=np.uint64)
    old, new = words.copy(), words.copy()
    old[0], new[0] = 1, 1 << 3
    shell = machine.shell
    pointers = shell.user_array(old).pointer, shell.user_array(new).pointer
    assert shell.syscall("migrate_pages", child.pid, (8 << 16) + 1, *pointers) == 0
    assert placed(child, a, 4) == {3: 4}
    machine.check()

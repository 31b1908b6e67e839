"""mbind, set_mempolicy, get_mempolicy, set_mempolicy_home_node: what they answer, in what order."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from movepages.abi import Errno, Mode, ModeFlag, MoveFlag, PolicyQuery
from movepages.kernel.address_space import Prot
from movepages.kernel.machine import SimulatedMachine
from movepages.kernel.semantics import (
    ALL_SEMANTICS,
    DOCUMENTED_2006,
    LINUX_2_6_18,
    LINUX_6_12,
    PATCH_2006,
)
from movepages.nodeset import NodeSet

FOUR_NODES = "2x(1cpu,16M) + 2x(0cpu,16M)"
"""The machine that the real kernel was observed on: nodes 2 and 3 have no CPU."""
MOVE, MOVE_ALL, STRICT = MoveFlag.MOVE, MoveFlag.MOVE_ALL, MoveFlag.STRICT
BIND, PREFERRED, INTERLEAVE = Mode.BIND, Mode.PREFERRED, Mode.INTERLEAVE
OLD_KERNELS = (DOCUMENTED_2006, PATCH_2006, LINUX_2_6_18)
WORD_BITS = 65
"""`maxnode` for one word: the kernel uses one bit less."""


def by_name(value):
    """Name a semantics in the id of a test."""
    return getattr(value, "name", None)


def placed(task, address, pages):
    """Count the pages of a range by node, -1 for those that are not there."""
    return dict(Counter(task.nodes(address, pages).tolist()))


def touched(task, pages, node=0):
    """Map memory, write to it, and have it on a node."""
    address = task.mmap(pages)
    task.write(address, pages)
    task.move_pages(0, task.addresses(address, pages), [node] * pages, MOVE)
    assert placed(task, address, pages) == {node: pages}
    return address


def filled(machine, node):
    """Leave no free page on a node."""
    free = machine.memory.frames.nodes[node].available_pages
    hog = machine.spawn()
    address = hog.mmap(free)
    assert hog.mbind(address, free, BIND, [node]) == 0
    hog.write(address, free)
    assert machine.memory.frames.nodes[node].available_pages == 0


# -- rows of the observed answers: label, where the pages are, the call, its answer, where they end


MBIND_ROWS = [
    ("mbind BIND{1} flags=0 on touched", 0, BIND, [1], 0, 0, 0),
    ("mbind BIND{1} STRICT (pages on wrong node)", 0, BIND, [1], STRICT, -Errno.EIO, 0),
    ("mbind BIND{1} MOVE", 0, BIND, [1], MOVE, 0, 1),
    ("mbind BIND{2,3} MOVE|STRICT", 1, BIND, [2, 3], MOVE | STRICT, 0, 2),
    ("mbind INTERLEAVE{0-3} MOVE", 2, INTERLEAVE, [0, 1, 2, 3], MOVE, 0, 2),
    ("mbind PREFERRED{3} MOVE", 2, PREFERRED, [3], MOVE, 0, 3),
    ("mbind PREFERRED_MANY{1,2} MOVE", 3, Mode.PREFERRED_MANY, [1, 2], MOVE, 0, 2),
    ("mbind WEIGHTED_INTERLEAVE{0-3} MOVE", 2, Mode.WEIGHTED_INTERLEAVE, range(4), MOVE, 0, 2),
    ("mbind LOCAL MOVE", 2, Mode.LOCAL, [], MOVE, 0, 0),
    ("mbind DEFAULT MOVE", 0, Mode.DEFAULT, [], MOVE, 0, 0),
    ("mbind BIND{9}", 0, BIND, [9], 0, -Errno.EINVAL, 0),
    ("mbind BIND{}", 0, BIND, [], 0, -Errno.EINVAL, 0),
    ("mbind BIND{1,9}", 0, BIND, [1, 9], 0, 0, 0),
]


@pytest.mark.parametrize(
    ("start", "mode", "nodes", "flags", "ret", "end"),
    [pytest.param(*row[1:], id=row[0]) for row in MBIND_ROWS],
)
def test_mbind_as_observed(start, mode, nodes, flags, ret, end):
    """Mbind on 32 pages returns what Linux 6.12 returned, and leaves them where it left them."""
    machine = SimulatedMachine(FOUR_NODES)
    p = machine.spawn(cpu=0)
    a = touched(p, 32, start)
    assert p.mbind(a, 32, mode, nodes, flags) == ret
    assert placed(p, a, 32) == {end: 32}
    machine.check()


@pytest.mark.parametrize(
    ("mode", "nodes", "reported"),
    [
        pytest.param(BIND, [1, 9], (BIND, [1]), id="bind:1"),
        pytest.param(BIND, [2, 3], (BIND, [2, 3]), id="bind:2-3"),
        pytest.param(INTERLEAVE, range(4), (INTERLEAVE, range(4)), id="interleave:0-3"),
        pytest.param(PREFERRED, [3], (PREFERRED, [3]), id="prefer:3"),
        pytest.param(PREFERRED, [], (Mode.LOCAL, []), id="local, for PREFERRED without nodes"),
        pytest.param(Mode.LOCAL, [], (Mode.LOCAL, []), id="local"),
        pytest.param(Mode.DEFAULT, [], (Mode.DEFAULT, []), id="default"),
    ],
)
def test_a_policy_reads_back(mode, nodes, reported):
    """get_mempolicy of an address reports what numa_maps showed after mbind."""
    p = SimulatedMachine(FOUR_NODES).spawn()
    a = p.mmap(4)
    assert p.mbind(a, 4, mode, nodes) == 0
    assert p.get_mempolicy(a, PolicyQuery.ADDR) == (0, reported[0], NodeSet(reported[1]))


def test_mbind_unaligned():
    """`mbind unaligned`: a start inside a page is -EINVAL."""
    p = SimulatedMachine(FOUR_NODES).spawn()
    assert p.mbind(p.mmap(4) + 1, 4, BIND, [1]) == -Errno.EINVAL


@pytest.mark.parametrize(
    ("first", "pages"),
    [(4, 5), (0, 5), (0, 9), (4, 1)],
    ids=["head", "tail", "middle", "all of it"],
)
def test_mbind_over_hole(first, pages):
    """`mbind over hole`: -EFAULT, and no policy is set beside the hole either."""
    p = SimulatedMachine(FOUR_NODES).spawn()
    a = p.mmap(9)
    p.munmap(a + 4 * 4096, 1)
    assert p.mbind(a + first * 4096, pages, BIND, [1]) == -Errno.EFAULT
    assert p.get_mempolicy(a, PolicyQuery.ADDR)[1] == Mode.DEFAULT
    assert p.get_mempolicy(a + 5 * 4096, PolicyQuery.ADDR)[1] == Mode.DEFAULT


@pytest.mark.parametrize(
    ("flags", "node"),
    [
        pytest.param(MOVE | STRICT, 0, id="mbind BIND{1} MOVE|STRICT, page shared"),
        pytest.param(MOVE_ALL | STRICT, 1, id="mbind BIND{1} MOVE_ALL|STRICT, shared"),
    ],
)
def test_mbind_on_shared_pages_as_observed(flags, node):
    """A shared page is skipped without a word, and moves with MOVE_ALL: 0 both times."""
    machine = SimulatedMachine(FOUR_NODES)
    p = machine.spawn()
    a = touched(p, 8)
    p.fork()
    assert p.mbind(a, 8, BIND, [1], flags) == 0
    assert placed(p, a, 8) == {node: 8}
    machine.check()


@pytest.mark.parametrize(
    ("flags", "ret"),
    [
        pytest.param(MOVE | STRICT, -Errno.EIO, id="mbind BIND{3} MOVE|STRICT, 3 full"),
        pytest.param(MOVE, 0, id="mbind BIND{3} MOVE, 3 full"),
    ],
)
def test_mbind_to_a_full_node_as_observed(flags, ret):
    """Pages that find no memory stay; only STRICT says so, and the policy is set all the same."""
    machine = SimulatedMachine(FOUR_NODES)
    filled(machine, 3)
    p = machine.spawn()
    a = touched(p, 64)
    assert p.mbind(a, 64, BIND, [3], flags) == ret
    assert placed(p, a, 64) == {0: 64}
    assert p.get_mempolicy(a, PolicyQuery.ADDR) == (0, BIND, NodeSet([3]))
    machine.check()


def test_mbind_fills_a_node_up_to_its_last_page():
    """What fits moves and the rest stays: a full target stops the list, it undoes nothing."""
    machine = SimulatedMachine(FOUR_NODES)
    p = machine.spawn()
    a = touched(p, 64)
    free = machine.memory.frames.nodes[3].available_pages
    b = p.mmap(free - 20)
    assert p.mbind(b, free - 20, BIND, [3]) == 0
    p.write(b, free - 20)
    assert p.mbind(a, 64, BIND, [3], MOVE | STRICT) == -Errno.EIO
    assert p.nodes(a, 64).tolist() == [3] * 20 + [0] * 44


def test_uid_1000_mbind_move_all():
    """`uid 1000: mbind MOVE_ALL`: -EPERM."""
    p = SimulatedMachine(FOUR_NODES).spawn(uid=1000)
    assert p.mbind(p.mmap(1), 1, BIND, [1], MOVE_ALL) == -Errno.EPERM


@pytest.mark.parametrize(
    ("nodes", "ret"),
    [
        pytest.param([2], -Errno.EINVAL, id="cpuset 0-1: mbind BIND{2}"),
        pytest.param([1, 2], 0, id="cpuset 0-1: mbind BIND{1,2} MOVE"),
    ],
)
def test_mbind_in_a_cpuset_as_observed(nodes, ret):
    """Nodes outside the cpuset are cut away; with none left it is -EINVAL."""
    machine = SimulatedMachine(FOUR_NODES)
    p = machine.spawn(cpuset=machine.new_cpuset([0, 1]))
    a = touched(p, 8)
    assert p.mbind(a, 8, BIND, nodes, MOVE) == ret
    assert placed(p, a, 8) == {1 if ret == 0 else 0: 8}


def test_set_mempolicy_in_a_cpuset_as_observed():
    """`cpuset 0-1: set_mempolicy BIND{2}`: -EINVAL; a mask that is partly allowed is cut."""
    machine = SimulatedMachine(FOUR_NODES)
    p = machine.spawn(cpuset=machine.new_cpuset([0, 1]))
    assert p.set_mempolicy(BIND, [2]) == -Errno.EINVAL
    assert p.set_mempolicy(BIND, [1, 2]) == 0
    assert p.get_mempolicy() == (0, BIND, NodeSet([1]))


def test_get_mempolicy_default_and_home_node_as_observed():
    """`get_mempolicy default / home_node`: 0; home 1 of BIND{1,2} is 0, home 9 is -EINVAL."""
    p = SimulatedMachine(FOUR_NODES).spawn()
    assert p.get_mempolicy() == (0, Mode.DEFAULT, NodeSet())
    a = p.mmap(4)
    assert p.mbind(a, 4, BIND, [1, 2]) == 0
    assert p.set_mempolicy_home_node(a, 4, 1) == 0
    assert p.set_mempolicy_home_node(a, 4, 9) == -Errno.EINVAL


# -- mbind: order of the checks ---------------------------------------------------------------


def raw_mbind(p, wrong):
    """Make a call in which all that comes from `wrong` on is wrong."""
    names = ["mode", "mask", "flags", "nice", "start", "end", "nodes"]
    bad = set(names[names.index(wrong) :]) if wrong else set()
    a = p.mmap(2)
    mask = p.user_array([1 << 1 if "nodes" not in bad else 0], dtype=np.uint64)
    flags = (16 if "flags" in bad else 0) | (int(MOVE_ALL) if "nice" in bad else 0)
    return p.syscall(
        "mbind",
        a + ("start" in bad),
        2**64 - 8192 if "end" in bad else 8192,
        99 if "mode" in bad else int(BIND),
        4096 if "mask" in bad else mask.pointer,
        WORD_BITS,
        flags,
    )


@pytest.mark.parametrize(
    ("wrong", "ret"),
    [
        ("mode", -Errno.EINVAL),
        ("mask", -Errno.EFAULT),
        ("flags", -Errno.EINVAL),
        ("nice", -Errno.EPERM),
        ("start", -Errno.EINVAL),
        ("end", -Errno.EINVAL),
        ("nodes", -Errno.EINVAL),
        ("", 0),
    ],
)
def test_mbind_checks_in_order(wrong, ret):
    """Where all arguments from one on are wrong, it is that one which decides."""
    p = SimulatedMachine(FOUR_NODES).spawn(uid=1000)
    assert raw_mbind(p, wrong) == ret


@pytest.mark.parametrize("semantics", OLD_KERNELS, ids=by_name)
def test_2006_reads_the_mask_before_the_mode(semantics):
    """sys_mbind of 2006 copies the mask first: a bad mode with a bad mask is -EFAULT."""
    p = SimulatedMachine(FOUR_NODES, semantics=semantics).spawn(uid=1000)
    assert raw_mbind(p, "mode") == -Errno.EFAULT


def test_mbind_of_nothing_is_done():
    """Length 0 returns 0 before the policy is looked at, even one that makes no sense."""
    p = SimulatedMachine(FOUR_NODES).spawn()
    assert p.mbind(p.mmap(1), 0, BIND, []) == 0


@pytest.mark.parametrize(
    ("flags", "ret"),
    [(7, 0), (8, -Errno.EINVAL), (16, -Errno.EINVAL)],
    ids=["STRICT|MOVE|MOVE_ALL", "LAZY", "the next"],
)
def test_flags_of_mbind(flags, ret):
    """The three flags are allowed together; LAZY and what comes after never is."""
    p = SimulatedMachine(FOUR_NODES).spawn()
    assert p.mbind(p.mmap(1), 1, BIND, [1], flags) == ret


def test_default_ignores_strict_and_inner_holes():
    """MPOL_DEFAULT passes over holes inside the range, but not over a range that is all hole."""
    p = SimulatedMachine(FOUR_NODES).spawn()
    a = touched(p, 9, 1)
    p.munmap(a + 4 * 4096, 1)
    assert p.mbind(a, 4, BIND, [0, 1]) == 0
    assert p.mbind(a, 9, Mode.DEFAULT, [], STRICT) == 0
    assert p.get_mempolicy(a, PolicyQuery.ADDR)[1] == Mode.DEFAULT
    assert p.mbind(a + 4 * 4096, 1, Mode.DEFAULT) == -Errno.EFAULT


def test_mbind_cuts_areas_at_the_ends_of_its_range():
    """A policy holds from the first to the last page of its range, not before and not after."""
    p = SimulatedMachine(FOUR_NODES).spawn()
    a = p.mmap(10)
    p.write(a, 10)
    assert p.mbind(a + 3 * 4096, 4, BIND, [1], MOVE) == 0
    modes = [p.get_mempolicy(a + page * 4096, PolicyQuery.ADDR)[1] for page in range(10)]
    assert modes == [0] * 3 + [BIND] * 4 + [0] * 3
    assert p.nodes(a, 10).tolist() == [0] * 3 + [1] * 4 + [0] * 3


def test_strict_counts_a_page_that_cannot_be_isolated():
    """MOVE|STRICT is -EIO for a page that is off the LRU; without STRICT nobody is told."""
    machine = SimulatedMachine(FOUR_NODES)
    p = machine.spawn()
    a = touched(p, 4)
    page = p.frames(a, 1)
    assert machine.memory.isolate(page).all()
    assert p.mbind(a, 4, BIND, [1], MOVE | STRICT) == -Errno.EIO
    assert p.nodes(a, 4).tolist() == [0, 1, 1, 1]
    assert p.mbind(a, 4, BIND, [2], MOVE) == 0
    machine.memory.putback(page)
    machine.check()


def test_mbind_moves_a_thp_whole():
    """A THP inside the range moves as one, and so does one across its end, mapped by pages now."""
    machine = SimulatedMachine("2 x 32M")
    p = machine.spawn()
    a = p.mmap(1024)
    p.madvise(a, 1024, "hugepage")
    p.write(a, 1024)
    assert p.mbind(a, 768, BIND, [1], MOVE | STRICT) == 0
    assert p.nodes(a, 1024).tolist() == [1] * 1024
    frames = machine.memory.frames
    assert frames.mapcount[p.frames(a, 1024)[[0, 512]]].tolist() == [1, 512]
    machine.check()


def test_a_cut_between_two_thps_splits_neither():
    """An end of a range that falls between THPs leaves them whole."""
    machine = SimulatedMachine("2 x 32M")
    p = machine.spawn()
    a = p.mmap(1024)
    p.madvise(a, 1024, "hugepage")
    p.write(a, 1024)
    assert p.mbind(a, 512, BIND, [1]) == 0
    assert machine.memory.frames.order[p.frames(a, 1024)[[0, 512]]].tolist() == [9, 9]


def test_a_hugetlb_page_cannot_have_two_policies():
    """A range that ends inside a hugetlb page is -EINVAL."""
    machine = SimulatedMachine("2 x 32M")
    machine.resize_pool(0, 2)
    p = machine.spawn()
    a = p.mmap(1024, huge=True)
    p.write(a, 1024)
    assert p.mbind(a, 100, BIND, [1]) == -Errno.EINVAL
    assert p.mbind(a, 512, BIND, [1], MOVE | STRICT) == 0
    assert p.nodes(a, 1024).tolist() == [1] * 512 + [0] * 512
    machine.check()


# -- modes and flags --------------------------------------------------------------------------


@pytest.mark.parametrize("semantics", OLD_KERNELS, ids=by_name)
@pytest.mark.parametrize(
    "mode",
    [
        pytest.param(Mode.LOCAL, id="LOCAL"),
        pytest.param(Mode.PREFERRED_MANY, id="PREFERRED_MANY"),
        pytest.param(Mode.WEIGHTED_INTERLEAVE, id="WEIGHTED_INTERLEAVE"),
        pytest.param(BIND | ModeFlag.STATIC_NODES, id="STATIC_NODES"),
        pytest.param(BIND | ModeFlag.RELATIVE_NODES, id="RELATIVE_NODES"),
    ],
)
def test_modes_that_2006_does_not_have(semantics, mode):
    """What came later is -EINVAL, to mbind and to set_mempolicy."""
    p = SimulatedMachine(FOUR_NODES, semantics=semantics).spawn()
    nodes = [] if mode is Mode.LOCAL else [1]
    assert p.set_mempolicy(mode, nodes) == -Errno.EINVAL
    assert p.mbind(p.mmap(1), 1, mode, nodes) == -Errno.EINVAL


@pytest.mark.parametrize(
    ("mode", "nodes", "ret"),
    [
        (6, [1], 0),
        (7, [1], -Errno.EINVAL),
        (-1, [1], -Errno.EINVAL),
        (BIND | ModeFlag.STATIC_NODES | ModeFlag.RELATIVE_NODES, [1], -Errno.EINVAL),
        (BIND | ModeFlag.NUMA_BALANCING, [1], 0),
        (Mode.PREFERRED_MANY | ModeFlag.NUMA_BALANCING, [1], 0),
        (INTERLEAVE | ModeFlag.NUMA_BALANCING, [1], -Errno.EINVAL),
        (Mode.LOCAL, [1], -Errno.EINVAL),
        (Mode.LOCAL | ModeFlag.STATIC_NODES, [], -Errno.EINVAL),
        (PREFERRED | ModeFlag.STATIC_NODES, [], -Errno.EINVAL),
        (Mode.DEFAULT, [1], -Errno.EINVAL),
        (Mode.DEFAULT | ModeFlag.STATIC_NODES, [], 0),
        (INTERLEAVE, [], -Errno.EINVAL),
    ],
)
def test_modes_flags_and_nodes_that_fit_together(mode, nodes, ret):
    """Each mode wants nodes or wants none, and takes the mode flags that it can use."""
    assert SimulatedMachine(FOUR_NODES).spawn().set_mempolicy(mode, nodes) == ret


def test_a_static_mask_is_reported_as_it_was_given():
    """With STATIC_NODES get_mempolicy reports the user's own nodes, allowed or not."""
    machine = SimulatedMachine(FOUR_NODES)
    p = machine.spawn(cpuset=machine.new_cpuset([0, 1]))
    mode = BIND | ModeFlag.STATIC_NODES
    assert p.set_mempolicy(mode, [1, 3]) == 0
    assert p.get_mempolicy() == (0, mode, NodeSet([1, 3]))
    a = p.mmap(2)
    p.write(a, 2)
    assert placed(p, a, 2) == {1: 2}


def test_a_mask_with_any_flag_is_reported_as_it_was_given():
    """NUMA_BALANCING makes get_mempolicy report the user's own nodes too (MPOL_MODE_FLAGS)."""
    p = SimulatedMachine(FOUR_NODES).spawn()
    mode = BIND | ModeFlag.NUMA_BALANCING
    assert p.set_mempolicy(mode, [1, 63]) == 0
    assert p.get_mempolicy() == (0, mode, NodeSet([1, 63]))


def test_relative_nodes_count_from_the_cpuset():
    """With RELATIVE_NODES node 1 is the second that the cpuset allows, counted round."""
    machine = SimulatedMachine(FOUR_NODES)
    p = machine.spawn(cpuset=machine.new_cpuset([0, 2, 3]))
    assert p.set_mempolicy(BIND | ModeFlag.RELATIVE_NODES, [4]) == 0
    a = p.mmap(2)
    p.write(a, 2)
    assert placed(p, a, 2) == {2: 2}


@pytest.mark.parametrize("semantics", OLD_KERNELS, ids=by_name)
def test_2006_keeps_preferred_without_nodes(semantics):
    """Before there was LOCAL, PREFERRED without nodes was reported as that, and local it is."""
    p = SimulatedMachine(FOUR_NODES, semantics=semantics).spawn(cpu=1)
    assert p.set_mempolicy(PREFERRED) == 0
    assert p.get_mempolicy() == (0, PREFERRED, NodeSet())
    a = p.mmap(2)
    p.write(a, 2)
    assert placed(p, a, 2) == {1: 2}


@pytest.mark.parametrize("semantics", OLD_KERNELS, ids=by_name)
def test_2006_refuses_a_task_policy_that_is_partly_outside_the_cpuset(semantics):
    """contextualize_policy() wants all nodes inside; mbind cuts them, to none at worst."""
    machine = SimulatedMachine(FOUR_NODES, semantics=semantics)
    p = machine.spawn(cpuset=machine.new_cpuset([0, 1]))
    assert p.set_mempolicy(BIND, [1, 2]) == -Errno.EINVAL
    assert p.mbind(p.mmap(1), 1, BIND, [1, 2]) == 0
    assert p.mbind(p.mmap(1), 1, PREFERRED, [2]) == 0


@pytest.mark.parametrize("semantics", OLD_KERNELS, ids=by_name)
def test_2006_lets_a_range_begin_in_a_hole(semantics):
    """check_range() starts at the next area; a hole between areas is -EFAULT all the same."""
    p = SimulatedMachine(FOUR_NODES, semantics=semantics).spawn()
    a = p.mmap(10)
    p.munmap(a, 2)
    p.munmap(a + 5 * 4096, 1)
    assert p.mbind(a, 5, BIND, [1]) == 0
    assert p.get_mempolicy(a + 2 * 4096, PolicyQuery.ADDR)[1] == BIND
    assert p.mbind(a, 8, BIND, [1]) == -Errno.EFAULT
    assert p.mbind(a, 6, BIND, [1]) == 0, "a hole at the end, with an area behind it"
    assert p.mbind(a + 8 * 4096, 3, BIND, [1]) == -Errno.EFAULT, "beyond the last area"


@pytest.mark.parametrize("semantics", ALL_SEMANTICS, ids=by_name)
def test_mbind_passes_over_mlocked_areas_in_2006(semantics):
    """VM_LOCKED areas were not migratable then; today they are."""
    p = SimulatedMachine(FOUR_NODES, semantics=semantics).spawn()
    a = touched(p, 4)
    p.mlock(a, 4)
    assert p.mbind(a, 4, BIND, [1], MOVE) == 0
    assert placed(p, a, 4) == {1 if semantics is LINUX_6_12 else 0: 4}


@pytest.mark.parametrize("semantics", ALL_SEMANTICS, ids=by_name)
def test_strict_moves_work_in_all_kernels(semantics):
    """MOVE|STRICT moves private pages and returns 0, then as today."""
    machine = SimulatedMachine(FOUR_NODES, semantics=semantics)
    p = machine.spawn()
    a = touched(p, 40)
    assert p.mbind(a, 40, BIND, [1], STRICT) == -Errno.EIO
    assert p.mbind(a, 40, BIND, [1], MOVE | STRICT) == 0
    assert placed(p, a, 40) == {1: 40}
    machine.check()


# -- get_mempolicy ----------------------------------------------------------------------------


def test_get_mempolicy_of_a_thread():
    """Without flags it is the policy of the thread, which an area's does not touch."""
    p = SimulatedMachine(FOUR_NODES).spawn()
    assert p.mbind(p.mmap(1), 1, BIND, [3]) == 0
    assert p.set_mempolicy(INTERLEAVE, [0, 2]) == 0
    assert p.get_mempolicy() == (0, INTERLEAVE, NodeSet([0, 2]))
    assert p.thread().get_mempolicy()[1] == INTERLEAVE
    assert p.fork().get_mempolicy()[1] == INTERLEAVE


def test_mems_allowed_is_asked_alone():
    """F_MEMS_ALLOWED reports the cpuset; with another flag it is -EINVAL; 2006 does not know it."""
    machine = SimulatedMachine(FOUR_NODES)
    p = machine.spawn(cpuset=machine.new_cpuset([1, 3]))
    assert p.get_mempolicy(0, PolicyQuery.MEMS_ALLOWED) == (0, 0, NodeSet([1, 3]))
    both = PolicyQuery.MEMS_ALLOWED | PolicyQuery.ADDR
    assert p.get_mempolicy(p.mmap(1), both)[0] == -Errno.EINVAL
    old = SimulatedMachine(FOUR_NODES, semantics=LINUX_2_6_18).spawn()
    assert old.get_mempolicy(0, PolicyQuery.MEMS_ALLOWED)[0] == -Errno.EINVAL


def test_node_of_an_address_faults_the_page_in():
    """F_NODE|F_ADDR on an untouched page makes it the zero page, and reports where that is."""
    machine = SimulatedMachine(FOUR_NODES)
    p = machine.spawn(cpu=1)
    a = p.mmap(2)
    ask = PolicyQuery.NODE | PolicyQuery.ADDR
    assert p.get_mempolicy(a, ask)[:2] == (0, 0)
    assert p.move_pages(0, [a, a + 4096], None, 0)[1].tolist() == [-Errno.EFAULT, -Errno.ENOENT]
    p.write(a, 1)
    assert p.get_mempolicy(a, ask)[:2] == (0, 1)
    machine.check()


def test_node_of_an_address_that_cannot_be_read():
    """F_NODE|F_ADDR is -EFAULT on a hole, on PROT_NONE and on a device."""
    p = SimulatedMachine(FOUR_NODES).spawn()
    a = p.mmap(1)
    p.munmap(a, 1)
    ask = PolicyQuery.NODE | PolicyQuery.ADDR
    addresses = [a, p.mmap(1, prot=Prot.NONE), p.mmap(1, device=True)]
    assert [p.get_mempolicy(address, ask)[0] for address in addresses] == [-Errno.EFAULT] * 3


def test_node_alone_is_for_interleaving():
    """F_NODE names the next node of an interleave policy; any other policy is -EINVAL."""
    machine = SimulatedMachine(FOUR_NODES)
    p = machine.spawn()
    assert p.get_mempolicy(0, PolicyQuery.NODE)[0] == -Errno.EINVAL
    assert p.set_mempolicy(INTERLEAVE, [1, 3]) == 0
    assert p.get_mempolicy(0, PolicyQuery.NODE)[:2] == (0, 1)
    file = machine.file("/data", 3)
    p.read(p.mmap(3, file=file), 3)
    assert p.get_mempolicy(0, PolicyQuery.NODE)[:2] == (0, 3)


@pytest.mark.parametrize(
    ("address", "flags", "ret"),
    [
        (0, 8, -Errno.EINVAL),
        (1 << 30, 0, -Errno.EINVAL),
        (1 << 30, PolicyQuery.ADDR, -Errno.EFAULT),
        (0, PolicyQuery.ADDR, -Errno.EFAULT),
    ],
    ids=["unknown flag", "address without F_ADDR", "hole", "NULL"],
)
def test_get_mempolicy_refuses(address, flags, ret):
    """Flags that are unknown, an address nobody asked about, and one that is not mapped."""
    assert SimulatedMachine(FOUR_NODES).spawn().get_mempolicy(address, flags)[0] == ret


@pytest.mark.parametrize(
    ("semantics", "least"), [(LINUX_6_12, 4), (LINUX_2_6_18, 1024)], ids=["6.12", "2.6.18"]
)
def test_get_mempolicy_wants_room(semantics, least):
    """The mask must have room for all nodes: those of the machine today, MAX_NUMNODES in 2006."""
    p = SimulatedMachine(FOUR_NODES, semantics=semantics).spawn()
    mask = p.user_array(np.full(16, 7, dtype=np.uint64))
    assert p.syscall("get_mempolicy", 0, mask.pointer, least - 1, 0, 0) == -Errno.EINVAL
    assert p.syscall("get_mempolicy", 0, mask.pointer, least, 0, 0) == 0
    assert mask.data[0] == 0
    assert mask.data[15] == (7 if least == 4 else 0)


def test_get_mempolicy_clears_the_words_beyond():
    """Words beyond the machine's nodes are written as zeroes; more than a page is -EINVAL."""
    p = SimulatedMachine(FOUR_NODES).spawn()
    mask = p.user_array(np.full(600, 7, dtype=np.uint64))
    assert p.syscall("get_mempolicy", 0, mask.pointer, 4096 * 8 + 1, 0, 0) == 0
    assert mask.data[:513].tolist() == [0] * 512 + [7]
    assert p.syscall("get_mempolicy", 0, mask.pointer, 4096 * 8 + 2, 0, 0) == -Errno.EINVAL


def test_get_mempolicy_writes_the_mode_before_the_mask():
    """A mask that cannot be written is -EFAULT, and the mode has been stored by then."""
    p = SimulatedMachine(FOUR_NODES).spawn()
    assert p.set_mempolicy(BIND, [1]) == 0
    mode = p.user_array([-1], dtype=np.int32)
    mask = p.user_array([0], dtype=np.uint64, writable=0)
    assert p.syscall("get_mempolicy", mode.pointer, mask.pointer, 64, 0, 0) == -Errno.EFAULT
    assert mode.data[0] == BIND
    assert p.syscall("get_mempolicy", 4096, mask.pointer, 64, 0, 0) == -Errno.EFAULT
    assert p.syscall("get_mempolicy", 0, 0, 0, 0, 0) == 0


def test_get_mempolicy_clears_what_lies_beyond_before_it_writes_the_mask():
    """Where the words beyond the machine's nodes cannot be cleared, none is written."""
    p = SimulatedMachine(FOUR_NODES).spawn()
    assert p.set_mempolicy(BIND, [1]) == 0
    mask = p.user_array([7, 7, 7], dtype=np.uint64, writable=2)
    assert p.syscall("get_mempolicy", 0, mask.pointer, 64 * 3 + 1, 0, 0) == -Errno.EFAULT
    assert mask.data[0] == 7
    assert p.syscall("get_mempolicy", 0, mask.pointer, 64 * 2 + 1, 0, 0) == 0
    assert mask.data.tolist() == [2, 0, 7]


def test_a_maxnode_that_overflows_writes_no_mask():
    """ULONG_MAX bits, rounded up to words, are none: the call succeeds and writes no node."""
    p = SimulatedMachine(FOUR_NODES).spawn()
    mask = p.user_array([7], dtype=np.uint64)
    assert p.syscall("get_mempolicy", 0, mask.pointer, (1 << 64) - 1, 0, 0) == 0
    assert mask.data[0] == 7


# -- masks ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "maxnode", "ret"),
    [
        pytest.param([0b10], 2, -Errno.EINVAL, id="maxnode 2 uses one bit: node 1 is not seen"),
        pytest.param([0b10], 3, 0, id="maxnode 3 uses two bits"),
        pytest.param([0b10], 1, -Errno.EINVAL, id="maxnode 1 means empty"),
        pytest.param([0b10], 0, -Errno.EINVAL, id="maxnode 0 is too much"),
        pytest.param([2, *[0] * 511], 4096 * 8 + 1, 0, id="a page of bits"),
        pytest.param([2, *[0] * 512], 4096 * 8 + 2, -Errno.EINVAL, id="a bit more than a page"),
        pytest.param([2, *[0] * 15, 0], 1024 + 65, 0, id="zeroes beyond MAX_NUMNODES"),
        pytest.param([2, *[0] * 15, 1], 1024 + 65, -Errno.EINVAL, id="node 1024"),
        pytest.param([2, *[0] * 15, 2], 1024 + 2, -Errno.EINVAL, id="a word beyond counts whole"),
        pytest.param([2, *[0] * 14], 1025, -Errno.EFAULT, id="a mask that ends early"),
    ],
)
def test_masks(words, maxnode, ret):
    """The kernel uses maxnode - 1 bits, a page of them at most, and none beyond MAX_NUMNODES."""
    p = SimulatedMachine(FOUR_NODES).spawn()
    mask = p.user_array(words, dtype=np.uint64)
    assert p.syscall("set_mempolicy", int(BIND), mask.pointer, maxnode) == ret


def test_a_null_mask_is_empty():
    """NULL is no node, whatever maxnode says: DEFAULT takes it, BIND does not."""
    p = SimulatedMachine(FOUR_NODES).spawn()
    assert p.syscall("set_mempolicy", int(Mode.DEFAULT), 0, 0) == 0
    assert p.syscall("set_mempolicy", int(BIND), 0, 100000) == -Errno.EINVAL


# -- set_mempolicy_home_node ------------------------------------------------------------------


def test_home_node_says_where_bind_begins():
    """BIND takes the node of its mask that is nearest to its home, which may lie outside."""
    machine = SimulatedMachine(FOUR_NODES)
    p = machine.spawn(cpu=0)
    zonelist = machine.memory.frames.zonelists
    for home in range(4):
        a = p.mmap(2)
        assert p.mbind(a, 2, BIND, [1, 2]) == 0
        assert p.set_mempolicy_home_node(a, 2, home) == 0
        p.write(a, 2)
        nearest = next(node for node in zonelist[home] if node in {1, 2})
        assert placed(p, a, 2) == {nearest: 2}


@pytest.mark.parametrize(
    ("mode", "ret"),
    [
        (Mode.PREFERRED_MANY, 0),
        (BIND, 0),
        (PREFERRED, -Errno.EOPNOTSUPP),
        (INTERLEAVE, -Errno.EOPNOTSUPP),
        (Mode.DEFAULT, -Errno.ENOENT),
    ],
)
def test_policies_that_can_have_a_home(mode, ret):
    """Only BIND and PREFERRED_MANY; any other is -EOPNOTSUPP, and none at all -ENOENT."""
    p = SimulatedMachine(FOUR_NODES).spawn()
    a = p.mmap(2)
    assert p.mbind(a, 2, mode, [] if mode is Mode.DEFAULT else [1]) == 0
    assert p.set_mempolicy_home_node(a, 2, 2) == ret


def test_home_node_refuses_in_order():
    """Unaligned, flags and an offline node are -EINVAL; no pages are 0; a hole is -ENOENT."""
    p = SimulatedMachine(FOUR_NODES).spawn()
    a = p.mmap(2)
    assert p.mbind(a, 2, BIND, [1]) == 0
    assert p.set_mempolicy_home_node(a + 1, 0, 1) == -Errno.EINVAL
    assert p.set_mempolicy_home_node(a, 0, 1, 1) == -Errno.EINVAL
    assert p.set_mempolicy_home_node(a, 0, -1) == -Errno.EINVAL
    assert p.set_mempolicy_home_node(a, 0, 1) == 0
    assert p.set_mempolicy_home_node(a + 2 * 4096, 1, 1) == -Errno.ENOENT


@pytest.mark.parametrize("semantics", OLD_KERNELS, ids=by_name)
def test_2006_has_no_home_node(semantics):
    """The call came with 5.17: -ENOSYS before."""
    p = SimulatedMachine(FOUR_NODES, semantics=semantics).spawn()
    assert p.set_mempolicy_home_node(p.mmap(1), 1, 0) == -Errno.ENOSYS


def test_mbind_on_pages_of_64_kib():
    """Ranges are whole pages of whatever size: 4 KiB into a 64 KiB page is unaligned."""
    machine = SimulatedMachine(FOUR_NODES, page_size_bytes=1 << 16)
    p = machine.spawn()
    a = p.mmap(8)
    p.write(a, 8)
    assert p.mbind(a + 4096, 1, BIND, [1]) == -Errno.EINVAL
    mask = p.user_array([2], dtype=np.uint64)
    bind = ("mbind", a, 4097, int(BIND), mask.pointer, WORD_BITS, int(MOVE | STRICT))
    assert p.syscall(*bind) == 0
    assert p.nodes(a, 8).tolist() == [1] + [0] * 7
    assert p.mbind(a, 8, BIND, [3], MOVE | STRICT) == 0
    assert placed(p, a, 8) == {3: 8}
    machine.check()


def test_an_allocation_that_fails_on_purpose_hits_the_right_page():
    """The third allocation of a move fails: two pages have moved, and the list ends there."""
    machine = SimulatedMachine(FOUR_NODES)
    p = machine.spawn()
    a = touched(p, 6)
    answers = iter([False, False, True])
    machine.memory.refuses_allocation = lambda: next(answers)
    assert p.mbind(a, 6, BIND, [1], MOVE | STRICT) == -Errno.EIO
    machine.memory.refuses_allocation = None
    assert p.nodes(a, 6).tolist() == [1, 1, 0, 0, 0, 0]
    machine.check()


@pytest.mark.parametrize("semantics", OLD_KERNELS, ids=by_name)
def test_2006_never_looks_at_hugetlb_areas(semantics):
    """check_range() skipped them: nothing moves, and STRICT sees nothing misplaced."""
    machine = SimulatedMachine("2 x 32M", semantics=semantics)
    machine.resize_pool(0, 1)
    p = machine.spawn()
    a = p.mmap(512, huge=True)
    p.write(a, 512)
    for flags in (STRICT, MOVE | STRICT):
        assert p.mbind(a, 512, BIND, [1], flags) == 0
    assert placed(p, a, 512) == {0: 512}


def test_a_home_node_inside_a_hugetlb_page():
    """As with mbind, a range may not end inside a hugetlb page: -EINVAL."""
    machine = SimulatedMachine("2 x 32M")
    machine.resize_pool(0, 1)
    p = machine.spawn()
    a = p.mmap(512, huge=True)
    assert p.mbind(a, 512, BIND, [0]) == 0
    assert p.set_mempolicy_home_node(a, 100, 1) == -Errno.EINVAL


def test_asking_for_a_node_when_memory_is_out():
    """F_NODE|F_ADDR on a file page that has to be read in is -ENOMEM if there is no room."""
    machine = SimulatedMachine("1 x 1M")
    p = machine.spawn()
    b = p.mmap(1, file=machine.file("/data", 1))
    free = machine.memory.frames.nodes[0].available_pages
    p.write(p.mmap(free), free)
    ask = PolicyQuery.NODE | PolicyQuery.ADDR
    assert p.get_mempolicy(b, ask)[0] == -Errno.ENOMEM

"""Memory policies: where touched pages come from, and how policies follow a cpuset."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from movepages.abi import Mode, ModeFlag, MoveFlag
from movepages.kernel.faults import OutOfMemoryError
from movepages.kernel.machine import SimulatedMachine
from movepages.kernel.mappings import Backing
from movepages.kernel.mempolicy import MemPolicy, SharedPolicies, node_remap, rebind
from movepages.kernel.semantics import ALL_SEMANTICS, LINUX_2_6_18, LINUX_6_12, PATCH_2006
from movepages.nodeset import NodeSet
from movepages.topology import parse_topology

FOUR_NODES = "2x(1cpu,16M) + 2x(0cpu,16M)"
BIND, PREFERRED, INTERLEAVE = Mode.BIND, Mode.PREFERRED, Mode.INTERLEAVE
PAGE = 4096


def by_name(value):
    """Name a semantics in the id of a test."""
    return getattr(value, "name", None)


def touch(task, pages, mode=Mode.DEFAULT, nodes=(), **kind):
    """Map memory with a policy, write to it, and return the node of each page and the address."""
    address = task.mmap(pages, **kind)
    assert task.mbind(address, pages, mode, nodes) == 0
    task.write(address, pages)
    return task.nodes(address, pages).tolist(), address


def leave_free(machine, node, pages):
    """Leave so many free pages on a node."""
    count = machine.memory.frames.nodes[node].available_pages - pages
    hog = machine.spawn()
    address = hog.mmap(count)
    assert hog.mbind(address, count, BIND, [node]) == 0
    hog.write(address, count)
    assert machine.memory.frames.nodes[node].available_pages == pages


@pytest.mark.parametrize("semantics", ALL_SEMANTICS, ids=by_name)
@pytest.mark.parametrize(
    ("mode", "nodes", "where"),
    [
        pytest.param(Mode.DEFAULT, [], [1] * 6, id="default: the CPU's node"),
        pytest.param(PREFERRED, [3], [3] * 6, id="preferred"),
        pytest.param(PREFERRED, [3, 2], [2] * 6, id="preferred takes the first of several"),
        pytest.param(BIND, [0], [0] * 6, id="bind"),
    ],
)
def test_pages_come_from_the_policys_node(semantics, mode, nodes, where):
    """The basic modes place pages alike in all kernels."""
    machine = SimulatedMachine(FOUR_NODES, semantics=semantics)
    assert touch(machine.spawn(cpu=1), 6, mode, nodes)[0] == where
    machine.check()


def test_local_is_the_node_of_the_cpu():
    """LOCAL of an area goes before the policy of the task."""
    p = SimulatedMachine(FOUR_NODES).spawn(cpu=1)
    assert p.set_mempolicy(BIND, [3]) == 0
    assert touch(p, 2)[0] == [3, 3]
    assert touch(p, 2, Mode.LOCAL)[0] == [1, 1]


def test_bind_takes_the_nearest_and_2006_the_lowest():
    """BIND{1,2} from node 0 begins at 2, which has no CPU; bind_zonelist() of 2006 began at 1."""
    for semantics, node in ((LINUX_6_12, 2), (LINUX_2_6_18, 1), (PATCH_2006, 1)):
        p = SimulatedMachine(FOUR_NODES, semantics=semantics).spawn(cpu=0)
        assert touch(p, 2, BIND, [1, 2])[0] == [node, node]


@pytest.mark.parametrize("semantics", ALL_SEMANTICS, ids=by_name)
def test_interleave_goes_by_page_number(semantics):
    """A page's node follows from its place in the mapping, in whatever order pages are touched."""
    machine = SimulatedMachine(FOUR_NODES, semantics=semantics)
    p = machine.spawn()
    a = p.mmap(12)
    assert p.mbind(a, 12, INTERLEAVE, [0, 1, 3]) == 0
    for page in (7, 2, 11, 0, 5):
        p.write(a + page * PAGE)
    p.write(a, 12)
    first = a // PAGE
    assert p.nodes(a, 12).tolist() == [[0, 1, 3][(first + page) % 3] for page in range(12)]
    machine.check()


def test_interleave_survives_a_split():
    """The upper part of an area that was cut keeps the place of its pages."""
    p = SimulatedMachine(FOUR_NODES).spawn()
    a = p.mmap(9)
    whole = touch(p, 9, INTERLEAVE, [0, 1, 2], at=a + 9 * 64 * PAGE)[0]
    b = a + 9 * 128 * PAGE
    p.mmap(9, at=b)
    assert p.mbind(b, 9, INTERLEAVE, [0, 1, 2]) == 0
    p.munmap(b + 4 * PAGE, 1)
    p.write(b, 4)
    p.write(b + 5 * PAGE, 4)
    assert p.nodes(b, 9).tolist() == [*whole[:4], -1, *whole[5:]]


def test_interleave_of_huge_pages_goes_by_huge_page():
    """THPs and hugetlb pages take turns one by one."""
    machine = SimulatedMachine("2 x 64M")
    p = machine.spawn()
    a = p.mmap(2048)
    assert p.mbind(a, 2048, INTERLEAVE, [0, 1]) == 0
    p.madvise(a, 2048, "hugepage")
    p.write(a, 2048)
    thps = p.nodes(a, 2048)[::512].tolist()
    for node in (0, 1):
        assert machine.resize_pool(node, 2) == 2
    hugetlb = touch(p, 2048, INTERLEAVE, [0, 1], huge=True)[0][::512]
    turns = [[0, 1, 0, 1], [1, 0, 1, 0]]
    assert thps in turns
    assert hugetlb in turns
    machine.check()


def test_weighted_interleave_gives_each_node_its_weight():
    """With weights 3, 1 and 2 six pages in a row are shared out so, node by node."""
    machine = SimulatedMachine(FOUR_NODES)
    machine.interleave_weights |= {0: 3, 1: 1, 2: 2}
    p = machine.spawn()
    found, a = touch(p, 12, Mode.WEIGHTED_INTERLEAVE, [0, 1, 2])
    first = a // PAGE
    assert found == [[0, 0, 0, 1, 2, 2][(first + page) % 6] for page in range(12)]


def test_weights_come_with_the_topology():
    """A node that states no weight has 1, as the kernel's default."""
    machine = SimulatedMachine(parse_topology("2"))
    assert machine.interleave_weights == {0: 1, 1: 1}


def test_preferred_many_tries_its_nodes_and_then_all():
    """Nodes of the mask come first, nearest first; when they are full, the others do."""
    machine = SimulatedMachine(FOUR_NODES)
    for node in (1, 2):
        leave_free(machine, node, 2)
    p = machine.spawn(cpu=0)
    assert touch(p, 6, Mode.PREFERRED_MANY, [1, 2])[0] == [2, 2, 1, 1, 0, 0]
    machine.check()


@pytest.mark.parametrize(
    ("mode", "nodes", "where"),
    [
        pytest.param(PREFERRED, [3], [3, 3, 2, 2, 2], id="preferred goes down the zonelist"),
        pytest.param(BIND, [2, 3], [2] * 5, id="bind has room at 2"),
        pytest.param(INTERLEAVE, [3], [3, 3, 2, 2, 2], id="interleave falls back as well"),
    ],
)
def test_a_full_node_passes_pages_on(mode, nodes, where):
    """With two pages left on node 3, the third comes from where that node's list leads."""
    machine = SimulatedMachine(FOUR_NODES)
    leave_free(machine, 3, 2)
    assert machine.memory.frames.zonelists[3][1] == 2
    assert touch(machine.spawn(), 5, mode, nodes)[0] == where
    machine.check()


@pytest.mark.parametrize(("pages", "fits"), [(5, True), (6, False)])
def test_bind_never_leaves_its_nodes(pages, fits):
    """What the nodes of a BIND can hold is the limit, whatever is free elsewhere."""
    machine = SimulatedMachine(FOUR_NODES)
    leave_free(machine, 2, 2)
    leave_free(machine, 3, 3)
    p = machine.spawn()
    if fits:
        assert Counter(touch(p, pages, BIND, [2, 3])[0]) == {2: 2, 3: 3}
        return
    with pytest.raises(OutOfMemoryError, match="no memory is left"):
        touch(p, pages, BIND, [2, 3])
    machine.check()


def test_no_page_comes_from_outside_the_cpuset():
    """The fallback of any policy ends at the cpuset."""
    machine = SimulatedMachine(FOUR_NODES)
    leave_free(machine, 0, 1)
    p = machine.spawn(cpuset=machine.new_cpuset([0, 3]))
    assert touch(p, 3)[0] == [0, 3, 3]


def test_swap_makes_room_where_a_policy_has_none():
    """BIND to a full node reclaims there when there is swap."""
    machine = SimulatedMachine(FOUR_NODES, swap_bytes=1 << 20)
    leave_free(machine, 3, 1)
    machine.memory.drain()
    assert touch(machine.spawn(), 4, BIND, [3])[0] == [3] * 4
    machine.check()


# -- whose policy it is -----------------------------------------------------------------------


def test_the_page_cache_follows_the_task_by_turns():
    """Pages of an ordinary file ignore the area's policy: they take the task's, one after another.

    A private copy is the area's again.
    """
    machine = SimulatedMachine(FOUR_NODES)
    p = machine.spawn()
    assert p.set_mempolicy(INTERLEAVE, [1, 2, 3]) == 0
    file = machine.file("/data", 8)
    a = p.mmap(8, file=file)
    assert p.mbind(a, 8, BIND, [0]) == 0
    p.read(a, 4)
    p.read(a, 8)
    assert p.nodes(a, 8).tolist() == [1, 2, 3, 1, 2, 3, 1, 2]
    p.write(a, 2)
    assert p.nodes(a, 8).tolist() == [0, 0, 3, 1, 2, 3, 1, 2]
    machine.check()


def test_weighted_turns_of_the_page_cache_go_on_where_they_were():
    """A weight that is used up in part is used up by the next file pages."""
    machine = SimulatedMachine(FOUR_NODES)
    machine.interleave_weights |= {1: 3, 2: 2}
    p = machine.spawn()
    assert p.set_mempolicy(Mode.WEIGHTED_INTERLEAVE, [1, 2]) == 0
    a = p.mmap(9, file=machine.file("/data", 9))
    for page in (2, 3, 4, 9):
        p.read(a, page)
    assert p.nodes(a, 9).tolist() == [1, 1, 1, 2, 2, 1, 1, 1, 2]


def test_a_child_goes_on_where_its_parent_was():
    """The turn of interleaving is inherited: the child's first file page is on the next node."""
    machine = SimulatedMachine(FOUR_NODES)
    p = machine.spawn()
    assert p.set_mempolicy(INTERLEAVE, [1, 2]) == 0
    a = p.mmap(3, file=machine.file("/data", 3))
    p.read(a, 1)
    for other, page in ((p.fork(), 1), (p.thread(), 2)):
        other.read(a + page * PAGE)
        assert other.nodes(a + page * PAGE, 1).tolist() == [2]


def test_shared_memory_has_one_policy_for_all():
    """A policy set through one mapping of shared memory holds for whoever else maps it."""
    machine = SimulatedMachine(FOUR_NODES)
    p, q = machine.spawn(), machine.spawn(cpu=1)
    file = machine.file("/dev/shm/a", 8, Backing.SHMEM)
    a, b = p.mmap(8, shared=True, file=file), q.mmap(8, shared=True, file=file)
    assert p.mbind(a + 2 * PAGE, 4, BIND, [3]) == 0
    q.write(b, 8)
    assert q.nodes(b, 8).tolist() == [1, 1, 3, 3, 3, 3, 1, 1]
    assert q.get_mempolicy(b + 2 * PAGE, 2)[1] == BIND
    assert p.mbind(a + 3 * PAGE, 1, Mode.DEFAULT) == 0
    assert q.get_mempolicy(b + 3 * PAGE, 2)[1] == Mode.DEFAULT
    assert q.get_mempolicy(b + 4 * PAGE, 2)[1] == BIND
    machine.check()


def test_shared_policies_cut_each_other():
    """The latest policy of a page counts; None takes what was there away."""
    machine = SimulatedMachine("1")
    file, policies = machine.shmem_file(100), SharedPolicies()
    one, two = MemPolicy(BIND), MemPolicy(PREFERRED)
    policies.set(file, 10, 50, one)
    policies.set(file, 20, 30, two)
    policies.set(file, 40, 60, None)
    spans = {page: policies.at(file, page) for page in (0, 10, 20, 30, 40)}
    assert spans == {
        0: (None, 10),
        10: (one, 20),
        20: (two, 30),
        30: (one, 40),
        40: (None, 100),
    }


def test_a_child_and_a_thread_inherit():
    """fork() and clone() copy the task's policy; area policies come with the areas."""
    p = SimulatedMachine(FOUR_NODES).spawn()
    a = p.mmap(2)
    assert p.mbind(a, 2, BIND, [2]) == 0
    assert p.set_mempolicy(PREFERRED, [3]) == 0
    child = p.fork()
    child.write(a, 2)
    assert child.nodes(a, 2).tolist() == [2, 2]
    assert touch(child, 1)[0] == [3]
    assert touch(p.thread(), 1)[0] == [3]


# -- following a cpuset -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("node", "old", "new", "mapped"),
    [(3, {1, 3}, {0, 2}, 2), (3, {1, 3}, {2}, 2), (0, {1, 3}, {2}, 0), (1, {1}, set(), 1)],
    ids=["second to second", "counted round", "not in old", "no target"],
)
def test_node_remap(node, old, new, mapped):
    """A node keeps its place among the others (bitmap_bitremap)."""
    assert node_remap(node, old, new) == mapped


STATIC, RELATIVE = ModeFlag.STATIC_NODES, ModeFlag.RELATIVE_NODES
NONE = ModeFlag(0)


@pytest.mark.parametrize(
    ("mode", "flags", "nodes", "then"),
    [
        pytest.param(BIND, NONE, [1], [3], id="remapped"),
        pytest.param(INTERLEAVE, NONE, [0, 1], [2, 3], id="all remapped"),
        pytest.param(BIND, STATIC, [1, 3], [3], id="static: what is left"),
        pytest.param(BIND, STATIC, [1], [2, 3], id="static: nothing left is all"),
        pytest.param(BIND, RELATIVE, [1], [3], id="relative: the second"),
        pytest.param(BIND, RELATIVE, [5], [3], id="relative: counted round"),
        pytest.param(PREFERRED, NONE, [1], [1], id="preferred stays"),
        pytest.param(Mode.PREFERRED_MANY, NONE, [0, 1], [0, 1], id="preferred-many stays"),
    ],
)
def test_policies_follow_their_cpuset(mode, flags, nodes, then):
    """From mems 0-1 to 2-3, by mode and flags (mpol_rebind_policy)."""
    policy = MemPolicy(
        mode, NodeSet(nodes), flags, user_nodes=NodeSet(nodes), cpuset_mems=NodeSet([0, 1])
    )
    bound = rebind(policy, NodeSet([2, 3]), LINUX_6_12)
    assert bound.nodes == NodeSet(then)
    assert bound.shown_nodes == NodeSet(nodes if flags else then)


def test_preferred_follows_in_2006():
    """mpol_rebind_policy() of 2.6.18 remaps the preferred node."""
    policy = MemPolicy(PREFERRED, NodeSet([1]), cpuset_mems=NodeSet([0, 1]))
    assert rebind(policy, NodeSet([2, 3]), LINUX_2_6_18).nodes == NodeSet([3])


@pytest.mark.parametrize("policy", [None, MemPolicy(Mode.LOCAL)], ids=["default", "local"])
def test_policies_without_nodes_stay(policy):
    """There is nothing to rebind."""
    assert rebind(policy, NodeSet([3]), LINUX_6_12) is policy


def test_migration_by_policy_goes_where_a_fault_would():
    """mbind(INTERLEAVE, MOVE) puts the pages that it moves where touching would have put them."""
    machine = SimulatedMachine(FOUR_NODES)
    p = machine.spawn()
    a = p.mmap(12)
    p.write(a, 12)
    assert p.mbind(a, 12, INTERLEAVE, [1, 2, 3], MoveFlag.MOVE | MoveFlag.STRICT) == 0
    moved = p.nodes(a, 12)
    p.madvise(a, 12, "dontneed")
    p.write(a, 12)
    assert np.array_equal(moved, p.nodes(a, 12))
    machine.check()


def test_pages_of_64_kib():
    """Interleaving goes by page, whatever its size; a THP is 2 MiB all the same."""
    machine = SimulatedMachine("2 x 64M", page_size_bytes=1 << 16)
    p = machine.spawn()
    found, a = touch(p, 8, INTERLEAVE, [0, 1])
    first = a >> 16
    assert found == [(first + page) % 2 for page in range(8)]
    assert machine.thp_order == 5
    machine.check()

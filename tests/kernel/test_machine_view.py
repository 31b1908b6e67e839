"""What tools ask of a Machine, of the model."""

from __future__ import annotations

import errno
from dataclasses import replace

import numpy as np
import pytest

from movepages.abi import UNWRITTEN, Mode, MoveFlag
from movepages.errors import (
    ArgumentError,
    BadAddressError,
    InvalidCallError,
    NodeFullError,
    NoSuchNodeError,
    NoSuchProcessError,
    NotPermittedError,
    OutsideCpusetError,
)
from movepages.kernel import LINUX_2_6_18, SimulatedMachine
from movepages.kernel.address_space import Prot
from movepages.kernel.inject import NoMemory, Pin
from movepages.kernel.tasks import Cpuset
from movepages.machine import Machine
from movepages.nodeset import NodeSet
from movepages.values import Policy, Settings, Standing

PAGE = 4096
MOVE = int(MoveFlag.MOVE)


@pytest.fixture
def machine():
    """Return a machine of four nodes, checked at the end."""
    machine = SimulatedMachine("4 x 16M")
    yield machine
    machine.check()


@pytest.fixture
def p(machine):
    """Return a user's process with four pages on node 0, and where they are."""
    p = machine.spawn(uid=1000)
    p.start = p.mmap(4)
    p.poke(p.start, [1, 2, 3, 4])
    p.pages = p.addresses(p.start, 4)
    return p


def test_every_question_of_the_protocol_is_answered(machine, p):
    """The model, and the machine as a task sees it, have all that the protocol names."""
    names = [name for name in vars(Machine) if not name.startswith("_")]
    assert len(names) > 10
    for view in (machine, machine.as_task(p)):
        assert all(hasattr(view, name) for name in names)


# -- nodes ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("p")
def test_topology_has_what_is_free_now(machine):
    """Nodes are as declared, with their free memory of this moment and their pools."""
    machine.resize_pool(3, 2)
    topology = machine.topology()
    used = 1 + 4  # the zero page, and what the process touched
    assert topology.node(0).free_bytes == (16 << 20) - used * PAGE
    assert topology.node(3).free_bytes == 12 << 20
    assert topology.node(3).huge_pools[0].total == 2
    assert {n.id: n.free_bytes for n in topology} == machine.free_bytes()
    assert topology.node(2).distances == {0: 20, 1: 20, 2: 10, 3: 20}


@pytest.mark.parametrize("page", [4096, 65536])
def test_the_page_size_is_asked(page):
    """The model says its page size, from the shell and from a task."""
    machine = SimulatedMachine("2 x 8M", page_size_bytes=page)
    assert machine.page_size_bytes == page
    assert machine.as_task(machine.spawn()).page_size_bytes == page


# -- moving -----------------------------------------------------------------------------------


def test_the_machine_acts_as_roots_shell(machine, p):
    """Root moves another's pages by pid, and asks where they are."""
    result = machine.move_pages(p.pid, p.pages, np.array([1, 2, 3, 0], np.int32), MOVE)
    assert (result.ret, result.status.tolist()) == (0, [1, 2, 3, 0])
    assert machine.query_pages(p.pid, p.pages).counts() == {0: 1, 1: 1, 2: 1, 3: 1}


def test_pid_0_is_the_caller(machine, p):
    """For a task's view pid 0 is that task, for the machine its shell."""
    view = machine.as_task(p)
    assert view.query_pages(0, p.pages).status.tolist() == [0] * 4
    assert view.task(0).pid == p.pid
    assert machine.query_pages(0, p.pages).status.tolist() == [-errno.EFAULT] * 4
    assert machine.task(0).pid == machine.shell.pid


def test_a_positive_return_does_not_raise(machine, p):
    """Pages that stay are told by the count; what was not written is UNWRITTEN."""
    with machine.inject(Pin(p, p.start)):
        result = machine.move_pages(p.pid, p.pages, np.full(4, 1, np.int32), MOVE)
    assert result.ret == 1
    assert not result.written.any()


@pytest.mark.parametrize(
    ("node", "flags", "error", "number"),
    [
        (9, MOVE, NoSuchNodeError, errno.ENODEV),
        (-1, MOVE, NoSuchNodeError, errno.ENODEV),
        (1, 64, InvalidCallError, errno.EINVAL),
    ],
)
def test_refusals_are_errors_with_their_facts(machine, p, node, flags, error, number):
    """A negative return raises the matching error, with the result and the node in it."""
    with pytest.raises(error) as caught:
        machine.move_pages(p.pid, p.pages, np.full(4, node, np.int32), flags)
    assert caught.value.errno == number
    assert caught.value.pid == p.pid
    assert caught.value.result.status.tolist() == [UNWRITTEN] * 4
    if number == errno.ENODEV:
        assert caught.value.node == node


def test_statuses_before_an_error_are_kept(machine, p):
    """[1, 9, 2, 2] on 6.12: -ENODEV, [1 ~ ~ ~] (observed), in the error's result."""
    with pytest.raises(NoSuchNodeError) as caught:
        machine.move_pages(p.pid, p.pages, np.array([1, 9, 2, 2], np.int32), MOVE)
    assert caught.value.result.status.tolist() == [1, UNWRITTEN, UNWRITTEN, UNWRITTEN]
    assert caught.value.node == 9


def test_a_cpuset_refuses_by_name(machine):
    """A node outside the target's cpuset is named, though root asks."""
    p = machine.spawn(cpuset=Cpuset(NodeSet([0, 1])))
    a = p.mmap(1)
    p.write(a)
    with pytest.raises(OutsideCpusetError) as caught:
        machine.move_pages(p.pid, p.addresses(a, 1), np.array([2], np.int32), MOVE)
    assert caught.value.node == 2
    assert str(machine.task(p.pid).mems_allowed) == "0-1"


def test_a_full_node_is_an_error(machine, p):
    """-ENOMEM raises NodeFullError."""
    with machine.inject(NoMemory()), pytest.raises(NodeFullError):
        machine.move_pages(p.pid, p.pages, np.full(4, 1, np.int32), MOVE)


def test_processes_that_are_none(machine, p):
    """Unknown pids, kernel threads and other users' processes raise what LinuxMachine raises."""
    query = machine.query_pages
    with pytest.raises(NoSuchProcessError):
        query(99999, p.pages)
    with pytest.raises(InvalidCallError):
        query(2, p.pages)
    other = machine.as_task(machine.spawn(uid=2000))
    with pytest.raises(NotPermittedError):
        other.query_pages(p.pid, p.pages)
    with pytest.raises(NotPermittedError):
        machine.as_task(p).move_pages(0, p.pages, np.full(4, 1, np.int32), MoveFlag.MOVE_ALL)


def test_arrays_of_unequal_length_are_refused(machine, p):
    """One address too many is an error before any call is made."""
    with pytest.raises(ArgumentError, match="4 addresses but 3 nodes"):
        machine.move_pages(p.pid, p.pages, np.zeros(3, np.int32), MOVE)


def test_the_old_kernel_raises_its_own_refusals():
    """-ENOENT, nothing to move, is an error on the kernels that return it."""
    machine = SimulatedMachine("2 x 8M", semantics=LINUX_2_6_18)
    p = machine.spawn()
    a = p.mmap(1)
    p.write(a)
    with pytest.raises(OSError, match="move_pages") as caught:
        machine.move_pages(p.pid, p.addresses(a, 1), np.array([0], np.int32), MOVE)
    assert caught.value.errno == errno.ENOENT


def test_migrate_pages_moves_a_whole_process(machine, p):
    """migrate_pages(2) from node 0 to 2 moves all pages of the process and counts none left."""
    assert machine.migrate_pages(p.pid, [0], [2]) == 0
    assert p.nodes(p.start, 4).tolist() == [2] * 4
    with pytest.raises(NoSuchProcessError):
        machine.migrate_pages(99999, [0], [1])


# -- policies ---------------------------------------------------------------------------------


def test_a_policy_is_set_and_read_back(machine, p):
    """set_mempolicy and get_mempolicy agree, and the policy is the caller's alone."""
    view = machine.as_task(p)
    assert view.get_policy() == Policy(Mode.DEFAULT)
    view.set_policy(Mode.BIND, [1, 3])
    assert view.get_policy() == Policy(Mode.BIND, NodeSet([1, 3]))
    assert machine.get_policy() == Policy(Mode.DEFAULT)
    assert view.mappings(0)[0].policy == "bind:1,3"
    with pytest.raises(InvalidCallError):
        view.set_policy(Mode.BIND, [])


def test_mbind_moves_a_range(machine, p):
    """mbind(BIND, MOVE) moves the pages, and the mapping shows the policy (observed on 6.12)."""
    view = machine.as_task(p)
    view.mbind(p.start, 4 * PAGE, Mode.BIND, [1], MOVE)
    assert p.nodes(p.start, 4).tolist() == [1] * 4
    assert view.mappings(0)[0].policy == "bind:1"
    with pytest.raises(BadAddressError):
        view.mbind(p.start + 4 * PAGE, PAGE, Mode.BIND, [1], MOVE)


@pytest.mark.parametrize(
    ("mode", "nodes", "words"),
    [
        (Mode.PREFERRED, [3], "prefer:3"),
        (Mode.INTERLEAVE, [0, 1, 2, 3], "interleave:0-3"),
        (Mode.PREFERRED_MANY, [1, 2], "prefer (many):1-2"),
        (Mode.WEIGHTED_INTERLEAVE, [0, 1, 2, 3], "weighted interleave:0-3"),
        (Mode.LOCAL, [], "local"),
        (Mode.BIND | 1 << 15, [0, 1], "bind=static:0-1"),
    ],
)
def test_policies_are_worded_as_numa_maps_does(machine, p, mode, nodes, words):
    """The wording that was observed on 6.12, and mode flags before the colon."""
    view = machine.as_task(p)
    view.mbind(p.start, 4 * PAGE, mode, nodes, 0)
    assert view.mappings(0)[0].policy == words


def test_a_mapping_without_a_policy_shows_the_tasks(machine, p):
    """numa_maps shows the task's policy where a mapping has none of its own."""
    view = machine.as_task(p)
    view.set_policy(Mode.INTERLEAVE, [0, 2])
    assert machine.mappings(p.pid)[0].policy == "interleave:0,2"


# -- mappings ---------------------------------------------------------------------------------


def test_mappings_say_what_is_where(machine, p):
    """Ranges, permissions, paths and pages by node, as maps and numa_maps have them."""
    p.move_pages(0, p.pages[:1], [3], MOVE)
    file = machine.file("/data", 8)
    f = p.mmap(4, file=file, offset=2, prot=Prot.READ)
    s = p.mmap(2, shared=True)
    p.write(s, 2)
    p.mmap(1, device=True)
    v = p.map_vdso()
    found = {mapping.start: mapping for mapping in machine.mappings(p.pid)}
    anon = found[p.start]
    assert (anon.permissions, anon.path, anon.kind) == ("rw-p", "", "anon")
    assert anon.pages_by_node == {0: 3, 3: 1}
    assert (anon.anon_pages, anon.dirty_pages, anon.mapped_pages) == (4, 4, 4)
    assert anon.size_bytes == 4 * PAGE
    assert (found[f].permissions, found[f].offset, found[f].kind) == ("r--p", 2 * PAGE, "file")
    assert (found[s].permissions, found[s].kind) == ("rw-s", "shm")
    assert found[s].resident_bytes == 2 * PAGE
    assert (found[v].path, found[v].kind) == ("[vdso]", "special")
    assert "[vvar]" in {mapping.path for mapping in found.values()}
    starts = [mapping.start for mapping in machine.mappings(p.pid)]
    assert starts == sorted(starts)


def test_huge_mappings_count_as_numa_maps_does(machine, p):
    """Pools' pages count as huge pages, anon and dirty; THPs as base pages (observed on 6.12)."""
    machine.resize_pool(0, 2)
    h = p.mmap(1024, huge=True)
    p.write(h, 1024)
    t = p.mmap(1024)
    p.madvise(t, 1024, "hugepage")
    p.write(t, 1024)
    found = {mapping.start: mapping for mapping in machine.mappings(p.pid)}
    assert found[h].path == "/anon_hugepage (deleted)"
    assert (found[h].hugetlb, found[h].page_size_bytes) == (True, 2 << 20)
    assert (found[h].anon_pages, found[h].dirty_pages) == (2, 2)
    assert found[h].pages_by_node == {0: 2}
    assert found[t].pages_by_node == {0: 1024}
    assert (found[t].anon_pages, found[t].page_size_bytes) == (1024, PAGE)


def test_shared_pages_and_zero_pages(machine, p):
    """The number of mappings counts the mappings of one page; zero pages are on no node."""
    p.fork()
    z = p.mmap(2)
    p.read(z, 2)
    found = {mapping.start: mapping for mapping in machine.mappings(p.pid)}
    assert found[p.start].most_mapped == 2
    assert found[z].pages_by_node == {}


# -- placement --------------------------------------------------------------------------------


def test_locate_agrees_with_a_query(machine, p):
    """Every page that is located has the node that move_pages tells."""
    nodes = np.array([3, 3, 1, 0], np.int32)
    machine.move_pages(p.pid, p.pages, nodes, MOVE)
    placement = machine.locate(p.pid)
    assert list(placement.runs()) == [
        (p.start, 2, PAGE, 3),
        (p.start + 2 * PAGE, 1, PAGE, 1),
        (p.start + 3 * PAGE, 1, PAGE, 0),
    ]
    assert placement.way == "model"
    asked = machine.query_pages(p.pid, placement.page_runs().addresses())
    assert asked.status.tolist() == placement.page_nodes().tolist()


def test_only_pages_that_are_somewhere_are_present(machine, p):
    """Untouched pages, zero pages, swap, device memory and the vDSO are not there."""
    a = p.mmap(4)
    p.write(a + PAGE)
    p.read(a + 2 * PAGE)
    p.mmap(2, device=True)
    p.map_vdso()
    runs = machine.present(p.pid)
    assert runs.addresses().tolist() == [*p.pages.tolist(), a + PAGE]
    assert machine.locate(p.pid).total_bytes == 5 * PAGE


def test_huge_pages_are_one_page_each(machine, p):
    """A THP mapped whole counts as one page of 2M, also where a range only touches it."""
    machine.resize_pool(1, 1)
    h = p.mmap(512, huge=True)
    p.struct.cpu = 1
    p.write(h)
    t = p.mmap(1024)
    p.madvise(t, 1024, "hugepage")
    p.write(t, 1024)
    runs = machine.present(p.pid, [(h, h + 1), (t + PAGE, t + 513 * PAGE)])
    assert sorted(runs.addresses().tolist()) == [h, t, t + 512 * PAGE]
    assert set(runs.page_size_bytes.tolist()) == {2 << 20}
    twice = machine.present(p.pid, [(t, t + PAGE), (t + 5 * PAGE, t + 6 * PAGE)])
    assert twice.addresses().tolist() == [t]


@pytest.mark.parametrize(
    ("low", "high", "pages"), [(0, 1, [0]), (4095, 4097, [0, 1]), (8192, 99999, [2, 3])]
)
def test_ranges_are_rounded_to_pages(machine, p, low, high, pages):
    """A byte of a page asks for the page; the end is excluded."""
    found = machine.locate(p.pid, [(p.start + low, p.start + high)])
    assert ((found.page_runs().addresses() - p.start) // PAGE).tolist() == pages


@pytest.mark.parametrize("bad", [(5, 5), (6, 5), (-1, 5)])
def test_ranges_that_make_no_sense_are_refused(machine, p, bad):
    """Empty, reversed and negative ranges are errors."""
    with pytest.raises(ArgumentError, match="range"):
        machine.present(p.pid, [bad])


def test_present_ends_where_areas_end(machine):
    """Runs of `present` do not reach over the end of a mapping, those of `locate` may."""
    p = machine.spawn()
    a = p.mmap(4)
    p.write(a, 4)
    p.mprotect(a, 2, Prot.READ)
    assert len(machine.present(p.pid)) == 2
    assert len(machine.locate(p.pid)) == 1


@pytest.mark.parametrize("question", ["mappings", "present", "locate"])
def test_who_may_look(machine, p, question):
    """Owners and root may look; other users may not; who has ended cannot be looked at."""
    assert len(getattr(machine.as_task(p), question)(0)) > 0
    assert len(getattr(machine, question)(p.pid)) > 0
    with pytest.raises(NotPermittedError, match="not yours"):
        getattr(machine.as_task(machine.spawn(uid=2000)), question)(p.pid)
    assert len(getattr(machine, question)(2)) == 0  # a kernel thread
    child = p.fork()
    child.exit()
    with pytest.raises(NoSuchProcessError):
        getattr(machine, question)(child.pid)


# -- processes --------------------------------------------------------------------------------


def test_tasks_say_who_they_are(machine, p):
    """Uid, cpuset, CPUs of all threads in order, and a start time that names it for good."""
    p.thread(cpu=3)
    info = machine.task(p.pid)
    assert (info.uid, info.last_cpus, info.kernel_thread) == (1000, (0, 3), False)
    assert info.cpus_allowed == (0, 1, 2, 3)
    assert str(info.mems_allowed) == "0-3"
    assert info in machine.tasks()
    assert machine.task(2).kernel_thread
    later = machine.spawn()
    assert machine.task(later.pid).start_ticks > info.start_ticks
    with pytest.raises(NoSuchProcessError):
        machine.task(99999)


def test_threads_say_where_they_ran_and_how_long(machine, p):
    """Each thread has the CPU that it ran on last, and the sum of its times; the dead have none."""
    thread, ended = p.thread(cpu=3), p.thread()
    p.run(1, 5)
    p.run(2, 6)
    thread.run(0)
    ended.exit()
    found = [(each.tid, each.cpu, each.cpu_time_ns) for each in machine.threads(p.pid)]
    assert found == [(p.pid, 2, 11), (thread.pid, 0, 0)]
    assert machine.task(p.pid).last_cpus == (2, 0)
    assert machine.as_task(p).threads(0) == machine.threads(p.pid)
    p.exit()
    with pytest.raises(NoSuchProcessError):
        machine.threads(p.pid)


@pytest.mark.parametrize(("cpu", "time_ns"), [(4, 1), (-1, 1), (0, -1)])
def test_a_task_runs_on_a_cpu_that_is_there(p, cpu, time_ns):
    """Neither a CPU that the machine lacks nor a negative time: nothing changes."""
    with pytest.raises(ArgumentError):
        p.run(cpu, time_ns)
    assert (p.struct.cpu, p.struct.cpu_time_ns) == (0, 0)


def test_tasks_are_processes_in_user_space(machine, p):
    """Threads, kernel threads and zombies are left out; a child says whose it is."""
    p.thread()
    child, ended = p.fork(), p.fork()
    ended.exit()
    tasks = {task.pid: task for task in machine.tasks()}
    assert list(tasks) == [machine.shell.pid, p.pid, child.pid]
    assert tasks[child.pid].parent == p.pid


def test_a_process_is_held_until_it_ends(machine, p):
    """A hold notices the end of its process, and there is none on one that has ended."""
    task = machine.task(p.pid).id
    held = machine.hold(task)
    assert held.alive()
    p.exit()
    assert not held.alive()
    with pytest.raises(NoSuchProcessError):
        machine.hold(task)


@pytest.mark.parametrize("other", [{"start_ticks": 10**6}, {"boot_id": "another"}])
def test_a_pid_that_is_used_again_is_not_held(machine, p, other):
    """Another start time, or another boot, is another process."""
    with pytest.raises(NoSuchProcessError):
        machine.hold(replace(machine.task(p.pid).id, **other))


def test_conditions_are_the_callers_rights(machine, p):
    """Root sees frames and moves shared pages; a user does neither until granted."""
    assert machine.conditions().moves_shared
    assert machine.conditions().sees_pfns
    view = machine.as_task(p)
    assert not view.conditions().moves_shared
    p.grant("SYS_NICE")
    assert view.conditions().moves_shared
    assert SimulatedMachine("1", swap_bytes=1 << 20).conditions().swap_bytes == 1 << 20


def test_settings_name_the_calls_that_are_missing(machine):
    """A kernel that lacks calls, or was told to, says of each that it does not have it."""
    assert machine.settings() == Settings()
    without = SimulatedMachine("2 x 8M", without={"mbind"}).settings().refused
    assert [(error.call, error.errno) for error in without] == [("mbind", errno.ENOSYS)]
    old = SimulatedMachine("2 x 8M", semantics=LINUX_2_6_18).settings().refused
    assert [error.call for error in old] == ["set_mempolicy_home_node"]


def test_standing_is_what_decides_who_may_look(machine, p):
    """Ids, dumpability and capabilities, as the model itself goes by."""
    own, other = machine.spawn(uid=1000), machine.spawn(uid=1001)
    view = machine.as_task(own)
    assert view.standing(p.pid) == Standing(
        own_uid=1000,
        uids=(1000, 1000, 1000),
        same_user=True,
        dumpable=True,
        covered=True,
        may_trace=False,
    )
    assert not view.standing(other.pid).same_user
    p.grant("SYS_NICE")
    p.struct.dumpable = False
    assert (view.standing(p.pid).covered, view.standing(p.pid).dumpable) == (False, False)
    assert machine.standing(p.pid).may_trace
    other.exit()
    with pytest.raises(NoSuchProcessError):
        view.standing(other.pid)

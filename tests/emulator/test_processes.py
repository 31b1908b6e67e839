"""Which tasks share memory, which were forked from which, and which have another program since."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from live_machine import bind

from movepages.abi import MAX_NUMNODES, Mode, MoveFlag
from movepages.emulator.objects import Objects
from movepages.emulator.overlay import count_pages
from movepages.emulator.processes import Processes
from movepages.errors import NoSuchProcessError

host = pytest.mark.host

PROGRAMS = Path(__file__).parent / "programs"
KTHREADD = 2
NOBODY_HAS_THIS_PID = 1 << 30
CLONE3 = 435  # on all architectures
CLONE_ARGS_BYTES = 80


@pytest.fixture
def processes(live):
    """The tasks of a machine."""
    return live.machine.processes


@host
def test_task_is_known_by_its_thread_id(live, processes):
    """The same task is the same record; a stranger has memory and no policy of its own."""
    process = live.world.process()
    task = processes.task(process.pid)
    assert processes.task(process.pid) is processes.known(process.pid) is task
    assert (task.tid, task.tgid, task.policy) == (process.pid, process.pid, None)
    assert processes.mms() == [task.mm]


@host
def test_nobody_is_no_task_and_leaves_nothing_open(processes):
    """A pid that nobody has raises, and no descriptor stays behind."""
    before = open_files()
    with pytest.raises(NoSuchProcessError, match=str(NOBODY_HAS_THIS_PID)):
        processes.task(NOBODY_HAS_THIS_PID)
    assert open_files() == before


@host
def test_task_that_ends_while_it_is_looked_at_leaves_nothing_open(live, tmp_path):
    """A stat file without the status beside it is a task that has ended since."""
    (tmp_path / "7").mkdir()
    (tmp_path / "7/stat").write_bytes(Path("/proc/self/stat").read_bytes())
    processes = Processes(Objects(), tmp_path, live.machine)
    before = open_files()
    with pytest.raises(NoSuchProcessError, match="7"):
        processes.task(7)
    assert open_files() == before


@host
def test_kernel_thread_and_zombie_have_no_memory(live, processes):
    """A task without memory is a task: one that never had any, and one that has let go of it."""
    assert processes.task(KTHREADD).mm is None
    process = live.world.process()
    assert processes.task(process.pid).mm is not None
    process.exit()
    assert processes.task(process.pid).mm is None
    late = live.world.process()
    late.exit()
    assert processes.task(late.pid).mm is None


@host
def test_threads_share_memory_and_begin_with_their_leaders_policy(processes, fork):
    """A thread has the memory of its process; from then on each has its own policy."""

    def body():
        tids, done = [], threading.Event()
        ready = threading.Barrier(2)

        def thread():
            tids.append(threading.get_native_id())
            ready.wait()
            done.wait()

        threading.Thread(target=thread, daemon=True).start()
        ready.wait()
        yield tids[0]

    child = fork(body)
    tid = child.step()
    leader = processes.task(child.pid)
    leader.policy = bind(2)
    thread = processes.task(tid)
    assert (thread.mm, thread.tgid, thread.policy) == (leader.mm, child.pid, bind(2))
    leader.policy = bind(3)
    assert processes.task(tid).policy == bind(2)


@host
def test_child_inherits_policy_and_place_in_the_round(live, processes):
    """A fork copies the policy, and where interleaving by turns has got to (dup_task_struct)."""
    process = live.world.process()
    parent = processes.task(process.pid)
    parent.policy, parent.il_prev, parent.il_weight = bind(1, 3), 3, 2
    child = processes.task(process.fork().pid)
    assert (child.policy, child.il_prev, child.il_weight) == (bind(1, 3), 3, 2)
    stranger = processes.task(live.world.process().pid)
    assert (stranger.policy, stranger.il_prev) == (None, MAX_NUMNODES - 1)


@host
def test_child_is_found_before_its_parents_policy_changes(live):
    """A child keeps the policy that its parent had at the fork, though it is first named later."""
    process = live.world.process()
    assert live.set_mempolicy(process.pid, Mode.BIND, [1]) == 0
    child = process.fork()
    grandchild = child.fork()
    assert live.set_mempolicy(process.pid, Mode.BIND, [2]) == 0
    for pid in (child.pid, grandchild.pid):
        assert live.machine.processes.task(pid).policy.nodes == {1}


@host
def test_each_child_has_the_policy_of_the_time_of_its_fork(live):
    """Forks between changes of policy are told apart, though nobody names a child till then."""
    process = live.world.process()
    children = []
    for node in (1, 2, 3):
        assert live.set_mempolicy(process.pid, Mode.BIND, [node]) == 0
        assert live.set_mempolicy(process.pid, Mode.BIND, [node]) == 0
        children.append(process.fork())
    assert live.set_mempolicy(process.pid, Mode.DEFAULT) == 0
    policies = [live.machine.processes.task(child.pid).policy for child in children]
    assert [set(policy.nodes) for policy in policies] == [{1}, {2}, {3}]


@host
def test_parent_of_an_unknown_parent_is_found(live, processes):
    """A grandchild that is named first has what its grandparent had."""
    process = live.world.process()
    processes.first = process.pid
    processes.task(process.pid).policy = bind(3)
    assert processes.task(process.fork().fork().pid).policy == bind(3)


@host
def test_policies_of_areas_are_copied_by_a_fork(live):
    """The child has the parent's policies of areas, and changing one leaves the other."""
    process = live.world.process()
    start = process.mmap(4)
    assert live.mbind(process.pid, start, 4, Mode.BIND, [2]) == 0
    child = process.fork()
    assert live.mbind(process.pid, start, 4, Mode.BIND, [3]) == 0
    process.write(start, 4)
    child.write(start, 4)
    assert live.where(process.pid, start, 4) == [3] * 4
    assert live.where(child.pid, start, 4) == [2] * 4


@host
def test_exec_makes_a_new_memory_and_keeps_the_policy(live, processes, fork):
    """After exec nothing is known of pages, the thread's policy holds, and the old memory goes."""
    (theirs, says), (hears, ours) = os.pipe(), os.pipe()

    def body():
        yield
        os.dup2(hears, 0)
        os.dup2(says, 1)
        os.execv("/bin/cat", ["cat"])  # noqa: S606 - it is the exec that counts

    child = fork(body)
    child.step()
    task = processes.task(child.pid)
    task.policy = bind(2)
    before = task.mm
    live.machine.settle(task, before)
    pages = before.anonymous.pages
    placed = pages.placed()
    own = int(count_pages(pages.nodes(placed), pages.orders(placed))[2])
    used = live.used()[2]
    assert used > own > 0
    with pytest.raises(EOFError):
        child.step()
    os.write(ours, b"x")
    assert os.read(theirs, 1) == b"x"
    after = processes.task(child.pid)
    assert (after, after.policy) == (task, bind(2))
    assert after.mm is not before
    live.machine.reclaim()
    assert live.used() == [0, 0, used - own, 0]
    with pytest.raises(KeyError):
        live.machine.objects[before.anonymous.id]
    for end in (theirs, says, hears, ours):
        os.close(end)


@host
def test_vfork_shares_memory_until_exec(processes, tmp_path):
    """A vforked child has its parent's memory, and one of its own once it has exec'ed."""
    program = tmp_path / "vfork"
    subprocess.run(["cc", "-Wall", "-o", program, PROGRAMS / "vfork.c"], check=True)
    with subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        try:
            assert os.read(running.stdout.fileno(), 1) == b"v"
            parent = processes.task(running.pid)
            children = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text()
            child = processes.task(int(children))
            assert child.mm is parent.mm
            assert processes.mms() == [parent.mm]
            os.write(running.stdin.fileno(), b"xy")
            assert os.read(running.stdout.fileno(), 1) == b"y"
            child = processes.task(child.tid)
            assert child.mm is not parent.mm
            assert child.mm not in parent.mm.relatives
            assert processes.task(parent.tid).mm is parent.mm
        finally:
            running.stdin.close()


@host
def test_thread_id_that_is_used_again_is_not_the_old_task(processes, fork):
    """A new process with the number of one that has ended is another task, without its policy."""
    child = fork()
    old = processes.task(child.pid)
    old.policy = bind(2)
    child.kill()
    os.waitpid(child.pid, 0)
    again = forked_as(child.pid)
    try:
        new = processes.task(child.pid)
        assert new is not old
        assert (new.policy, new.mm is old.mm) == (None, False)
        with pytest.raises(ProcessLookupError):
            processes.task(NOBODY_HAS_THIS_PID)
    finally:
        os.kill(again, signal.SIGKILL)


@host
def test_thread_id_that_is_used_again_has_not_the_old_policy(processes, fork):
    """Who asks for nothing but a thread's own policy is not told that of one that has ended."""
    child = fork()
    processes.task(child.pid).policy = bind(2)
    assert processes.known(child.pid).policy == bind(2)
    child.kill()
    os.waitpid(child.pid, 0)
    with pytest.raises(NoSuchProcessError):
        processes.known(child.pid)
    again = forked_as(child.pid)
    try:
        assert processes.known(child.pid).policy is None
    finally:
        os.kill(again, signal.SIGKILL)


def forked_as(pid):
    """Fork with a certain pid, which has to be free: clone3(2) with set_tid. The child sleeps."""
    wanted = ctypes.c_int(pid)
    arguments = (ctypes.c_uint64 * (CLONE_ARGS_BYTES // 8))()
    arguments[4] = signal.SIGCHLD
    arguments[8:10] = ctypes.addressof(wanted), 1
    libc = ctypes.CDLL(None, use_errno=True)
    found = libc.syscall(CLONE3, arguments, ctypes.c_size_t(CLONE_ARGS_BYTES))
    if not found:
        while True:
            signal.pause()
    assert found == pid, os.strerror(ctypes.get_errno())
    return found


def open_files():
    """Return what the emulator has open of processes, in an order that can be compared."""
    links = []
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the one that this directory is read by
            links.append(str(entry.readlink()))
    return sorted(link for link in links if link.endswith(("/stat", "/maps", "/pagemap")))


@host
@pytest.mark.parametrize("named_in_between", [False, True])
def test_what_has_ended_is_let_go_of(live, processes, named_in_between):
    """Reclaim drops who is gone, with memory and descriptors, noticed in between or not."""
    process = live.world.process()
    start = process.mmap(8)
    process.write(start, 8)
    live.put(process.pid, start, [1] * 8)
    live.machine.reclaim()
    descriptors = open_files()
    child = process.fork()
    live.put(child.pid, start, [2] * 8, flags=MoveFlag.MOVE_ALL)
    mm = processes.task(child.pid).mm
    child.exit()
    if named_in_between:
        assert processes.task(child.pid).mm is None
    process.wait()
    live.machine.reclaim()
    assert mm not in processes.mms()
    assert mm not in processes.task(process.pid).mm.relatives
    with pytest.raises(KeyError):
        live.machine.objects[mm.anonymous.id]
    assert open_files() == descriptors


@host
def test_forked_memory_is_related_and_a_strangers_is_not(live, processes):
    """Relatives are who came of one another by fork, as long as they live."""
    process = live.world.process()
    child = process.fork()
    parent_mm, child_mm = (processes.task(pid).mm for pid in (process.pid, child.pid))
    stranger = processes.task(live.world.process().pid).mm
    assert set(parent_mm.relatives) == {parent_mm, child_mm}
    assert stranger.relatives == [stranger]


@host
def test_materialise_of_who_is_gone_finds_nobody(live, processes):
    """A process that ends meanwhile has no threads and no children."""
    process = live.world.process()
    task = processes.task(process.pid)
    process.fork()
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    processes.materialise(task)
    assert len(processes.mms()) <= 2

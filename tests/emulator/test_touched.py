"""Who touched pages first: assumed, or known by the log of faults."""

from __future__ import annotations

import os
import threading
import warnings

import numpy as np
import pytest
from guestkit.memory import Memory
from live_machine import PAGE, bind

from movepages.abi import Mode, MoveFlag
from movepages.emulator.filter import Precision
from movepages.errors import FilteredError, NotPermittedError, UnsupportedError
from movepages.linux.perf_event import open_fault_log

pytestmark = pytest.mark.host


@pytest.fixture
def logged(emulate, fork):
    """Return a function that forks a child whose faults are logged, and its machine."""

    def begun(body):
        live = emulate(precision=Precision.FAULTS)
        child = fork(body)
        try:
            log = open_fault_log(child.pid, range(os.cpu_count()), 64, exclude_kernel=False)
        except (FilteredError, NotPermittedError, UnsupportedError) as error:
            pytest.skip(str(error))
        live.machine.attach(child.pid, log)
        return live, child

    return begun


def test_whoever_asks_is_assumed(live):
    """Without a log all pages were touched by the task itself, and none for certain by a fault."""
    process = live.world.process()
    task, touchers = live.machine.processes.task(process.pid), live.machine.touchers
    pages = np.arange(3)
    for touches in (touchers.all_of, touchers.certain):
        ((touch, which),) = touches(task, pages, 0)
        assert (touch.task, which.tolist()) == (task, [0, 1, 2])
        nodes = {live.machine.node_of_cpu(cpu) for cpu in os.sched_getaffinity(process.pid)}
        assert touch.at.local in nodes
    assert not touchers.touched(task, pages).any()
    assert (touchers.creator_of(process.pid), touchers.report()) == (None, {})


def test_thread_that_faulted_decides(logged):
    """Each page goes by the policy of the thread that touched it, not of the one that asks."""

    def body():
        pages, tids, go, done = Memory().private(4), [], threading.Event(), threading.Event()
        ready = threading.Barrier(2)

        def thread():
            tids.append(threading.get_native_id())
            ready.wait()
            go.wait()
            pages[2:].touch()
            ready.wait()
            done.wait()

        threading.Thread(target=thread, daemon=True).start()
        ready.wait()
        yield pages.start, tids[0]
        pages[:2].touch()
        go.set()
        ready.wait()
        yield

    live, child = logged(body)
    start, tid = child.step()
    live.machine.processes.task(child.pid).policy = bind(1)
    live.machine.processes.task(tid).policy = bind(3)
    child.step()
    assert live.where(child.pid, start, 4) == [1, 1, 3, 3]


def test_policy_at_the_time_of_the_touch_decides(logged):
    """Pages that were touched before a change of policy go by the one before."""

    def body():
        pages = Memory().private(2)
        yield pages.start
        pages[:1].touch()
        yield
        pages[1:].touch()
        yield

    live, child = logged(body)
    start = child.step()
    assert live.set_mempolicy(child.pid, Mode.BIND, [1]) == 0
    child.step()
    assert live.set_mempolicy(child.pid, Mode.BIND, [2]) == 0
    child.step()
    assert live.where(child.pid, start, 2) == [1, 2]


def test_page_that_was_populated_waits_for_whoever_asks(logged):
    """No fault is logged for pages that mlock brings in: they are not certain, and placed later."""

    def body():
        from guestkit.memory import lock

        pages = Memory().private(2)
        yield pages.start
        lock(pages)
        yield

    live, child = logged(body)
    start = child.step()
    child.step()
    task = live.machine.processes.task(child.pid)
    pages = np.arange(2) + start // PAGE
    assert not live.machine.touchers.touched(task, pages).any()
    assert [len(which) for _, which in live.machine.touchers.certain(task, pages, 0)] == []
    live.machine.settle(task, task.mm)
    task.policy = bind(3)
    assert live.where(child.pid, start, 2) == [3, 3]


def test_copy_of_a_populated_page_is_counted_once(logged):
    """A page that nobody was seen to touch may be copied on write; its copy is one page."""

    def body():
        from guestkit.memory import lock

        pages = Memory().private(2)
        yield pages.start
        lock(pages)
        pid = os.fork()
        if not pid:
            threading.Event().wait()
        yield pid
        pages.touch()
        yield

    live, child = logged(body)
    start = child.step()
    grandchild = child.step()
    try:
        task = live.machine.processes.task(child.pid)
        live.machine.settle(task, task.mm)
        child.step()
        task.policy = bind(3)
        before = live.used()[3]
        assert live.where(child.pid, start, 2) == [3, 3]
        assert live.used()[3] == before + 2
    finally:
        os.kill(grandchild, 9)


def test_page_that_nobody_touched_is_one_for_parent_and_child(logged):
    """What mlock has brought in before a fork is shared: moving it moves it for both."""

    def body():
        from guestkit.memory import lock

        pages = Memory().private(2)
        yield pages.start
        lock(pages)
        pid = os.fork()
        if not pid:
            threading.Event().wait()
        yield pid

    live, child = logged(body)
    start = child.step()
    live.machine.processes.task(child.pid)
    grandchild = child.step()
    try:
        live.put(child.pid, start, [3], MoveFlag.MOVE_ALL)
        before = live.where(child.pid, start, 2)
        assert live.where(grandchild, start, 2) == before
        assert before[0] == 3
    finally:
        os.kill(grandchild, 9)


def test_creator_is_known_by_the_log(logged):
    """A child belongs to the thread that forked it, whatever its process's leader has as policy."""

    def body():
        tids, pids, done = [], [], threading.Event()
        ready = threading.Barrier(2)

        def thread():
            tids.append(threading.get_native_id())
            ready.wait()
            ready.wait()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Python warns of forks beside threads
                pids.append(os.fork())
            if not pids[0]:
                threading.Event().wait()
            ready.wait()
            done.wait()

        threading.Thread(target=thread, daemon=True).start()
        ready.wait()
        yield tids[0]
        ready.wait()
        ready.wait()
        yield pids[0]

    live, child = logged(body)
    tid = child.step()
    processes = live.machine.processes
    processes.task(child.pid).policy = bind(1)
    processes.task(tid).policy = bind(3)
    grandchild = child.step()
    try:
        assert live.machine.touchers.creator_of(grandchild) == tid
        assert processes.task(grandchild).policy == bind(3)
    finally:
        os.kill(grandchild, 9)


def test_creators_of_tasks_that_have_ended_are_forgotten(logged):
    """However many children come and go, what is known of them does not grow."""

    def body():
        yield
        for _ in range(5):
            pid = os.fork()
            if not pid:
                os._exit(0)
            os.waitpid(pid, 0)
        yield pid

    live, child = logged(body)
    child.step()
    last = child.step()
    assert live.machine.touchers.creator_of(last) is None
    assert child.pid not in live.machine.touchers.recorder._creators.values()


def test_page_that_was_placed_was_not_touched_since(logged):
    """A fault says that a page is new once: where its frame changes later, the kernel moved it."""

    def body():
        pages = Memory().private(2)
        yield pages.start
        pages.touch()
        pid = os.fork()
        if not pid:
            threading.Event().wait()
        yield pid
        pages[:1].touch()
        yield

    live, child = logged(body)
    start = child.step()
    grandchild = child.step()
    try:
        task, pages = live.machine.processes.task(child.pid), np.arange(2) + start // PAGE
        assert live.machine.touchers.touched(task, pages).tolist() == [True, True]
        live.where(child.pid, start, 2)
        assert live.machine.touchers.touched(task, pages).tolist() == [False, False]
        child.step()
        assert live.machine.touchers.touched(task, pages).tolist() == [True, False]
        live.machine.forget_range(task, start // PAGE, start // PAGE + 1, policies=False)
        assert live.machine.touchers.touched(task, pages).tolist() == [False, False]
    finally:
        os.kill(grandchild, 9)

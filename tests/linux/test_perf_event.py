"""Logging the page faults of real processes."""

from __future__ import annotations

import gc
import os
import select
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from guestkit.memory import PROT_NONE
from guestkit.pages import PAGE_BYTES

from movepages.errors import (
    ArgumentError,
    CallError,
    FilteredError,
    NoSuchProcessError,
    NotPermittedError,
    UnsupportedError,
)
from movepages.linux.perf_event import open_fault_log

pytestmark = pytest.mark.host

CPUS = range(os.cpu_count())
NO_CPU = 1 << 20


@pytest.fixture
def open_log():
    """Opens logs, and closes them with the test; where a container forbids that, it says so."""
    logs = []

    def opened(pid, pages=64, *, exclude_kernel=False):
        try:
            logs.append(open_fault_log(pid, CPUS, pages, exclude_kernel=exclude_kernel))
        except (FilteredError, NotPermittedError, UnsupportedError) as error:
            pytest.skip(str(error))
        return logs[-1]

    yield opened
    for log in logs:
        log.close()


def open_descriptors():
    """Count the descriptors of this process."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def pages_of(faults, pages):
    """Return which of some pages were faulted, in the order of the faults, and in which rows."""
    low, high = pages.range
    rows = ((faults.address >= low) & (faults.address < high)).nonzero()[0]
    return ((faults.address[rows] - np.uint64(low)) // np.uint64(PAGE_BYTES)).tolist(), rows


def test_each_fault_has_its_thread_and_its_place(fork, memory, open_log):
    """Pages that two threads touch by turns come out in that order, with tid, pid, CPU and time."""
    pages = memory.private(64)
    order = [(37 * i + 5) % 64 for i in range(64)]

    def body():
        yield
        tids = []

        def touch(turn):
            pages.data[order[turn], 0] = 1
            tids.append(threading.get_native_id())

        for turn in range(0, 64, 2):
            touch(turn)
            thread = threading.Thread(target=touch, args=(turn + 1,))
            thread.start()
            thread.join()
        yield tids

    child = fork(body)
    child.step()
    log = open_log(child.pid)
    before = time.monotonic_ns()
    tids = child.step()
    after = time.monotonic_ns()
    faults = log.drain()
    touched, rows = pages_of(faults, pages)
    assert touched == order
    assert faults.tid[rows].tolist() == tids
    assert set(faults.pid.tolist()) == {child.pid}
    assert set(faults.cpu.tolist()) <= set(CPUS)
    assert (np.diff(faults.time_ns.view(np.int64)) >= 0).all()
    assert before <= int(faults.time_ns[0]) <= int(faults.time_ns[-1]) <= after
    assert faults.lost == 0


def test_a_page_that_is_present_has_no_second_fault(fork, memory, open_log):
    """What was touched before the log was opened, or once already, is not logged."""
    pages = memory.private(4)

    def body():
        pages[:2].touch()
        yield
        pages.touch()
        pages.touch()
        yield

    child = fork(body)
    child.step()
    log = open_log(child.pid)
    child.step()
    assert pages_of(log.drain(), pages)[0] == [2, 3]


def test_what_was_collected_comes_with_the_next_drain(fork, memory, open_log):
    """Collecting makes room in a ring of four pages, and loses nothing and no order."""
    pages = memory.private(30 * 20)

    def body():
        gc.disable()
        for first in range(0, len(pages), 30):
            yield
            pages[first : first + 30].touch()

    child = fork(body)
    for _ in range(2):
        child.step()
    log = open_log(child.pid, 4)
    for _ in range(18):
        child.step()
        log.collect()
    assert log.collected_bytes >= 40 * 30 * 18
    faults = log.drain()
    assert (pages_of(faults, pages)[0], faults.lost) == (list(range(30, 30 * 19)), 0)
    assert log.collected_bytes == 0


def test_what_was_drained_is_not_there_again(fork, memory, open_log):
    """A ring of four pages is read round and round; each fault is seen once."""
    pages = memory.private(30 * 40)

    def body():
        gc.disable()
        for first in range(0, len(pages), 30):
            yield
            pages[first : first + 30].touch()

    child = fork(body)
    for _ in range(2):  # a forked interpreter has hundreds of faults of its own at first
        child.step()
    log = open_log(child.pid, 4)
    seen = []
    for _ in range(38):
        child.step()
        seen += pages_of(log.drain(), pages)[0]
    assert seen == list(range(30, 30 * 39))


def test_what_does_not_fit_is_counted(fork, memory, open_log):
    """A ring that nobody reads loses faults, says how many, and then goes on."""
    pages = memory.private(2002)

    def body():
        pages[2001:].touch()  # a forked interpreter has hundreds of faults of its own at first
        gc.disable()
        yield
        pages[:2000].touch()
        yield
        pages[2000:2001].touch()
        yield

    child = fork(body)
    os.sched_setaffinity(child.pid, {min(os.sched_getaffinity(0))})  # one ring, for all faults
    child.step()
    log = open_log(child.pid, 8)
    child.step()
    held = 8 * PAGE_BYTES // 40  # a sample takes 40 bytes
    first = pages_of(log.drain(), pages)[0]
    assert first == list(range(len(first)))
    assert 0 < len(first) <= held
    child.step()
    rest = log.drain()
    assert pages_of(rest, pages)[0] == [2000]
    assert rest.lost >= 2000 - len(first)


def test_children_are_followed(fork, open_log):
    """A fork, its execve and its end are told in order, with the parent; so is the new program."""

    def body():
        yield
        pid = os.fork()
        if pid == 0:
            os.execv("/bin/true", ["true"])  # noqa: S606 - a new program, not a shell's
        os.waitpid(pid, 0)
        yield pid

    child = fork(body)
    child.step()
    log = open_log(child.pid, exclude_kernel=True)
    pid = child.step()
    faults = log.drain()
    (began,) = (event for event in faults.forks if event.pid == pid)
    (started,) = (event for event in faults.execs if event.pid == pid)
    (ended,) = (event for event in faults.exits if event.pid == pid)
    assert (began.tid, began.parent_pid, began.parent_tid) == (pid, child.pid, child.pid)
    assert (started.tid, ended.tid) == (pid, pid)
    assert began.time_ns < started.time_ns < ended.time_ns
    assert (faults.time_ns[faults.pid == pid] > np.uint64(started.time_ns)).any()


def test_threads_are_forks_in_their_own_process(fork, open_log):
    """A thread has the pid of its parent, and a tid of its own until it ends."""

    def body():
        yield
        tids = []
        thread = threading.Thread(target=lambda: tids.append(threading.get_native_id()))
        thread.start()
        thread.join()
        while Path(f"/proc/self/task/{tids[0]}").exists():  # it outlives its join by a moment
            os.sched_yield()
        yield tids[0]

    child = fork(body)
    child.step()
    log = open_log(child.pid)
    tid = child.step()
    faults = log.drain()
    (began,) = (event for event in faults.forks if event.pid == child.pid)
    assert began[1:] == (child.pid, tid, child.pid, child.pid)
    assert tid in {event.tid for event in faults.exits}


@pytest.mark.parametrize("exclude_kernel", [False, True])
def test_faults_inside_system_calls(fork, memory, open_log, exclude_kernel):
    """What the kernel touches for a thread is logged, unless its faults are excluded."""
    pages = memory.private(3)

    def body():
        yield
        with Path("/dev/zero").open("rb", buffering=0) as zeros:
            zeros.readinto(pages.data)
        yield

    child = fork(body)
    child.step()
    log = open_log(child.pid, exclude_kernel=exclude_kernel)
    child.step()
    assert pages_of(log.drain(), pages)[0] == ([] if exclude_kernel else [0, 1, 2])


def test_a_fault_that_ends_in_a_signal_is_logged(fork, memory, open_log):
    """The event is raised before the fault is resolved: an access that is refused has one as well.

    So a page that is present because a thread faulted it in has its record already.
    """
    pages = memory.private(1, PROT_NONE)

    def body():
        yield
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGSEGV, signal.SIG_DFL)
            pages.data[0, 0] = 1
        yield os.WTERMSIG(os.waitpid(pid, 0)[1])

    child = fork(body)
    child.step()
    log = open_log(child.pid)
    assert child.step() == signal.SIGSEGV
    assert pages_of(log.drain(), pages)[0] == [0]


def test_the_descriptors_tell_when_to_drain(fork, memory, open_log):
    """poll(2) says POLLIN once a ring has filled to its mark, and POLLHUP once all have ended."""
    pages = memory.private(1000)

    def body():
        yield
        pages.touch()
        yield

    child = fork(body)
    child.step()
    log = open_log(child.pid, 4)
    poll = select.poll()
    for descriptor in log.filenos:
        poll.register(descriptor, select.POLLIN)
    assert len(log.filenos) == len(CPUS)
    log.drain()
    child.step()
    assert {what for _, what in poll.poll(10_000)} == {select.POLLIN}
    child.kill()
    log.drain()
    hung = dict(poll.poll(10_000))
    assert set(hung) == set(log.filenos)
    assert all(what & select.POLLHUP for what in hung.values())


def test_a_log_is_closed_at_the_end_of_its_context(open_log):
    """Behind the context nothing is open; closing again is no error."""
    with open_log(0) as log:
        descriptors = log.filenos
    log.close()
    for descriptor in descriptors:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)


def test_a_cpu_that_is_not_there_is_named(open_log):
    """The error names the CPU, and what was open by then is closed again."""
    open_log(0)
    before = open_descriptors()
    with pytest.raises(ArgumentError, match=f"CPU {NO_CPU}"):
        open_fault_log(0, (*CPUS, NO_CPU), 1, exclude_kernel=True)
    assert open_descriptors() == before


def test_a_process_that_is_not_there_is_named(no_pid, open_log):
    """A pid that nobody has is an error with the pid."""
    open_log(0)
    with pytest.raises(NoSuchProcessError, match=f"no process {no_pid}"):
        open_fault_log(no_pid, CPUS, 1, exclude_kernel=True)


@pytest.mark.parametrize(
    ("pid", "cpus", "pages", "sentence"),
    [
        (-1, [0], 1, "-1 is no task"),
        (0, [], 1, "no CPU"),
        (0, [0], 0, "cannot have 0 pages"),
        (0, [0], 3, "cannot have 3 pages"),
        (0, [0], -2, "cannot have -2 pages"),
    ],
)
def test_arguments_that_make_no_sense(pid, cpus, pages, sentence):
    """Bad arguments are refused before the kernel is asked; -1 would mean every process."""
    with pytest.raises(ArgumentError, match=sentence):
        open_fault_log(pid, cpus, pages, exclude_kernel=True)


@pytest.mark.usefixtures("root")
def test_another_users_process_is_off_limits(fork, unprivileged):
    """The refusal is a PermissionError that names the setting to look at."""
    other = fork().pid

    def look():
        try:
            open_fault_log(other, CPUS, 1, exclude_kernel=True)
        except CallError as error:
            return error

    refused = unprivileged(look)
    assert isinstance(refused, PermissionError)
    assert "kernel.perf_event_paranoid" in str(refused) or "seccomp" in str(refused)
    assert refused.pid == other


def test_an_ordinary_user_may_lock_so_much(unprivileged, memory):
    """Its own faults it may log with small rings; for large ones the setting is named."""
    pages = memory.private(3)

    def look():
        said = []
        for count in (16, 1 << 16):
            try:
                with open_fault_log(0, CPUS, count, exclude_kernel=True) as log:
                    pages.touch()
                    said.append(pages_of(log.drain(), pages)[0])
            except CallError as error:
                said.append(f"{type(error).__name__}: {error}")
        return said

    small, large = unprivileged(look)
    if isinstance(small, str):
        pytest.skip(small)
    assert small == [0, 1, 2]
    assert large.startswith("NotPermittedError")
    assert "kernel.perf_event_mlock_kb" in large


def test_the_caller_can_log_itself(memory, open_log):
    """Pid 0 is the calling thread."""
    pages = memory.private(2)
    log = open_log(0)
    pages.touch()
    touched, rows = pages_of(faults := log.drain(), pages)
    assert touched == [0, 1]
    assert set(faults.tid[rows].tolist()) == {threading.get_native_id()}

"""Who faulted which page, of real processes and, for orders that are rare, of written records."""

from __future__ import annotations

import ctypes
import mmap
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from guestkit.pages import PAGE_BYTES

from movepages.emulator.fault_log import FaultRecorder
from movepages.errors import FilteredError, NotPermittedError, UnsupportedError
from movepages.linux.perf_event import open_fault_log
from movepages.linux.perf_records import Exec, Exit, Faults, Fork

host = pytest.mark.host
MANY = 100_000


@pytest.fixture
def record():
    """Records the faults of a task meanwhile; where a container forbids it, the test says so."""
    recorders = []

    def begun(pid, pages=64):
        try:
            log = open_fault_log(pid, range(os.cpu_count()), pages, exclude_kernel=False)
        except (FilteredError, NotPermittedError, UnsupportedError) as error:
            pytest.skip(str(error))
        recorders.append(FaultRecorder(log))
        return recorders[-1].__enter__()

    yield begun
    for recorder in recorders:
        recorder.__exit__(None, None, None)


def open_descriptors():
    """Count the descriptors of this process."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def numbers(pages):
    """Return the page numbers of pages."""
    return pages.addresses // np.uint64(PAGE_BYTES)


def span(pages):
    """Return first page and end of pages that lie side by side."""
    low, high = pages.range
    return low // PAGE_BYTES, high // PAGE_BYTES


def who(recorder, pid, page_numbers):
    """Return the thread that faulted each page last, or None."""
    tids, cpus, known = recorder.who_faulted(pid, page_numbers)
    assert (tids.dtype, cpus.dtype, known.dtype) == (np.int32, np.int32, np.bool_)
    assert set(cpus[known].tolist()) <= set(range(os.cpu_count()))
    return [
        tid if there else None for tid, there in zip(tids.tolist(), known.tolist(), strict=True)
    ]


def in_thread(function):
    """Run a function in a thread of its own, to the end; return its tid."""
    tids = []

    def body():
        tids.append(threading.get_native_id())
        function()

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    return tids[0]


@host
def test_each_page_has_the_thread_that_touched_it(fork, memory, record):
    """Pages touched by three threads, and pages that none touched, are told apart."""
    pages = memory.private(40)

    def body():
        yield
        tids = [in_thread(pages[k : k + 10].touch) for k in (0, 10)]
        pages[20:30].touch()
        yield [*tids, threading.get_native_id()]

    child = fork(body)
    child.step()
    recorder = record(child.pid)
    first, second, main = child.step()
    expected = [first] * 10 + [second] * 10 + [main] * 10 + [None] * 10
    assert who(recorder, child.pid, numbers(pages)) == expected
    assert who(recorder, child.pid, numbers(pages)[::-1]) == expected[::-1]
    assert who(recorder, child.pid + 1, numbers(pages)[:2]) == [None, None]


@host
def test_no_fault_of_many_is_lost(fork, memory, record):
    """100,000 pages touched by four threads at once: all are known, each with its thread."""
    pages = memory.private(MANY)

    def body():
        yield
        tids = [0] * 4

        def touch(k):
            tids[k] = threading.get_native_id()
            pages.data[k::4, 0] = 1

        threads = [threading.Thread(target=touch, args=(k,)) for k in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        yield tids

    child = fork(body)
    child.step()
    recorder = record(child.pid, 512)
    tids = child.step()
    found, _, known = recorder.who_faulted(child.pid, numbers(pages))
    assert recorder.lost == 0
    assert known.all()
    assert (found == np.array(tids)[np.arange(MANY) % 4]).all()


@host
def test_a_ring_that_overflows_is_confessed(fork, memory, record):
    """While nobody can drain, faults are lost; how many is counted, and the rest is right."""
    pages = memory.private(4000)

    def body():
        yield
        pages.touch()
        yield threading.get_native_id()
        yield in_thread(lambda: mmap.mmap(-1, PAGE_BYTES).write(b"x"))

    child = fork(body)
    os.sched_setaffinity(child.pid, {min(os.sched_getaffinity(0))})
    child.step()
    recorder = record(child.pid, 16)
    with recorder._lock:
        tid = child.step()
    recorder.drain()
    child.step()  # the loss is told with the next record
    found = who(recorder, child.pid, numbers(pages))
    assert set(found) == {tid, None}
    assert recorder.lost >= found.count(None)


@host
def test_the_last_fault_since_it_was_forgotten(fork, memory, record):
    """A page that is dropped and touched again belongs to who touched it last."""
    pages = memory.private(6)

    def body():
        yield
        yield in_thread(pages.touch)
        dropped = ctypes.c_void_p(pages[2:].start), ctypes.c_size_t(2 * PAGE_BYTES)
        assert ctypes.CDLL(None).madvise(*dropped, mmap.MADV_DONTNEED) == 0
        yield in_thread(pages.touch)

    child = fork(body)
    child.step()
    recorder = record(child.pid)
    first = child.step()
    assert who(recorder, child.pid, numbers(pages)) == [first] * 6
    recorder.forget(child.pid, *span(pages[2:5]))
    assert who(recorder, child.pid, numbers(pages)) == [first] * 2 + [None] * 3 + [first]
    recorder.forget(child.pid + 1, *span(pages))
    second = child.step()
    expected = [first] * 2 + [second] * 2 + [None, first]
    assert who(recorder, child.pid, numbers(pages)) == expected


@host
def test_a_fork_has_faults_of_its_own(fork, memory, record):
    """What the parent touched is not the child's; what the child copies by writing is."""
    pages = memory.private(4)

    def body():
        yield
        pages[:2].touch()
        out, into = os.pipe()
        pid = os.fork()
        if pid == 0:
            pages[1:3].touch()
            os.read(out, 1)
            os._exit(0)
        yield pid
        os.write(into, b"!")
        os.waitpid(pid, 0)
        yield

    child = fork(body)
    child.step()
    recorder = record(child.pid)
    pid = child.step()
    while who(recorder, pid, numbers(pages)[2:3]) != [pid]:
        os.sched_yield()
    assert who(recorder, child.pid, numbers(pages)) == [child.pid] * 2 + [None] * 2
    assert who(recorder, pid, numbers(pages)) == [None, pid, pid, None]
    assert recorder.creator_of(pid) == child.pid
    child.step()
    assert who(recorder, pid, numbers(pages)) == [None] * 4
    assert recorder.creator_of(pid) is None


@host
def test_another_program_has_other_memory(fork, memory, record):
    """execve(2) drops the faults there were; those of the new program are kept."""
    pages = memory.private(50)

    def body():
        yield
        pages[:25].touch()
        yield
        os.execv("/bin/sleep", ["sleep", "1000"])  # noqa: S606 - a new program, not a shell's

    child = fork(body)
    child.step()
    recorder = record(child.pid)
    child.step()
    assert any(who(recorder, child.pid, numbers(pages)))
    os.write(child._go, b"!")
    while any(who(recorder, child.pid, numbers(pages))):
        os.sched_yield()
    while not len(recorder._spaces[child.pid].table):
        recorder.drain()


@host
def test_the_thread_ends_with_the_context(fork):
    """No thread and no descriptor is left, and what was recorded can still be asked for."""
    child = fork()
    before = open_descriptors()
    try:
        log = open_fault_log(child.pid, [0], 1, exclude_kernel=True)
    except (FilteredError, NotPermittedError, UnsupportedError) as error:
        pytest.skip(str(error))
    with FaultRecorder(log) as recorder:
        assert "faults" in {thread.name for thread in threading.enumerate()}
    assert "faults" not in {thread.name for thread in threading.enumerate()}
    assert open_descriptors() == before
    assert who(recorder, child.pid, np.array([1], dtype=np.uint64)) == [None]


class Written:
    """A log whose drains were written beforehand."""

    filenos = ()

    def __init__(self, *drains):
        """Take what each drain returns; later ones return nothing."""
        self.drains = list(drains)

    def drain(self):
        """Return the next of the drains."""
        return self.drains.pop(0) if self.drains else drained()


def drained(*events, lost=0):
    """Make what a drain returns, of events and of faults (time, pid, tid, page)."""
    faults = sorted(event for event in events if type(event) is tuple)
    columns = [np.array([fault[i] for fault in faults]) for i in range(4)]

    def of(kind):
        return tuple(event for event in events if isinstance(event, kind))

    return Faults(
        time_ns=columns[0].astype(np.uint64),
        address=columns[3].astype(np.uint64) * np.uint64(PAGE_BYTES),
        pid=columns[1].astype(np.int32),
        tid=columns[2].astype(np.int32),
        cpu=np.zeros(len(faults), dtype=np.int32),
        lost=lost,
        forks=of(Fork),
        exits=of(Exit),
        execs=of(Exec),
    )


def seen(*drains):
    """Return who faulted pages 0 to 4 of process 7, after some drains."""
    recorder = FaultRecorder(Written(*drains))
    for _ in drains:
        recorder.drain()
    return who(recorder, 7, np.arange(5, dtype=np.uint64)), recorder


def test_a_fault_of_the_old_program_that_is_read_late():
    """A fault older than the execve(2) is not the new program's, whenever it is read."""
    found, _ = seen(drained(Exec(100, 7, 7), (101, 7, 7, 1)), drained((99, 7, 7, 2)))
    assert found == [None, 7, None, None, None]


def test_faults_before_and_after_an_execve_in_one_drain():
    """Only those after it are the new program's."""
    found, _ = seen(drained((99, 7, 8, 1), (99, 7, 8, 2), Exec(100, 7, 7), (100, 7, 7, 2)))
    assert found == [None, None, 7, None, None]


def test_a_fork_that_is_read_after_the_faults_of_the_child():
    """The child's faults are kept: they are younger than itself."""
    found, _ = seen(drained((101, 7, 7, 3)), drained(Fork(100, 7, 7, 5, 5)))
    assert found == [None, None, None, 7, None]


def test_a_pid_that_is_used_again():
    """The next process of that number begins without a fault."""
    once = drained(Fork(1, 7, 7, 5, 5), (2, 7, 7, 0), Exit(3, 7, 7))
    again = drained(Fork(10, 7, 7, 5, 5), (11, 7, 7, 4))
    assert seen(once, again)[0] == [None, None, None, None, 7]
    both = drained(
        Fork(1, 7, 7, 5, 5), (2, 7, 7, 0), Exit(3, 7, 7), Fork(10, 7, 7, 5, 5), (11, 7, 7, 4)
    )
    assert seen(both)[0] == [None, None, None, None, 7]


def test_memory_lives_as_long_as_its_last_thread():
    """When the first thread ends before the others, the process and its faults go on."""
    begun = drained(
        Fork(1, 7, 7, 5, 5), Fork(2, 7, 8, 7, 7), (3, 7, 7, 0), (4, 7, 8, 1), Exit(5, 7, 7)
    )
    found, _ = seen(begun)
    assert found[:2] == [7, 8]
    found, recorder = seen(begun, drained(Exit(6, 7, 8)))
    assert found == [None] * 5
    assert recorder._spaces == {}


@pytest.mark.parametrize(
    "late",
    [
        drained((2, 7, 7, 0)),
        drained(Fork(1, 7, 7, 5, 5)),
        drained(Fork(2, 7, 8, 7, 7)),
        drained(Exec(2, 7, 7)),
    ],
    ids=["fault", "fork", "thread", "exec"],
)
def test_what_is_read_after_the_end_of_a_process_makes_no_new_one(late):
    """A record that comes late leaves nothing behind that nobody would ever drop."""
    found, recorder = seen(drained((1, 7, 7, 1), Exit(9, 7, 7)), late)
    assert found == [None] * 5
    assert recorder._spaces == {}


def test_ended_processes_are_not_kept_for_ever():
    """Their numbers are dropped once no record of them can come any more."""
    second = 1_000_000_000
    drains = [drained((k * second, k, k, 0), Exit(k * second + 1, k, k)) for k in range(10, 1000)]
    recorder = seen(*drains)[1]
    assert recorder._spaces == {}
    assert len(recorder._ended._times_ns) <= 2


def test_creator_is_known_until_its_task_ends():
    """A task has the thread that made it, be it of another process; who has ended has none."""
    begun = drained(Fork(1, 7, 7, 5, 6), Fork(2, 7, 8, 7, 7), Fork(3, 9, 9, 7, 8))
    _, recorder = seen(begun, drained(Exit(4, 7, 8)))
    assert [recorder.creator_of(tid) for tid in (7, 8, 9, 5)] == [6, None, 8, None]


def test_fork_that_is_read_after_the_exit_leaves_no_creator():
    """A thread that came and went on two CPUs is not kept, whichever ring is read first."""
    _, recorder = seen(drained(Exit(4, 7, 8)), drained(Fork(2, 7, 8, 7, 7)))
    assert recorder.creator_of(8) is None
    assert recorder._creators == {}
    recorder = seen(drained(Exit(4, 7, 8)), drained(Fork(5, 7, 8, 7, 7)))[1]
    assert recorder.creator_of(8) == 7


def test_what_is_kept_of_a_million_threads_does_not_grow():
    """However many tasks come and go, only those of the last second and those that live stay."""
    tenth = 100_000_000
    drains = [
        drained(Fork(k * tenth, 7, k, 7, 7), Exit(k * tenth + 1, 7, k)) for k in range(10, 5000)
    ]
    recorder = seen(drained(Fork(1, 7, 7, 5, 5)), *drains)[1]
    assert recorder._creators == {7: 5}
    assert recorder._spaces[7].threads == {7}
    assert len(recorder._ended_threads._times_ns) <= 11


def test_fault_that_was_taken_is_forgotten():
    """A fault brings one page about; the next one of that page is another."""
    recorder = seen(drained((1, 7, 8, 0), (1, 7, 9, 1)))[1]
    page = np.array([0], dtype=np.uint64)
    assert recorder.take_faults(7, page)[0].tolist() == [8]
    assert not recorder.take_faults(7, page)[2].any()
    assert who(recorder, 7, np.arange(2, dtype=np.uint64)) == [None, 9]
    assert not recorder.take_faults(5, page)[2].any()


def test_pages_are_forgotten_up_to_the_time_they_were_unmapped():
    """A fault of before counts no more, one of after does, though both are read afterwards."""
    recorder = FaultRecorder(Written(drained((1, 7, 8, 1), (1, 7, 8, 3))))
    recorder.drain()
    recorder.forget(7, 1, 3)
    later = time.monotonic_ns() + 1_000_000_000
    recorder._log.drains.append(drained((2, 7, 9, 0), (2, 7, 9, 2), (2, 5, 5, 2), (later, 7, 6, 1)))
    assert who(recorder, 7, np.arange(5, dtype=np.uint64)) == [9, 6, None, 8, None]
    assert who(recorder, 5, np.arange(3, dtype=np.uint64)) == [None, None, 5]
    assert recorder._unmapped == []


def test_ranges_that_are_unmapped_do_not_pile_up():
    """However many there are between two questions, a few are remembered."""
    recorder = FaultRecorder(Written(drained(*((1, 7, 7, page) for page in range(5)))))
    for _ in range(1000):
        recorder.forget(7, 1, 4)
        assert len(recorder._unmapped) < 64
    assert who(recorder, 7, np.arange(5, dtype=np.uint64)) == [7, None, None, None, 7]


def test_losses_add_up():
    """What each drain has lost is counted."""
    assert seen(drained(lost=2), drained((1, 7, 7, 0), lost=3))[1].lost == 5

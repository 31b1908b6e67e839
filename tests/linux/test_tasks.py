from __future__ import annotations

import os
import threading
import time

import pytest

from movepages.errors import MalformedError, NoSuchProcessError
from movepages.linux.tasks import read_boot_id, read_last_cpus, read_task_info, read_threads
from movepages.nodeset import NodeSet
from movepages.values import ThreadInfo

STATUS = """\
Name:\ta (b) c
State:\tS (sleeping)
Tgid:\t7
Pid:\t7
PPid:\t1
Uid:\t1000\t1001\t1000\t1000
Gid:\t100\t100\t100\t100
VmSize:\t    3060 kB
Threads:\t2
CapPrm:\t0
CapEff:\t0
Cpus_allowed_list:\t0-3
"""


def stat(pid: int, cpu: int, state: str = "S", times: tuple[int, int] = (0, 0)) -> str:
    """Return a stat line whose fields 14, 15 and 39, counted from 1 as in proc(5), are these."""
    fields = [str(pid), "(a (b) c)", state, *["0"] * 49]
    fields[14 - 1], fields[15 - 1] = map(str, times)
    fields[39 - 1] = str(cpu)
    return " ".join(fields) + "\n"


def test_captured_process(put_process, put):
    """Who a process is comes from stat and status, its CPUs from the stat of each thread."""
    root = put_process(status=STATUS + "Mems_allowed_list:\t1,3\n")
    put("proc/7/task/7/stat", stat(7, 3))
    put("proc/7/task/10/stat", stat(10, 0))
    put("proc/7/task/9/stat", stat(9, 2))
    put("proc/sys/kernel/random/boot_id", "0f1e-2d\n")
    info = read_task_info(7, root)
    assert (info.pid, info.boot_id, info.start_ticks) == (7, "0f1e-2d", 5000)
    assert (info.command, info.uid, info.state) == ("a (b) c", 1001, "S")
    assert info.mems_allowed == NodeSet([1, 3])
    assert info.cpus_allowed == (0, 1, 2, 3)
    assert info.last_cpus == (3, 2, 0), "in order of thread id: 7, 9, 10"
    assert not info.kernel_thread


def test_kernel_without_cpusets_allows_every_node(put_process, put):
    """Without Mems_allowed_list a process may allocate on all nodes that have memory."""
    root = put_process(status=STATUS)
    put("proc/7/task/7/stat", stat(7, 0))
    put("sys/devices/system/node/has_memory", "0,2\n")
    info = read_task_info(7, root)
    assert info.mems_allowed == NodeSet([0, 2])
    assert info.boot_id == ""


def test_thread_that_ended_is_left_out(put_process, put):
    """A thread that is listed, but gone when its stat is read, has no last CPU."""
    root = put_process()
    put("proc/7/task/7/stat", stat(7, 5))
    (root / "proc/7/task/8").mkdir()
    assert read_last_cpus(7, root) == (5,)


def test_short_stat_of_a_thread_is_named(put_process, put):
    """A thread's stat line that ends just before the CPU is refused with its path."""
    root = put_process()
    put("proc/7/task/7/stat", "7 (x) S" + " 0" * 35 + "\n")
    with pytest.raises(MalformedError, match=r"task/7/stat, line 1: line"):
        read_last_cpus(7, root)


def test_threads_and_their_cpu_time(put_process, put):
    """A thread's time is the first number of its schedstat, in nanoseconds; ticks do not count."""
    root = put_process()
    put("proc/7/task/10/stat", stat(10, 0, times=(3, 1)))
    put("proc/7/task/10/schedstat", "44457202 4881097 68\n")
    put("proc/7/task/7/stat", stat(7, 3))
    put("proc/7/task/7/schedstat", "7 0 1\n")
    assert read_threads(7, root) == [
        ThreadInfo(7, "a (b) c", 3, 7),
        ThreadInfo(10, "a (b) c", 0, 44457202),
    ]


@pytest.mark.parametrize("schedstat", [None, "", "0 0 0\n"])
def test_kernel_without_nanoseconds_has_ticks(put_process, put, schedstat):
    """Where schedstat is missing or says nothing, user and system time count, in clock ticks."""
    root = put_process()
    put("proc/7/task/7/stat", stat(7, 0, times=(30, 12)))
    if schedstat is not None:
        put("proc/7/task/7/schedstat", schedstat)
    (thread,) = read_threads(7, root)
    assert thread.cpu_time_ns == 42 * 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def test_threads_that_ended_are_left_out(put_process, put):
    """A zombie, as the first thread may be, runs nowhere; a process of none but those has ended."""
    root = put_process()
    put("proc/7/task/7/stat", stat(7, 5, "Z"))
    put("proc/7/task/8/stat", stat(8, 6))
    (root / "proc/7/task/9").mkdir()
    assert [thread.tid for thread in read_threads(7, root)] == [8]
    put("proc/7/task/8/stat", stat(8, 6, "X"))
    with pytest.raises(NoSuchProcessError, match="there is no process 7"):
        read_threads(7, root)
    with pytest.raises(NoSuchProcessError, match="there is no process 8"):
        read_threads(8, root)


@pytest.mark.parametrize(
    ("file", "text", "field"),
    [("stat", stat(7, 0, times=("1x", 0)), "utime"), ("schedstat", "1.5 0 1\n", "run time")],
)
def test_malformed_thread_is_named(put_process, put, file, text, field):
    """What is not a number is refused with its path and field."""
    root = put_process()
    put("proc/7/task/7/stat", stat(7, 0))
    put(f"proc/7/task/7/{file}", text)
    with pytest.raises(MalformedError, match=rf"task/7/{file}, line 1: {field}"):
        read_threads(7, root)


def test_process_that_is_replaced_while_it_is_described(put_process):
    """If another process has the pid by the end, the description is not mixed of both: an error."""
    root = put_process(status=STATUS)
    path = root / "proc/7/task/7/stat"
    path.parent.mkdir(parents=True)
    os.mkfifo(path)

    def replace() -> None:
        with path.open("w", encoding="ascii") as fifo:
            text = (root / "proc/7/stat").read_text("ascii")
            (root / "proc/7/stat").write_text(text.replace(" 5000 ", " 5001 "), "ascii")
            fifo.write(stat(7, 0))

    thread = threading.Thread(target=replace)
    thread.start()
    with pytest.raises(NoSuchProcessError, match="there is no process 7"):
        read_task_info(7, root)
    thread.join()


@pytest.mark.host
def test_own_process():
    """This process is described as it knows itself, with a CPU for each of its threads."""
    release = threading.Event()
    others = [threading.Thread(target=release.wait) for _ in range(3)]
    for thread in others:
        thread.start()
    info = read_task_info(0)
    release.set()
    for thread in others:
        thread.join()
    assert info.pid == os.getpid()
    assert info.uid == os.geteuid()
    assert set(info.cpus_allowed) == os.sched_getaffinity(0)
    assert len(info.last_cpus) >= 4
    assert set(info.last_cpus) <= set(info.cpus_allowed)
    assert len(info.mems_allowed) >= 1
    assert info.boot_id == read_boot_id() != ""


@pytest.mark.host
def test_own_threads_run():
    """A thread's CPU time agrees with its own clock, as it was before and after the look."""
    before = time.thread_time_ns()
    threads = {thread.tid: thread for thread in read_threads(0)}
    after = time.thread_time_ns()
    own = threads[threading.get_native_id()]
    assert own.cpu in os.sched_getaffinity(0)
    assert before <= own.cpu_time_ns <= after, "asking the clock brings the kernel's sum up to date"


@pytest.mark.host
def test_a_process_keeps_its_identity(crowded):
    """Asked twice, a process has the same identity; a child began no earlier than its parent."""
    first, second = read_task_info(crowded.pid), read_task_info(crowded.pid)
    assert (first.boot_id, first.start_ticks) == (second.boot_id, second.start_ticks)
    assert first.start_ticks >= read_task_info(0).start_ticks


@pytest.mark.host
def test_zombie_and_nobody(zombie, no_pid):
    """Neither a zombie nor a pid without process can be worked with: NoSuchProcessError."""
    for pid in (zombie, no_pid):
        with pytest.raises(NoSuchProcessError):
            read_task_info(pid)
    for read in (read_last_cpus, read_threads):
        with pytest.raises(NoSuchProcessError):
            read(no_pid)

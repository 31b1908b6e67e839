from __future__ import annotations

import ctypes
import errno
import os
import platform
import signal
import struct
import threading
from collections import Counter

import pytest

from movepages.abi import CALLS
from movepages.emulator.filter import Files, Precision, build_filter, call_numbers
from movepages.emulator.launch import fork_task
from movepages.emulator.replies import Continue, Descriptor, Value
from movepages.emulator.supervisor import Supervisor, Tally
from movepages.linux import syscalls

pytestmark = pytest.mark.emulator

NUMBERS = call_numbers(platform.machine())
FILTER = build_filter(platform.machine(), Precision.EXACT, Files.ALL)


@pytest.fixture
def serve():
    """Return a function that serves a child's calls to its end: what it returned, and the tally.

    The child returns a list of numbers, and is killed if the test fails before it ends.
    """
    pids = []

    def served(handlers, body):
        out, into = os.pipe()

        def told():
            numbers = body()
            os.write(into, struct.pack(f"{len(numbers)}q", *numbers))

        launch = fork_task(told)
        pids.append(launch.pid)
        os.close(into)
        listener = launch.install(FILTER)
        launch.start()
        tally = Supervisor(listener, handlers, NUMBERS).serve()
        listener.close()
        data = os.read(out, 1 << 16)
        os.close(out)
        return list(struct.unpack(f"{len(data) // 8}q", data)), tally

    yield served
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def call_all():
    """Make each of the NUMA calls, in the order of CALLS."""
    return [
        syscalls.move_pages(0, 0, None, None, None, 0),
        syscalls.migrate_pages(0, 0, None, None),
        syscalls.mbind(0, 0, 0, None, 0, 0),
        syscalls.set_mempolicy(0, None, 0),
        syscalls.get_mempolicy(None, None, 0, None, 0),
        syscalls.set_mempolicy_home_node(0, 0, 0, 0),
    ]


def raising(problem):
    """Return a handler that raises."""

    def handler(_notification):
        raise problem

    return handler


def test_each_call_has_its_handler(serve):
    """Each of the NUMA calls gets the answer of its own handler, errors too."""
    answers = [7, 1, -errno.EIO, -errno.EINVAL, 0, -errno.EOPNOTSUPP]
    handlers = {
        call: (lambda _, ret=ret: Value(ret)) for call, ret in zip(CALLS, answers, strict=True)
    }
    returned, tally = serve(handlers, call_all)
    assert returned == answers
    assert [tally.served[call] for call in CALLS] == [1] * 6
    assert tally.complaint() == ""


def test_without_handlers_everything_goes_through(serve):
    """With no handler at all the program runs as if it were not emulated."""
    returned, tally = serve({}, lambda: [*call_all(), len(os.listdir("/proc/self"))])  # noqa: PTH208
    assert returned[:6] == call_all()
    assert returned[6] > 10
    assert tally.served["openat"] >= 1


@pytest.mark.parametrize(
    "problem",
    [ValueError("on purpose"), MemoryError(), RecursionError(), OSError(errno.EIO, "I/O error")],
)
def test_handler_that_raises(serve, problem):
    """A NUMA call whose handler raises is out of memory, another goes through; both are told."""
    handlers = dict.fromkeys((*CALLS, "openat"), raising(problem))

    def body():
        with open("/proc/self/comm") as comm:  # noqa: PTH123
            name = len(comm.read())
        return [*call_all(), name]

    returned, tally = serve(handlers, body)
    assert returned[:6] == [-errno.ENOMEM] * 6
    assert returned[6] > 0
    assert tally.first_defect is problem
    assert tally.defects.total() >= 7
    assert type(problem).__name__ in tally.complaint()


@pytest.mark.parametrize(
    "reply", [None, 0, "0", Value("0"), Value(2**70), Descriptor(-1, cloexec=True)]
)
def test_reply_that_is_none(serve, reply):
    """What is no reply at all still leaves the caller with an answer."""
    returned, tally = serve(
        {"mbind": lambda _: reply}, lambda: [syscalls.mbind(0, 0, 0, None, 0, 0)]
    )
    assert returned[0] < 0
    if not isinstance(reply, Descriptor):
        assert returned == [-errno.ENOMEM]
        assert tally.defects.total() == 1


def test_descriptor_is_given_and_closed(serve):
    """The program's open returns a copy of the descriptor, and ours is closed."""
    given = []

    def handler(notification):
        if os.pread(memory, 9, notification.args[1]) != b"/dev/null":
            return Continue()
        given.append(os.memfd_create("other"))
        os.write(given[0], b"emulated")
        os.lseek(given[0], 0, os.SEEK_SET)
        return Descriptor(given[0], cloexec=True)

    path = ctypes.create_string_buffer(b"/dev/null")
    memory = os.open("/proc/self/mem", os.O_RDONLY)  # the child's copy is at the same address

    def body():
        libc = ctypes.CDLL(None)
        fd = libc["syscall"](NUMBERS["openat"], -100, path, os.O_RDONLY, 0)
        return list(os.read(fd, 100))

    returned, _ = serve({"openat": handler}, body)
    os.close(memory)
    assert bytes(returned) == b"emulated"
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(given[0])


def test_threads_are_answered_each(serve):
    """Calls of 16 threads at once get each the answer for its own thread."""
    tids = []

    def handler(notification):
        tids.append(notification.tid)
        return Value(notification.tid)

    def body():
        answers = []

        def thread():
            answers.extend(
                syscalls.get_mempolicy(None, None, 0, None, 0) == threading.get_native_id()
                for _ in range(50)
            )

        threads = [threading.Thread(target=thread) for _ in range(16)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        return [sum(answers), len(answers)]

    returned, tally = serve({"get_mempolicy": handler}, body)
    assert returned == [800, 800]
    assert tally.served["get_mempolicy"] == 800
    assert sorted(Counter(tids).values()) == [50] * 16


def test_children_are_answered_too(serve):
    """A tree of 31 processes, five forks deep, is under the filter as a whole."""

    def body():
        right = 0
        for _ in range(5):
            os.fork()  # each generation doubles: 32 processes, this one among them
        right += syscalls.set_mempolicy(0, None, 0) == 77
        children = 0
        while True:
            try:
                _, status = os.wait()
            except ChildProcessError:
                break
            children += os.waitstatus_to_exitcode(status)
        if os.getpid() != first[0]:
            os._exit(children + right)
        return [children + right]

    first = [0]

    def with_pid():
        first[0] = os.getpid()
        return body()

    returned, tally = serve({"set_mempolicy": lambda _: Value(77)}, with_pid)
    assert returned == [32]
    assert tally.served["set_mempolicy"] == 32


def test_caller_killed_in_mid_call_is_no_defect(serve):
    """A program that is killed while its call is answered ends the serving quietly."""

    def handler(notification):
        os.kill(notification.tid, signal.SIGKILL)
        return Value(0)

    returned, tally = serve({"mbind": handler}, call_all)
    assert returned == []
    assert not tally.defects


def test_caller_killed_whose_handler_raises_is_no_defect(serve):
    """A handler that fails because its caller has just died has done nothing wrong."""

    def handler(notification):
        os.kill(notification.tid, signal.SIGKILL)
        os.waitid(os.P_PID, notification.tid, os.WEXITED | os.WNOWAIT)
        raise ProcessLookupError

    returned, tally = serve({"mbind": handler}, call_all)
    assert returned == []
    assert not tally.defects


def test_no_descriptor_is_left_behind(serve):
    """Serving 2,000 calls leaves as many descriptors open as before."""

    def body():
        return [sum(syscalls.set_mempolicy(0, None, 0) for _ in range(2000))]

    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    returned, _ = serve({"set_mempolicy": lambda _: Value(1)}, body)
    assert returned == [2000]
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_complaint_names_the_commonest():
    """One line names the most frequent failure and counts all."""
    tally = Tally()
    assert tally.complaint() == ""
    tally.defects["mbind", "KeyError: 3"] = 2
    assert tally.complaint().startswith("2 calls were answered by guess")
    tally.defects["openat", "ValueError: x"] = 1
    assert "3 calls were" in tally.complaint()
    assert "(mbind: KeyError: 3)" in tally.complaint()


def test_complaint_about_one_call():
    """A single failure is told in the singular."""
    tally = Tally()
    tally.defects["mbind", "KeyError: 3"] = 1
    assert tally.complaint().startswith("1 call was answered by guess")

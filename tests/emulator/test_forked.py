"""Functions under the emulator in a forked child, while the caller goes on."""

from __future__ import annotations

import faulthandler
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from movepages.emulator.deferred import defer_machine
from movepages.emulator.filter import Precision
from movepages.emulator.forked import Forked, Function
from movepages.emulator.run import Settings
from movepages.errors import TopologyError
from movepages.topology import parse_topology

pytestmark = pytest.mark.emulator

SETTINGS = Settings(Precision.EXACT)
STATUS = Path("/proc/self/status")


def world():
    """Return a machine of two nodes."""
    made = defer_machine(parse_topology("2"), "6.12", Precision.EXACT)
    made.notice = ""
    return made


@pytest.fixture
def start():
    """Return a function that starts a function in a child, which ends with the test."""
    started = []

    def forked(body, make_world=world):
        started.append(Forked(Function("the child", body), make_world, SETTINGS))
        return started[-1]

    yield forked
    for child in started:
        child.end()


def test_answer(start):
    """What the function returns comes back, from the emulated machine, however long it is."""
    online = Path("/sys/devices/system/node/online")
    ended = start(lambda _begin: online.read_bytes() * 100_000).wait()
    assert (ended.answer, ended.code) == (b"0-1\n" * 100_000, 0)
    assert (ended.crash, ended.failure, ended.said) == ("", "", "")


def test_empty_answer(start):
    """Nothing is an answer, too."""
    assert start(lambda _begin: b"").wait().answer == b""


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (lambda _begin: os._exit(5), 5),
        (lambda _begin: os.kill(os.getpid(), signal.SIGKILL), -signal.SIGKILL),
        (lambda _begin: sys.exit(3), 126),
    ],
)
def test_no_answer(start, body, code):
    """A child that does not return has no answer, and its own end."""
    ended = start(body).wait()
    assert (ended.answer, ended.code, ended.failure) == (None, code, "")


def test_crash(start):
    """What faulthandler writes of a crash is kept apart."""
    enabled = faulthandler.is_enabled()
    faulthandler.enable()
    try:
        ended = start(lambda _begin: os.abort()).wait()
    finally:
        if not enabled:
            faulthandler.disable()
    assert ended.code == -signal.SIGABRT
    assert ended.crash.startswith("Fatal Python error: Aborted")


def test_failure(start):
    """An error of whoever makes the machine is a sentence, and the child does not run."""

    def failing():
        raise TopologyError("no node has memory")

    ended = start(lambda _begin: b"", failing).wait()
    assert (ended.answer, ended.failure) == (None, "no node has memory")


def test_caller_goes_on():
    """Threads, streams, signals and descriptors of the caller are as before."""

    def facts():
        streams = [Path(f"/proc/self/fd/{fd}").readlink() for fd in (0, 1, 2)]
        count = len(list(Path("/proc/self/fd").iterdir()))
        return streams, count, signal.pthread_sigmask(signal.SIG_BLOCK, ())

    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    before = facts()
    child = Forked(Function("the child", lambda _begin: STATUS.read_bytes()), world, SETTINGS)
    assert b"\nThreads:\t1\n" in child.wait().answer
    child.end()
    assert facts() == before
    assert thread.is_alive()
    stop.set()
    thread.join()


def test_streams_are_the_childs(start, capfd):
    """Its standard error is the caller's, while what the emulator says is not."""
    ended = start(lambda _begin: b"%d" % os.write(2, b"from the child\n")).wait()
    assert ended.answer == b"15"
    assert capfd.readouterr().err == "from the child\n"


def test_descendants_are_ended(start):
    """When the child has ended, what it has left running is ended, and nothing else."""

    def body(_begin):
        pids = []
        for _ in range(3):
            pids.append(os.fork())
            if not pids[-1]:
                signal.pause()
        return repr(pids).encode()

    pids = eval(start(body).wait().answer)  # noqa: S307 - a list of numbers
    assert len(pids) == 3
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []


def test_a_fork_does_not_answer(start):
    """A fork of the child that returns from the function as well is not heard."""
    assert start(lambda _begin: b"child" if os.fork() else b"fork").wait().answer == b"child"


def test_interrupt(start):
    """The child can unwind, and its answer is there."""
    out, into = os.pipe()

    def body(begin):
        begin()
        try:
            os.write(into, b"x")
            signal.pause()
        except KeyboardInterrupt:
            return b"interrupted"

    child = start(body)
    assert os.read(out, 1) == b"x"
    child.interrupt()
    assert child.wait().answer == b"interrupted"
    os.close(out)
    os.close(into)


def test_end():
    """A child that waits for ever is ended, with what it has started."""
    out, into = os.pipe()

    def body(_begin):
        if os.fork():
            os.write(into, b"x")
        signal.pause()

    child = Forked(Function("the child", body), world, SETTINGS)
    os.close(into)
    assert os.read(out, 1) == b"x"
    child.end()
    assert os.read(out, 1) == b""
    os.close(out)


def test_signals_wait_until_the_child_is_ready(start):
    """What the caller has not blocked is blocked in the child until it says that it is ready."""

    def body(begin):
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        begin()
        return repr(
            (signal.SIGINT in before, signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        ).encode()

    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert start(body).wait().answer == repr((True, mask)).encode()


def test_caller_is_killed():
    """When the caller is killed, the child is ended."""
    out, into = os.pipe()
    caller = os.fork()
    if not caller:

        def body(_begin):
            os.write(into, b"x")
            signal.pause()

        Forked(Function("the child", body), world, SETTINGS).wait()
        os._exit(0)
    os.close(into)
    assert os.read(out, 1) == b"x"
    os.kill(caller, signal.SIGKILL)
    os.waitpid(caller, 0)
    assert os.read(out, 1) == b""
    os.close(out)


AS_NOBODY = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
TELL_STATUS = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_forked import *
child = Forked(Function("the child", lambda _begin: STATUS.read_bytes()), world, SETTINGS)
sys.stdout.buffer.write(child.wait().answer)
child.end()
"""


def test_without_privilege():
    """The namespace of an ordinary user's child gives it no capability, as after an execve."""
    drop = AS_NOBODY if os.geteuid() == 0 else ()
    command = [*drop, sys.executable, "-B", "-c", TELL_STATUS]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=50).stdout
    assert "\nMems_allowed_list:\t0-1\n" in said
    assert "\nCapEff:\t0000000000000000\n" in said
    assert "\nCapPrm:\t0000000000000000\n" in said

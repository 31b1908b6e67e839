"""What tests of the emulator share: programs under it, as subprocesses."""

from __future__ import annotations

import mmap
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest

from movepages.emulator.launch import fork_task

BARE = (sys.executable, str(Path(__file__).parent / "bare.py"))


def make_calls():
    """Make one call of each kind, raw: libc would get at some through others, or through none."""
    import ctypes
    import platform

    from movepages.emulator.filter import call_numbers

    numbers = call_numbers(platform.machine())
    syscall = ctypes.CDLL(None)["syscall"]
    syscall.restype = ctypes.c_long
    page = mmap.PAGESIZE

    def call(name, *args):
        return syscall(ctypes.c_long(numbers[name]), *map(ctypes.c_long, args))

    place = call("mmap", 0, 4 * page, 3, 0x22, -1, 0)
    assert call("mmap", place, page, 3, 0x32, -1, 0) == place
    for advice in (0, 1, 4):
        assert call("madvise", place, page, advice) == 0
    assert call("munmap", place, 4 * page) == 0
    path = ctypes.create_string_buffer(b"/dev/null")
    for flags in (os.O_RDONLY, os.O_WRONLY):
        os.close(call("openat", -100, ctypes.addressof(path), flags, 0))
    assert call("getcpu", 0, 0, 0) == 0
    assert call("get_mempolicy", 0, 0, 0, 0, 0) == 0


class Running:
    """A program that talks over a pipe: it says a line when it is ready, and holds a pipe open.

    `gone()` waits until every process that has inherited the pipe is gone.
    """

    def __init__(self, command, **settings):
        """Start it."""
        self.held, holds = os.pipe()
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            pass_fds=(holds,),
            **settings,
        )
        os.close(holds)

    def says(self):
        """Wait for a line of the program's output."""
        return self.process.stdout.readline().rstrip("\n")

    def gone(self, seconds=20):
        """Tell whether all processes of the program are gone within some time."""
        ready, _, _ = select.select([self.held], [], [], seconds)
        return bool(ready) and os.read(self.held, 1) == b""

    def ended(self):
        """Wait for the front to end; return its exit code and what it said on stderr."""
        code = self.process.wait(timeout=20)
        return code, self.process.stderr.read()

    def end(self):
        """End what still runs."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.held)
        self.process.stdout.close()
        self.process.stderr.close()


@pytest.fixture
def start():
    """Return a function that starts a command; it ends with the test."""
    running = []

    def started(*command, **settings):
        running.append(Running(command, **settings))
        return running[-1]

    yield started
    for program in running:
        program.end()


@pytest.fixture
def bare():
    """Return a function that runs a command under the bare emulator, and returns what came of it.

    `as_nobody` runs it without any privilege.
    """

    def ran(*command, options=(), as_nobody=False, **settings):
        who = ("--as-nobody",) if as_nobody else ()
        return subprocess.run(
            [*BARE, *who, *options, "--", *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=50,
            **settings,
        )

    return ran


@pytest.fixture
def ends():
    """Collects pids, and kills what is left of them at the end."""
    pids = []
    yield pids
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


@pytest.fixture
def listen():
    """Return a function that counts, by number, the calls that a child's filter notifies of.

    The child opens a file to read and one to write, maps with and without MAP_FIXED, unmaps, gives
    all sorts of advice, and asks for its CPU and its policy.
    """

    def counted(program):
        launch = fork_task(make_calls)
        listener = launch.install(program)
        launch.start()
        seen = Counter()
        while (notification := listener.receive()) is not None:
            seen[notification.nr] += 1
            listener.let_through(notification.id)
        listener.close()
        assert os.waitstatus_to_exitcode(os.waitpid(launch.pid, 0)[1]) == 0
        return seen

    return counted


@pytest.fixture
def emulate(root):  # noqa: ARG001 - page frames are root's to see
    """Return a function that makes a `LiveMachine`; processes on it end with the test."""
    from live_machine import LiveMachine

    made = []

    def declared(*arguments, **options):
        made.append(LiveMachine(*arguments, **options))
        return made[-1]

    yield declared
    for machine in made:
        machine.close()


@pytest.fixture
def memory_path():
    """A directory of a file system in memory."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as path:
        yield Path(path)


@pytest.fixture
def live(emulate):
    """A machine of four nodes with 1 GiB each, told of changes of the map."""
    return emulate()

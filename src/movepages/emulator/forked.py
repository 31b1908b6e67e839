"""Runs a function in a forked child under the emulator, from a process that goes on afterwards.

    caller ── front ── supervisor ── child

The caller is left as it was: it may have threads, a terminal and signal handlers. All else is the
business of `run`, in a process of its own, which is the front. What the child writes goes where
the caller's output goes; what front and supervisor say is kept apart, for the caller to show.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import select
import signal
import time
import warnings
from contextlib import suppress
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from movepages.emulator import tree
from movepages.emulator.front import BLOCKED, end_like
from movepages.emulator.run import Program, run
from movepages.errors import MovePagesError
from movepages.linux import libc

if TYPE_CHECKING:
    from collections.abc import Callable

    from movepages.emulator.run import Settings, World

_TO_UNWIND_SECONDS = 0.5
"""How long a child that was interrupted may take for its own clean-up."""
_TO_VANISH_SECONDS = 10.0
_TO_HEED_SECONDS = 2.0
"""How long after its alarm a child may take to end, before the alarm goes off in the caller."""
_FAILED = 1


@dataclass(frozen=True, slots=True)
class Ended:
    """What became of the child.

    `answer` is what the function returned, None if it did not; `code` the exit code, or minus the
    signal. `crash` is what faulthandler wrote; `failure` says in a sentence why the emulator could
    not start the child, or has ended it; `said` is what else it had to say. These may be "".
    """

    answer: bytes | None
    code: int
    crash: str
    failure: str
    said: str


@dataclass(frozen=True, slots=True)
class Function:
    """What the child calls; what it returns is the answer. `name` is for messages.

    It is given a function to call when it is ready for signals and the alarm, whose handlers may
    raise.
    """

    name: str
    body: Callable[[Callable[[], None]], bytes]


class Forked:
    """A child that runs under the emulator, until `end`.

    An alarm that the caller has set, as pytest-timeout does, goes off in the child; in the caller
    it does only later, in case that the child does not heed it.
    """

    def __init__(
        self, function: Function, make_world: Callable[[], World], settings: Settings
    ) -> None:
        """Start it; the function is called once the supervisor answers. The caller goes on."""
        self._files = _Files.make()
        self._gone, held = os.pipe()
        self._alarm = _Alarm.take()
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, BLOCKED)
        try:
            caller = os.getpid()
            self._front = _fork()
            if not self._front:
                _front(
                    _Child(function, self._files, mask, self._alarm), make_world, settings, caller
                )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            os.close(held)
        self._handle = os.pidfd_open(self._front)

    def wait(self) -> Ended:
        """Wait until the child has ended, and whatever it left running.

        A signal handler of the caller may raise meanwhile.
        """
        self._alarm.set(later_seconds=_TO_HEED_SECONDS)
        _ready(self._handle, None)
        _Alarm.take()
        self._alarm.set_if_ahead()
        return self._files.read(os.waitstatus_to_exitcode(os.waitpid(self._front, 0)[1]))

    def interrupt(self) -> None:
        """Let the child unwind as Ctrl-C does, which a terminal has sent to it already."""
        if not _ready(self._handle, _TO_UNWIND_SECONDS):
            os.kill(self._front, signal.SIGINT)
            _ready(self._handle, _TO_UNWIND_SECONDS)

    def end(self) -> None:
        """Kill what is left of the child and of all that it has started, and wait for its end."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._handle, signal.SIGKILL)
        # The supervisor notices, and ends the tree.
        _ready(self._gone, _TO_VANISH_SECONDS)
        with suppress(ChildProcessError):
            os.waitpid(self._front, 0)
        self._files.close()
        os.close(self._handle)
        os.close(self._gone)


@dataclass(frozen=True, slots=True)
class _Alarm:
    """What was left of an alarm of setitimer(2), 0 for none, and when, as time.monotonic() counts.

    A fork inherits none, so it has to be set there anew.
    """

    left_seconds: float
    taken_seconds: float

    @classmethod
    def take(cls) -> _Alarm:
        """Take it from this process."""
        return cls(signal.setitimer(signal.ITIMER_REAL, 0)[0], time.monotonic())

    def set(self, later_seconds: float = 0.0) -> None:
        """Set it in this process, for as long as was left."""
        if self.left_seconds:
            signal.setitimer(signal.ITIMER_REAL, self.left_seconds + later_seconds)

    def set_if_ahead(self) -> None:
        """Set it in this process for when it was due, unless that is past."""
        left_seconds = self.left_seconds - (time.monotonic() - self.taken_seconds)
        signal.setitimer(signal.ITIMER_REAL, max(left_seconds, 0.0))


def _fork() -> int:
    """Fork, whether we have threads or not: what the child needs of them, it starts anew."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns where it sees any
        return os.fork()


def _ready(fd: int, seconds: float | None) -> bool:
    """Wait for something to read, or the end of it, for at most so long."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(None if seconds is None else seconds * 1000))


@dataclass(frozen=True, slots=True)
class _Files:
    """Files in memory, which caller, front, supervisor and child share."""

    answer: int
    crash: int
    failure: int
    said: int

    @classmethod
    def make(cls) -> _Files:
        return cls(*(os.memfd_create(f"movepages-{field.name}") for field in fields(cls)))

    def read(self, code: int) -> Ended:
        """Read what is in them by now."""
        answer = _contents(self.answer)
        return Ended(
            answer=answer.removesuffix(_END) if answer.endswith(_END) else None,
            code=code,
            crash=_contents(self.crash).decode(errors="replace"),
            failure=_contents(self.failure).decode(errors="replace"),
            said=_contents(self.said).decode(errors="replace"),
        )

    def close(self) -> None:
        for fd in astuple(self):
            os.close(fd)


_END = b"."
"""Behind an answer that the child has written to the end."""


def _contents(fd: int) -> bytes:
    with os.fdopen(os.dup(fd), "rb") as file:
        file.seek(0)
        return file.read()


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


class _Child:
    """What the child does, and what it needs from before the processes above it were forked."""

    def __init__(self, function: Function, files: _Files, mask: set[Any], alarm: _Alarm) -> None:
        self.files = files
        self._function, self._mask, self._alarm = function, mask, alarm
        self._stderr = -1
        self._user_namespace = _user_namespace()

    @property
    def name(self) -> str:
        """What to call it in messages."""
        return self._function.name

    def part_with_stderr(self) -> None:
        """Keep stderr for the child: from now on ours is the file of what the emulator says."""
        self._stderr = os.dup(2)
        os.dup2(self.files.said, 2)

    def run(self) -> None:
        """Be the child."""
        own = os.getpid()
        os.dup2(self._stderr, 2)
        os.close(self._stderr)
        if os.geteuid() != 0 and _user_namespace() != self._user_namespace:
            libc.drop_capabilities()  # as execve(2) would: the namespace gave all of them
        if faulthandler.is_enabled():
            faulthandler.enable(self.files.crash)
        answer = self._function.body(self._begin)
        if os.getpid() == own:  # and no fork of it that has come back from the function as well
            _write_all(self.files.answer, answer + _END)

    def _begin(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
        self._alarm.set()


def _user_namespace() -> Path:
    return Path("/proc/self/ns/user").readlink()


def _front(
    child: _Child, make_world: Callable[[], World], settings: Settings, caller: int
) -> NoReturn:
    """Be the front; never return into the code of the caller."""
    try:
        gc.disable()  # what the caller has lost is not ours to finalise
        libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != caller:
            os._exit(_FAILED)
        child.part_with_stderr()
        code = run(Program(child.name, child.run), make_world, settings)
        tree.end_below_children()
        _await_children()
        if code < 0:
            end_like(-code)
        os._exit(code)
    except MovePagesError as error:
        _write_all(child.files.failure, str(error).encode())
    except BaseException as error:  # noqa: BLE001 - whatever it is, the caller's code must not run
        _write_all(child.files.failure, f"{type(error).__name__}: {error}".encode())
    finally:
        os._exit(_FAILED)


def _await_children() -> None:
    with suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)

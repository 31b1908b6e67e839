"""A running guest, seen from the host: run commands in it, fetch files from it."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from labkit.errors import GuestDiedError, GuestHungError, LabError, UnavailableError
from labkit.protocol import Decoder, Message, encode, unpack

if TYPE_CHECKING:
    from pathlib import Path

BOOT_SECONDS = 90.0
# The agent ends a command at its time-out; it is stuck if nothing came this much later.
GRACE_SECONDS = 15.0
# It sends something every five seconds at least; under emulation on a busy host, some are late.
SILENCE_SECONDS = 60.0
# How long a guest that hangs may take to panic when it is told to.
_PANIC_SECONDS = 5.0

_TAIL_LINES = 40
_LINES_BEFORE_PANIC = 5
_PANIC = "Kernel panic"

Sink = Callable[[str, bytes], None]


@dataclass(frozen=True)
class Command:
    """What to run in the guest. `timeout` is in seconds; 0 is none."""

    argv: tuple[str, ...]
    uid: int = 0
    timeout: float = 600.0
    env: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """How a command ended."""

    code: int
    timed_out: bool


class Guest:
    """A machine that was started. Made by `launch.boot`, which owns the descriptors."""

    def __init__(
        self,
        directory: Path,
        environment: dict[str, str],
        line: int,
        monitor: int,
        console: int,
        log: int,
    ) -> None:
        """Take where commands run, the two lines, and the files of console and QEMU's output."""
        self.release = ""
        self.boot_seconds = 0.0
        self._directory = directory
        self._environment = environment
        self._line = line
        self._monitor = monitor
        self._console = console
        self._log = log
        self._decoder = Decoder()
        self._queue: list[Message] = []
        self._started = time.monotonic()

    def wait_until_ready(self) -> None:
        """Wait for the agent's hello."""
        message = self._receive(self._started + BOOT_SECONDS, "the guest did not boot")
        self.release = message["hello"]
        self.boot_seconds = time.monotonic() - self._started

    def run(self, command: Command, sink: Sink) -> Result:
        """Run one command; `sink` gets its output as it comes, with "out" or "err"."""
        self._send(
            {
                "run": command.argv,
                "cwd": str(self._directory),
                "env": self._environment | command.env,
                "uid": command.uid,
                "timeout": command.timeout,
            }
        )
        limit = command.timeout + GRACE_SECONDS if command.timeout else float("inf")
        end = time.monotonic() + limit
        while True:
            by = min(end, time.monotonic() + SILENCE_SECONDS)
            message = self._receive(by, "the guest stopped answering")
            if "rc" in message:
                return Result(message["rc"], message["timeout"])
            for stream in ("out", "err"):
                if stream in message:
                    sink(stream, unpack(message[stream]))

    def fetch(self, path: str, target: Path) -> None:
        """Copy a file of the guest to the host; raise FileNotFoundError if it cannot be read."""
        self._send({"fetch": path})
        part = target.with_name(target.name + ".part")
        try:
            with part.open("wb") as file:
                while "data" in (message := self._receive_soon(f"sending {path}")):
                    file.write(unpack(message["data"]))
            if "missing" in message:
                raise FileNotFoundError(f"cannot fetch {path}: {message['missing']}")
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)

    def console(self) -> str:
        """Return what the guest's console has shown."""
        return "\n".join(_lines(self._console))

    def console_tail(self) -> str:
        """Return the end of the console: from the panic if there was one, else the last lines."""
        return "\n".join(tail(_lines(self._console)))

    def _send(self, message: Message) -> None:
        """Send one request; the agent reads it when it has nothing else to do."""
        data = encode(message)
        while data:
            try:
                data = data[os.write(self._line, data) :]
            except BrokenPipeError:
                raise self._dead() from None

    def _receive_soon(self, doing: str) -> Message:
        """Return the next message, which must not take long."""
        return self._receive(time.monotonic() + SILENCE_SECONDS, f"the guest stopped {doing}")

    def _receive(self, by: float, complaint: str) -> Message:
        """Return the next message; raise GuestHungError if there is none in time."""
        while not self._queue:
            # What has arrived counts, though we may be late ourselves: stdout can block us.
            if not _readable(self._line, by):
                self._provoke_panic()
                raise GuestHungError(f"{complaint}\n{self.console_tail()}")
            data = _read(self._line)
            if not data:
                raise self._dead()
            self._queue = self._decoder.feed(data)
        return self._queue.pop(0)

    def _provoke_panic(self) -> None:
        """Have a guest that hangs panic, for the trace on its console of where it is."""
        by = time.monotonic() + _PANIC_SECONDS
        os.write(self._monitor, b"nmi\n")
        while _readable(self._line, by) and _read(self._line):
            pass

    def _dead(self) -> LabError:
        """Return what to raise when QEMU has gone."""
        complaints = [row for row in _lines(self._log) if "qemu-system" in row]
        if complaints and not self.release:
            return UnavailableError(f"QEMU did not start: {complaints[0]}")
        end = self.console_tail()
        what = "the guest panicked" if _PANIC in end else "the guest went away"
        return GuestDiedError("\n".join([what, *complaints, end]))


def tail(lines: list[str]) -> list[str]:
    """Return the lines that matter of a console."""
    for number, line in enumerate(lines):
        if _PANIC in line:
            return lines[max(0, number - _LINES_BEFORE_PANIC) :]
    return lines[-_TAIL_LINES:]


def _readable(fd: int, by: float) -> bool:
    """Wait until there is something to read, or the end, no longer than until then."""
    wait = None if by == float("inf") else max(0.0, by - time.monotonic())
    return bool(select.select([fd], [], [], wait)[0])


def _read(fd: int) -> bytes:
    """Return what there is to read; nothing if the other side has gone, however it went."""
    try:
        return os.read(fd, 1 << 16)
    except ConnectionResetError:
        return b""


def _lines(fd: int) -> list[str]:
    """Return the lines of an anonymous file, wherever its other users are in it."""
    text = os.pread(fd, os.fstat(fd).st_size, 0).decode(errors="replace")
    return [line.rstrip() for line in text.splitlines()]

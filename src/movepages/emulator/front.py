"""The process that the user started: to the shell it looks like the program, and watches over it.

It waits for signals and for what the supervisor reports. Signals that the terminal sends reach the
program by themselves, for it is in the same process group, and so do those that a shell sends to
that group (`kill %1`); those that somebody sent to the front are passed on to the program. When the
program stops, the front stops, so that a shell notices.
"""

from __future__ import annotations

import json
import os
import resource
import shlex
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from movepages import errors
from movepages.emulator import tree
from movepages.errors import MovePagesError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Set

_OF_ONES_OWN = {
    signal.SIGKILL,
    signal.SIGSTOP,
    signal.SIGABRT,
    signal.SIGBUS,
    signal.SIGFPE,
    signal.SIGILL,
    signal.SIGSEGV,
    signal.SIGSYS,
    signal.SIGTRAP,
}
BLOCKED = frozenset(signal.valid_signals() - _OF_ONES_OWN)
"""What front and supervisor do not act upon by themselves: all but what their own faults bring."""

_NOT_PASSED_ON = {signal.SIGCHLD, signal.SIGPIPE, signal.SIGTTIN, signal.SIGTTOU}
_SI_KERNEL = 0x80  # include/uapi/asm-generic/siginfo.h: the terminal, not a process
_DETACHED, _FORGET = b"d", b"f"
"""What the front writes to its lifeline: it ends before the tree; signals were for the group."""


def fill_standard_streams() -> None:
    """Keep our own descriptors clear of 0 to 2 where the user has closed one of those.

    To the program they stay closed: what fills them closes on execve.
    """
    while (fd := os.open(os.devnull, os.O_RDWR)) < 3:
        pass
    os.close(fd)


def let_go_of_streams() -> None:
    """Leave standard input and output, and whatever descriptors came with them, to the program."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1):
        os.dup2(nowhere, fd)
    os.close(nowhere)
    # Python's own descriptors are not inheritable; those that are were meant for the program.
    for fd in [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]:
        if fd > 2 and _inheritable(fd):
            os.close(fd)


def _inheritable(fd: int) -> bool:
    try:
        return os.get_inheritable(fd)
    except OSError:  # the one that the list was read through
        return False


@dataclass(frozen=True, slots=True)
class Links:
    """Two pipes: reports to the front, and the front's lifeline, which ends when the front does."""

    reports_out: int
    reports_in: int
    life_out: int
    life_in: int

    @classmethod
    def make(cls) -> Links:
        """Make both pipes."""
        reports_out, reports_in = os.pipe()
        life_out, life_in = os.pipe()
        os.set_blocking(reports_out, False)
        return cls(reports_out, reports_in, life_out, life_in)


class Reports:
    """The supervisor's side of the links."""

    def __init__(self, links: Links) -> None:
        """Close what belongs to the front."""
        os.close(links.reports_out)
        os.close(links.life_in)
        self._reports, self._life = links.reports_in, links.life_out
        self._front = os.getppid()

    def started(self, program: int) -> None:
        """Say which process is the program."""
        self._send(event="started", pid=program)

    def stopped(self) -> None:
        """Say that the program has been stopped."""
        self._send(event="stopped")

    def ended(self, status: int, *, left: bool) -> None:
        """Say how the program ended, as waitpid(2) does, and whether it left children behind."""
        self._send(event="ended", status=status, left=left)

    def failed(self, error: MovePagesError) -> None:
        """Say that the program could not be started; the front raises the same error."""
        self._send(event="failed", kind=type(error).__name__, message=str(error))

    def broken(self, problem: str) -> None:
        """Say what ended the supervisor."""
        self._send(event="broken", problem=problem)

    def watch_front(self, program: str) -> None:
        """Wait until the front lets go, which is well; or ends: then end the tree and say why."""
        while (said := os.read(self._life, 1)) == _FORGET:
            while signal.sigtimedwait(BLOCKED - {signal.SIGCHLD}, 0) is not None:
                pass
        if said == _DETACHED:
            nowhere = os.open(os.devnull, os.O_RDWR)
            os.dup2(nowhere, 2)
            return
        # Said first: when the tree has ended, so does the one who serves it, and this process.
        say(f"the process that ran {shlex.quote(program)} was killed, so it is ended as well")
        tree.end_descendants()

    def _send(self, **event: Any) -> None:
        try:
            os.write(self._reports, json.dumps(event).encode() + b"\n")
            os.kill(self._front, signal.SIGCHLD)
        except (BrokenPipeError, ProcessLookupError):
            return  # no front any more: watch_front sees to that


class Front:
    """Waits for the program as a shell would."""

    def __init__(
        self, program: str, supervisor: int, links: Links, spared: Set[int], directory: Path
    ) -> None:
        """Close what belongs to the supervisor, and leave standard input to the program.

        `directory` is the supervisor's own, to be removed in its place if it is killed.
        """
        os.close(links.reports_in)
        os.close(links.life_out)
        let_go_of_streams()
        self._name, self._supervisor, self._spared = program, supervisor, spared
        self._directory = directory
        self._reports, self._life = links.reports_out, links.life_in
        self._unread = b""
        self._program = 0
        self._status: int | None = None

    def wait(self) -> int:
        """Return the program's exit code, or minus the signal that killed it.

        Raises MovePagesError if it could not be started, or had to be ended.
        """
        while True:
            info = signal.sigwaitinfo(BLOCKED)
            if info.si_signo != signal.SIGCHLD:
                self._pass_on(info)
                continue
            over = self._supervisor_has_ended()  # before the reports: the last may be unread
            for report in self._read_reports():
                self._heed(report)
            if self._status is not None and (over or not self._life):
                if over:
                    remove(self._directory)
                return os.waitstatus_to_exitcode(self._status)
            if over:
                self._give_up()

    def _heed(self, report: dict[str, Any]) -> None:
        match report["event"]:
            case "started":
                self._program = report["pid"]
            case "stopped":
                self._stop()
            case "ended":
                self._status = report["status"]
                if report["left"]:
                    os.write(self._life, _DETACHED)
                    os.close(self._life)
                    self._life = 0
            case "failed":
                raise _same_error(report["kind"], report["message"])
            case "broken" if self._status is None:
                os.waitpid(self._supervisor, 0)
                self._give_up(report["problem"])
            case "broken":  # the program has ended well, and its exit code stands
                say(f"the emulator failed at the end: {report['problem']}")

    def _stop(self) -> None:
        """Stop, as the program has; whoever lets this process go on means the program."""
        os.kill(os.getpid(), signal.SIGSTOP)
        self._signal_program(signal.SIGCONT)

    def _pass_on(self, info: Any) -> None:
        # An alarm that was set before the emulator was executed is meant for the program.
        of_terminal = info.si_code == _SI_KERNEL and info.si_signo != signal.SIGALRM
        if info.si_signo in _NOT_PASSED_ON or of_terminal or self._was_for_group(info.si_signo):
            return
        self._signal_program(info.si_signo)

    def _was_for_group(self, number: int) -> bool:
        """Tell whether a signal was sent to our whole process group, and the program is in it.

        Then the supervisor has it as well, blocked and so pending until it is told to forget it.
        """
        try:
            if os.getpgid(self._program) != os.getpgrp():
                return False
            status = Path(f"/proc/{self._supervisor}/status").read_bytes()
        except (FileNotFoundError, ProcessLookupError):  # one of them has ended
            return False
        _, _, pending = status.partition(b"\nShdPnd:\t")
        if not int(pending[:16], 16) >> number - 1 & 1:
            return False
        if self._life:
            os.write(self._life, _FORGET)
        return True

    def _signal_program(self, number: int) -> None:
        if self._program and self._status is None:
            try:
                os.kill(self._program, number)
            except (ProcessLookupError, PermissionError):
                return  # it has ended, or belongs to another user by now

    def _supervisor_has_ended(self) -> bool:
        return os.waitpid(self._supervisor, os.WNOHANG)[0] == self._supervisor

    def _give_up(self, problem: str = "killed") -> None:
        """End the tree: without a supervisor its calls fail, opens of files among them."""
        count = tree.end_descendants(self._spared)
        remove(self._directory)
        raise UnsupportedError(
            f"the emulator's supervisor was ended ({problem}), so {_processes(count)} of "
            f"{shlex.quote(self._name)} {_were(count)} ended as well; start the command again"
        )

    def _read_reports(self) -> list[dict[str, Any]]:
        while True:
            try:
                read = os.read(self._reports, 1 << 16)
            except BlockingIOError:
                break
            if not read:
                break
            self._unread += read
        *lines, self._unread = self._unread.split(b"\n")
        return [json.loads(line) for line in lines]


def _same_error(kind: str, message: str) -> MovePagesError:
    """Make an error of the supervisor's again, so that it leads to the same exit code."""
    found = getattr(errors, kind, UnsupportedError)
    error: MovePagesError = found.__new__(found, message)
    if isinstance(error, OSError):
        return UnsupportedError(message)
    error.args = (message,)
    return error


def _processes(count: int) -> str:
    return "1 process" if count == 1 else f"{count} processes"


def _were(count: int) -> str:
    return "was" if count == 1 else "were"


def say(*sentences: str) -> None:
    """Tell the user, on standard error, if there is still somebody to read it."""
    try:
        for sentence in sentences:
            sys.stderr.write(f"movepages: {sentence}\n")
        sys.stderr.flush()
    except OSError:  # a closed pipe or terminal must not keep us from what is to be done
        return


def remove(directory: Path) -> None:
    """Remove a directory and all that is in it; one that is gone is no error."""
    if directory.is_dir():
        import shutil

        shutil.rmtree(directory)


def leave(code: int) -> NoReturn:
    """End this process as the program has ended: `code` is its exit code, or minus the signal.

    At once, for to take the interpreter down would take longer than many a program.
    """
    if code < 0:
        end_like(-code)
    say()
    os._exit(code)


def end_like(number: int) -> None:
    """End this process by the signal that killed the program, without a core dump of ours."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if number not in {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    os.kill(os.getpid(), number)

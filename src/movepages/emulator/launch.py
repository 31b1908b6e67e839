"""Starts a task under the filter, in a mount namespace of its own where that is allowed.

The child is forked early, while we are small and have no threads. At once it makes the files that
the program is to see, and mounts them. Then, on demand, it installs the filter, passes the listener
over a socket, waits again, and goes on as the program. Nothing of the terminal is touched: session,
process group and descriptors are those of whoever called us.

Mounting needs CAP_SYS_ADMIN, which an ordinary user has in a user namespace of his own; there only
his own user id has a name. Where that is forbidden, nothing is mounted.
"""

from __future__ import annotations

import errno
import gc
import os
import shlex
import signal
import socket
import struct
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from movepages.errors import MovePagesError, UnsupportedError
from movepages.linux import libc
from movepages.linux.seccomp import Filter, Listener, install

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    Mounts = Iterable[tuple[str | Path, str | Path]]
    """What is bound where: (source, target), in this order."""

NOT_FOUND, NOT_EXECUTABLE = 127, 126
"""Exit codes of a shell, and of `env`, for a command that cannot be started."""

_PACKET_BYTES = 1 << 16  # the longest filter has half of it
_GO = b"go"
_WELL = b"well"
"""What the child answers; a sentence behind it says what is not quite so."""
_LISTENER = b"listener"
# Python ignores these two, and what is ignored stays so in the program.
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)


class Launch:
    """A child that waits for its filter."""

    def __init__(self, pid: int, channel: socket.socket) -> None:
        """Take what `fork_task` made."""
        self.pid = pid
        self._channel = channel

    def furnished(self) -> str:
        """Wait for what the child does first, where there is that; return what it returned.

        Raises UnsupportedError, also for an OSError of the child's.
        """
        answer = self._answer()
        if not answer.startswith(_WELL):
            self.abandon()
            raise UnsupportedError(answer.decode())
        return answer.removeprefix(_WELL).decode()

    def install(self, program: Filter) -> Listener:
        """Have the child install the filter; return the listener. Raises UnsupportedError."""
        if problem := self._ask(program.program):
            self.abandon()
            raise UnsupportedError(problem)
        _, (fd,), _, _ = socket.recv_fds(self._channel, len(_LISTENER), 1)
        return Listener(fd)

    def start(self) -> None:
        """Let the child go on; from now on its calls must be answered."""
        self._channel.send(_GO)
        self._channel.close()

    def abandon(self) -> None:
        """End a child that has not been started; it is left to be awaited."""
        self._channel.close()

    def _ask(self, packet: bytes) -> str:
        with suppress(OSError):  # then there is no answer to wait for either, and that is said
            self._channel.send(packet)
        return self._answer().removeprefix(_WELL).decode()

    def _answer(self) -> bytes:
        try:
            answer = self._channel.recv(_PACKET_BYTES)
        except OSError:
            answer = b""
        if not answer:
            self.abandon()
            raise UnsupportedError(
                "the process that was to become the program has ended; start it again"
            )
        return answer


def fork_task(
    body: Callable[[], object],
    mask: Iterable[Any] | None = None,
    furnish: Callable[[], str] | None = None,
) -> Launch:
    """Fork a child that, once started, runs `body` under the filter and exits with 0.

    `mask` is what signals it has blocked then, by default those that the caller has. `furnish` is
    what it does first of all, without waiting: `Launch.furnished` has the sentence it returns.
    """
    ours, childs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if not pid:
        ours.close()
        _child(body, mask, furnish, childs)
    childs.close()
    return Launch(pid, ours)


def _child(
    body: Callable[[], object],
    mask: Iterable[Any] | None,
    furnish: Callable[[], str] | None,
    channel: socket.socket,
) -> NoReturn:
    """Be the child; never return into the code of the parent."""
    code = NOT_EXECUTABLE
    try:
        gc.disable()
        started = _get_ready(furnish, channel)
        gc.enable()
        channel.close()
        if started:
            if mask is not None:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            body()
            code = 0
    except BaseException as error:  # noqa: BLE001 - whatever it is, the parent's code must not run
        with suppress(OSError):
            _say(f"the program could not be run: {type(error).__name__}: {error}")
    finally:
        os._exit(code)


def _get_ready(furnish: Callable[[], str] | None, channel: socket.socket) -> bool:
    """Do what is to be done before the body; tell whether to go on, or the parent has ended."""
    try:
        if furnish is not None:
            channel.send(_furnished(furnish))
        program = channel.recv(_PACKET_BYTES)
        ready = bool(program) and _stand_under(Filter(program), channel)
        return ready and channel.recv(len(_GO)) == _GO
    except ConnectionError:
        return False


def _furnished(furnish: Callable[[], str]) -> bytes:
    try:
        return _WELL + furnish().encode()
    except OSError as error:
        return f"the files of /sys cannot be made: {error}; see that there is room".encode()


def _stand_under(program: Filter, channel: socket.socket) -> bool:
    # Once the filter stands, every call that it notifies of waits for the supervisor, who waits for
    # the listener. So what is to be sent is made ready before: the number will be the lowest free.
    number = os.dup(channel.fileno())
    os.close(number)
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", number))]
    try:
        listener = install(program)
    except MovePagesError as error:
        channel.send(str(error).encode())
        return False
    channel.send(_WELL)
    channel.sendmsg([_LISTENER], rights)
    os.close(listener)  # or the calls would wait for ever when the supervisor is gone
    return True


def furnish(directory: Path, write: Callable[[Path], Mounts]) -> str:
    """Write files below an empty directory, and bind them where `write` says, for this process.

    Return "", or a sentence that says why they are not mounted. Then they are in the directory.
    Else they are in memory that this process has mounted there, and which goes when the last one
    that sees them has gone: the directory itself stays empty, and is not needed any more.
    """
    problem = _own_mount_namespace() or _mount_memory(directory)
    if not problem:
        problem = _bind(write(directory))
        if problem:
            libc.unmount(str(directory))
    if problem:
        write(directory)
    return problem


def mount_privately(mounts: Mounts) -> str:
    """Bind sources over targets in a mount namespace of this process alone.

    Return "", or a sentence that says why it is not so. A target that does not exist is left out.
    """
    mounts = list(mounts)
    if not mounts:
        return ""
    return _own_mount_namespace() or _bind(mounts)


def _bind(mounts: Mounts) -> str:
    for source, target in mounts:
        ret = libc.mount(str(source), str(target), libc.MS_BIND | libc.MS_REC)
        if ret < 0 and ret != -errno.ENOENT:
            return f"{target} cannot be mounted over: {os.strerror(-ret)}; run as root"
    return ""


def _mount_memory(directory: Path) -> str:
    flags = libc.MS_NOSUID | libc.MS_NODEV
    ret = libc.mount("movepages", str(directory), flags, "tmpfs")
    return f"a tmpfs cannot be mounted: {os.strerror(-ret)}; run as root" if ret < 0 else ""


def _own_mount_namespace() -> str:
    user, group = os.geteuid(), os.getegid()
    if libc.unshare(libc.CLONE_NEWNS) < 0:
        ret = libc.unshare(libc.CLONE_NEWUSER | libc.CLONE_NEWNS)
        if ret < 0:
            return (
                f"a user may not have a namespace of his own here ({os.strerror(-ret)}); raise "
                "user.max_user_namespaces, or run as root"
            )
        try:
            Path("/proc/self/setgroups").write_bytes(b"deny")
            Path("/proc/self/uid_map").write_bytes(f"{user} {user} 1".encode())
            Path("/proc/self/gid_map").write_bytes(f"{group} {group} 1".encode())
        except OSError as error:
            return f"{error.filename} cannot be written ({error.strerror}); run as root"
    ret = libc.mount("none", "/", libc.MS_REC | libc.MS_PRIVATE)
    if ret < 0:
        return (
            f"a namespace may not mount anything here ({os.strerror(-ret)}); run as root, or set "
            "kernel.apparmor_restrict_unprivileged_userns=0 where there is that"
        )
    return ""


def execute(command: Sequence[str]) -> NoReturn:
    """Become the command, which is looked up in PATH; or say in a sentence why not, and exit.

    With 127 where there is no such command, with 126 where it cannot be executed.
    """
    name, environment = command[0], os.environ
    path = name if "/" in name else _in_path(name)
    if not path:
        _fail(NOT_FOUND, f"there is no command {shlex.quote(name)}; check its name and PATH")
    for number in _IGNORED_BY_PYTHON:
        signal.signal(number, signal.SIG_DFL)
    try:
        try:
            os.execve(path, list(command), environment)  # noqa: S606 - it has no need of one
        except OSError as error:
            if error.errno != errno.ENOEXEC:
                raise
            # A script without #!: execvp(3) has a shell read it.
            os.execve("/bin/sh", ["sh", path, *command[1:]], environment)  # noqa: S606 - it is one
    except (FileNotFoundError, NotADirectoryError):
        _fail(NOT_FOUND, f"there is no file {shlex.quote(path)}, or no interpreter that it names")
    except (OSError, ValueError) as error:
        _fail(NOT_EXECUTABLE, f"{shlex.quote(path)} cannot be executed: {_reason(error)}")


def _in_path(name: str) -> str:
    """Return where in PATH a command is that may be executed, "" if nowhere."""
    for directory in os.get_exec_path():
        path = f"{directory or '.'}/{name}"
        if os.path.isfile(path) and os.access(path, os.X_OK):  # noqa: PTH113 - Path would drop "./"
            return path
    return ""


def _reason(error: Any) -> str:
    return getattr(error, "strerror", None) or str(error)


def _fail(code: int, sentence: str) -> NoReturn:
    _say(sentence)
    os._exit(code)


def _say(sentence: str) -> None:
    os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, f"movepages: {sentence}\n".encode())

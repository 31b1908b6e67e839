"""Starts a task under the filter, in a mount namespace of its own where that is allowed.

The child is forked early, while we are small and have no threads, and waits. Then, on demand, it
mounts what it is told to, installs the filter, passes the listener over a socket, waits again, and
goes on as the program. Nothing of the terminal is touched: session, process group and descriptors
are those of whoever called us.

Mounting needs CAP_SYS_ADMIN, which an ordinary user has in a user namespace of his own; there only
his own user id has a name. Where that is forbidden, nothing is mounted.
"""

from __future__ import annotations

import errno
import gc
import json
import os
import shlex
import shutil
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

NOT_FOUND, NOT_EXECUTABLE = 127, 126
"""Exit codes of a shell, and of `env`, for a command that cannot be started."""

_PACKET_BYTES = 1 << 18
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

    def mount(self, mounts: Iterable[tuple[Path, Path]]) -> str:
        """Have the child bind each source over its target, for itself and its children.

        Return "", or a sentence that says why nothing is mounted. Raises UnsupportedError.
        """
        wanted = [[str(source), str(target)] for source, target in mounts]
        return self._ask(json.dumps(wanted).encode())

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
        try:
            self._channel.send(packet)
            answer = self._channel.recv(_PACKET_BYTES)
        except OSError:
            answer = b""
        if not answer:
            self.abandon()
            raise UnsupportedError(
                "the process that was to become the program has ended; start it again"
            )
        return answer.removeprefix(_WELL).decode()


def fork_task(body: Callable[[], object], mask: Iterable[Any] | None = None) -> Launch:
    """Fork a child that, once started, runs `body` under the filter and exits with 0.

    `mask` is what signals it has blocked then, by default those that the caller has.
    """
    ours, childs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if not pid:
        ours.close()
        _child(body, mask, childs)
    childs.close()
    return Launch(pid, ours)


def _child(
    body: Callable[[], object], mask: Iterable[Any] | None, channel: socket.socket
) -> NoReturn:
    """Be the child; never return into the code of the parent."""
    code = NOT_EXECUTABLE
    try:
        gc.disable()
        started = _prepare(channel) and channel.recv(len(_GO)) == _GO
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


def _prepare(channel: socket.socket) -> bool:
    """Do as the parent asks, first mount and then install; tell whether to go on."""
    request = channel.recv(_PACKET_BYTES)
    if request.startswith(b"["):
        channel.send(_WELL + mount_privately(json.loads(request)).encode())
        request = channel.recv(_PACKET_BYTES)
    return bool(request) and _stand_under(Filter(request), channel)


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


def mount_privately(mounts: Sequence[Sequence[str]]) -> str:
    """Bind sources over targets in a mount namespace of this process alone.

    Return "", or a sentence that says why it is not so. A target that does not exist is left out.
    """
    if not mounts:
        return ""
    if problem := _own_mount_namespace():
        return problem
    for source, target in mounts:
        ret = libc.mount(source, target, libc.MS_BIND | libc.MS_REC)
        if ret < 0 and ret != -errno.ENOENT:
            return f"{target} cannot be mounted over: {os.strerror(-ret)}; run as root"
    return ""


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
    path = name if "/" in name else shutil.which(name, path=environment.get("PATH", os.defpath))
    if path is None:
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


def _reason(error: Any) -> str:
    return getattr(error, "strerror", None) or str(error)


def _fail(code: int, sentence: str) -> NoReturn:
    _say(sentence)
    os._exit(code)


def _say(sentence: str) -> None:
    os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, f"movepages: {sentence}\n".encode())

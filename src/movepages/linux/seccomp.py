"""seccomp(2) with user notification: another process answers the system calls of a tree of tasks.

A task installs a filter, which its children inherit and no one can take off; where the filter says
so, a call waits until the holder of the listener has answered it. What can fail: an outer filter
forbids seccomp(2) itself (EPERM), or there is a listener already, for a tree has one (EBUSY). When
a task dies while its call is pending, answering gives ENOENT, which is nobody's fault. When the
listener is closed, calls that the filter notifies of give ENOSYS.

Sources: kernel/seccomp.c, seccomp_unotify(2). Filters are written for x86_64, aarch64 and riscv64;
calls of other architectures on the same kernel, x32 among them, pass through.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
from enum import Enum
from errno import EINPROGRESS, ENOENT
from typing import TYPE_CHECKING, NamedTuple

from movepages.abi import Errno, seccomp as abi
from movepages.abi.seccomp import Bpf, FilterFlag
from movepages.errors import UnsupportedError, call_error
from movepages.linux import libc

if TYPE_CHECKING:
    from collections.abc import Iterable

_MAX_INSTRUCTIONS = 4096
_NOTHING = bytes(abi.NOTIF.size)

_ioctl, _unpacked, _packed = fcntl.ioctl, abi.NOTIF.unpack, abi.NOTIF_RESP.pack
_RECEIVE, _SEND, _READABLE = abi.NOTIF_RECV, abi.NOTIF_SEND, select.POLLIN
"""By names of this module: each call of a program passes here."""


class Test(Enum):
    """What a condition asks of the lower 32 bits of an argument."""

    __test__ = False  # not one of pytest's

    ANY_BIT = "any of these bits is set"
    NO_BIT = "none of these bits is set"
    EQUAL = "equal to this"


class Condition(NamedTuple):
    """A test of one argument (0 to 5). The upper 32 bits of the argument are not looked at."""

    argument: int
    test: Test
    operand: int


class Rule(NamedTuple):
    """Notify of a call: always, or when any of the conditions holds."""

    number: int
    conditions: tuple[Condition, ...] = ()


class Filter(NamedTuple):
    """A program of classic BPF, as an array of struct sock_filter."""

    program: bytes

    @classmethod
    def assemble(cls, rules: Iterable[Rule], machine: str) -> Filter:
        """Write the filter that notifies of what the rules name and allows all else.

        Put calls with conditions first when they are frequent: the kernel remembers which numbers
        are always allowed (seccomp_cache_prepare), and runs the program only for the others.
        Raises UnsupportedError for a machine whose calls we do not know.
        """
        if machine not in abi.AUDIT_ARCH:
            known = ", ".join(abi.AUDIT_ARCH)
            raise UnsupportedError(f"no system call filter is written for {machine}; use {known}")
        code = [
            *_load(abi.ARCH_OFFSET),
            *_instruction(Bpf.JUMP_EQUAL, abi.AUDIT_ARCH[machine], if_true=1),
            *_instruction(Bpf.RETURN, abi.RET_ALLOW),
            *_load(abi.NR_OFFSET),
        ]
        if machine == "x86_64":
            code += _instruction(Bpf.JUMP_AT_LEAST, abi.X32_SYSCALL_BIT, if_false=1)
            code += _instruction(Bpf.RETURN, abi.RET_ALLOW)
        for rule in rules:
            body = _body(rule)
            code += _instruction(Bpf.JUMP_EQUAL, rule.number, if_false=len(body))
            code += body
        code += _instruction(Bpf.RETURN, abi.RET_ALLOW)
        if len(code) > _MAX_INSTRUCTIONS:
            raise UnsupportedError(
                f"the filter has {len(code)} instructions, and the kernel takes "
                f"{_MAX_INSTRUCTIONS}; watch fewer calls"
            )
        return cls(b"".join(code))


def _instruction(code: Bpf, k: int, *, if_true: int = 0, if_false: int = 0) -> list[bytes]:
    return [abi.SOCK_FILTER.pack(code, if_true, if_false, k)]


def _load(offset: int) -> list[bytes]:
    return _instruction(Bpf.LOAD_WORD, offset)


def _body(rule: Rule) -> list[bytes]:
    """Write what decides about one call; it ends with a return, so nothing behind it is reached."""
    if not rule.conditions:
        return _instruction(Bpf.RETURN, abi.RET_USER_NOTIF)
    code: list[bytes] = []
    for condition in rule.conditions:
        # The lower half of an argument comes first: the three machines are little-endian.
        code += _load(abi.ARGS_OFFSET + 8 * condition.argument)
        negated = condition.test is Test.NO_BIT
        jump = Bpf.JUMP_EQUAL if condition.test is Test.EQUAL else Bpf.JUMP_IF_SET
        code += _instruction(
            jump, condition.operand, if_true=int(negated), if_false=int(not negated)
        )
        code += _instruction(Bpf.RETURN, abi.RET_USER_NOTIF)
    return code + _instruction(Bpf.RETURN, abi.RET_ALLOW)


_FLAGS = (
    # Without SPEC_ALLOW kernels before 5.16 slow the program down against speculation, and with
    # WAIT_KILLABLE_RECV (5.19) a signal does not break a call that is being answered.
    FilterFlag.NEW_LISTENER | FilterFlag.SPEC_ALLOW | FilterFlag.WAIT_KILLABLE_RECV,
    FilterFlag.NEW_LISTENER | FilterFlag.SPEC_ALLOW,
)


def install(program: Filter) -> int:
    """Put a filter on the calling thread and all its children to come; return the listener's fd.

    From then on its calls wait for an answer. Sets no_new_privs where the caller lacks
    CAP_SYS_ADMIN. Raises UnsupportedError, CallError with the kernel's errno.
    """
    buffer = ctypes.create_string_buffer(program.program, len(program.program))
    header = _Program(len(program.program) // abi.SOCK_FILTER.size, ctypes.addressof(buffer))
    ret = _install(header)
    if ret == -Errno.EACCES:
        libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1)
        ret = _install(header)
    if ret >= 0:
        return ret
    raise call_error(ret, "seccomp", detail=why_not_installed(-ret))


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def _install(header: _Program) -> int:
    ret = -int(Errno.EINVAL)
    for flags in _FLAGS:
        ret = libc.seccomp(abi.SECCOMP_SET_MODE_FILTER, flags, ctypes.addressof(header))
        if ret != -Errno.EINVAL:
            break
    return ret


def why_not_installed(errno: int) -> str:
    """Say in a sentence why seccomp(2) gave no listener, and what to do."""
    match errno:
        case Errno.EBUSY:
            return (
                "a supervisor answers the system calls of this process already, and there can be "
                "one only; leave that emulator or container, and start this one outside"
            )
        case Errno.ENOSYS | Errno.EINVAL:
            return (
                "this kernel has no seccomp user notification; "
                "use Linux 5.14 or later with CONFIG_SECCOMP_FILTER"
            )
        case Errno.EPERM | Errno.EACCES:
            return (
                "a system call filter, as containers have, forbids seccomp(2); "
                "run the container with --security-opt seccomp=unconfined"
            )
    return f"the filter was refused: {os.strerror(errno)}"


class Notification(NamedTuple):
    """A call that waits for an answer. `id` names it, `tid` is the thread as seen from here.

    `args` are the six registers that arguments are in.
    """

    id: int
    tid: int
    nr: int
    args: tuple[int, ...]
    arch: int


class Listener:
    """The end of a filter at which calls are received and answered. Owns its descriptor."""

    def __init__(self, fd: int) -> None:
        """Take over the descriptor that `install` returned."""
        self.fd = fd
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)
        self._buffer = bytearray(_NOTHING)

    def close(self) -> None:
        """Give the listener up: calls that it would have been told of now give ENOSYS."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def receive(self) -> Notification | None:
        """Wait for the next call; None once all tasks under the filter are gone."""
        # Kernels before 6.11 leave a reader waiting when the last task goes; poll tells in all.
        buffer, wait = self._buffer, self._poll.poll
        while wait()[0][1] & _READABLE:
            buffer[:] = _NOTHING  # the kernel wants zeros
            try:
                _ioctl(self.fd, _RECEIVE, buffer)
            except (FileNotFoundError, InterruptedError):  # the caller died since the poll
                continue
            fields = _unpacked(buffer)
            return Notification(fields[0], fields[1], fields[3], fields[6:], fields[4])
        return None

    def is_valid(self, notification_id: int) -> bool:
        """Tell whether a call still waits for its answer: its thread has not died."""
        try:
            fcntl.ioctl(self.fd, abi.NOTIF_ID_VALID, abi.NOTIF_ID.pack(notification_id))
        except FileNotFoundError:
            return False
        return True

    def answer(self, notification_id: int, ret: int) -> None:
        """Let a call return 0 or more, or a negative errno. A caller that has died is no error."""
        if ret >= 0:
            self._send(_packed(notification_id, ret, 0, 0))
        else:
            self._send(_packed(notification_id, 0, ret, 0))

    def let_through(self, notification_id: int) -> None:
        """Let the kernel carry a call out as if there were no filter."""
        self._send(_packed(notification_id, 0, 0, abi.NOTIF_FLAG_CONTINUE))

    def give(self, notification_id: int, fd: int, *, cloexec: bool) -> None:
        """Open a copy of a descriptor of ours in the caller, and let the call return its number.

        Where the caller has no number free, the call fails as its own open would (EMFILE).
        """
        flags = os.O_CLOEXEC if cloexec else 0
        request = abi.NOTIF_ADDFD.pack(notification_id, abi.ADDFD_FLAG_SEND, fd, 0, flags)
        try:
            fcntl.ioctl(self.fd, abi.NOTIF_ADDFD_IOCTL, request)
        except OSError as error:
            if error.errno not in {ENOENT, EINPROGRESS}:
                self.answer(notification_id, -(error.errno or Errno.EIO))

    def _send(self, response: bytes) -> None:
        try:
            _ioctl(self.fd, _SEND, response)
        except OSError as error:
            if error.errno not in {ENOENT, EINPROGRESS}:
                raise

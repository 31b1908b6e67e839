"""System calls that Python's os module lacks, through libc; the errno comes back as in the kernel.

Every function returns 0 or more, or a negative errno, and raises nothing.
"""

from __future__ import annotations

import ctypes
import os
import struct
from ctypes import c_char_p, c_int, c_long, c_ulong, c_void_p
from typing import Any

from movepages.abi import Errno
from movepages.abi.task_calls import TASK_CALL_NUMBERS

_libc = ctypes.CDLL(None, use_errno=True)
NUMBERS = TASK_CALL_NUMBERS.get(os.uname().machine, {})
"""The call numbers of this machine; empty where they are not known."""

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 0x1000, 0x4000, 0x40000
_MNT_DETACH = 2
AT_FDCWD = -100
_PERF_FLAG_FD_CLOEXEC = 8
_CAPABILITY_VERSION_3 = 0x20080522


def _declared(function: str, *types: Any) -> Any:
    declared = _libc[function]  # indexing makes a function object of its own, with its own types
    declared.argtypes = types
    declared.restype = c_long if function == "syscall" else c_int
    return declared


_syscall = _declared("syscall", c_long, c_long, c_long, c_long, c_long, c_long)
_syscall_with_pointer = _declared("syscall", c_long, c_long, c_long, c_void_p)
_syscall_on_path = _declared("syscall", c_long, c_long, c_char_p, c_void_p, c_void_p, c_long)
_perf_event_open = _declared("syscall", c_long, c_char_p, c_long, c_long, c_long, c_ulong)
_prctl = _declared("prctl", c_int, c_ulong, c_ulong, c_ulong, c_ulong)
_unshare = _declared("unshare", c_int)
_mount = _declared("mount", c_char_p, c_char_p, c_char_p, c_ulong, c_void_p)
_umount2 = _declared("umount2", c_char_p, c_int)
_capset = _declared("capset", c_char_p, c_char_p)


def _answer(returned: int) -> int:
    return returned if returned != -1 else -ctypes.get_errno()


def kcmp(first: int, second: int, kind: int) -> int:
    """kcmp(2): 0 if two tasks share a resource, 1 to 3 if they do not."""
    number = NUMBERS.get("kcmp")
    if number is None:
        return -Errno.ENOSYS
    return _answer(_syscall(number, first, second, kind, 0, 0))


def seccomp(operation: int, flags: int, argument: int) -> int:
    """seccomp(2): `argument` is an address."""
    number = NUMBERS.get("seccomp")
    if number is None:
        return -Errno.ENOSYS
    return _answer(_syscall_with_pointer(number, operation, flags, argument))


def perf_event_open(attributes: bytes, pid: int, cpu: int) -> int:
    """perf_event_open(2), without a group: a descriptor that is closed on execve."""
    number = NUMBERS.get("perf_event_open")
    if number is None:
        return -Errno.ENOSYS
    return _answer(_perf_event_open(number, attributes, pid, cpu, -1, _PERF_FLAG_FD_CLOEXEC))


def name_to_handle_at(path: bytes, handle: int, mount_id: int, flags: int) -> int:
    """name_to_handle_at(2): `handle` and `mount_id` are addresses."""
    number = NUMBERS.get("name_to_handle_at")
    if number is None:
        return -Errno.ENOSYS
    return _answer(_syscall_on_path(number, AT_FDCWD, path, handle, mount_id, flags))


def prctl(option: int, argument: int) -> int:
    """prctl(2), for the options that take one argument."""
    return _answer(_prctl(option, argument, 0, 0, 0))


def unshare(flags: int) -> int:
    """unshare(2)."""
    return _answer(_unshare(flags))


def mount(source: str, target: str, flags: int, kind: str | None = None) -> int:
    """mount(2), without data; `kind` is the file system type, which bind mounts do not have."""
    type_name = None if kind is None else kind.encode()
    return _answer(_mount(os.fsencode(source), os.fsencode(target), type_name, flags, None))


def unmount(target: str) -> int:
    """umount2(2) with MNT_DETACH: at once, whoever uses it."""
    return _answer(_umount2(os.fsencode(target), _MNT_DETACH))


def drop_capabilities() -> int:
    """capset(2): give up all capabilities of this thread."""
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    return _answer(_capset(header, bytes(24)))

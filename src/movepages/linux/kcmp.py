"""kcmp(2): whether two tasks share their memory.

What can fail: a task has ended (ESRCH), belongs to someone else (EPERM), or the kernel was built
without CONFIG_KCMP (ENOSYS). Source: kernel/kcmp.c.
"""

from __future__ import annotations

from movepages.abi import Errno
from movepages.errors import UnsupportedError, call_error
from movepages.linux import libc

KCMP_VM = 1
"""Of enum kcmp_type in include/uapi/linux/kcmp.h."""


def same_memory(tid: int, other: int) -> bool:
    """Tell whether two tasks run in one address space: threads do, and a vfork until its execve.

    Raises NoSuchProcessError, NotPermittedError, UnsupportedError.
    """
    ret = libc.kcmp(tid, other, KCMP_VM)
    if ret >= 0:
        return ret == 0
    if ret == -Errno.ENOSYS:
        raise UnsupportedError(
            "this kernel has no kcmp(2); use one that is built with CONFIG_KCMP, as most are"
        )
    if ret == -Errno.ESRCH:
        detail = f"there is no task {tid} or no task {other}; one of them may have ended"
    else:
        detail = f"tasks {tid} and {other} may not be compared; run as their user or as root"
    raise call_error(ret, "kcmp", detail=detail, pid=tid)

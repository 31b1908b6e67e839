"""Error numbers of Linux (include/uapi/asm-generic/errno-base.h, errno.h).

Our own copy, because the model answers with Linux's numbers on every platform, and `errno` of the
standard library has those of the machine it runs on.
"""

from enum import IntEnum


class Errno(IntEnum):
    """The error numbers that the page-migration calls can give."""

    EPERM = 1
    ENOENT = 2
    ESRCH = 3
    EINTR = 4
    EIO = 5
    E2BIG = 7
    EAGAIN = 11
    ENOMEM = 12
    EACCES = 13
    EFAULT = 14
    EBUSY = 16
    ENODEV = 19
    EINVAL = 22
    ENOSYS = 38
    EOPNOTSUPP = 95

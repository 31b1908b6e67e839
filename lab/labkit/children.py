"""How the launcher's two child processes are tied to it, done between fork and exec.

Nothing of the lab may outlive the launcher, not even when it is killed by SIGKILL and can clean
up nothing: so children die with their parent, and all that they share with it are inherited
descriptors, never files with a name.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct

_LIBC = ctypes.CDLL(None, use_errno=True)

_PR_SET_PDEATHSIG = 1
_CLONE_NEWNS = 0x20000
_SYS_MOUNT_SETATTR = 442  # the same number on every architecture
_AT_FDCWD = -100
_AT_RECURSIVE = 0x8000
_MOUNT_ATTR_RDONLY = 0x1
_MS_PRIVATE = 1 << 18


def die_with_parent() -> None:
    """Have the kernel end this process when the launcher ends."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def see_files_read_only() -> None:
    """Give this process a view of all file systems in which nothing can be written.

    The guest mounts its root read-only, but root in the guest could remount it; with this, the
    file server itself cannot write. Where namespaces are not allowed (in some containers), the
    guest's own read-only mount must do.
    """
    if _LIBC.unshare(_CLONE_NEWNS) != 0:
        return
    attributes = struct.pack("=QQQQ", _MOUNT_ATTR_RDONLY, 0, _MS_PRIVATE, 0)
    _LIBC.syscall(_SYS_MOUNT_SETATTR, _AT_FDCWD, b"/", _AT_RECURSIVE, attributes, len(attributes))


def anonymous_file(name: str, data: bytes = b"") -> int:
    """Return a descriptor of a file in memory, without a name; children inherit it if asked."""
    fd = os.memfd_create(name)
    while data:
        data = data[os.write(fd, data) :]
    return fd


def path_of(fd: int) -> str:
    """Return the path under which a child that inherited the descriptor can open it."""
    return f"/proc/self/fd/{fd}"

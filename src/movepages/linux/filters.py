"""Tell a kernel that says no from a container's system call filter (seccomp) that does.

Docker's default profile answers EPERM to the NUMA calls without CAP_SYS_NICE, others ENOSYS. Each
call is probed with arguments to which a kernel that has it gives a known answer that is neither, so
EPERM can only come from a filter, and so can ENOSYS on a kernel that shows NUMA nodes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from movepages.abi import Errno
from movepages.errors import CallError, FilteredError, NoSuchCallError
from movepages.linux import syscalls
from movepages.linux.reading import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_BAD_MODE = 999
_PROBES: dict[str, Callable[[], int]] = {
    "move_pages": lambda: syscalls.move_pages(0, 0, None, None, None, 0),  # 0
    "migrate_pages": lambda: syscalls.migrate_pages(0, 0, None, None),  # -EINVAL
    "mbind": lambda: syscalls.mbind(0, 0, 0, None, 0, 0),  # 0: nothing to bind
    "set_mempolicy": lambda: syscalls.set_mempolicy(_BAD_MODE, None, 0),  # -EINVAL
    "get_mempolicy": lambda: syscalls.get_mempolicy(None, None, 0, None, 0),  # 0
    "set_mempolicy_home_node": lambda: syscalls.set_mempolicy_home_node(0, 0, 0, 1),  # -EINVAL
}


def refusals(root: Path = ROOT) -> tuple[CallError, ...]:
    """Return why nobody here may make a call, for each of the NUMA calls of which that is so."""
    return tuple(error for call in _PROBES if (error := refusal(call, root)))


def refusal(call: str, root: Path = ROOT) -> CallError | None:
    """Return why nobody here may make this call at all, or None if calls of it get through."""
    answer = _PROBES[call]()
    if answer == -Errno.EPERM:
        return FilteredError(
            Errno.EPERM,
            f"{call}: a system call filter (seccomp) refuses it, as containers do by default; "
            "allow the call in the seccomp profile, or add CAP_SYS_NICE to the container",
            call=call,
        )
    if answer != -Errno.ENOSYS:
        return None
    if (root / "sys/devices/system/node/online").exists() and call != "set_mempolicy_home_node":
        reason = (
            "this kernel has NUMA, so a system call filter (seccomp) hides it; allow the call in "
            "the sandbox's or container's seccomp profile"
        )
    else:
        reason = (
            "this kernel does not have it; use one built with CONFIG_NUMA and CONFIG_MIGRATION "
            "(5.17 or later for set_mempolicy_home_node)"
        )
    return NoSuchCallError(Errno.ENOSYS, f"{call}: {reason}", call=call)

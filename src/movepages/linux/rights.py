"""Whether the caller may look at a process: what __ptrace_may_access in kernel/ptrace.c goes by.

Nothing here decides: only the kernel does, and it is asked by trying. This tells why it said no.
A process that is not dumpable is told by its files, which belong to root then (task_dump_owner in
fs/proc/base.c); of root's own processes it cannot be told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from movepages.abi import Capability
from movepages.errors import no_such_process
from movepages.linux.reading import ROOT, process_directory
from movepages.linux.status import read_status
from movepages.values import Standing

if TYPE_CHECKING:
    from pathlib import Path


def read_standing(pid: int, root: Path = ROOT) -> Standing:
    """Return what decides whether the caller may look at a process.

    Raises NoSuchProcessError, NotPermittedError where /proc hides it, MalformedError.
    """
    own, other = read_status(0, root), read_status(pid, root)
    (real, effective, saved, _), groups = other.uids, other.gids[:3]
    return Standing(
        own_uid=own.uids[0],
        uids=(real, effective, saved),
        same_user={real, effective, saved} == {own.uids[0]} and set(groups) == {own.gids[0]},
        dumpable=_dumpable(pid, effective, root),
        covered=not other.cap_prm & ~own.cap_prm,
        may_trace=bool(own.cap_eff >> Capability.SYS_PTRACE & 1),
    )


def _dumpable(pid: int, uid: int, root: Path) -> bool | None:
    """Tell whether a process is dumpable, by whose its files are. Its directory is always its own.

    Raises NoSuchProcessError.
    """
    path = process_directory(pid, root) / "stat"
    try:
        owner = path.stat().st_uid
    except (FileNotFoundError, ProcessLookupError):
        raise no_such_process(pid, f"read {path}") from None
    return None if uid == 0 else owner == uid

"""Whether a task may read what is secret about another: the kernel's rule, for the supervisor.

The supervisor reads files on behalf of a task, and may have more rights than it: a root supervisor
whose program has given up root, say. So it must ask itself what the kernel would have asked.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")

_CAP_SYS_PTRACE = 1 << 19
_FILE_SYSTEM_ID = 3
"""Place of the id that file access is checked by among real, effective, saved, file system."""


@dataclass(frozen=True, slots=True)
class _Credentials:
    tgid: int
    uids: tuple[int, ...]
    gids: tuple[int, ...]
    permitted: int
    effective: int
    dumpable: bool
    user_namespace: str
    """"" where we may not see it: then it is not one below ours."""


def may_read(tid: int, pid: int) -> bool:
    """Tell whether a task may open files like another's numa_maps (PTRACE_MODE_READ_FSCREDS).

    The rule is that of __ptrace_may_access() in kernel/ptrace.c and cap_ptrace_access_check() in
    security/commoncap.c; other security modules are not asked (Yama restricts attaching only).
    A task in another user namespace than its target counts as privileged over it only where it is
    in the supervisor's own, which those of programs under the emulator lie below. Of a process of
    root it cannot be seen that it is not dumpable. Raises FileNotFoundError or ProcessLookupError
    once either has ended.
    """
    caller, target = _credentials(tid), _credentials(pid)
    if caller.tgid == target.tgid:
        return True
    privileged = bool(caller.effective & _CAP_SYS_PTRACE) and _governs(caller, target)
    if privileged:
        return True
    same_user = {caller.uids[_FILE_SYSTEM_ID]} == set(target.uids[:3])
    same_group = {caller.gids[_FILE_SYSTEM_ID]} == set(target.gids[:3])
    if not (same_user and same_group and target.dumpable):
        return False
    stronger = target.permitted & ~caller.effective
    return caller.user_namespace == target.user_namespace and not stronger


def _governs(caller: _Credentials, target: _Credentials) -> bool:
    if caller.user_namespace == target.user_namespace:
        return True
    return bool(target.user_namespace) and caller.user_namespace == _user_namespace("self")


def _credentials(pid: int) -> _Credentials:
    status = PROC / str(pid) / "status"
    lines = dict(line.split(":\t", 1) for line in _text(status).splitlines() if ":\t" in line)
    uids = tuple(map(int, lines["Uid"].split()))
    return _Credentials(
        tgid=int(lines["Tgid"]),
        uids=uids,
        gids=tuple(map(int, lines["Gid"].split())),
        permitted=int(lines["CapPrm"], 16),
        effective=int(lines["CapEff"], 16),
        # task_dump_owner() gives the files of a process to root unless it is dumpable.
        dumpable=status.stat().st_uid == uids[1],
        user_namespace=_user_namespace(str(pid)),
    )


def _text(path: Path) -> str:
    return path.read_bytes().decode("utf-8", "surrogateescape")


def _user_namespace(pid: str) -> str:
    with suppress(PermissionError):
        return str((PROC / pid / "ns/user").readlink())
    return ""

"""Pids across pid namespaces: whom a task means by a number (pid_namespaces(7))."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def host_pid(proc: Path, tid: int, number: int) -> int | None:
    """Return the pid, as we see it, of whom a task means by a number; None for nobody."""
    try:
        theirs = (proc / str(tid) / "ns/pid").readlink()
    except OSError:  # it has ended, or may not be looked at: then it is in ours, as most are
        return number
    if theirs == (proc / "self/ns/pid").readlink():
        return number
    for entry in proc.iterdir():
        if entry.name.isdigit() and _is_called(entry, number, theirs):
            return int(entry.name)
    return None


def _is_called(directory: Path, number: int, namespace: Path) -> bool:
    """Tell whether a process has a number in a pid namespace."""
    try:
        if (directory / "ns/pid").readlink() != namespace:
            return False
        status = (directory / "status").read_bytes()
    except OSError:  # it has ended meanwhile, or is another user's
        return False
    names = next(line for line in status.splitlines() if line.startswith(b"NSpid:"))
    return int(names.split()[-1]) == number

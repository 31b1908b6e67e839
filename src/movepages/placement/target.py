"""Which processes are meant: a pid, name:postgres, user:alice, cgroup:/path, tree:PID.

Several are written with commas between them: `1234,name:postgres`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from movepages.errors import ArgumentError, NoSuchProcessError, NotPermittedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from movepages.machine import Machine
    from movepages.values import TaskInfo

_KINDS = ("name", "user", "cgroup", "tree")
_NEXT = re.compile(rf",(?=[0-9]+(?:,|$)|(?:{'|'.join(_KINDS)}):)")
"""A comma that ends a target: names and paths may have others."""
_HIGHEST_PID = (1 << 31) - 1
_COMM_BYTES = 15
"""The kernel keeps so much of a process's name (TASK_COMM_LEN less the zero)."""


@dataclass(frozen=True, slots=True)
class Target:
    """One word for one process or several. `kind` is pid, name, user, cgroup or tree."""

    kind: str
    value: str

    def __str__(self) -> str:
        """Write it as it is read."""
        return self.value if self.kind == "pid" else f"{self.kind}:{self.value}"


@dataclass(frozen=True, slots=True)
class Found:
    """The processes that some targets name, each once, and the targets that name none (now)."""

    tasks: tuple[TaskInfo, ...]
    missing: tuple[Target, ...]


def parse_targets(text: str) -> tuple[Target, ...]:
    """Read targets. Raises ArgumentError."""
    return tuple(_parse(part) for part in _NEXT.split(text))


def find(machine: Machine, targets: Sequence[Target]) -> Found:
    """Find the processes that targets name.

    This process itself is meant only by its pid. A target that names no process is reported;
    raises NoSuchProcessError only where a single pid was asked for, NotPermittedError likewise.
    """
    if len(targets) == 1 and targets[0].kind == "pid":
        return Found((machine.task(int(targets[0].value)),), ())
    everyone: Sequence[TaskInfo] = ()
    own = machine.task(0).pid
    if any(target.kind != "pid" for target in targets):
        everyone = machine.tasks()
    found: dict[object, TaskInfo] = {}
    missing: list[Target] = []
    for target in targets:
        tasks = _named(machine, everyone, target, own)
        found.update((task.id, task) for task in tasks)
        if not tasks:
            missing.append(target)
    return Found(tuple(found.values()), tuple(missing))


def _parse(text: str) -> Target:
    kind, colon, value = text.partition(":")
    if colon and kind in _KINDS and value:
        if kind == "tree":
            _refuse_no_pid(value)
        return Target(kind, value)
    if colon and kind in _KINDS:
        raise ArgumentError(f"{text!r} names no process; write something behind the colon")
    _refuse_no_pid(text)
    return Target("pid", text)


def _refuse_no_pid(text: str) -> None:
    decimal = text.isascii() and text.isdecimal() and len(text) <= 10
    if not decimal or not 0 < int(text) <= _HIGHEST_PID:
        raise ArgumentError(
            f"{text!r} is not a pid; give a number, or name:, user:, cgroup: or tree:"
        )


def _named(
    machine: Machine, everyone: Sequence[TaskInfo], target: Target, own: int
) -> list[TaskInfo]:
    """Return the processes that a target names."""
    value = target.value
    match target.kind:
        case "pid":
            return _one(machine, int(value))
        case "tree":
            chosen = _tree(everyone, int(value))
        case "name":
            kept = value.encode("utf-8", "surrogateescape")[:_COMM_BYTES]
            name = kept.decode("utf-8", "surrogateescape")
            chosen = [task for task in everyone if task.command == name]
        case "user":
            uid = _uid(value)
            chosen = [task for task in everyone if task.uid == uid]
        case _:
            group = value.rstrip("/")
            chosen = [task for task in everyone if _inside(task.cgroup, group)]
    return [task for task in chosen if task.pid != own]


def _one(machine: Machine, pid: int) -> list[TaskInfo]:
    try:
        return [machine.task(pid)]
    except (NoSuchProcessError, NotPermittedError):
        return []


def _tree(everyone: Iterable[TaskInfo], root: int) -> list[TaskInfo]:
    """Return a process and its descendants, parents before children."""
    children: dict[int, list[TaskInfo]] = {}
    for task in everyone:
        children.setdefault(task.parent, []).append(task)
    tree = [task for task in everyone if task.pid == root]
    for task in tree:  # grows while it is gone through
        tree += children.get(task.pid, [])
    return tree


def _inside(cgroup: str, group: str) -> bool:
    return bool(cgroup) and (cgroup == group or cgroup.startswith(f"{group}/"))


def _uid(user: str) -> int:
    """Return the uid of a user by name or number. Raises ArgumentError."""
    if user.isascii() and user.isdecimal():
        return int(user)
    try:
        import pwd  # not on every platform that the model runs on

        return pwd.getpwnam(user).pw_uid
    except (ImportError, KeyError):
        raise ArgumentError(f"there is no user {user!r}; give a name or a uid") from None

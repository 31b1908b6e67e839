"""What the files of a task in /proc say: who its parent is, its threads, its children."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STAT_BYTES = 1024
_ZOMBIE_STATES = frozenset("ZX")


class Stat(NamedTuple):
    """What /proc/TID/stat says that matters here."""

    state: str
    parent: int
    threads: int
    started: int
    size_bytes: int
    cpu: int
    image: tuple[int, ...]
    """Addresses that exec chooses anew: code, stack, arguments."""

    @property
    def is_zombie(self) -> bool:
        """Whether the task has ended and only waits to be told of."""
        return self.state in _ZOMBIE_STATES


def parse_stat(data: bytes) -> Stat:
    """Read /proc/TID/stat; the name in it may hold anything, a parenthesis as well."""
    if not data:
        raise ProcessLookupError
    fields = data[data.rindex(b")") + 2 :].split()
    return Stat(
        state=fields[0].decode(),
        parent=int(fields[1]),
        threads=int(fields[17]),
        started=int(fields[19]),
        size_bytes=int(fields[20]),
        cpu=int(fields[36]),
        image=tuple(int(fields[index]) for index in (23, 24, 25, 45)),
    )


def threads_of(proc: Path, pid: int) -> list[int]:
    """Return the threads of a process; none if it is gone."""
    try:
        return [int(thread.name) for thread in (proc / str(pid) / "task").iterdir()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def children_of(thread: Path) -> Iterator[int]:
    """Go through the children that a thread has forked, given its directory in /proc."""
    try:
        text = (thread / "children").read_text(encoding="ascii")
    except (FileNotFoundError, ProcessLookupError):
        return
    yield from map(int, text.split())


def tgid_of(directory: Path) -> int:
    """Return the process that a task belongs to, given its directory in /proc.

    Raises FileNotFoundError, ProcessLookupError.
    """
    for line in (directory / "status").read_bytes().splitlines():
        if line.startswith(b"Tgid:"):
            return int(line[5:])
    raise ProcessLookupError

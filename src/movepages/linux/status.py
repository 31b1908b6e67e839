"""/proc/PID/status: name, owner, memory and rights of a process. Source: fs/proc/array.c."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from movepages.errors import MalformedError
from movepages.linux.reading import (
    ROOT,
    parse_list,
    parse_number,
    process_directory,
    read_process_record,
)
from movepages.nodeset import NodeSet

if TYPE_CHECKING:
    from pathlib import Path

_ENDED = "ZX"
_UNESCAPED = {r"\n": "\n", r"\\": "\\"}
_ESCAPE = re.compile(r"\\[n\\]")


@dataclass(frozen=True, slots=True)
class Status:
    """What the kernel says of a process. None stands for a line that this kernel, or task, lacks.

    `uids` and `gids` are real, effective, saved, file system. `cap_prm`, `cap_eff` and
    `seccomp` are the kernel's: bit masks of capabilities; 0 none, 1 strict, 2 filtered.
    """

    name: str
    state: str
    pid: int
    tgid: int
    ppid: int
    uids: tuple[int, ...]
    gids: tuple[int, ...]
    threads: int
    nspid: tuple[int, ...]
    """The pid in each pid namespace that the process is in, ours first."""
    vm_rss_bytes: int | None
    mems_allowed: NodeSet | None
    """Nodes of its cpuset that have memory; None in a kernel without cpusets."""
    cpus_allowed: tuple[int, ...]
    cap_prm: int
    cap_eff: int
    seccomp: int | None
    kernel_thread: bool

    @property
    def ended(self) -> bool:
        """Whether it is a zombie: it has no memory, and its parent has not taken note yet."""
        return self.state in _ENDED


def read_status(pid: int, root: Path = ROOT) -> Status:
    """Return the status of a process, kernel thread or zombie.

    Raises NoSuchProcessError, NotPermittedError, MalformedError.
    """
    path = process_directory(pid, root) / "status"
    return parse_status(read_process_record(pid, "status", root), path)


def parse_status(text: str, path: Path) -> Status:
    """Return what a status file says. Raises MalformedError; `path` is for its message."""
    lines = _Lines(text, path)
    state = lines.word("State")[:1]
    return Status(
        name=_ESCAPE.sub(lambda match: _UNESCAPED[match[0]], lines.raw("Name")),
        state=state,
        pid=lines.number("Pid"),
        tgid=lines.number("Tgid"),
        ppid=lines.number("PPid"),
        uids=lines.numbers("Uid"),
        gids=lines.numbers("Gid"),
        threads=lines.number("Threads"),
        nspid=lines.numbers("NSpid") if "NSpid" in lines else (lines.number("Pid"),),
        vm_rss_bytes=lines.kib("VmRSS") * 1024 if "VmRSS" in lines else None,
        mems_allowed=NodeSet(lines.ids("Mems_allowed_list"))
        if "Mems_allowed_list" in lines
        else None,
        cpus_allowed=lines.ids("Cpus_allowed_list"),
        cap_prm=lines.number("CapPrm", 16),
        cap_eff=lines.number("CapEff", 16),
        seccomp=lines.number("Seccomp") if "Seccomp" in lines else None,
        kernel_thread=_is_kernel_thread(lines, state),
    )


def _is_kernel_thread(lines: _Lines, state: str) -> bool:
    if "Kthread" in lines:  # since Linux 6.11
        return lines.number("Kthread") == 1
    return "VmSize" not in lines and state not in _ENDED


class _Lines:
    """The lines of a status file by their key, each with its number for error messages."""

    def __init__(self, text: str, path: Path) -> None:
        self._path = path
        self._lines = {
            key: (number, value.removeprefix("\t"))
            for number, line in enumerate(text.split("\n"), 1)
            for key, colon, value in [line.partition(":")]
            if colon
        }

    def __contains__(self, key: str) -> bool:
        return key in self._lines

    def raw(self, key: str) -> str:
        """Return the text behind the key, with the blanks around it."""
        if key not in self._lines:
            raise MalformedError(self._path, 0, key, "the line is missing")
        return self._lines[key][1]

    def word(self, key: str) -> str:
        """Return the text behind the key."""
        return self.raw(key).strip()

    def number(self, key: str, base: int = 10) -> int:
        """Return the number behind the key."""
        return parse_number(self.word(key), self._path, self._lines[key][0], key, base)

    def numbers(self, key: str) -> tuple[int, ...]:
        """Return the numbers behind the key."""
        words, line = self.word(key).split(), self._lines[key][0]
        return tuple(parse_number(word, self._path, line, key) for word in words)

    def ids(self, key: str) -> tuple[int, ...]:
        """Return the nodes or CPUs that the list behind the key names."""
        return parse_list(self.word(key), self._path, self._lines[key][0], key)

    def kib(self, key: str) -> int:
        """Return the number behind the key, which must be followed by kB."""
        number, unit = self.word(key).removesuffix("kB"), self.word(key)[-2:]
        if unit != "kB":
            raise MalformedError(self._path, self._lines[key][0], key, "the unit kB is missing")
        return parse_number(number.strip(), self._path, self._lines[key][0], key)

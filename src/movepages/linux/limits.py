"""What bounds a placement: settings of the kernel, and resource limits of a process.

Where a kernel does not have a setting the answer is None.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from movepages.errors import MalformedError
from movepages.linux.reading import (
    ROOT,
    parse_number,
    process_directory,
    read_number,
    read_optional,
    read_optional_number,
    read_process_record,
    read_text,
)

if TYPE_CHECKING:
    from pathlib import Path

_CHOSEN = re.compile(r"\[(\w+)\]")
_NAME_WIDTH, _VALUE_WIDTH = 26, 21
"""Columns of /proc/PID/limits with the blank behind them (proc_pid_limits in fs/proc/base.c)."""


@dataclass(frozen=True, slots=True)
class Limit:
    """A resource limit in the unit that getrlimit(2) gives it; None is unlimited."""

    soft: int | None
    hard: int | None


def read_numa_balancing(root: Path = ROOT) -> int | None:
    """Return the mode of automatic NUMA balancing: 0 off, 1 balancing, 2 memory tiering."""
    return read_optional_number(root / "proc/sys/kernel/numa_balancing")


def read_demotion_enabled(root: Path = ROOT) -> bool | None:
    """Return whether reclaim demotes pages to a slower memory tier."""
    path = root / "sys/kernel/mm/numa/demotion_enabled"
    text = read_optional(path)
    if text not in {None, "true", "false"}:
        raise MalformedError(path, 0, "value", f"{text!r} is neither true nor false")
    return None if text is None else text == "true"


def read_swap_bytes(root: Path = ROOT) -> int:
    """Return the size of all swap space in bytes."""
    path = root / "proc/meminfo"
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if line.startswith("SwapTotal:"):
            kib = line.removeprefix("SwapTotal:").removesuffix("kB").strip()
            return parse_number(kib, path, number, "SwapTotal") * 1024
    raise MalformedError(path, 0, "SwapTotal", "the line is missing")


def read_thp_size_bytes(root: Path = ROOT) -> int | None:
    """Return the size of a transparent huge page that is mapped whole, in bytes."""
    return read_optional_number(root / "sys/kernel/mm/transparent_hugepage/hpage_pmd_size")


def read_thp_mode(root: Path = ROOT) -> str | None:
    """Return when transparent huge pages are made: `always`, `madvise` or `never`."""
    path = root / "sys/kernel/mm/transparent_hugepage/enabled"
    text = read_optional(path)
    if text is None:
        return None
    chosen = _CHOSEN.search(text)
    if not chosen:
        raise MalformedError(path, 0, "value", f"{text!r} marks none as chosen")
    return chosen[1]


def read_pid_max(root: Path = ROOT) -> int:
    """Return the number that every pid is below."""
    return read_number(root / "proc/sys/kernel/pid_max")


def read_ptrace_scope(root: Path = ROOT) -> int | None:
    """Return Yama's rule for ptrace: 0 classic, 1 descendants, 2 administrators, 3 nobody."""
    return read_optional_number(root / "proc/sys/kernel/yama/ptrace_scope")


def read_perf_event_paranoid(root: Path = ROOT) -> int | None:
    """Return who may use perf events: 2 all for their own programs, above that no user may."""
    return read_optional_number(root / "proc/sys/kernel/perf_event_paranoid")


def read_zone_reclaim_mode(root: Path = ROOT) -> int | None:
    """Return whether a full node reclaims memory of its own before others are asked; 0 is no."""
    return read_optional_number(root / "proc/sys/vm/zone_reclaim_mode")


def read_overcommit_hugepages(root: Path = ROOT) -> int | None:
    """Return how many huge pages of default size may be made beyond the pools, in huge pages."""
    return read_optional_number(root / "proc/sys/vm/nr_overcommit_hugepages")


def read_process_limits(pid: int, root: Path = ROOT) -> dict[str, Limit]:
    """Return the resource limits of a process by the kernel's names, such as `Max locked memory`.

    Raises NoSuchProcessError, NotPermittedError, MalformedError.
    """
    path = process_directory(pid, root) / "limits"
    limits: dict[str, Limit] = {}
    lines = read_process_record(pid, "limits", root).splitlines()
    for number, line in enumerate(lines[1:], 2):
        name, values = line[:_NAME_WIDTH].strip(), line[_NAME_WIDTH:]
        limits[name] = Limit(
            _limit(values[:_VALUE_WIDTH], path, number, name),
            _limit(values[_VALUE_WIDTH : 2 * _VALUE_WIDTH], path, number, name),
        )
    return limits


def _limit(text: str, path: Path, line: int, name: str) -> int | None:
    value = text.strip()
    return None if value == "unlimited" else parse_number(value, path, line, name)

"""What stands on a command line, read and checked: pids, addresses, ranges, node lists."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from movepages.abi import Errno
from movepages.errors import NodeSetError, OutsideCpusetError, SizeError
from movepages.nodeset import NodeSet
from movepages.units import parse_address, parse_range, parse_rate, parse_size

if TYPE_CHECKING:
    from collections.abc import Callable

    from movepages.topology import Topology
    from movepages.values import TaskInfo

_HIGHEST_PID = (1 << 31) - 1
_FEW_DIGITS = re.compile(r"[0-9]{1,9}", re.ASCII)
_MOST_WORKERS = 256
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|h)?", re.ASCII)
_SHARE = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(%)?", re.ASCII)
_LEAST_RATE = 4096
_SECONDS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True)
class Span:
    """An address or a range as given; `end` is None for a single address."""

    text: str
    start: int
    end: int | None

    def pages(self, page_size_bytes: int) -> tuple[int, int]:
        """Return start and end of the pages that contain it."""
        end = self.start + 1 if self.end is None else self.end
        return (
            self.start // page_size_bytes * page_size_bytes,
            -(-end // page_size_bytes) * page_size_bytes,
        )

    def aligned(self, page_size_bytes: int) -> bool:
        """Tell whether it starts and ends where pages do."""
        return not self.start % page_size_bytes and not (self.end or 0) % page_size_bytes


class _Pid(click.ParamType[int]):
    name = "pid"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if not (value.isascii() and value.isdecimal()) or not 0 < int(value) <= _HIGHEST_PID:
            self.fail(f"{value!r} is not a pid; give the number of a process", param, ctx)
        return int(value)


class _Span(click.ParamType[Span]):
    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Span:
        try:
            if "-" in value or "+" in value:
                return Span(value, *parse_range(value))
            return Span(value, parse_address(value), None)
        except SizeError as error:
            self.fail(str(error), param, ctx)


class _Measure(click.ParamType[float]):
    """A size, rate or duration, read by a function that raises SizeError."""

    def __init__(self, name: str, read: Callable[[str], float]) -> None:
        self.name = name
        self._read = read

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        try:
            number = self._read(value)
        except SizeError as error:
            self.fail(str(error), param, ctx)
        if not number:
            self.fail(f"{value!r} is nothing; give more than 0", param, ctx)
        return number


def _seconds(text: str) -> float:
    """Read a duration in seconds: `30`, `30s`, `500ms`, `5m`, `1.5h`. Raises SizeError."""
    match = _DURATION.fullmatch(text)
    if not match:
        raise SizeError(f"{text!r} is not a duration; write it like 30s, 500ms or 5m", text=text)
    return float(match[1]) * _SECONDS[match[2] or "s"]


def _rate(text: str) -> float:
    """Read a rate in bytes a second, a page or more. Raises SizeError."""
    rate = parse_rate(text)
    if 0 < rate < _LEAST_RATE:
        raise SizeError(
            f"{text!r} is less than a page a second; write it like 200M/s, with its unit", text=text
        )
    return rate


def _share(text: str) -> float:
    """Read a share: `60%`, `0.6`. Raises SizeError."""
    match = _SHARE.fullmatch(text)
    share = float(match[1]) / (100 if match[2] else 1) if match else 2.0
    if share > 1:
        raise SizeError(f"{text!r} is not a share; write it like 60% or 0.6", text=text)
    return share


class _Workers(click.ParamType[tuple[int, int]]):
    """How many workers to begin with, and how many to try at most."""

    name = "workers"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        if value == "auto":
            return 1, min(len(os.sched_getaffinity(0)), _MOST_WORKERS)
        if not _FEW_DIGITS.fullmatch(value) or not 0 < int(value) <= _MOST_WORKERS:
            self.fail(f"{value!r} is not 1 to {_MOST_WORKERS}, nor auto", param, ctx)
        return int(value), int(value)


PID = _Pid()
SPAN = _Span()
SIZE = _Measure("size", parse_size)
RATE = _Measure("rate", _rate)
DURATION = _Measure("duration", _seconds)
WORKERS = _Workers()
SHARE = _Measure("share", _share)


def source_nodes(option: str, text: str, topology: Topology) -> NodeSet:
    """Read the nodes to move from. Raises NodeSetError."""
    return _some(option, text, NodeSet.parse(text, existing=topology.online))


def _never() -> bool:
    return False


def target_nodes(
    option: str,
    text: str,
    topology: Topology,
    task: TaskInfo,
    may_leave_cpuset: Callable[[], bool] = _never,
) -> NodeSet:
    """Read the nodes to move to; `all`, `!` and `+` refer to the cpuset of the process.

    `may_leave_cpuset` is asked only about nodes outside it. Raises NodeSetError, for a node without
    memory too, and OutsideCpusetError.
    """
    inside = task.mems_allowed & topology.with_memory
    try:
        return _some(option, text, NodeSet.parse(text, allowed=inside, existing=topology.online))
    except NodeSetError:
        if "+" in text:  # counts within the cpuset, and cannot mean a node outside
            raise
        # Would it do if the cpuset allowed every node? If not, this raises the better error.
        nodes = _some(option, text, NodeSet.parse(text, existing=topology.online))
    if without := nodes - topology.with_memory:
        raise NodeSetError(
            f"{option}: node {min(without)} has no memory, so no page can be there; "
            f"nodes with memory: {topology.with_memory}",
            text=text,
        )
    if may_leave_cpuset():
        return nodes
    node = min(nodes - inside)
    raise OutsideCpusetError(
        Errno.EACCES,
        f"{option}: node {node} lies outside the cpuset of process {task.pid} ({inside}); "
        "choose among those, or widen cpuset.mems of its cgroup",
        call="move_pages",
        pid=task.pid,
        node=node,
    )


def _some(option: str, text: str, nodes: NodeSet) -> NodeSet:
    if not nodes:
        raise NodeSetError(f"{option} {text!r} names no node; give one like 1 or 0-3", text=text)
    return nodes

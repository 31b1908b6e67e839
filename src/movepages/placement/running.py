"""Where a process runs: how much of its CPU time falls to each node, in all or between two looks.

A thread counts on the node of the CPU where it was seen last, with all of its time: the kernel does
not tell more.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from movepages.placement.locality import running_by_node

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from movepages.topology import Topology
    from movepages.values import ThreadInfo

_LEAST_PART = 0.1
"""Less than this of what the busiest node has is noise: a helper thread, a short visit."""


@dataclass(frozen=True, slots=True)
class Running:
    """Each node's share of the running of a process, 1 together; empty where it is not known."""

    share: Mapping[int, float]
    ran: bool
    """Whether it ran at all in that time; if not, its threads are counted where they ran last."""

    def main_nodes(self) -> dict[int, float]:
        """Return the shares of the nodes that count, 1 together, the busiest first.

        Those are the nodes with at least a tenth of what the busiest has.
        """
        least = _LEAST_PART * max(self.share.values(), default=0.0)
        chosen = {node: share for node, share in self.share.items() if share >= least}
        whole = sum(chosen.values())
        most_first = sorted(chosen.items(), key=lambda item: (-item[1], item[0]))
        return {node: share / whole for node, share in most_first}


def running(
    threads: Iterable[ThreadInfo],
    topology: Topology,
    before: Iterable[ThreadInfo] | None = None,
) -> Running:
    """Return where threads ran since an earlier look at them; without one, since they began."""
    since = list(threads) if before is None else time_between(before, threads)
    return Running(running_by_node(since, topology), any(thread.cpu_time_ns for thread in since))


def time_between(before: Iterable[ThreadInfo], now: Iterable[ThreadInfo]) -> list[ThreadInfo]:
    """Return the threads of now with the CPU time, in nanoseconds, that they used since before.

    A thread that is new counts with all its time, and so does one whose time has gone back: its id
    is another thread's by now.
    """
    used = {thread.tid: thread.cpu_time_ns for thread in before}

    def since(thread: ThreadInfo) -> int:
        base = used.get(thread.tid, 0)
        return thread.cpu_time_ns - (base if base <= thread.cpu_time_ns else 0)

    return [replace(thread, cpu_time_ns=since(thread)) for thread in now]

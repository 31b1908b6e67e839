"""Where the memory of a process is: how much, on which nodes, how near its threads, and what."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from movepages.report.bars import write_bars
from movepages.report.fields import (
    count,
    counted,
    encode,
    fields,
    node_keys,
    percent,
    printable,
)
from movepages.units import format_size

if TYPE_CHECKING:
    from collections.abc import Mapping as MappingOf, Sequence

    from movepages.placement.locality import Locality
    from movepages.report.output import Output
    from movepages.report.views import Order, View
    from movepages.topology import Topology
    from movepages.values import Mapping, Placement, ThreadInfo

FIRST_SCREEN = 30
"""Rows that are listed unless all are asked for."""

MAPPING = fields(
    "start",
    "end",
    "size_bytes",
    "resident_bytes",
    "bytes_by_node",
    "policy",
    "page_size_bytes",
    "permissions",
    "kind",
    "path",
)
THREAD = fields("tid", "thread", "cpu", "node", "cpu_time_ns", "near_share", "mean_distance")
GROUP = fields("group", "mapping_count", "size_bytes", "resident_bytes", "bytes_by_node")


@dataclass(frozen=True, slots=True)
class ProcessSnapshot:
    """A process with its mappings and its threads, read once; with its pages if they were asked."""

    pid: int
    command: str
    mappings: Sequence[Mapping]
    threads: Sequence[ThreadInfo]
    topology: Topology
    page_size_bytes: int
    placement: Placement | None = None

    @property
    def bytes_by_node(self) -> dict[int, int]:
        """Resident bytes on each node, in rising order of node."""
        return sum_by_node(self.mappings)

    @property
    def resident_bytes(self) -> int:
        """Bytes that are on some node: what numa_maps counts, hugetlb included."""
        return sum(self.bytes_by_node.values())

    @property
    def locality(self) -> Locality:
        """How near its memory is to its threads."""
        from movepages.placement.locality import locality

        return locality(self.threads, self.bytes_by_node, self.topology)

    @property
    def huge_bytes(self) -> int | None:
        """Bytes in pages larger than the base page; None where its pages were not looked at."""
        if self.placement is None:
            return None
        from movepages.placement.strips import huge_bytes

        return huge_bytes(self.placement, self.page_size_bytes)


def sum_by_node(mappings: Sequence[Mapping]) -> dict[int, int]:
    """Return resident bytes of all mappings on each node, in rising order of node."""
    total: Counter[int] = Counter()
    for mapping in mappings:
        total.update(mapping.bytes_by_node)
    return dict(sorted(total.items()))


def title(command: str, pid: int) -> str:
    """Name a process for a person: `python3 (1234)`."""
    return f"{printable(command)} ({pid})"


def write_text(
    process: ProcessSnapshot,
    output: Output,
    view: View,
    order: Order,
    *,
    everything: bool,
    before: MappingOf[int, int] | None = None,
) -> None:
    """Write size, shares by node, nearness, and the first rows of a view, or all of them.

    `before` is how much was on each node a while ago: what has changed since is told.
    """
    output.styled(
        (title(process.command, process.pid), "bold"),
        (f": {format_size(process.resident_bytes)} resident in ", ""),
        (counted(len(process.mappings), "mapping"), ""),
    )
    write_bars(output, dict.fromkeys(before or (), 0) | process.bytes_by_node, before)
    for line in (*_nearness(process.locality), *_huge(process)):
        output.line(f"  {line}")
    output.line()
    rows = sorted(view.rows(process), key=order.key)
    if everything:
        output.stream_table(view.all_columns, view.shown(process, rows))
        return
    output.line(f"{view.noun}, {order.words}")
    output.table(view.columns, view.shown(process, rows[:FIRST_SCREEN]))
    if (more := len(rows) - FIRST_SCREEN) > 0:
        output.line(f"... {count(more)} more: see --all")


def to_json(process: ProcessSnapshot, by: str = "mapping") -> dict[str, Any]:
    """Return a process for a program, its mappings in order of address, encoded as they go."""
    from movepages.report.json import encoded
    from movepages.report.views import VIEWS, by_thread

    groups = VIEWS[by].rows(process) if by in {"kind", "file"} else ()
    return summary_json(process) | {
        "threads": [encode(thread, THREAD) for thread in by_thread(process)],
        "by": by,
        "groups": [encode(group, GROUP) for group in groups],
        "mappings": encoded(encode(mapping, MAPPING) for mapping in process.mappings),
    }


def summary_json(process: ProcessSnapshot) -> dict[str, Any]:
    """Return what is said of a process as a whole, for a program."""
    near = process.locality
    return {
        "pid": process.pid,
        "command": process.command,
        "resident_bytes": process.resident_bytes,
        "bytes_by_node": node_keys(process.bytes_by_node),
        "running_by_node": node_keys(near.running_by_node),
        "near_share": near.near_share,
        "mean_distance": near.mean_distance,
        "huge_bytes": process.huge_bytes,
    }


def _nearness(near: Locality) -> list[str]:
    """Return the line that says how near memory is, or none where that is not known."""
    if near.near_share is None or near.mean_distance is None:
        return []
    where, share = _running(near.running_by_node), percent(near.near_share)
    return [f"{share} is near its threads, on {where}; mean distance {near.mean_distance:.1f}"]


def _running(running_by_node: MappingOf[int, float]) -> str:
    """Write where threads run: `node 1`, or `nodes 0 (75%), 1 (25%)`."""
    if len(running_by_node) == 1:
        return f"node {next(iter(running_by_node))}"
    shares = (f"{node} ({percent(share)})" for node, share in running_by_node.items())
    return f"nodes {', '.join(shares)}"


def _huge(process: ProcessSnapshot) -> list[str]:
    """Return the line on huge pages, or none where pages were not looked at."""
    if process.huge_bytes is None or process.placement is None:
        return []
    whole = process.placement.total_bytes
    share = process.huge_bytes / whole if whole else 0.0
    return [f"{percent(share)} is in huge pages"]

"""Several processes side by side: how much each has on each node, and how near that is to it."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from movepages.report.fields import Field, fields, or_dash
from movepages.report.process import summary_json, title
from movepages.units import format_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from movepages.report.output import Output
    from movepages.report.process import ProcessSnapshot

_MOST_COLUMNS = 6
"""With more nodes than that, what a process has on each is written in one column."""


def write_processes(
    processes: Sequence[ProcessSnapshot], missing: Iterable[str], output: Output
) -> None:
    """Write a line for each process, most resident memory first, and one for all of them."""
    nodes = sorted(set().union(*(process.bytes_by_node for process in processes)))
    rows = sorted(processes, key=lambda process: -process.resident_bytes)
    output.table(
        _columns(nodes),
        [*(_row(process, nodes) for process in rows), _total(processes, nodes)],
    )
    if len(processes) > 1:
        output.line()
        output.line("Memory that several of them map is counted for each.")
    if names := ", ".join(missing):
        output.line()
        output.sentence(f"not found, ended, or not to be looked at: {names}")


def processes_json(processes: Sequence[ProcessSnapshot], missing: Iterable[str]) -> dict[str, Any]:
    """Return processes for a program, each without its mappings and threads."""
    return {
        "processes": [summary_json(process) for process in processes],
        "missing": list(missing),
    }


def _columns(nodes: Sequence[int]) -> tuple[Field, ...]:
    if len(nodes) > _MOST_COLUMNS:
        return fields("process", "resident_bytes", "near_share", "mean_distance", "bytes_by_node")
    by_node = (
        Field(f"node{node}", f"NODE {node}", "bytes", or_dash(format_size), right=True)
        for node in nodes
    )
    return (*fields("process", "resident_bytes"), *by_node, *fields("near_share", "mean_distance"))


def _row(process: ProcessSnapshot, nodes: Sequence[int]) -> SimpleNamespace:
    near = process.locality
    return _cells(
        title(process.command, process.pid),
        process.bytes_by_node,
        nodes,
        near_share=near.near_share,
        mean_distance=near.mean_distance,
    )


def _total(processes: Sequence[ProcessSnapshot], nodes: Sequence[int]) -> SimpleNamespace:
    """Return the sum. Memory that several of them map is in it several times."""
    total: Counter[int] = Counter()
    for process in processes:
        total.update(process.bytes_by_node)
    by_node = dict(sorted(total.items()))
    return _cells("all of them", by_node, nodes, near_share=None, mean_distance=None)


def _cells(
    name: str, bytes_by_node: Mapping[int, int], nodes: Sequence[int], **others: Any
) -> SimpleNamespace:
    on_nodes = {f"node{node}": bytes_by_node.get(node, 0) for node in nodes}
    return SimpleNamespace(
        process=name,
        resident_bytes=sum(bytes_by_node.values()),
        bytes_by_node=bytes_by_node,
        **on_nodes,
        **others,
    )

"""Where the memory of a process is, mapping by mapping."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from movepages.report.bars import write_bars
from movepages.report.fields import count, counted, encode, fields, node_keys, printable
from movepages.units import format_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from movepages.report.output import Output
    from movepages.values import Mapping

FIRST_SCREEN = 30
"""Mappings that are listed unless all are asked for."""

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
_TABLE = (
    "size_bytes",
    "resident_bytes",
    "page_size_bytes",
    "policy",
    "bytes_by_node",
    "path",
)


@dataclass(frozen=True, slots=True)
class ProcessSnapshot:
    """A process and its mappings, read once."""

    pid: int
    command: str
    mappings: Sequence[Mapping]

    @property
    def bytes_by_node(self) -> dict[int, int]:
        """Resident bytes on each node, in rising order of node."""
        total: Counter[int] = Counter()
        for mapping in self.mappings:
            total.update(mapping.bytes_by_node)
        return dict(sorted(total.items()))

    @property
    def resident_bytes(self) -> int:
        """Bytes that are on some node: what numa_maps counts, hugetlb included."""
        return sum(self.bytes_by_node.values())


def title(command: str, pid: int) -> str:
    """Name a process for a person: `python3 (1234)`."""
    return f"{printable(command)} ({pid})"


def write_text(process: ProcessSnapshot, output: Output, *, everything: bool) -> None:
    """Write size, shares by node, and the largest mappings, or all in order of address."""
    shares = process.bytes_by_node
    mappings = counted(len(process.mappings), "mapping")
    output.styled(
        (title(process.command, process.pid), "bold"),
        (f": {format_size(process.resident_bytes)} resident in {mappings}", ""),
    )
    write_bars(output, shares)
    output.line()
    if everything:
        output.stream_table(fields("span", *_TABLE), process.mappings)
        return
    largest = sorted(
        process.mappings, key=lambda mapping: (-mapping.resident_bytes, mapping.start)
    )[:FIRST_SCREEN]
    output.line("Mappings, most resident memory first")
    output.table(fields("start", *_TABLE), largest)
    if more := len(process.mappings) - len(largest):
        output.line(f"... {count(more)} more, --all")


def to_json(process: ProcessSnapshot) -> dict[str, Any]:
    """Return a process for a program, its mappings in order of address, encoded as they go."""
    from movepages.report.json import encoded

    return {
        "pid": process.pid,
        "command": process.command,
        "resident_bytes": process.resident_bytes,
        "bytes_by_node": node_keys(process.bytes_by_node),
        "mappings": encoded(encode(mapping, MAPPING) for mapping in process.mappings),
    }

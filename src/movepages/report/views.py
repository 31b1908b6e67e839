"""The ways to list what a process has: by mapping, kind, file or thread, each in some orders."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from movepages.placement.locality import locality
from movepages.report.fields import FIELDS, Field, fields
from movepages.report.strip import CELLS, strip_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from movepages.report.process import ProcessSnapshot
    from movepages.values import Mapping as Area

    Key = Callable[[Any], Any]

_ON_NODE = re.compile(r"node([0-9]{1,4})", re.ASCII)
_NO_FILE = "(no file)"


@dataclass(frozen=True, slots=True)
class Order:
    """An order of rows, and the words for it in a heading."""

    words: str
    key: Key


@dataclass(frozen=True, slots=True)
class View:
    """One way to list a process: its rows, their columns, and the orders that they have.

    The first of `orders` is the usual one. `shown` makes of rows, once chosen, what is written.
    """

    noun: str
    columns: tuple[Field, ...]
    all_columns: tuple[Field, ...]
    orders: Mapping[str, Order]
    rows: Callable[[ProcessSnapshot], Sequence[Any]]
    shown: Callable[[ProcessSnapshot, Sequence[Any]], Iterable[Any]] = lambda _process, rows: rows

    def order(self, name: str) -> Order | None:
        """Return the order of that name: one of `orders`, or `node2` for the most on node 2."""
        on_node = _ON_NODE.fullmatch(name)
        if on_node and "resident" in self.orders:
            node = int(on_node[1])
            return Order(f"most on node {node} first", lambda row: -row.bytes_by_node.get(node, 0))
        return self.orders.get(name)


@dataclass(frozen=True, slots=True)
class Group:
    """Some mappings together: all of a kind, or of a file."""

    group: str
    mapping_count: int
    size_bytes: int
    bytes_by_node: Mapping[int, int]

    @property
    def resident_bytes(self) -> int:
        """Bytes that are on some node."""
        return sum(self.bytes_by_node.values())


@dataclass(frozen=True, slots=True)
class ThreadRow:
    """A thread, and how near it is to the memory of its process; None where that is not known."""

    tid: int
    thread: str
    cpu: int
    cpu_time_ns: int
    node: int
    near_share: float | None
    mean_distance: float | None


@dataclass(frozen=True, slots=True)
class StripRow:
    """A mapping, and where along it the nodes change."""

    start: int
    span: tuple[int, int]
    size_bytes: int
    resident_bytes: int
    along: str
    path: str


def by_kind(process: ProcessSnapshot) -> list[Group]:
    """Return the kinds of mappings."""
    return _groups(process.mappings, lambda mapping: mapping.kind)


def by_file(process: ProcessSnapshot) -> list[Group]:
    """Return the files that are mapped, by what stands for them in maps, and all else together."""
    return _groups(process.mappings, lambda mapping: mapping.path or _NO_FILE)


def by_thread(process: ProcessSnapshot) -> list[ThreadRow]:
    """Return the threads, each with how near it is to the memory of the whole process."""
    memory = process.bytes_by_node
    rows = []
    for thread in process.threads:
        near = locality([thread], memory, process.topology)
        node = next(iter(near.running_by_node), -1)
        rows.append(
            ThreadRow(
                thread.tid,
                thread.name,
                thread.cpu,
                thread.cpu_time_ns,
                node,
                near.near_share,
                near.mean_distance,
            )
        )
    return rows


def _groups(mappings: Iterable[Area], name_of: Callable[[Area], str]) -> list[Group]:
    together: dict[str, list[Area]] = {}
    for mapping in mappings:
        together.setdefault(name_of(mapping), []).append(mapping)
    return [_group(name, those) for name, those in together.items()]


def _group(name: str, mappings: Sequence[Area]) -> Group:
    by_node: Counter[int] = Counter()
    for mapping in mappings:
        by_node.update(mapping.bytes_by_node)
    return Group(
        name,
        len(mappings),
        sum(mapping.size_bytes for mapping in mappings),
        dict(sorted(by_node.items())),
    )


def _with_strips(process: ProcessSnapshot, rows: Sequence[Area]) -> list[StripRow]:
    """Return mappings with their strips. The pages of the process have been looked at."""
    if process.placement is None:
        raise ValueError("the pages of this process were not looked at")
    from movepages.placement.strips import strips

    ranges = [(mapping.start, mapping.end) for mapping in rows]
    return [
        StripRow(
            mapping.start,
            mapping.span,
            mapping.size_bytes,
            mapping.resident_bytes,
            strip_text(strip.tolist()),
            mapping.path,
        )
        for mapping, strip in zip(rows, strips(process.placement, ranges, CELLS), strict=True)
    ]


_BY_SIZE = {
    "resident": Order("most resident memory first", lambda row: -row.resident_bytes),
    "size": Order("largest first", lambda row: -row.size_bytes),
}
_OF_MAPPINGS = {
    **_BY_SIZE,
    "address": Order("by address", lambda row: row.start),
    "name": Order("by name", lambda row: row.path),
}
_OF_GROUPS = {**_BY_SIZE, "name": Order("by name", lambda row: row.group)}
_OF_THREADS = {
    "time": Order("most CPU time first", lambda row: -row.cpu_time_ns),
    "near": Order("least memory near first", lambda row: (row.near_share or 0.0, -row.cpu_time_ns)),
    "tid": Order("by thread id", lambda row: row.tid),
}
_MAPPING = ("size_bytes", "resident_bytes", "page_size_bytes", "policy", "bytes_by_node", "path")
_STRIP = ("size_bytes", "resident_bytes", "along", "path")
_GROUP = fields("mapping_count", "size_bytes", "resident_bytes", "bytes_by_node")
_KIND = (replace(FIELDS["group"], title="KIND"), *_GROUP)
_FILE = (*_GROUP, replace(FIELDS["group"], title="FILE"))
_THREAD = fields("tid", "cpu", "node", "cpu_time_ns", "near_share", "mean_distance", "thread")
MAPPINGS = View(
    "Mappings",
    fields("start", *_MAPPING),
    fields("span", *_MAPPING),
    _OF_MAPPINGS,
    lambda process: process.mappings,
)
STRIPS = View(
    "Mappings",
    fields("start", *_STRIP),
    fields("span", *_STRIP),
    _OF_MAPPINGS,
    lambda process: process.mappings,
    _with_strips,
)
VIEWS = {
    "mapping": MAPPINGS,
    "kind": View("Kinds of mappings", _KIND, _KIND, _OF_GROUPS, by_kind),
    "file": View("Files", _FILE, _FILE, _OF_GROUPS, by_file),
    "thread": View("Threads", _THREAD, _THREAD, _OF_THREADS, by_thread),
}
"""The views by what is said behind --by. STRIPS takes the place of MAPPINGS with --pages."""

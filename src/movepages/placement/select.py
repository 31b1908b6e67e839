r"""Which pages of a process are meant: selections, to combine and to print.

    selection = select.anon() & select.on_node(0) & ~select.file("*.so*")
    print(selection)                       # anon & on_node(0) & ~file('*.so*')
    select.parse(str(selection))           # the same selection

`&`, `|` and `~` are and, or and not. What a selection says of a mapping (`heap`, `file` ...) is
looked at first, so that pages of other mappings are not asked for; what it says of pages
(`on_node`, `thp`, `within`) is looked at run by run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from movepages.nodeset import NodeSet
from movepages.placement.expression import parse
from movepages.placement.predicates import (
    Everything,
    File,
    Huge,
    Kind,
    LargerThan,
    OnNode,
    PolicyWord,
    Thp,
    Within,
    Writable,
)
from movepages.placement.selection import Runs, Selection
from movepages.values import Placement

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from movepages.machine import Machine
    from movepages.values import Mapping

__all__ = [
    "Selection",
    "anon",
    "everything",
    "file",
    "heap",
    "hugetlb",
    "larger_than",
    "locate",
    "on_node",
    "parse",
    "policy",
    "shm",
    "stack",
    "thp",
    "within",
    "writable",
]


_VSYSCALL = "[vsyscall]"
"""A page of the kernel's that maps lists for every process, above all user memory."""


def everything() -> Selection:
    """Select all pages."""
    return Everything()


def heap() -> Selection:
    """Select what the program has got from brk(2)."""
    return Kind("heap")


def stack() -> Selection:
    """Select the stack of the main thread."""
    return Kind("stack")


def anon() -> Selection:
    """Select memory that no file backs: heap, stack, and anonymous mappings."""
    return Kind("anon")


def shm() -> Selection:
    """Select shared memory: SysV, POSIX, memfd, and shared anonymous mappings."""
    return Kind("shm")


def hugetlb() -> Selection:
    """Select mappings of hugetlb pages."""
    return Huge()


def thp() -> Selection:
    """Select transparent huge pages that are mapped whole."""
    return Thp()


def file(glob: str) -> Selection:
    """Select mappings of files, by path, or by name where the glob has no slash. ArgumentError."""
    return File(glob)


def writable() -> Selection:
    """Select mappings that the process may write to."""
    return Writable()


def policy(word: str) -> Selection:
    """Select mappings whose memory policy has this mode, in the kernel's word. ArgumentError."""
    return PolicyWord(word)


def larger_than(size_bytes: int) -> Selection:
    """Select mappings that are longer than so many bytes, touched or not. Raises ArgumentError."""
    return LargerThan(size_bytes)


def on_node(*nodes: int | Iterable[int]) -> Selection:
    """Select pages that are on one of some nodes. Raises ArgumentError without one."""
    numbers: set[int] = set()
    for node in nodes:
        numbers |= {node} if isinstance(node, int) else set(node)
    return OnNode(NodeSet(numbers))


def within(start: int, end: int) -> Selection:
    """Select pages that have a byte from address start on, before end. Raises ArgumentError."""
    return Within(start, end)


def locate(machine: Machine, pid: int, selection: Selection) -> Placement:
    """Return the pages that a selection means, and where they are. Raises CallError."""
    mappings = [mapping for mapping in machine.mappings(pid) if mapping.path != _VSYSCALL]
    may = np.array([selection.may_select(mapping) for mapping in mappings], dtype=np.bool_)
    if not may.any():
        return _chosen(_nothing(), np.zeros(0, dtype=np.bool_))
    bounds = selection.bounds()
    ranges = None if may.all() and bounds is None else _ranges(mappings, may, bounds)
    placement = _nothing() if ranges == [] else machine.locate(pid, ranges)
    edges = [mapping.start for mapping in mappings] + [mapping.end for mapping in mappings]
    cut = _cut(placement, np.unique(np.array([*edges, *selection.edges()], dtype=np.uint64)))
    runs = Runs(cut, mappings, machine.page_size_bytes)
    return _chosen(cut, selection.chosen(runs))


def _ranges(
    mappings: Sequence[Mapping], may: NDArray[np.bool_], bounds: Sequence[tuple[int, int]] | None
) -> list[tuple[int, int]]:
    """Return the address ranges that can hold selected pages: mappings, cut to the bounds."""
    spans = [mapping.span for mapping, wanted in zip(mappings, may, strict=True) if wanted]
    if bounds is None:
        return _merged(spans)
    return _merged(
        (max(low, start), min(high, end))
        for low, high in bounds
        for start, end in spans
        if low < end and start < high
    )


def _merged(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Join spans that overlap or touch."""
    joined: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


def _cut(placement: Placement, edges: NDArray[np.uint64]) -> Placement:
    """Cut runs at edges; a page that an edge lies in is cut out as a run of its own."""
    if not len(placement):
        return placement
    sizes = placement.page_size_bytes.view(np.uint64)
    ends = placement.start + (placement.pages.view(np.uint64) * sizes)
    run = np.searchsorted(placement.start, edges, side="right") - 1
    inside = (run >= 0) & (edges < ends[run])
    run, edges = run[inside], edges[inside]
    offset = edges - placement.start[run]
    below = edges - offset % sizes[run]
    above = below + np.where(offset % sizes[run] > 0, sizes[run], np.uint64(0))
    above = above[above < ends[run]]
    start = np.unique(np.concatenate([placement.start, below, above]))
    owner = np.searchsorted(placement.start, start, side="right") - 1
    following = np.append(start[1:], ends[-1])
    pages = (np.minimum(following, ends[owner]) - start) // sizes[owner]
    return Placement(
        start,
        pages.astype(np.int64),
        placement.page_size_bytes[owner],
        placement.node[owner],
        placement.way,
    )


def _chosen(placement: Placement, which: NDArray[np.bool_]) -> Placement:
    return Placement(
        placement.start[which],
        placement.pages[which],
        placement.page_size_bytes[which],
        placement.node[which],
        placement.way,
    )


def _nothing() -> Placement:
    none = np.zeros(0, dtype=np.int64)
    return Placement(none.view(np.uint64), none, none, none.astype(np.int32))

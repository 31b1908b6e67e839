"""Which pages of an address space are present, and where: what pagemap and queries tell on Linux.

Whole areas are gathered at a time; nothing here goes page by page.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from movepages.errors import ArgumentError
from movepages.kernel.address_space import VmFlag
from movepages.kernel.frames import PageFlag
from movepages.kernel.mappings import Backing
from movepages.kernel.page_tables import PteFlag
from movepages.values import PageRuns, Placement

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from movepages.kernel.address_space import Mm, Vma
    from movepages.kernel.memory import Memory

    Indices = NDArray[np.int64]
    Ranges = Sequence[tuple[int, int]] | None


class _Runs(NamedTuple):
    """Runs of pages alike: first page number, how many base pages, order of the folio, node."""

    first: Indices
    pages: Indices
    order: Indices
    node: Indices


def present(memory: Memory, mm: Mm | None, ranges: Ranges) -> PageRuns:
    """Return the runs of present pages in some ranges, or everywhere, cut where areas end.

    A huge page that a range only touches counts whole. Raises ArgumentError for an empty range.
    """
    runs = [_merged(units, by_node=False) for units in _units(memory, mm, ranges)]
    first, pages, order, _ = _joined(runs)
    shift = mm.page_shift if mm else 0
    return PageRuns((first << shift).view(np.uint64), pages >> order, _sizes(order, shift))


def locate(memory: Memory, mm: Mm | None, ranges: Ranges) -> Placement:
    """Return the runs of present pages by node. As `present`, but not cut where areas end."""
    first, pages, order, node = _merged(_joined(list(_units(memory, mm, ranges))), by_node=True)
    shift = mm.page_shift if mm else 0
    return Placement(
        (first << shift).view(np.uint64),
        pages >> order,
        _sizes(order, shift),
        node.astype(np.int32),
        "model",
    )


def _sizes(order: Indices, shift: int) -> Indices:
    return np.left_shift(1, order + shift)


def _units(memory: Memory, mm: Mm | None, ranges: Ranges) -> Iterator[_Runs]:
    """Go through the areas with their present folios, each as it is mapped a run of its own.

    The kernel's own pages and those of devices are left out: they have no node to speak of.
    """
    if mm is None:
        return
    wanted = None if ranges is None else _whole_pages(ranges, mm.page_shift)
    for vma in mm.areas:
        own = vma.file is not None and vma.file.backing is Backing.DEVICE
        if own or vma.flags & VmFlag.PFNMAP:
            continue
        yield _joined(
            [
                _units_of(memory, vma, max(low, vma.start), min(high, vma.end))
                for low, high in ([(vma.start, vma.end)] if wanted is None else wanted)
                if low < vma.end and high > vma.start
            ]
        )


def _units_of(memory: Memory, vma: Vma, low: int, high: int) -> _Runs:
    """Return the folios that are mapped in a part of an area, each of them whole."""
    frames, tables = memory.frames, memory.tables
    low, high = _at_folios(memory, vma, low, high)
    slots = slice(vma.slot + low - vma.start, vma.slot + high - vma.start)
    entries = tables.entry[slots]
    at = np.flatnonzero(entries >= 0)
    pfns = entries[at].astype(np.int64)
    chosen = ~frames.has(pfns, PageFlag.RESERVED)
    huge = (tables.flags[slots][at] & np.uint8(PteFlag.HUGE)) != 0
    order = np.where(huge, frames.order[pfns].astype(np.int64), 0)
    if huge.any():
        chosen &= ~huge | (frames.head(pfns) == pfns)
    at, pfns, order = at[chosen], pfns[chosen], order[chosen]
    return _Runs(at + low, np.left_shift(1, order), order, frames.node[pfns].astype(np.int64))


def _at_folios(memory: Memory, vma: Vma, low: int, high: int) -> tuple[int, int]:
    """Widen a part of an area so that it does not cut a huge page at its ends."""
    frames, tables = memory.frames, memory.tables

    def folio_at(page: int) -> tuple[int, int]:
        slot = vma.slot + page - vma.start
        pfn = int(tables.entry[slot])
        if pfn < 0 or not tables.flags[slot] & np.uint8(PteFlag.HUGE):
            return page, page + 1
        size = 1 << int(frames.order[pfn])
        first = page - pfn % size
        return first, first + size

    return folio_at(low)[0], folio_at(high - 1)[1]


def _merged(units: _Runs, *, by_node: bool) -> _Runs:
    """Join what follows each other and is alike."""
    first, pages, order, node = units
    if len(first) < 2:
        return units
    new = (first[1:] != first[:-1] + pages[:-1]) | (order[1:] != order[:-1])
    if by_node:
        new |= node[1:] != node[:-1]
    at = np.flatnonzero(np.append(True, new))
    return _Runs(first[at], np.add.reduceat(pages, at), order[at], node[at])


def _joined(parts: Sequence[_Runs]) -> _Runs:
    """Return all parts one after the other; a huge page that two ranges touch is there once."""
    nothing = np.empty(0, dtype=np.int64)
    columns = [np.concatenate([nothing, *column]) for column in zip(*parts, strict=True)]
    if not columns:
        return _Runs(nothing, nothing, nothing, nothing)
    first = columns[0]
    once = np.append(True, first[1:] != first[:-1]) if len(first) else first == 0
    return _Runs(*(column[once] for column in columns))


def _whole_pages(ranges: Sequence[tuple[int, int]], page_shift: int) -> list[tuple[int, int]]:
    """Round ranges to pages, sort them, and join those that meet. Raises ArgumentError."""
    joined: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if not 0 <= start < end:
            raise ArgumentError(f"range {start:#x}-{end:#x} is empty, reversed or below zero")
        low, high = start >> page_shift, -(-end >> page_shift)
        if joined and low <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(high, joined[-1][1])
        else:
            joined.append((low, high))
    return joined

"""Where along a mapping the nodes change: strips of cells, each for an equal part of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from movepages.values import Placement

NOTHING = -1
"""The node of a cell in which no page is present."""


def strips(
    placement: Placement, ranges: Sequence[tuple[int, int]], cells: int
) -> list[NDArray[np.int32]]:
    """Return for each range of addresses which node has most of each of its cells.

    int32[cells] each: NOTHING for a cell without pages, and of nodes with as much the smallest.
    Ranges are in bytes; runs of `placement` rise and do not overlap.
    """
    starts = placement.start.astype(np.int64)
    ends = starts + placement.pages * placement.page_size_bytes
    return [_strip(placement.node, starts, ends, start, end, cells) for start, end in ranges]


def huge_bytes(placement: Placement, page_size_bytes: int) -> int:
    """Return how much of what is present is in pages larger than the base page, in bytes."""
    huge = placement.page_size_bytes > page_size_bytes
    return int((placement.pages[huge] * placement.page_size_bytes[huge]).sum())


def _strip(
    nodes: NDArray[np.int32],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    start: int,
    end: int,
    cells: int,
) -> NDArray[np.int32]:
    """Return the node of each cell of one range."""
    first, last = np.searchsorted(ends, start, "right"), np.searchsorted(starts, end)
    edges = np.linspace(start, end, cells + 1).astype(np.int64)
    here = slice(first, last)
    known = np.flatnonzero(np.bincount(nodes[here][nodes[here] >= 0]))
    if not known.size:
        return np.full(cells, NOTHING, dtype=np.int32)
    sizes = np.stack(
        [_covered(starts[here][of], ends[here][of], edges) for of in nodes[here] == known[:, None]]
    )
    return np.where(sizes.max(axis=0) > 0, known[sizes.argmax(axis=0)], NOTHING).astype(np.int32)


def _covered(
    starts: NDArray[np.int64], ends: NDArray[np.int64], edges: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return how many bytes of each cell some runs cover: a running total, read at the edges."""
    before = np.concatenate(([0], np.cumsum(ends - starts)))
    run = np.searchsorted(starts, edges, "right") - 1
    inside = np.minimum(edges, ends[run]) - starts[run]
    total = np.where(run < 0, 0, before[run] + inside)
    return np.diff(total)

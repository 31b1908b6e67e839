"""Make plans: from where pages are, and where they are to go. Pure, but for `plan` itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from movepages.errors import ArgumentError
from movepages.placement import select
from movepages.placement.rows import RowIndex
from movepages.values import NO_NODE, PageRuns, Placement, Plan

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import ArrayLike, NDArray

    from movepages.machine import Machine
    from movepages.placement.select import Selection
    from movepages.values import TaskId, TaskInfo


def plan(
    machine: Machine,
    task: TaskInfo,
    selection: Selection,
    to: Iterable[int],
    *,
    reason: str = "asked for",
    keep_there: bool = False,
) -> Plan:
    """Plan to move the pages that a selection means to one node, or to several by turns.

    By turns: page by page, in order of address. With `keep_there`, pages that are on their node
    already are moved as well, which is of use only to measure. Raises CallError, ArgumentError.
    """
    placement, nodes = in_turn(select.locate(machine, task.pid, selection), to)
    return make_plan(task.id, placement, nodes, reasons=(reason,), keep_there=keep_there)


def make_plan(
    task: TaskId,
    placement: Placement,
    to: ArrayLike,
    *,
    reason: ArrayLike = 0,
    reasons: Sequence[str] = ("",),
    crowded: ArrayLike = False,
    keep_there: bool = False,
) -> Plan:
    """Make a plan from runs and the node that each is to go to.

    `to` and `reason` are one value for each run of the placement, or one for all; a reason is an
    index into `reasons`. A run whose node is not known has NO_NODE (or a status) for it. What is
    there already is left out, and only counted; of that, `crowded` says for each run, or for all,
    whether it should be elsewhere, but finds no room there. Raises ArgumentError for runs that
    overlap, or that do not fit together.
    """
    count = len(placement)
    targets = np.broadcast_to(np.asarray(to, dtype=np.int32), count)
    why = np.broadcast_to(np.asarray(reason), count)
    if count and not 0 <= int(why.min()) <= int(why.max()) < len(reasons):
        raise ArgumentError(f"a reason is an index into the {len(reasons)} reasons given")
    _refuse_overlap(placement)
    stays = (placement.node == targets) & (not keep_there)
    without_room = stays & np.asarray(crowded, dtype=np.bool_)
    staying_bytes = _bytes_by_node(placement, stays)
    crowded_bytes = sum(_bytes_by_node(placement, without_room).values())
    staying_pages = int(placement.pages @ stays)
    crowded_pages = int(placement.pages @ without_room)
    first, pages = _runs(placement, targets, why, ~stays & (placement.pages > 0))
    return Plan(
        task=task,
        reason=why[first].astype(np.int32),
        start=placement.start[first],
        pages=pages,
        page_size_bytes=placement.page_size_bytes[first],
        from_node=placement.node[first],
        to_node=targets[first],
        reasons=tuple(reasons),
        there_pages=staying_pages - crowded_pages,
        there_bytes=sum(staying_bytes.values()) - crowded_bytes,
        crowded_pages=crowded_pages,
        crowded_bytes=crowded_bytes,
        staying_bytes_by_node=staying_bytes,
    )


def in_turn(placement: Placement, nodes: Iterable[int]) -> tuple[Placement, NDArray[np.int32]]:
    """Give the pages of a placement to nodes by turns, in rising order of node and address.

    Return the placement, cut into pages where there are several nodes, and a node for each run.
    Raises ArgumentError without a node.
    """
    turns = np.array(sorted(set(nodes)), dtype=np.int32)
    if not len(turns):
        raise ArgumentError("there is no node to move to; give at least one")
    if len(turns) == 1:
        return placement, np.full(len(placement), turns[0], dtype=np.int32)
    pages = by_page(placement)
    return pages, np.resize(turns, len(pages))


def by_page(placement: Placement, *, which: ArrayLike = True) -> Placement:
    """Cut a placement into runs of one page each, all of its runs or some, bool[n].

    Columns in which all rows are alike take no memory, and are read-only.
    """
    whole = np.maximum(np.where(which, 1, placement.pages), 1)
    if (placement.pages == whole).all():
        return placement
    pieces = placement.pages // whole
    rows = RowIndex(PageRuns(placement.start, pieces, whole * placement.page_size_bytes))
    return Placement(
        rows.addresses(rows.whole),
        _repeated(whole, pieces),
        _repeated(placement.page_size_bytes, pieces),
        np.repeat(placement.node, pieces),
        placement.way,
    )


def with_unlocated(
    placement: Placement, addresses: Iterable[int], page_size_bytes: int
) -> Placement:
    """Add base pages that were named one by one, as on no known node, where no run has them.

    A plan with them lets the kernel say why they cannot be moved. `addresses` start pages.
    """
    named = np.unique(np.array(list(addresses), dtype=np.uint64))
    named = named[~_covered(placement.page_runs(), named)]
    start = np.concatenate([placement.start, named])
    order = np.argsort(start, kind="stable")
    count = len(named)
    return Placement(
        start[order],
        np.append(placement.pages, np.ones(count, np.int64))[order],
        np.append(placement.page_size_bytes, np.full(count, page_size_bytes, np.int64))[order],
        np.append(placement.node, np.full(count, NO_NODE, np.int32))[order],
        placement.way,
    )


def _covered(runs: PageRuns, addresses: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Tell which addresses lie in a run, bool[n]."""
    if not len(runs):
        return np.zeros(len(addresses), dtype=np.bool_)
    ends = runs.start + (runs.pages * runs.page_size_bytes).view(np.uint64)
    before = np.searchsorted(runs.start, addresses, side="right") - 1
    covered: NDArray[np.bool_] = (before >= 0) & (addresses < ends[before])
    return covered


def _repeated(values: NDArray[np.int64], times: NDArray[np.int64]) -> NDArray[np.int64]:
    if (values == values[0]).all():
        return np.broadcast_to(values[0], int(times.sum()))
    return np.repeat(values, times)


def _bytes_by_node(placement: Placement, which: NDArray[np.bool_]) -> dict[int, int]:
    """Add up the bytes of some runs by the node that they are on."""
    sizes = placement.pages * placement.page_size_bytes * which
    return {
        node: int(sizes @ (placement.node == node))
        for node in np.unique(placement.node[which]).tolist()
    }


def _ends(placement: Placement) -> NDArray[np.uint64]:
    """Return the address behind each run, uint64[n]."""
    ends = (placement.pages * placement.page_size_bytes).view(np.uint64)
    ends += placement.start
    return ends


def _refuse_overlap(placement: Placement) -> None:
    start, ends = placement.start, _ends(placement)
    if (ends[:-1] <= start[1:]).all():
        return
    order = np.argsort(start, kind="stable")
    overlap = np.flatnonzero(ends[order[:-1]] > start[order[1:]])
    if len(overlap):
        raise ArgumentError(
            f"the page at {int(start[order[overlap[0] + 1]]):#x} is in two runs; "
            "a plan names each once"
        )


def _runs(
    placement: Placement,
    targets: NDArray[np.int32],
    why: NDArray[np.generic],
    wanted: NDArray[np.bool_],
) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """Join the wanted rows that follow each other and are alike, sorted by target and address.

    Return the first row of each run that comes of it, and how many pages the run has.
    """
    order = _by_target(placement.start, targets, wanted)
    if not len(order):
        return order, placement.pages[order]
    begins = np.ones(len(order), dtype=np.bool_)
    begins[1:] = placement.start[order[1:]] != _ends(placement)[order[:-1]]
    for facts in (placement.page_size_bytes, placement.node, targets, why):
        column = facts[order]
        begins[1:] |= column[1:] != column[:-1]
    first = np.flatnonzero(begins)
    pages = np.add.reduceat(placement.pages[order], first)
    return order[first], pages


def _by_target(
    start: NDArray[np.uint64], targets: NDArray[np.int32], wanted: NDArray[np.bool_]
) -> NDArray[np.intp]:
    """Return the wanted rows in order of target node, then address."""
    rows = np.flatnonzero(wanted)
    if (start[1:] <= start[:-1]).any():  # a placement promises to rise, but need not for a plan
        return rows[np.lexsort((start[rows], targets[rows]))]
    node = targets[rows]
    short = node.astype(np.int16)  # NumPy sorts these in a fifth of the time
    return rows[np.argsort(short if (short == node).all() else node, kind="stable")]

"""Make plans: from where pages are, and where they are to go. Pure, but for `plan` itself."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from movepages.errors import ArgumentError
from movepages.placement import select
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
    why = np.broadcast_to(np.asarray(reason, dtype=np.int32), count)
    if count and not 0 <= int(why.min()) <= int(why.max()) < len(reasons):
        raise ArgumentError(f"a reason is an index into the {len(reasons)} reasons given")
    _refuse_overlap(placement)
    there = (placement.node == targets) & (not keep_there)
    without_room = there & np.asarray(crowded, dtype=np.bool_)
    wanted = np.flatnonzero(~there & (placement.pages > 0))
    there &= ~without_room
    order = wanted[np.lexsort((placement.start[wanted], targets[wanted]))]
    sizes = placement.pages * placement.page_size_bytes
    return _joined(
        Plan(
            task=task,
            start=placement.start[order],
            pages=placement.pages[order],
            page_size_bytes=placement.page_size_bytes[order],
            from_node=placement.node[order],
            to_node=targets[order],
            reason=why[order],
            reasons=tuple(reasons),
            there_pages=int(placement.pages[there].sum()),
            there_bytes=int(sizes[there].sum()),
            crowded_pages=int(placement.pages[without_room].sum()),
            crowded_bytes=int(sizes[without_room].sum()),
        )
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


def by_page(placement: Placement) -> Placement:
    """Cut a placement into runs of one page each."""
    addresses = placement.page_runs().addresses()
    return Placement(
        addresses,
        np.ones(len(addresses), dtype=np.int64),
        np.repeat(placement.page_size_bytes, placement.pages),
        placement.page_nodes(),
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


def _refuse_overlap(placement: Placement) -> None:
    order = np.argsort(placement.start, kind="stable")
    start = placement.start[order]
    sizes = (placement.pages * placement.page_size_bytes).view(np.uint64)[order]
    overlap = np.flatnonzero(start[:-1] + sizes[:-1] > start[1:])
    if len(overlap):
        raise ArgumentError(
            f"the page at {int(start[overlap[0] + 1]):#x} is in two runs; a plan names each once"
        )


def _joined(made: Plan) -> Plan:
    """Join runs that follow each other and are alike."""
    if len(made) < 2:
        return made
    ends = made.start + (made.pages * made.page_size_bytes).view(np.uint64)
    new = made.start[1:] != ends[:-1]
    for facts in (made.page_size_bytes, made.from_node, made.to_node, made.reason):
        new |= facts[1:] != facts[:-1]
    first = np.flatnonzero(np.append(True, new))
    return replace(
        made,
        start=made.start[first],
        pages=np.add.reduceat(made.pages, first),
        page_size_bytes=made.page_size_bytes[first],
        from_node=made.from_node[first],
        to_node=made.to_node[first],
        reason=made.reason[first],
    )

"""Bring pages to as few nodes as have room for them, and move as few bytes as that takes.

A node has room for its free memory, beside the selected pages that it has already. Fewest nodes
come first, then those that are preferred, then what need not move.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import chain, combinations, islice
from typing import TYPE_CHECKING

import numpy as np

from movepages.abi import Errno
from movepages.errors import NodeFullError
from movepages.nodeset import NodeSet
from movepages.placement import select
from movepages.placement.planning import by_page, make_plan
from movepages.units import format_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from movepages.machine import Machine
    from movepages.placement.select import Selection
    from movepages.values import Placement, Plan, TaskInfo

    Sizes = Mapping[int, int]
    """Pages by their size in bytes."""

_MOST_SETS = 20_000
"""So many sets of each size are compared, which are all of 16 nodes; the roomiest is among them."""


def plan_pack(
    machine: Machine,
    task: TaskInfo,
    selection: Selection,
    preferred: Iterable[int] = (),
    free: Mapping[int, int] | None = None,
) -> Plan:
    """Plan to bring the selected pages to as few nodes of the process's cpuset as hold them.

    `free` is bytes by node, what the machine has free by default. Raises CallError, NodeFullError
    where all nodes together have no room.
    """
    room = machine.free_bytes() if free is None else free
    allowed = task.mems_allowed & machine.topology().with_memory
    placement, targets = pack_nodes(
        select.locate(machine, task.pid, selection),
        {node: room.get(node, 0) for node in allowed},
        preferred,
    )
    return make_plan(task.id, placement, targets, reasons=("to fewer nodes",))


def pack_nodes(
    placement: Placement, free: Mapping[int, int], preferred: Iterable[int] = ()
) -> tuple[Placement, NDArray[np.int32]]:
    """Return a placement, and a node for each run, of as few as hold them.

    Runs that leave their node are cut into pages. `free` is bytes by node, of the nodes that may be
    chosen. Raises NodeFullError.
    """
    here = _pages_by_node(placement)
    nodes = [
        _Node(node, room, here.get(node, {}), _bytes(here.get(node, {})))
        for node, room in sorted(free.items())
    ]
    chosen = _choose(nodes, _total(here.values()), NodeSet(preferred))
    kept = [node.id for node in chosen]
    pages = by_page(placement, which=~np.isin(placement.node, kept))
    targets = pages.node.copy()
    left = ~np.isin(pages.node, kept)
    arriving = _total(here.values()) - _total(node.pages for node in chosen)
    for node, size, count in _filled(chosen, arriving) or ():
        coming = np.flatnonzero(left & (pages.page_size_bytes == size))[:count]
        targets[coming] = node
        left[coming] = False
    return pages, targets


@dataclass(frozen=True, slots=True)
class _Node:
    """A node that may be chosen: its free bytes, and the selected pages that it has."""

    id: int
    free_bytes: int
    pages: Sizes
    here_bytes: int

    @property
    def room_bytes(self) -> int:
        return self.free_bytes + self.here_bytes


def _choose(nodes: Sequence[_Node], total: Sizes, preferred: NodeSet) -> Sequence[_Node]:
    """Return the fewest nodes that hold all pages, the best of those sets first filled first.

    Raises NodeFullError.
    """
    if not _bytes(total):
        return ()
    best_first = sorted(
        nodes,
        key=lambda node: (node.id not in preferred, -node.here_bytes, -node.free_bytes, node.id),
    )
    rooms = sorted((node.room_bytes for node in nodes), reverse=True)
    rank = sorted(range(len(nodes)), key=lambda place: -best_first[place].room_bytes)

    def worth(chosen: Sequence[_Node]) -> tuple[int, int, int]:
        return (
            sum(node.id in preferred for node in chosen),
            sum(node.here_bytes for node in chosen),
            sum(node.free_bytes for node in chosen),
        )

    for count in range(1, len(nodes) + 1):
        if sum(rooms[:count]) < _bytes(total):
            continue
        roomiest = tuple(best_first[place] for place in sorted(rank[:count]))
        sets = chain([roomiest], combinations(best_first, count))
        holding = [chosen for chosen in islice(sets, _MOST_SETS) if _holds(chosen, total)]
        if holding:
            return max(holding, key=worth)
    raise NodeFullError(
        Errno.ENOMEM,
        f"nodes {NodeSet(node.id for node in nodes)} have no room for "
        f"{format_size(_bytes(total))}; choose fewer pages, or free memory on them",
        call="move_pages",
    )


def _holds(chosen: Sequence[_Node], total: Sizes) -> bool:
    """Tell whether nodes have room for all pages, each page whole on one of them."""
    arriving = Counter(total) - _total(node.pages for node in chosen)
    return _filled(chosen, arriving) is not None


def _filled(chosen: Sequence[_Node], arriving: Sizes) -> list[tuple[int, int, int]] | None:
    """Fill nodes one after the other, large pages first; return (node, size, pages) for each part.

    Sizes divide each other, so that this finds room if there is any; None if there is none.
    """
    free = {node.id: node.free_bytes for node in chosen}
    parts = []
    for size, pages in sorted(arriving.items(), reverse=True):
        left = pages
        for node, room in free.items():
            count = min(left, room // size)
            free[node] = room - count * size
            left -= count
            parts.append((node, size, count))
        if left:
            return None
    return parts


def _pages_by_node(placement: Placement) -> dict[int, Counter[int]]:
    """Count the pages on each node by their size."""
    here: dict[int, Counter[int]] = {}
    for node in np.unique(placement.node).tolist():
        mine = placement.node == node
        for size in np.unique(placement.page_size_bytes[mine]).tolist():
            pages = int(placement.pages[mine & (placement.page_size_bytes == size)].sum())
            here.setdefault(node, Counter())[size] = pages
    return here


def _total(counts: Iterable[Sizes]) -> Counter[int]:
    total: Counter[int] = Counter()
    for count in counts:
        total.update(count)
    return total


def _bytes(pages: Sizes) -> int:
    return sum(size * count for size, count in pages.items())

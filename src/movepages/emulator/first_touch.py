"""On which node a page is that a program has touched: where the policies of its toucher want it.

The host gave the page some memory of its own; which node that is said to be is decided here, by the
same policies and zone lists as in the model. A node, or its pool of huge pages, may be full: then
the page goes on to the next of the list, and where there is none it is counted beyond what its node
has, for it is there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from movepages.emulator.overlay import MAX_NODES
from movepages.kernel.mempolicy import by_turns, preference
from movepages.kernel.mpol_alloc import allocate_by
from movepages.kernel.ports import NONE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from movepages.emulator.capacity import Room
    from movepages.emulator.processes import LiveTask
    from movepages.emulator.ranges import Ranges
    from movepages.kernel.mempolicy import MemPolicy, Surroundings

    Pages = NDArray[np.int64]

_NO_END = 1 << 62


@dataclass(frozen=True, slots=True, eq=False)
class Touch:
    """A touch of pages by a task on a CPU of some node."""

    task: LiveTask
    at: Surroundings


def place(
    touch: Touch,
    policies: Ranges[MemPolicy],
    pages: Pages,
    order: int,
    room: Room,
    *,
    cached: bool,
    first: int = 0,
) -> Pages:
    """Return the node of each of some folios that were touched for the first time, int64[n].

    `pages` are those that the policies go by, rising; `first` is the one at which interleaving
    begins. `cached` pages are those of an ordinary file: the page cache goes by the task's policy
    alone, and by turns.
    """
    nodes = np.empty(len(pages), dtype=np.int64)
    done = 0
    while done < len(pages):
        policy, end = policies.at(int(pages[done]), _NO_END)
        until = max(done + 1, int(np.searchsorted(pages, end)))
        chosen = pages[done:until]
        if cached:
            wanted, ilx = touch.task.policy, by_turns(touch.task, touch.at, len(chosen))
        else:
            wanted, ilx = policy or touch.task.policy, (chosen - first) >> order
        nodes[done:until] = _spread(touch.at, wanted, ilx, order, room)
        done = until
    return nodes


def _spread(
    at: Surroundings, policy: MemPolicy | None, ilx: Pages, order: int, room: Room
) -> Pages:
    """Take memory by a policy for folios of one size; return their nodes."""
    wants = preference(policy, at, ilx)

    def take(node: int, count: int) -> Pages:
        return np.full(room.take(node, count, order), node, dtype=np.int64)

    def give_back(nodes: Pages) -> None:
        room.release(np.bincount(nodes, minlength=MAX_NODES) << order)

    def reclaim(_node: int, _count: int) -> int:
        return 0

    nodes = allocate_by(wants, take, give_back, reclaim)
    short = np.flatnonzero(nodes <= NONE)
    if len(short):
        nodes[short] = np.array([choice[0] for choice in wants.lists])[wants.which[short]]
        room.charge(np.bincount(nodes[short], minlength=MAX_NODES) << order)
    return nodes

"""From a log of accesses to a plan: each page to the node that uses it most. Pure.

    log = read_access_log(data)
    plan = plan_from_log(log, task.id, machine.locate(pid), topology, allowed, machine.free_bytes())

A log names processes by pid alone, so it is worth only as much as the processes in it still are
those that were watched.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from movepages.errors import ArgumentError
from movepages.placement.nearest import distances_from, highest_node, near_nodes, nearest_with_room
from movepages.placement.planning import make_plan
from movepages.values import NO_NODE, Placement

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from movepages.nodeset import NodeSet
    from movepages.topology import Topology
    from movepages.values import AccessLog, Plan, TaskId

MIN_SHARE = 0.6
"""A page is moved if at least this much of its accesses come from other nodes than its own."""
MIN_SAMPLES = 8
"""Of a page with fewer accesses a log says too little."""
_MOST_REASONS = 64
"""A plan that needs more distinct reasons has them rounded."""


@dataclass(frozen=True, slots=True, eq=False)
class PageUse:
    """How the pages of a process that a log names are used.

    `pages` has one run for each page. user int32[n] is the node that uses it most: its own of those
    that do so equally, else the lowest. by_user, by_own and total int64[n] count accesses: from the
    user, from the page's own node, and from all. `elsewhere` counts accesses where no page is
    present, and `nowhere` those from a CPU or node that is not there; neither is in any page's.
    """

    pages: Placement
    user: NDArray[np.int32]
    by_user: NDArray[np.int64]
    by_own: NDArray[np.int64]
    total: NDArray[np.int64]
    elsewhere: int
    nowhere: int

    def __len__(self) -> int:
        """Count the pages."""
        return len(self.user)

    def far(
        self, min_share: float = MIN_SHARE, min_samples: int = MIN_SAMPLES
    ) -> NDArray[np.bool_]:
        """Tell which pages are mostly used from other nodes, by one more than by their own."""
        off_node = (self.total - self.by_own) / np.maximum(self.total, 1)
        used = (self.total >= max(1, min_samples)) & (off_node >= min_share)
        far: NDArray[np.bool_] = used & (self.user != self.pages.node)
        return far


def plan_from_log(
    log: AccessLog,
    task: TaskId,
    placement: Placement,
    topology: Topology,
    allowed: NodeSet,
    free: Mapping[int, int],
    *,
    min_share: float = MIN_SHARE,
    min_samples: int = MIN_SAMPLES,
) -> Plan:
    """Plan to move the pages of a process that a log finds mostly accessed off-node.

    Each goes to the node that uses it most, or where that has no room or no memory, to the nearest
    to it that has, if that is nearer than where it is. `placement` says where pages are, `allowed`
    are the nodes with memory that they may go to, `free` is bytes by node. Pages with fewer than
    `min_samples` accesses are not in the plan, neither are those that the log does not name.
    Raises ArgumentError for a share that is none.
    """
    use = page_use(log.of(task.pid), placement, topology)
    return plan_of_use(
        use, task, topology, allowed, free, min_share=min_share, min_samples=min_samples
    )


def plan_of_use(
    use: PageUse,
    task: TaskId,
    topology: Topology,
    allowed: NodeSet,
    free: Mapping[int, int],
    *,
    min_share: float = MIN_SHARE,
    min_samples: int = MIN_SAMPLES,
) -> Plan:
    """Plan as `plan_from_log` does, from how pages are used."""
    if not 0 < min_share <= 1:
        raise ArgumentError(f"a share of {min_share} makes no sense; give more than 0, up to 1")
    far = use.far(min_share, min_samples)
    far &= _nearer_exists(use, topology, allowed, free)
    user = np.where(far, use.user, np.int32(NO_NODE))
    to = nearest_with_room(use.pages, user, topology, allowed, free, use.by_user)
    judged = use.total >= max(1, min_samples)
    reason, reasons = _reasons(use, to, far & (to != use.pages.node))
    return make_plan(
        task,
        _chosen(use.pages, judged),
        to[judged],
        reason=reason[judged],
        reasons=reasons,
        crowded=far[judged],
    )


def page_use(log: AccessLog, placement: Placement, topology: Topology) -> PageUse:
    """Add up the accesses of one process by page and node; those of a huge page are its own."""
    page_size_bytes, start, node_now, row_page = _pages_named(log.address, placement)
    accessor = nodes_of(log, topology)
    placed, known = row_page >= 0, accessor >= 0
    rows = placed & known
    nodes = highest_node(topology) + 1
    key, inverse = np.unique(
        row_page[rows] * nodes + accessor[rows].astype(np.int64), return_inverse=True
    )
    sums = np.zeros(len(key), dtype=np.int64)
    np.add.at(sums, inverse, log.count[rows])
    page, node = np.divmod(key, nodes)
    own = np.zeros(len(start), dtype=np.int64)
    at_home = node == node_now[page]
    own[page[at_home]] = sums[at_home]
    total = np.zeros(len(start), dtype=np.int64)
    np.add.at(total, page, sums)
    user, by_user = node_now.copy(), np.zeros(len(start), dtype=np.int64)
    most_last = np.lexsort((-node, at_home, sums, page))
    last = most_last[np.flatnonzero(np.diff(page[most_last], append=-1))]
    user[page[last]], by_user[page[last]] = node[last], sums[last]
    pages = Placement(
        start, np.ones(len(start), np.int64), page_size_bytes, node_now, placement.way
    )
    return PageUse(
        pages=pages,
        user=user,
        by_user=by_user,
        by_own=own,
        total=total,
        elsewhere=int(log.count[~placed].sum()),
        nowhere=int(log.count[placed & ~known].sum()),
    )


def nodes_of(log: AccessLog, topology: Topology) -> NDArray[np.int32]:
    """Return the node that each row is from, int32[n], NO_NODE where that is not there (now)."""
    highest_cpu = max([int(log.cpu.max(initial=0)), *(max(n.cpus, default=0) for n in topology)])
    of_cpu = np.full(highest_cpu + 2, NO_NODE, dtype=np.int32)  # the last is for NO_NODE
    for node in topology:
        of_cpu[list(node.cpus)] = node.id
    online = np.isin(log.node, list(topology.online))
    return np.where(online, log.node, of_cpu[log.cpu]).astype(np.int32)


def _pages_named(
    address: NDArray[np.uint64], placement: Placement
) -> tuple[NDArray[np.int64], NDArray[np.uint64], NDArray[np.int32], NDArray[np.int64]]:
    """Return size, start and node of each page that is named, and for each address its page.

    The last is an index, int64[rows], -1 where no page is present.
    """
    row_page = np.full(len(address), -1, dtype=np.int64)
    if not len(placement):
        nothing = np.zeros(0, dtype=np.int64)
        return nothing, nothing.view(np.uint64), nothing.astype(np.int32), row_page
    ends = placement.start + (placement.pages * placement.page_size_bytes).view(np.uint64)
    run = np.searchsorted(placement.start, address, side="right") - 1
    rows = np.flatnonzero((run >= 0) & (address < ends[run]))
    run = run[rows]
    size = placement.page_size_bytes[run].view(np.uint64)
    first = address[rows] - (address[rows] - placement.start[run]) % size
    start, example, row_page[rows] = np.unique(first, return_index=True, return_inverse=True)
    run = run[example]
    return placement.page_size_bytes[run], start, placement.node[run], row_page


def _nearer_exists(
    use: PageUse, topology: Topology, allowed: NodeSet, free: Mapping[int, int]
) -> NDArray[np.bool_]:
    """Tell for which pages there is a nearer node to their user, with room or without, bool[n]."""
    nearer = np.zeros(len(use), dtype=np.bool_)
    for node in np.unique(use.user).tolist():
        mine = use.user == node
        choices = near_nodes(node, topology, allowed, free)
        if choices:
            nearer[mine] = distances_from(node, topology)[use.pages.node[mine]] > choices[0][0]
    return nearer


def _reasons(
    use: PageUse, to: NDArray[np.int32], moves: NDArray[np.bool_]
) -> tuple[NDArray[np.int32], tuple[str, ...]]:
    """Return for each page that moves the number of its reason, and the reasons.

    `node 2: 91% of 112 accesses`; with too many different ones, `90% or more of 100 or more`.
    """
    at = np.flatnonzero(moves)
    total = use.total[at]
    share = use.by_user[at] / total
    percent = np.where(share < 1, np.minimum(np.rint(100 * share), 99), 100).astype(np.int64)
    user, spilled = use.user[at].astype(np.int64), to[at] != use.user[at]
    more = ""
    if len(_distinct(user, spilled, percent, total)[0]) > _MOST_REASONS:
        more = " or more"
        percent = 10 * np.floor(10 * share + 1e-9).astype(np.int64)
        total = 10 ** np.floor(np.log10(total)).astype(np.int64)
    rows, number = _distinct(user, spilled, percent, total)
    reasons = tuple(
        f"node {of_user}: {part}%{more} of {count:,}{more} accesses"
        f"{', nearest with room' if elsewhere else ''}"
        for of_user, elsewhere, part, count in rows
    )
    reason = np.zeros(len(use), dtype=np.int32)
    reason[at] = number
    return reason, reasons or ("",)


def _distinct(
    *columns: NDArray[np.int64] | NDArray[np.bool_],
) -> tuple[list[tuple[int, ...]], NDArray[np.int64]]:
    """Return the distinct rows of some columns, and for each row which of those it is."""
    key = np.zeros(len(columns[0]), dtype=np.int64)
    for column in columns:
        values, number = np.unique(column, return_inverse=True)
        key = np.unique(key * len(values) + number, return_inverse=True)[1]
    _, first = np.unique(key, return_index=True)
    rows = list(zip(*(column[first].tolist() for column in columns), strict=True))
    return rows, key


def _chosen(pages: Placement, chosen: NDArray[np.bool_]) -> Placement:
    return Placement(
        pages.start[chosen],
        pages.pages[chosen],
        pages.page_size_bytes[chosen],
        pages.node[chosen],
        pages.way,
    )

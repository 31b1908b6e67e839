"""Migration by node or policy: what mbind, migrate_pages(2) and cpusets share (mm/mempolicy.c).

Pages that are on the wrong node are queued (check_range in 2006, queue_pages_range today), and
migrated to where a callback of type new_page_t wants them: `new_node_page` to one node,
`new_vma_page` by a policy. Both ignore the result slot: nobody asks what became of a single page.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from movepages.abi import MAX_NUMNODES, Errno, MoveFlag
from movepages.kernel.address_space import VmFlag
from movepages.kernel.crash import KernelBugError
from movepages.kernel.mempolicy import node_remap, preference
from movepages.kernel.migrate import migrate_pages
from movepages.kernel.mpol_alloc import Preference
from movepages.kernel.ports import NONE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence, Set

    from numpy.typing import NDArray

    from movepages.kernel.mempolicy import MemPolicy, Surroundings
    from movepages.kernel.migrate import NewPage
    from movepages.kernel.ports import AddressSpace, Area, Frames
    from movepages.kernel.semantics import Semantics
    from movepages.nodeset import NodeSet

    Handles = NDArray[np.int64]
    NodeTable = NDArray[np.bool_]

_MOVES = MoveFlag.MOVE | MoveFlag.MOVE_ALL
_EVERYTHING = 0, 1 << 52
"""Beyond any page of user space."""
_NO_RESULT = np.empty(0, dtype=np.int32)


# -- the callbacks ----------------------------------------------------------------------------


def new_node_page(frames: Frames, node: int, at: Surroundings, *, exact: bool) -> NewPage:
    """Return the new_page_t of migrate_pages(2): a page on a node, or near it if not `exact`.

    Raises KernelBugError where pages are to go to a node that is not there: 2006 did not check.
    """
    if node not in at.online:
        raise KernelBugError(
            f"migrate_pages allocates on node {node}, which is not online, through NODE_DATA(); "
            "name online nodes"
        )

    def new_page(old: Handles, _private: object) -> tuple[Handles, Handles]:
        no_slots = np.full(len(old), NONE)
        if exact:
            nodes = np.full(len(old), node, dtype=np.int32)
            return frames.allocate(old, nodes, exact=True), no_slots
        wants = Preference.same(at.zonelist(node), len(old))
        return frames.allocate_by(old, wants), no_slots

    return new_page


def new_vma_page(frames: Frames, policy: MemPolicy | None, at: Surroundings) -> NewPage:
    """Return the new_page_t of mbind: a page where the policy of the range wants it.

    A page is interleaved by its place in its mapping, so that it goes where a fault would put it.
    """

    def new_page(old: Handles, _private: object) -> tuple[Handles, Handles]:
        wants = preference(policy, at, frames.interleave_index(old))
        return frames.allocate_by(old, wants), np.full(len(old), NONE)

    return new_page


# -- finding pages ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Queued:
    """What a walk over page tables found: an errno or 0, and misplaced folios, not isolated yet."""

    errno: int
    folios: Handles


@dataclass(frozen=True, slots=True)
class Binding:
    """What mbind is to do: the policy, None for the default; the nodes it allows; how to move."""

    policy: MemPolicy | None
    nodes: NodeSet
    flags: MoveFlag
    task_policy: MemPolicy | None
    """The caller's own, by which pages go if there is none for the range."""


def nodes_but(nodes: Set[int]) -> NodeTable:
    """Return a table of all nodes that are not among some (MPOL_MF_INVERT)."""
    table = np.ones(MAX_NUMNODES, dtype=np.bool_)
    table[list(nodes)] = False
    return table


def queue_pages_range(
    frames: Frames,
    space: AddressSpace,
    span: tuple[int, int],
    misplaced: NodeTable,
    flags: MoveFlag,
    semantics: Semantics,
    *,
    holes: bool,
) -> Queued:
    """Find the folios of a span of pages that are on the wrong nodes; `holes` in it are allowed.

    -EFAULT for a hole, -EIO where STRICT without a move finds a misplaced page.
    """
    start, end = span
    areas = space.areas(start, end)
    if not areas:
        fits = space.has_area_from(end) and not semantics.checks_holes_ahead
        return Queued(0 if fits else -Errno.EFAULT, np.empty(0, dtype=np.int64))
    found: list[Handles] = []
    for index, vma in enumerate(areas):
        if not holes and _has_hole(space, areas, index, span, semantics):
            return Queued(-Errno.EFAULT, np.empty(0, dtype=np.int64))
        if not _is_scanned(vma, flags, semantics):
            continue
        folios = space.folios(max(start, vma.start), min(end, vma.end))
        folios = folios[misplaced[frames.node(folios)]]
        if len(folios) and not flags & _MOVES:
            return Queued(-Errno.EIO, np.empty(0, dtype=np.int64))
        found.append(folios)
    return Queued(0, _named_once(frames, np.concatenate([np.empty(0, dtype=np.int64), *found])))


def _named_once(frames: Frames, folios: Handles) -> Handles:
    """Leave out a large folio where it is found again right away: it is mapped page by page.

    Small folios in between, copies that were written, do not count (`qp->large`).
    """
    large = np.flatnonzero(frames.order(folios))
    if not len(large):
        return folios
    again = np.zeros(len(folios), dtype=np.bool_)
    again[large[1:]] = folios[large[1:]] == folios[large[:-1]]
    return folios[~again]


def isolate_queued(frames: Frames, folios: Handles, flags: MoveFlag) -> tuple[Handles, int]:
    """Isolate folios, and count those that could not be; shared ones only with MOVE_ALL.

    Leaving a shared folio where it is is no failure (migrate_folio_add).
    """
    if not flags & MoveFlag.MOVE_ALL:
        folios = folios[frames.mapcount(folios) == 1]
    isolated = frames.isolate(folios)
    return folios[isolated], int((~isolated).sum())


def _has_hole(
    space: AddressSpace,
    areas: Sequence[Area],
    index: int,
    span: tuple[int, int],
    semantics: Semantics,
) -> bool:
    """Tell whether a span has a hole next to one of its areas, where this kernel looks for it."""
    vma, (start, end) = areas[index], span
    if not semantics.checks_holes_ahead:
        gap = index > 0 and areas[index - 1].end < vma.start
        return gap or (vma.end < end and not space.has_area_from(vma.end))
    if index == 0 and start < vma.start:
        return True
    goes_on = index + 1 < len(areas) and areas[index + 1].start == vma.end
    return vma.end < end and not goes_on


def _migratable(vma: Area, semantics: Semantics) -> bool:
    """Tell whether an area's pages may be migrated (vma_migratable)."""
    fixed = VmFlag.IO | VmFlag.PFNMAP
    if semantics.skips_fixed_areas:
        fixed |= VmFlag.LOCKED
    return not vma.flags & fixed


def _is_scanned(vma: Area, flags: MoveFlag, semantics: Semantics) -> bool:
    """Tell whether a walk looks at an area's pages: to move them, or because of STRICT."""
    if not flags or (semantics.skips_fixed_areas and vma.flags & VmFlag.HUGETLB):
        return False
    return bool(flags & MoveFlag.STRICT) or _migratable(vma, semantics)


# -- moving them ------------------------------------------------------------------------------


def migrate_queued(frames: Frames, folios: Handles, new_page: NewPage) -> int:
    """Migrate isolated folios; return how many did not move, or -ENOMEM."""
    return migrate_pages(frames, folios, new_page, None, _NO_RESULT) if len(folios) else 0


def do_mbind(
    frames: Frames,
    space: AddressSpace,
    span: tuple[int, int],
    binding: Binding,
    at: Surroundings,
    set_policy: Callable[[], int],
) -> int:
    """Set the policy of a span of pages, and move or check those that are misplaced by it.

    `set_policy` does the first and returns an errno or 0. The policy stays set if pages could not
    be moved. -EFAULT for a hole, -EIO.
    """
    flags = binding.flags
    if flags & _MOVES:
        frames.drain()

    def walk() -> Queued:
        wrong, holes = nodes_but(binding.nodes), binding.policy is None
        return queue_pages_range(frames, space, span, wrong, flags, at.semantics, holes=holes)

    queued = walk()
    errno = queued.errno or set_policy()
    if errno:
        return errno
    if frames.order(queued.folios).any():
        queued = walk()  # THPs across the ends have been split
    folios, failed = isolate_queued(frames, queued.folios, flags)
    new_page = new_vma_page(frames, binding.policy or binding.task_policy, at)
    failed |= migrate_queued(frames, folios, new_page)
    return -Errno.EIO if failed and flags & MoveFlag.STRICT else 0


def migrate_to_node(
    frames: Frames, space: AddressSpace, source: int, dest: int, flags: MoveFlag, at: Surroundings
) -> int:
    """Migrate an address space's pages from a node to another; return how many stayed, or -ENOMEM.

    MOVE moves pages that nobody else maps, MOVE_ALL all.
    """
    on_source = np.zeros(MAX_NUMNODES, dtype=np.bool_)
    on_source[source] = True
    queued = queue_pages_range(
        frames, space, _EVERYTHING, on_source, flags, at.semantics, holes=True
    )
    folios, failed = isolate_queued(frames, queued.folios, flags)
    rc = 0
    if len(folios):
        try:
            new_page = new_node_page(frames, dest, at, exact=at.semantics.exact_node)
        except KernelBugError:
            frames.putback(folios)
            raise
        rc = migrate_queued(frames, folios, new_page)
    return rc + failed if rc >= 0 and at.semantics.counts_unisolated else rc


def do_migrate_pages(
    frames: Frames,
    space: AddressSpace,
    old: Set[int],
    new: Set[int],
    flags: MoveFlag,
    at: Surroundings,
) -> int:
    """Migrate pages from nodes to nodes so that they keep their relative places.

    Return how many folios did not move, or a negative errno. A target is emptied before it is
    filled, where that can be.
    """
    frames.drain()
    moves = _moves(old, new, at.semantics)
    failed, left = 0, set(old)
    while moves:
        source, dest = _next_step(left, moves)
        left.discard(source)
        del moves[source]
        if source not in at.online:  # nothing is there
            continue
        rc = migrate_to_node(frames, space, source, dest, flags, at)
        if rc < 0:
            return rc
        failed += rc
    return failed


def _moves(old: Set[int], new: Set[int], semantics: Semantics) -> dict[int, int]:
    """Return where the pages of each node go, sources rising; without nodes whose pages stay."""
    keeps_common = semantics.keeps_common_nodes and len(old) != len(new)
    found = {}
    for source in sorted(old):
        dest = node_remap(source, old, new)
        if source != dest and not (keeps_common and source in new):
            found[source] = dest
    return found


def _next_step(left: Set[int], moves: dict[int, int]) -> tuple[int, int]:
    """Return the next (source, dest): the first whose dest is empty by now, else the last."""
    for step in moves.items():
        if step[1] not in left:
            return step
    return step

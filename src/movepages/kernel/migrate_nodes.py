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
from movepages.kernel.frames import PageFlag
from movepages.kernel.mempolicy import node_remap, preference
from movepages.kernel.migrate import migrate_pages
from movepages.kernel.mpol_alloc import Preference, allocate_by
from movepages.kernel.page_tables import PteFlag
from movepages.kernel.ports import LATER, NONE

if TYPE_CHECKING:
    from collections.abc import Set

    from numpy.typing import NDArray

    from movepages.kernel.address_space import Mm, Vma
    from movepages.kernel.memory import Memory
    from movepages.kernel.mempolicy import MemPolicy, Surroundings
    from movepages.kernel.migrate import NewPage
    from movepages.kernel.semantics import Semantics

    Handles = NDArray[np.int64]
    NodeTable = NDArray[np.bool_]

_MOVES = MoveFlag.MOVE | MoveFlag.MOVE_ALL
_NO_RESULT = np.empty(0, dtype=np.int32)


# -- the callbacks ----------------------------------------------------------------------------


def new_node_page(memory: Memory, node: int, at: Surroundings, *, exact: bool) -> NewPage:
    """Return the new_page_t of migrate_pages(2): a page on a node, or near it if not `exact`.

    Raises KernelBugError where pages are to go to a node that is not there: 2006 did not check.
    """
    if node not in memory.frames.nodes or not memory.frames.nodes[node].online:
        raise KernelBugError(
            f"migrate_pages allocates on node {node}, which is not online, through NODE_DATA(); "
            "name online nodes"
        )

    def new_page(old: Handles, _private: object) -> tuple[Handles, Handles]:
        if exact:
            nodes = np.full(len(old), node, dtype=np.int32)
            return memory.allocate(old, nodes, exact=True), np.full(len(old), NONE)
        return _allocate_like(memory, old, Preference.same(at.zonelist(node), len(old)))

    return new_page


def new_vma_page(memory: Memory, policy: MemPolicy | None, at: Surroundings) -> NewPage:
    """Return the new_page_t of mbind: a page where the policy of the range wants it.

    A page is interleaved by its place in its mapping, so that it goes where a fault would put it.
    """

    def new_page(old: Handles, _private: object) -> tuple[Handles, Handles]:
        frames = memory.frames
        of_page = frames.mapping[old]
        mappings, which = np.unique(of_page, return_inverse=True)
        bases = np.array([memory.mappings[number].base for number in mappings.tolist()])
        ilx = (frames.index[old] + bases[which]) >> frames.order[old]
        return _allocate_like(memory, old, preference(policy, at, ilx))

    return new_page


def _allocate_like(memory: Memory, old: Handles, wants: Preference) -> tuple[Handles, Handles]:
    """Allocate for the first pages of a list, those of one size; LATER for the rest."""
    frames = memory.frames
    hugetlb = frames.has(old, PageFlag.HUGETLB)
    other = (frames.order[old] != frames.order[old[0]]) | (hugetlb != hugetlb[0])
    count = int(np.argmax(other)) if other.any() else len(old)
    if memory.refuses_allocation is not None:
        count = 1
    new = np.full(len(old), LATER, dtype=np.int64)
    slots = np.full(len(old), NONE, dtype=np.int64)
    if memory.refuses_allocation is not None and memory.refuses_allocation():
        new[0] = NONE
        return new, slots
    order = int(frames.order[old[0]])

    def take(node: int, number: int) -> Handles:
        if hugetlb[0]:
            return memory.pools.take_for_migration(node, number, order)
        return frames.allocate(node, number, order)

    def reclaim(node: int, number: int) -> int:
        return 0 if order else memory.swap.reclaim(node, number)

    sources = frames.node[old[:count]].astype(np.int64)
    wants = Preference(wants.lists, wants.which[:count])
    new[:count] = allocate_by(wants, take, frames.put, reclaim, sources)
    return new, slots


# -- finding pages ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Queued:
    """What a walk over page tables found: an errno or 0, and misplaced folios, not isolated yet."""

    errno: int
    folios: Handles


def nodes_but(nodes: Set[int]) -> NodeTable:
    """Return a table of all nodes that are not among some (MPOL_MF_INVERT)."""
    table = np.ones(MAX_NUMNODES, dtype=np.bool_)
    table[list(nodes)] = False
    return table


def queue_pages_range(
    memory: Memory,
    mm: Mm,
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
    areas = list(mm.overlapping(start, end))
    if not areas:
        above = any(vma.start >= end for vma in mm.areas)
        fits = above and not semantics.checks_holes_ahead
        return Queued(0 if fits else -Errno.EFAULT, np.empty(0, dtype=np.int64))
    found: list[Handles] = []
    for index, vma in enumerate(areas):
        if not holes and _has_hole(mm, areas, index, span, semantics):
            return Queued(-Errno.EFAULT, np.empty(0, dtype=np.int64))
        if not _is_scanned(vma, flags, semantics):
            continue
        folios = _misplaced_folios(memory, vma, max(start, vma.start), min(end, vma.end), misplaced)
        if len(folios) and not flags & _MOVES:
            return Queued(-Errno.EIO, np.empty(0, dtype=np.int64))
        found.append(folios)
    return Queued(0, np.concatenate([np.empty(0, dtype=np.int64), *found]))


def isolate_queued(memory: Memory, folios: Handles, flags: MoveFlag) -> tuple[Handles, int]:
    """Isolate folios, and count those that could not be; shared ones only with MOVE_ALL.

    Leaving a shared folio where it is is no failure (migrate_folio_add).
    """
    if not flags & MoveFlag.MOVE_ALL:
        folios = folios[memory.mapcount(folios) == 1]
    isolated = memory.isolate(folios)
    return folios[isolated], int((~isolated).sum())


def _has_hole(
    mm: Mm, areas: list[Vma], index: int, span: tuple[int, int], semantics: Semantics
) -> bool:
    """Tell whether a span has a hole next to one of its areas, where this kernel looks for it."""
    vma, (start, end) = areas[index], span
    if not semantics.checks_holes_ahead:
        gap = index > 0 and areas[index - 1].end < vma.start
        return gap or (vma is mm.areas[-1] and vma.end < end)
    if index == 0 and start < vma.start:
        return True
    goes_on = index + 1 < len(areas) and areas[index + 1].start == vma.end
    return vma.end < end and not goes_on


def _migratable(vma: Vma, semantics: Semantics) -> bool:
    """Tell whether an area's pages may be migrated (vma_migratable)."""
    fixed = VmFlag.IO | VmFlag.PFNMAP
    if semantics.skips_fixed_areas:
        fixed |= VmFlag.LOCKED
    return not vma.flags & fixed


def _is_scanned(vma: Vma, flags: MoveFlag, semantics: Semantics) -> bool:
    """Tell whether a walk looks at an area's pages: to move them, or because of STRICT."""
    if not flags or (semantics.skips_fixed_areas and vma.flags & VmFlag.HUGETLB):
        return False
    return bool(flags & MoveFlag.STRICT) or _migratable(vma, semantics)


def _misplaced_folios(
    memory: Memory, vma: Vma, start: int, end: int, misplaced: NodeTable
) -> Handles:
    """Return the folios that some pages of an area map on the wrong nodes, huge ones once."""
    frames, tables = memory.frames, memory.tables
    slots = slice(start - vma.start + vma.slot, end - vma.start + vma.slot)
    entries = tables.entry[slots].astype(np.int64)
    mapped = np.flatnonzero(entries >= 0)
    pages = entries[mapped]
    wrong = misplaced[frames.node[pages]] & ~frames.has(pages, PageFlag.RESERVED)
    mapped, pages = mapped[wrong], pages[wrong]
    huge = (tables.flags[slots][mapped] & np.uint8(PteFlag.HUGE)) != 0
    if not huge.any():
        return pages
    heads = frames.head(pages)
    begins = np.ones(len(heads), dtype=np.bool_)
    begins[1:] = heads[1:] != heads[:-1]
    chosen: Handles = heads[~huge | begins]
    return chosen


# -- moving them ------------------------------------------------------------------------------


def migrate_queued(memory: Memory, folios: Handles, new_page: NewPage) -> int:
    """Migrate isolated folios; return how many did not move, or -ENOMEM."""
    return migrate_pages(memory, folios, new_page, None, _NO_RESULT) if len(folios) else 0


def migrate_to_node(
    memory: Memory, mm: Mm, source: int, dest: int, flags: MoveFlag, at: Surroundings
) -> int:
    """Migrate an address space's pages from a node to another; return how many stayed, or -ENOMEM.

    MOVE moves pages that nobody else maps, MOVE_ALL all.
    """
    if not mm.areas:
        return 0
    on_source = np.zeros(MAX_NUMNODES, dtype=np.bool_)
    on_source[source] = True
    span = mm.areas[0].start, mm.areas[-1].end
    queued = queue_pages_range(memory, mm, span, on_source, flags, at.semantics, holes=True)
    folios, failed = isolate_queued(memory, queued.folios, flags)
    rc = 0
    if len(folios):
        try:
            new_page = new_node_page(memory, dest, at, exact=at.semantics.exact_node)
        except KernelBugError:
            memory.putback(folios)
            raise
        rc = migrate_queued(memory, folios, new_page)
    return rc + failed if rc >= 0 and at.semantics.counts_unisolated else rc


def do_migrate_pages(
    memory: Memory, mm: Mm, old: Set[int], new: Set[int], flags: MoveFlag, at: Surroundings
) -> int:
    """Migrate pages from nodes to nodes so that they keep their relative places.

    Return how many folios did not move, or a negative errno. A target is emptied before it is
    filled, where that can be.
    """
    memory.drain()
    failed, left = 0, set(old)
    while left:
        step = _next_step(left, old, new, at.semantics)
        if step is None:
            break
        source, dest = step
        left.discard(source)
        rc = migrate_to_node(memory, mm, source, dest, flags, at)
        if rc < 0:
            return rc
        failed += rc
    return failed


def _next_step(
    left: Set[int], old: Set[int], new: Set[int], semantics: Semantics
) -> tuple[int, int] | None:
    """Return the next (source, dest): the first whose dest is empty by now, else the last."""
    keeps_common = semantics.keeps_common_nodes and len(old) != len(new)
    step = None
    for source in sorted(left):
        dest = node_remap(source, old, new)
        if source == dest or (keeps_common and source in new):
            continue
        step = source, dest
        if dest not in left:
            break
    return step

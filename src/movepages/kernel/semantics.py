"""In what the four kernels differ, as values: one frozen record and its four instances.

Code asks for a difference by its name, never for a version. Each field says in its metadata what it
decides and where that comes from: `text` (the patch's description), `code` (that kernel's source),
or `choice` (ours, where text and code are silent or undefined). DOCUMENTED_2006 follows the text;
where that is silent it does as PATCH_2006, and where that is undefined as LINUX_6_12. Numbers like
D3 are those of the table "Where the code departs from the text" in the specification.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from movepages.abi import CALLS, SYSCALL_NUMBERS, Errno, Mode

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from movepages.kernel.migrate import PageToNode
    from movepages.kernel.ports import Frames

    Handles = NDArray[np.int64]

IsShared = Callable[["Frames", "Handles"], "NDArray[np.bool_]"]
NothingQueued = Callable[["PageToNode"], int]
ListResult = Callable[["PageToNode", int], int]


def mapped_more_than_once(frames: Frames, pages: Handles) -> NDArray[np.bool_]:
    """Page mapcount above one: two mappings in one process count as shared (D10)."""
    return frames.mapcount(pages) > 1


def mapped_by_several_processes(frames: Frames, pages: Handles) -> NDArray[np.bool_]:
    """Mapped by more than one process, as the text has it."""
    return frames.processes(pages) > 1


def nothing_to_do(_pm: PageToNode) -> int:
    """Nothing was isolated: -ENOENT, and the statuses are thrown away (D9)."""
    return -Errno.ENOENT


def nothing_to_do_as_documented(pm: PageToNode) -> int:
    """-ENOENT only if each page is there already, absent, invalid or shared, as the text lists."""
    reasons = np.isin(pm.status, (-Errno.ENOENT, -Errno.EFAULT, -Errno.EACCES))
    return -Errno.ENOENT if (reasons | (pm.status == pm.node)).all() else 0


def result_as_is(_pm: PageToNode, rc: int) -> int:
    """The number of pages that did not move, or -ENOMEM, is what the call returns (D5, D6)."""
    return rc


def result_as_documented(pm: PageToNode, _rc: int) -> int:
    """0 with statuses; a page that stayed in use is -EBUSY, as the text names it (D4)."""
    pm.status[pm.status == -Errno.EAGAIN] = -Errno.EBUSY
    return 0


def _field(doc: str, documented: str = "choice", code: str = "code") -> Any:
    """Declare a field; `documented` and `code` say where DOCUMENTED_2006 and the others have it."""
    return field(metadata={"doc": doc, "origin": {"documented": documented, "code": code}})


@dataclass(frozen=True, slots=True)
class Semantics:
    """What one kernel does where kernels differ."""

    name: str = _field("how it is called")
    zero_page_status: int = _field("status of the zero page (D1)", "text")
    vma_must_contain: bool = _field("an address in a hole has no VMA (D2)", "text")
    tests_migratable: bool = _field("a move refuses device mappings (vma_migratable)")
    is_shared: IsShared = _field("which pages MOVE leaves alone (D10)", "text")
    moves_mlocked: bool = _field("mlocked pages move; else -EPERM (D3)", "text")
    exact_target: bool = _field("a page comes from its target node or not at all (D7)", "text")
    stops_without_memory: bool = _field("a full node ends the call; else -ENOMEM per page", "text")
    nothing_queued: NothingQueued = _field(
        "what is returned when nothing was isolated (D9)", "text"
    )
    list_result: ListResult = _field("what is returned after the move (D4, D5)", "text")
    target_needs_memory: bool = _field(
        "a node without memory is -ENODEV; else online will do (D23)"
    )
    copies_list_first: bool = _field("all entries are checked before any page moves")
    limits_list: bool = _field("-E2BIG and -ENOMEM of the control array", "text")
    batched: bool = _field("the list is walked in batches by node, statuses stored on the way")
    checks_memory_before_owner: bool = _field("-EINVAL for no memory comes before -EPERM (D17)")
    owner_by_trace: bool = _field("rights by the ptrace rule; else by uid")
    asks_lsm: bool = _field("security_task_movememory is asked")
    moves_large_folios: bool = _field("there are THPs and merged pages, and they move")
    crashes: bool = _field("what crashed or leaked raises a KernelBugError (D13, D15)")
    lru_batch_pages: int = _field("pages that wait in a CPU's LRU batch (PAGEVEC_SIZE)")
    fault_around_bytes: int = _field("cached pages that a read fault maps around it (3.15)")
    calls: frozenset[str] = _field("system calls there are")
    modes: frozenset[Mode] = _field("policy modes there are")
    mode_flags: bool = _field("STATIC_NODES and RELATIVE_NODES are known")
    counts_unisolated: bool = _field("migrate_pages counts folios that could not be isolated")
    keeps_common_nodes: bool = _field(
        "migrate_pages leaves alone what is on a source node that is also a target, if the masks "
        "differ in weight"
    )
    exact_node: bool = _field("migrate_pages(2) takes pages from the target node or not at all")
    checks_holes_ahead: bool = _field(
        "mbind refuses a range that begins or ends in a hole; else one that ends the list of areas"
    )
    skips_fixed_areas: bool = _field(
        "mbind and migrate_pages(2) pass over hugetlb areas, and VM_LOCKED ones unless STRICT"
    )
    cuts_to_own_cpuset: bool = _field(
        "migrate_pages(2) cuts its targets to the caller's cpuset; -EINVAL if none is left"
    )
    contextualizes_first: bool = _field(
        "a policy's nodes meet the cpuset before its mode is looked at: mbind cuts them, "
        "set_mempolicy refuses any outside; else both cut them afterwards"
    )
    bind_nearest_first: bool = _field("BIND takes the nearest of its nodes first; else the lowest")
    remaps_preferred: bool = _field("a cpuset's new mems move PREFERRED to another node")
    wants_whole_nodemask: bool = _field(
        "get_mempolicy wants room for MAX_NUMNODES nodes; else for those this machine can have"
    )
    mems_allowed_query: bool = _field("get_mempolicy knows MPOL_F_MEMS_ALLOWED")
    cpusets_migrate: bool = _field("a new cpuset migrates pages when its mems are written")
    move_pages_architectures: frozenset[str] = _field("where move_pages has a number")


_OLD_CALLS = frozenset(CALLS) - {"set_mempolicy_home_node"}
_OLD_MODES = frozenset({Mode.DEFAULT, Mode.PREFERRED, Mode.BIND, Mode.INTERLEAVE})

PATCH_2006 = Semantics(
    name="the patch's code, 2006",
    zero_page_status=-Errno.ENOENT,
    vma_must_contain=False,
    tests_migratable=False,
    is_shared=mapped_more_than_once,
    moves_mlocked=False,
    exact_target=False,
    stops_without_memory=True,
    nothing_queued=nothing_to_do,
    list_result=result_as_is,
    target_needs_memory=False,
    copies_list_first=True,
    limits_list=True,
    batched=False,
    checks_memory_before_owner=True,
    owner_by_trace=False,
    asks_lsm=False,
    moves_large_folios=False,
    crashes=True,
    lru_batch_pages=14,
    fault_around_bytes=0,
    calls=_OLD_CALLS,
    modes=_OLD_MODES,
    mode_flags=False,
    counts_unisolated=False,
    keeps_common_nodes=False,
    exact_node=False,
    checks_holes_ahead=False,
    skips_fixed_areas=True,
    cuts_to_own_cpuset=False,
    contextualizes_first=True,
    bind_nearest_first=False,
    remaps_preferred=True,
    wants_whole_nodemask=True,
    mems_allowed_query=False,
    cpusets_migrate=False,
    move_pages_architectures=frozenset({"ia64"}),
)

DOCUMENTED_2006 = Semantics(
    **{f.name: getattr(PATCH_2006, f.name) for f in fields(PATCH_2006)}
    | {
        "name": "the patch's text, 2006",
        "zero_page_status": -Errno.EFAULT,
        "vma_must_contain": True,
        "is_shared": mapped_by_several_processes,
        "exact_target": True,
        "stops_without_memory": False,
        "nothing_queued": nothing_to_do_as_documented,
        "list_result": result_as_documented,
        "crashes": False,
    }
)

LINUX_2_6_18 = Semantics(
    **{f.name: getattr(PATCH_2006, f.name) for f in fields(PATCH_2006)}
    | {
        "name": "Linux 2.6.18",
        "moves_mlocked": True,
        "asks_lsm": True,
        "move_pages_architectures": frozenset({"ia64", "i386", "x86_64"}),
    }
)

LINUX_6_12 = Semantics(
    name="Linux 6.12",
    zero_page_status=-Errno.EFAULT,
    vma_must_contain=True,
    tests_migratable=True,
    is_shared=mapped_more_than_once,
    moves_mlocked=True,
    exact_target=True,
    stops_without_memory=True,
    nothing_queued=nothing_to_do,
    list_result=result_as_is,
    target_needs_memory=True,
    copies_list_first=False,
    limits_list=False,
    batched=True,
    checks_memory_before_owner=False,
    owner_by_trace=True,
    asks_lsm=True,
    moves_large_folios=True,
    crashes=False,
    lru_batch_pages=31,
    fault_around_bytes=1 << 16,
    calls=frozenset(CALLS),
    modes=frozenset(Mode),
    mode_flags=True,
    counts_unisolated=True,
    keeps_common_nodes=True,
    exact_node=True,
    checks_holes_ahead=True,
    skips_fixed_areas=False,
    cuts_to_own_cpuset=True,
    contextualizes_first=False,
    bind_nearest_first=True,
    remaps_preferred=False,
    wants_whole_nodemask=False,
    mems_allowed_query=True,
    cpusets_migrate=True,
    move_pages_architectures=frozenset(SYSCALL_NUMBERS) - {"ia64"},
)

ALL_SEMANTICS = (DOCUMENTED_2006, PATCH_2006, LINUX_2_6_18, LINUX_6_12)

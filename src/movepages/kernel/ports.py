"""Through what the system calls see the world. All batched; frames are opaque int64 handles.

The model answers from arrays, the emulator from a live process, a test from dictionaries: the same
system calls run on all three.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import DTypeLike, NDArray

    from movepages.kernel.address_space import VmFlag
    from movepages.kernel.mpol_alloc import Preference
    from movepages.nodeset import NodeSet

    Addresses = NDArray[np.uint64]
    Handles = NDArray[np.int64]
    Nodes = NDArray[np.int32]

NONE = -1
"""The handle of no area and of no page."""
LATER = -2
"""In place of a new page: ask again when the pages before it have moved."""


class UserMemory(Protocol):
    """Memory of the calling process, as copy_from_user and copy_to_user see it."""

    def read(self, pointer: int, dtype: DTypeLike, count: int) -> NDArray[Any]:
        """Return the elements from a pointer on that can be read, at most `count`."""
        ...

    def write(self, pointer: int, values: NDArray[Any]) -> int:
        """Write elements from a pointer on; return how many could be written."""
        ...

    def writable(self, pointer: int, dtype: DTypeLike, count: int) -> int:
        """Return how many elements from a pointer on can be written, at most `count`."""
        ...


class Area(Protocol):
    """An area: pages `start` to `end` of an address space, and what it is."""

    @property
    def start(self) -> int:
        """Its first page."""
        ...

    @property
    def end(self) -> int:
        """The page behind its last."""
        ...

    @property
    def flags(self) -> VmFlag:
        """What it is."""
        ...


class AddressSpace(Protocol):
    """The address space of a process: areas and the pages they map."""

    def find_vma(self, addresses: Addresses) -> Handles:
        """Return the first area that ends above each address, or NONE. It may begin above it."""
        ...

    def contains(self, areas: Handles, addresses: Addresses) -> NDArray[np.bool_]:
        """Tell which areas, as found by find_vma, contain their address."""
        ...

    def migratable(self, areas: Handles) -> NDArray[np.bool_]:
        """Tell which areas have pages that may be migrated at all (vma_migratable)."""
        ...

    def follow_page(self, areas: Handles, addresses: Addresses) -> Handles:
        """Return the folio mapped at each address, or NONE. Every address lies in its area."""
        ...

    def areas(self, start: int, end: int) -> Sequence[Area]:
        """Return the areas that have a page in a range of pages, rising."""
        ...

    def has_area_from(self, page: int) -> bool:
        """Tell whether an area ends above a page."""
        ...

    def folios(self, start: int, end: int) -> Handles:
        """Return the folios that a range of pages of one area maps, in order; no zero page.

        A folio mapped as a whole is there once, one mapped page by page as often as it is mapped.
        """
        ...


class Frames(Protocol):
    """Folios: where they are, who holds them, and how to move them. Handles are heads of folios."""

    def node(self, pages: Handles) -> Nodes:
        """Return the node of each page."""
        ...

    def mapcount(self, pages: Handles) -> Handles:
        """Return how many times each page is mapped (page_mapcount, folio_likely_mapped_shared)."""
        ...

    def processes(self, pages: Handles) -> Handles:
        """Return how many processes map each page."""
        ...

    def is_zero_page(self, pages: Handles) -> NDArray[np.bool_]:
        """Tell which are the zero page, the huge zero page, or otherwise reserved."""
        ...

    def is_locked(self, pages: Handles) -> NDArray[np.bool_]:
        """Tell which are mapped by an mlocked area."""
        ...

    def drain(self) -> None:
        """Put pages that wait in per-CPU batches on the LRU (lru_add_drain_all)."""
        ...

    def disable_lru_cache(self) -> None:
        """Drain, and let no page wait in a batch until enable_lru_cache."""
        ...

    def enable_lru_cache(self) -> None:
        """End what disable_lru_cache began."""
        ...

    def on_lru(self, pages: Handles) -> NDArray[np.bool_]:
        """Tell which pages could be isolated now."""
        ...

    def surely_moves(self, pages: Handles) -> NDArray[np.bool_]:
        """Tell which isolated pages nothing but want of memory could keep from moving now."""
        ...

    def isolate(self, pages: Handles) -> NDArray[np.bool_]:
        """Take pages off the LRU; False for those not on it, and for a page's second mention."""
        ...

    def putback(self, pages: Handles) -> None:
        """Put isolated pages back; one that nobody else refers to is freed."""
        ...

    def allocate(self, like: Handles, nodes: Nodes, *, exact: bool) -> Handles:
        """Allocate a page for each of `like`, as large, on its node, or elsewhere if not `exact`.

        Return the new pages, NONE where there is no memory, and LATER from where memory that the
        pages before give up by moving could make a difference.
        """
        ...

    def allocate_by(self, like: Handles, wants: Preference) -> Handles:
        """Allocate a page for each of `like`, as large, from the nodes of its list in turn.

        Return the new pages, NONE and LATER as `allocate` does.
        """
        ...

    def interleave_index(self, pages: Handles) -> Handles:
        """Return the place of each page by which it is interleaved: that in its mapping."""
        ...

    def order(self, pages: Handles) -> Handles:
        """Return the order of each folio: it has 2**order pages."""
        ...

    def begin_pass(self, number: int) -> bool:
        """Take note that a pass over a page list begins: for faults made on purpose.

        Return True if nothing but migration itself can change a page between two passes.
        """
        ...

    def migrate(self, old: Handles, new: Handles, *, force: bool) -> NDArray[np.int32]:
        """Move isolated pages into new ones; return 0 or a negative errno for each.

        On 0 the new page is mapped and on the LRU and the old one is freed; else the old page is
        where it was, and the new one is still the caller's. With `force` page locks and writeback
        are waited for.
        """
        ...

    def partially_mapped(self, pages: Handles) -> NDArray[np.bool_]:
        """Tell which are THPs of which some pages are mapped, and others by nobody any more."""
        ...

    def split_isolated(self, page: int, *, force: bool) -> Handles | None:
        """Split an isolated THP into isolated pages of one frame each; return them, rising.

        Handles lie between that of the THP, which the first page has, and the next page's. Pages
        that nobody maps are freed; those full of zeroes give way to the zero page. None if it is no
        THP, or is held by somebody; with `force` page locks and writeback are waited for.
        """
        ...

    def free_pages(self, pages: Handles) -> None:
        """Free pages that were allocated and not used."""
        ...


class TaskTable(Protocol):
    """Processes, and what they may do. Tasks are named by pid; 0 is the caller."""

    def find(self, pid: int) -> int | None:
        """Return the pid of the process that a pid or thread id names, or None."""
        ...

    def address_space(self, pid: int) -> AddressSpace | None:
        """Return a process's memory, or None for a kernel thread or a zombie."""
        ...

    def has_capability(self, capability: int) -> bool:
        """Tell whether the caller has a capability."""
        ...

    def shares_owner(self, pid: int) -> bool:
        """Tell whether the caller's uid or euid is the target's uid or suid (2.6.18's rule)."""
        ...

    def may_trace(self, pid: int) -> bool:
        """Tell whether the caller passes ptrace_may_access(READ_REALCREDS) (today's rule)."""
        ...

    def lsm_allows(self, pid: int) -> bool:
        """Tell what the security module says (security_task_movememory)."""
        ...

    def cpuset_mems(self, pid: int) -> NodeSet:
        """Return the nodes that a process's cpuset allows."""
        ...

    def online(self) -> NodeSet:
        """Return the nodes that are online."""
        ...

    def with_memory(self) -> NodeSet:
        """Return the nodes that have memory (N_MEMORY)."""
        ...

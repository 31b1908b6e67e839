"""The values that flow from room to room. All are frozen; arrays in them are NumPy's.

This module itself does not import NumPy, for `movepages show` must start without it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from movepages.abi import UNWRITTEN
from movepages.errors import call_error
from movepages.nodeset import NodeSet

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping as MappingOf

    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class CallResult:
    """What a call answered: the kernel's raw return value and a status for each page.

    `ret` is 0, a positive count of what was not moved (folios, plus entries never tried), or a
    negative errno. `status` is int32[n]: a node, a negative errno, or UNWRITTEN where the kernel
    wrote nothing. After any `ret` but 0 an unwritten page may have moved all the same: ask again.
    """

    ret: int
    status: NDArray[np.int32]

    @property
    def written(self) -> NDArray[np.bool_]:
        """Which statuses the kernel wrote, bool[n]."""
        written: NDArray[np.bool_] = self.status != UNWRITTEN
        return written

    def counts(self) -> dict[int, int]:
        """Count the pages by status."""
        import numpy as np

        values, numbers = np.unique(self.status, return_counts=True)
        return dict(zip(values.tolist(), numbers.tolist(), strict=True))

    def check(self, call: str, *, detail: str = "", **facts: Any) -> CallResult:
        """Return self, or raise the error that a negative `ret` stands for, carrying self."""
        if self.ret >= 0:
            return self
        raise call_error(self.ret, call, detail=detail, result=self, **facts)


@dataclass(frozen=True, slots=True)
class Mapping:
    """A mapping (VMA) of a process: where, what, under which policy, and on which nodes.

    `pages_by_node` counts pages of `page_size_bytes`, as numa_maps does: base pages for THP, huge
    pages for hugetlb. `policy` is the kernel's own wording, such as `bind:0-1`.
    """

    start: int
    end: int
    permissions: str = "----"
    offset: int = 0
    device: str = "00:00"
    inode: int = 0
    path: str = ""
    policy: str = "default"
    page_size_bytes: int = 0
    pages_by_node: MappingOf[int, int] = field(default_factory=dict)
    anon_pages: int = 0
    dirty_pages: int = 0
    mapped_pages: int = 0
    most_mapped: int = 1
    """mapmax: the highest number of mappings that one of the pages has."""
    hugetlb: bool = False

    @property
    def span(self) -> tuple[int, int]:
        """Start and end of the address range, the end excluded."""
        return self.start, self.end

    @property
    def size_bytes(self) -> int:
        """Length of the address range in bytes."""
        return self.end - self.start

    @property
    def resident_bytes(self) -> int:
        """Bytes that are on some node."""
        return sum(self.pages_by_node.values()) * self.page_size_bytes

    @property
    def bytes_by_node(self) -> dict[int, int]:
        """Resident bytes on each node."""
        return {node: pages * self.page_size_bytes for node, pages in self.pages_by_node.items()}

    @property
    def only_node(self) -> int | None:
        """The node that holds all resident pages, or None if there is not exactly one."""
        return next(iter(self.pages_by_node)) if len(self.pages_by_node) == 1 else None

    @property
    def shared(self) -> bool:
        """Whether it is mapped MAP_SHARED."""
        return self.permissions[3:4] == "s"

    @property
    def kind(self) -> str:
        """What it is for a person: heap, stack, anon, shm, huge, file or special."""
        if self.hugetlb:
            return "huge"
        if self.path == "[heap]":
            return "heap"
        if self.path.startswith("[stack"):
            return "stack"
        if self.path.startswith("[anon_shmem") or _is_shm(self.path):
            return "shm"
        if not self.path or self.path.startswith("[anon:"):
            return "anon"
        return "special" if self.path.startswith("[") else "file"


def _is_shm(path: str) -> bool:
    return path.startswith(("/dev/shm/", "/SYSV", "/memfd:", "/dev/zero"))  # noqa: S108 - names to match


@dataclass(frozen=True, slots=True, eq=False)
class PageRuns:
    """Runs of present pages in rising order: start uint64[n], pages int64[n], page size int64[n].

    `page_size_bytes` is that of the folio as mapped: a THP mapped whole counts as one page of 2M.
    """

    start: NDArray[np.uint64]
    pages: NDArray[np.int64]
    page_size_bytes: NDArray[np.int64]

    def __len__(self) -> int:
        """Count the runs."""
        return len(self.start)

    @property
    def total_bytes(self) -> int:
        """Bytes in all runs."""
        return int((self.pages * self.page_size_bytes).sum())

    def addresses(self) -> NDArray[np.uint64]:
        """One address for each page (its first byte), uint64[sum of pages], rising."""
        import numpy as np

        first = np.repeat(self.start, self.pages)
        ends = np.cumsum(self.pages)
        index = np.arange(ends[-1] if len(ends) else 0, dtype=np.int64)
        index -= np.repeat(ends - self.pages, self.pages)
        index *= np.repeat(self.page_size_bytes, self.pages)
        return first + index.view(np.uint64)


@dataclass(frozen=True, slots=True, eq=False)
class Placement:
    """Where pages are: runs of (start, pages, page size, node), in rising order of address.

    start uint64[n], pages int64[n], page_size_bytes int64[n], node int32[n]. Only pages that have a
    node are in it: never-touched, swapped, zero and device-mapped pages are not. `way` says how the
    nodes were found: `numa_maps`, `pfn`, `scan`, `query`, or several joined by `+`.
    """

    start: NDArray[np.uint64]
    pages: NDArray[np.int64]
    page_size_bytes: NDArray[np.int64]
    node: NDArray[np.int32]
    way: str = ""

    def __len__(self) -> int:
        """Count the runs."""
        return len(self.start)

    @property
    def total_bytes(self) -> int:
        """Bytes in all runs."""
        return int((self.pages * self.page_size_bytes).sum())

    @property
    def bytes_by_node(self) -> dict[int, int]:
        """Bytes on each node."""
        import numpy as np

        totals: dict[int, int] = {}
        sizes = self.pages * self.page_size_bytes
        for node in np.unique(self.node).tolist():
            totals[node] = int(sizes[self.node == node].sum())
        return totals

    def runs(self) -> Iterator[tuple[int, int, int, int]]:
        """Go through the runs as (start, pages, page_size_bytes, node)."""
        return zip(
            self.start.tolist(),
            self.pages.tolist(),
            self.page_size_bytes.tolist(),
            self.node.tolist(),
            strict=True,
        )

    def page_runs(self) -> PageRuns:
        """Return the same runs without their nodes."""
        return PageRuns(self.start, self.pages, self.page_size_bytes)

    def page_nodes(self) -> NDArray[np.int32]:
        """Return the node of each page, int32[sum of pages], in the order of page addresses."""
        import numpy as np

        return np.repeat(self.node, self.pages)


@dataclass(frozen=True, slots=True)
class TaskInfo:
    """Who a process is. (boot_id, pid, start_ticks) names it even after its pid is used again."""

    pid: int
    boot_id: str
    start_ticks: int
    command: str
    uid: int
    state: str
    mems_allowed: NodeSet
    cpus_allowed: tuple[int, ...]
    last_cpus: tuple[int, ...]
    """The CPU each thread ran on last, in order of thread id."""
    kernel_thread: bool = False


@dataclass(frozen=True, slots=True)
class Policy:
    """A memory policy as get_mempolicy(2) reports it: mode with its flags, and nodes."""

    mode: int
    nodes: NodeSet = field(default_factory=NodeSet)


@dataclass(frozen=True, slots=True)
class Conditions:
    """What may fight a placement, or forbid it. None where the kernel does not say."""

    numa_balancing: int | None
    demotion: bool | None
    swap_bytes: int
    sees_pfns: bool
    """Whether the caller reads page frame numbers (CAP_SYS_ADMIN)."""
    moves_shared: bool
    """Whether the caller may use MPOL_MF_MOVE_ALL (CAP_SYS_NICE)."""

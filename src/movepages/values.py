"""The values that flow from room to room. All are frozen; arrays in them are NumPy's.

This module itself does not import NumPy, for `movepages show` must start without it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from movepages.abi import UNWRITTEN
from movepages.errors import call_error
from movepages.nodeset import NodeSet

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping as MappingOf

    import numpy as np
    from numpy.typing import NDArray

    from movepages.errors import CallError


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
        return _counts(self.status)

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
        return _bytes_by(self.node, self.pages * self.page_size_bytes)

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
class TaskId:
    """A process for good: a pid is used again, but not with this start time in this boot."""

    boot_id: str
    pid: int
    start_ticks: int


@dataclass(frozen=True, slots=True)
class TaskInfo:
    """Who a process is. Its `id` names it even after its pid is used again."""

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
    parent: int = 0
    """The pid of its parent; 0 where there is none, or it is not known."""
    cgroup: str = ""
    """Its path in the hierarchy of cgroup v2, such as `/system.slice`; empty if not known."""

    @property
    def id(self) -> TaskId:
        """What names the process for good."""
        return TaskId(self.boot_id, self.pid, self.start_ticks)


@dataclass(frozen=True, slots=True)
class ThreadInfo:
    """A thread of a process: where it ran last, and how much CPU time it has used so far."""

    tid: int
    name: str
    cpu: int
    cpu_time_ns: int
    """Nanoseconds on CPUs since it began. Two looks at it tell how long it ran between them."""


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


@dataclass(frozen=True, slots=True)
class Settings:
    """What else bears on placement, by the kernel's names. None where the kernel does not say."""

    thp: str | None = None
    """When transparent huge pages are made: `always`, `madvise` or `never`."""
    zone_reclaim_mode: int | None = None
    perf_event_paranoid: int | None = None
    ptrace_scope: int | None = None
    refused: tuple[CallError, ...] = ()
    """Of the NUMA calls those that nobody here may make, each with the reason."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What the kernel goes by when it decides whether the caller may look at a process.

    ptrace(2), "Ptrace access mode checking", for PTRACE_MODE_READ_REALCREDS.
    """

    own_uid: int
    uids: tuple[int, int, int]
    """Of the process: real, effective, saved."""
    same_user: bool
    """Whether all of its user and group ids are the caller's real ones."""
    dumpable: bool | None
    """None where it cannot be told."""
    covered: bool
    """Whether the caller has every capability that the process may have."""
    may_trace: bool
    """Whether the caller has CAP_SYS_PTRACE, which overrides the others."""


NO_NODE = -1
"""In place of a node that is not known."""


@dataclass(frozen=True, slots=True, eq=False)
class AccessLog:
    """Accesses to memory as a profiler counted them: a row for each line of its log.

    pid int32[n], address uint64[n], count int64[n]; node int32[n] and cpu int32[n] say from where,
    one of them NO_NODE.
    """

    pid: NDArray[np.int32]
    address: NDArray[np.uint64]
    node: NDArray[np.int32]
    cpu: NDArray[np.int32]
    count: NDArray[np.int64]

    def __len__(self) -> int:
        """Count the rows."""
        return len(self.pid)

    @property
    def pids(self) -> list[int]:
        """The processes that it names, rising."""
        import numpy as np

        pids: list[int] = np.unique(self.pid).tolist()
        return pids

    def of(self, pid: int) -> AccessLog:
        """Return the rows of one process."""
        rows = self.pid == pid
        return AccessLog(
            self.pid[rows], self.address[rows], self.node[rows], self.cpu[rows], self.count[rows]
        )


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """Which pages of a process are to go where, and why: runs, in the order they are moved.

    start uint64[n], pages int64[n], page_size_bytes int64[n], from_node and to_node int32[n]
    (from_node is NO_NODE where it is not known), reason int32[n], an index into `reasons`. The runs
    are sorted by target node, then address, and name each folio once. Two more kinds of pages were
    meant, and are in no run: `there_pages` are where they should be, and `crowded_pages` should be
    elsewhere, but no better node has room. `staying_bytes_by_node` says where both kinds are; it is
    empty in a ledger's file from before it was kept.
    """

    task: TaskId
    start: NDArray[np.uint64]
    pages: NDArray[np.int64]
    page_size_bytes: NDArray[np.int64]
    from_node: NDArray[np.int32]
    to_node: NDArray[np.int32]
    reason: NDArray[np.int32]
    reasons: tuple[str, ...] = ("",)
    there_pages: int = 0
    there_bytes: int = 0
    crowded_pages: int = 0
    crowded_bytes: int = 0
    staying_bytes_by_node: MappingOf[int, int] = field(default_factory=dict)

    def __len__(self) -> int:
        """Count the runs."""
        return len(self.start)

    @property
    def page_count(self) -> int:
        """Pages in all runs; a huge page counts as one."""
        return int(self.pages.sum())

    @property
    def total_bytes(self) -> int:
        """Bytes in all runs."""
        return int((self.pages * self.page_size_bytes).sum())

    @property
    def present_bytes(self) -> int:
        """Bytes that were meant and are on some node, those in no run among them."""
        there = self.from_node >= 0
        in_runs = int(self.pages[there] @ self.page_size_bytes[there])
        return in_runs + self.there_bytes + self.crowded_bytes

    @property
    def bytes_by_target(self) -> dict[int, int]:
        """Bytes that are to come to each node."""
        return _bytes_by(self.to_node, self.pages * self.page_size_bytes)

    @property
    def bytes_by_node(self) -> dict[int, int]:
        """Bytes that were meant on each node before, `present_bytes` together.

        NO_NODE has those of which a ledger's file does not say where they stay.
        """
        return self.bytes_with(_bytes_by(self.from_node, self.pages * self.page_size_bytes))

    @property
    def bytes_by_node_planned(self) -> dict[int, int]:
        """The same bytes on each node once all of them are where they are to go."""
        known = self.from_node >= 0
        sizes = self.pages * self.page_size_bytes
        return self.bytes_with(_bytes_by(self.to_node[known], sizes[known]))

    def bytes_with(self, in_runs: MappingOf[int, int]) -> dict[int, int]:
        """Return bytes by node of the pages in runs, and of those that stay, in order of node.

        What is on no node (below 0) is left out.
        """
        total = {node: size for node, size in in_runs.items() if node >= 0}
        for node, size in self.staying_bytes_by_node.items():
            total[node] = total.get(node, 0) + size
        staying = self.there_bytes + self.crowded_bytes
        if unknown := staying - sum(self.staying_bytes_by_node.values()):
            total[NO_NODE] = unknown
        return dict(sorted(total.items()))

    def page_runs(self) -> PageRuns:
        """Return the runs without what is to become of them, in the order of the plan."""
        return PageRuns(self.start, self.pages, self.page_size_bytes)

    def first(self, pages: int) -> Plan:
        """Return the plan for its first so many pages."""
        import numpy as np

        before = np.cumsum(self.pages) - self.pages
        kept = before < pages
        left = np.minimum(self.pages[kept], pages - before[kept])
        return replace(
            self,
            start=self.start[kept],
            pages=left,
            page_size_bytes=self.page_size_bytes[kept],
            from_node=self.from_node[kept],
            to_node=self.to_node[kept],
            reason=self.reason[kept],
        )


@dataclass(frozen=True, slots=True, eq=False)
class Ledger:
    """What became of each page of a plan, in the plan's order: arrays of one row for each page.

    to int32[n] is the node that it was to go to in the end: another than planned where that was
    full and pages were let spill. answer int32[n] is the kernel's last word on it: the node, a
    negative errno, or UNWRITTEN. now int32[n] is where it was when last asked: a node, a negative
    errno, or UNWRITTEN. tries uint8[n] counts the calls that tried to move it. Every page is one of
    arrived, failed and untried.
    """

    plan: Plan
    to: NDArray[np.int32]
    answer: NDArray[np.int32]
    now: NDArray[np.int32]
    tries: NDArray[np.uint8]
    calls: int = 0
    seconds: float = 0.0
    ended: str = "done"
    """Why it ended: `done`, `interrupted`, `time limit` or `error`."""
    error: CallError | None = None
    """The first error that kept pages from being tried."""
    verified: bool = False
    """Whether all pages were asked for again at the end."""

    def __len__(self) -> int:
        """Count the pages."""
        return len(self.to)

    @property
    def arrived(self) -> NDArray[np.bool_]:
        """Which pages came to their node, bool[n]; they may have left it again."""
        arrived: NDArray[np.bool_] = self.answer == self.to
        return arrived

    @property
    def untried(self) -> NDArray[np.bool_]:
        """Which pages nobody tried to move, for the work ended before, bool[n]."""
        untried: NDArray[np.bool_] = (self.tries == 0) & (self.answer == UNWRITTEN)
        return untried

    @property
    def moved_pages(self) -> int:
        """Pages that came to their node."""
        return int(self.arrived.sum())

    @property
    def moved_bytes(self) -> int:
        """Bytes that came to their node."""
        return int(self._by_run(self.arrived) @ self.plan.page_size_bytes)

    @property
    def already_there(self) -> int:
        """Pages that were meant, and were on their node before."""
        return self.plan.there_pages

    @property
    def asked(self) -> int:
        """Pages that were meant."""
        return len(self) + self.plan.there_pages + self.plan.crowded_pages

    @property
    def untried_pages(self) -> int:
        """Pages that nobody tried to move."""
        return int(self.untried.sum())

    @property
    def spilled_pages(self) -> int:
        """Pages that came to another node than planned, for that was full."""
        return int((self.arrived & (self.to != self._of_runs(self.plan.to_node))).sum())

    def failed(self) -> dict[int, int]:
        """Count the pages that were tried and did not come to their node, by status."""
        import numpy as np

        status = self.answer[~(self.arrived | self.untried)]
        return _counts(np.where(status >= 0, UNWRITTEN, status))

    def strayed(self) -> dict[int, int]:
        """Count the pages that came to their node and are elsewhere now, by node or status."""
        return _counts(self.now[self.arrived & (self.now != self.to)])

    @property
    def complete(self) -> bool:
        """Whether every page that was meant is where it should be."""
        return bool(self.arrived.all()) and not self.plan.crowded_pages

    @property
    def bytes_by_node(self) -> dict[int, int]:
        """Bytes that were meant on each node now, as last heard of each page, in order of node.

        A page of which nothing was heard is where it was; one that is on no node any more is none.
        """
        import numpy as np

        where = np.where(self.now == UNWRITTEN, self.page_origins(), self.now)
        return self.plan.bytes_with(
            {
                node: int(self._by_run(where == node) @ self.plan.page_size_bytes)
                for node in np.unique(where).tolist()
            }
        )

    def page_origins(self) -> NDArray[np.int32]:
        """Return the node that each page was on before, int32[n]."""
        return self._of_runs(self.plan.from_node)

    def _of_runs(self, values: NDArray[np.int32]) -> NDArray[np.int32]:
        import numpy as np

        return np.repeat(values, self.plan.pages)

    def _by_run(self, chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Count the chosen pages of each run."""
        import numpy as np

        sums = np.concatenate([np.zeros(1, np.int64), np.cumsum(chosen, dtype=np.int64)])
        ends = np.cumsum(self.plan.pages)
        counts: NDArray[np.int64] = sums[ends] - sums[ends - self.plan.pages]
        return counts


def _bytes_by(node: NDArray[np.int32], sizes: NDArray[np.int64]) -> dict[int, int]:
    """Add sizes up by node."""
    import numpy as np

    return {each: int(sizes[node == each].sum()) for each in np.unique(node).tolist()}


def _counts(values: NDArray[np.int32]) -> dict[int, int]:
    import numpy as np

    found, numbers = np.unique(values, return_counts=True)
    return dict(zip(found.tolist(), numbers.tolist(), strict=True))

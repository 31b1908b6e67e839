"""A machine in memory with four nodes, and what runs `movepages` on it as a user would."""

from __future__ import annotations

import errno
import io
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from movepages.abi import Mode, MoveFlag
from movepages.cli import main
from movepages.errors import call_error, no_such_process
from movepages.linux.maps import read_maps
from movepages.nodeset import NodeSet
from movepages.report.output import Output
from movepages.topology import Access, HugePool, Node, Tier, Topology
from movepages.values import (
    CallResult,
    Conditions,
    Mapping,
    PageRuns,
    Placement,
    Policy,
    Settings,
    Standing,
    TaskId,
    TaskInfo,
    ThreadInfo,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

PID = 1234
KERNEL_THREAD = 2
OWN_PID = 4321
GIB = 1 << 30
HEAP = 0x7F12A4000000
PAGE = 4096
DISTANCES = ((10, 21, 31, 41), (21, 10, 41, 31), (31, 41, 10, 51), (41, 31, 51, 10))


def topology() -> Topology:
    """Two nodes with CPUs, two of memory only, of which one is slower and one has no memory."""
    slow = Access(0, NodeSet([0]), 300, 310, 51200, 40960)
    return Topology(
        nodes=tuple(
            Node(
                id=node,
                cpus=tuple(range(node * 4, node * 4 + 4)) if node < 2 else (),
                memory_bytes=(64 * GIB, 64 * GIB, 256 * GIB, 0)[node],
                free_bytes=(6 * GIB, 60 * GIB, 255 * GIB, 0)[node],
                has_memory=node < 3,
                distances=dict(enumerate(DISTANCES[node])),
                accesses=(slow,) if node == 2 else (),
                huge_pools=(HugePool(2 << 20, 512, 12, 0),) if node == 0 else (),
                weight=(5, 5, 1, 1)[node],
            )
            for node in range(4)
        ),
        possible=NodeSet(range(4)),
        tiers=(Tier(4, NodeSet([0, 1])), Tier(22, NodeSet([2]))),
    )


def mappings() -> list[Mapping]:
    """The mappings of a process on two nodes, with names that are not all harmless."""
    return [
        Mapping(
            0x400000,
            0x4C8000,
            "r-xp",
            path="/usr/lib/a/rather/long/path/to/the/program/python3.11",
            page_size_bytes=PAGE,
            pages_by_node={0: 150},
        ),
        Mapping(
            0x10000000,
            0x10200000,
            "rw-s",
            path="/dev/shm/\x1b[31mred\udcff",
            policy="bind:0-1",
            page_size_bytes=2 << 20,
            pages_by_node={1: 1},
            hugetlb=True,
        ),
        Mapping(
            HEAP,
            HEAP + 8 * GIB,
            "rw-p",
            policy="weighted interleave:0-2",
            page_size_bytes=PAGE,
            pages_by_node={0: 1 << 20, 1: 1 << 18, 2: 3},
        ),
        Mapping(0x7FFC01B2E000, 0x7FFC01B4F000, "rw-p", path="[stack]", page_size_bytes=PAGE),
        Mapping(0xFFFFFFFFFF600000, 0xFFFFFFFFFF601000, "--xp", path="[vsyscall]"),
    ]


def threads() -> list[ThreadInfo]:
    """Three threads of a process: most of its time it ran on node 0, some of it on node 1."""
    return [
        ThreadInfo(PID, "python3", 0, 2_500_000_000),
        ThreadInfo(PID + 1, "worker-1", 5, 1_500_000_000),
        ThreadInfo(PID + 2, "idle", 1, 0),
    ]


@dataclass
class FakeMachine:
    """Answers as the kernel does, as far as the command line can see.

    `pages` are the node of each page that is present, by address; `stuck` the status that a move of
    a page gives. `refusal` is the errno that each call ends with.

    `own` are the pages of files that the caller maps, by inode and page: all that he asks for are
    present, on `own_nodes` by turns at first; `own_stuck` are those pages that do not move.
    """

    pages: dict[int, int] = field(default_factory=dict)
    stuck: dict[int, int] = field(default_factory=dict)
    mapped: list[Mapping] = field(default_factory=mappings)
    mems_allowed: NodeSet = field(default_factory=lambda: NodeSet([0, 1]))
    moves_shared: bool = False
    refusal: int = 0
    page_size_bytes: int = PAGE
    nodes: Topology = field(default_factory=topology)
    running: list[ThreadInfo] = field(default_factory=threads)
    flags: int = 0
    own: dict[tuple[int, int], int] = field(default_factory=dict)
    own_mapped: dict[int, tuple[int, int]] = field(default_factory=dict)
    own_nodes: tuple[int, ...] = (0,)
    own_stuck: dict[int, int] = field(default_factory=dict)
    policy: Policy = field(default_factory=lambda: Policy(Mode.DEFAULT))

    def topology(self) -> Topology:
        """Return the four nodes."""
        return self.nodes

    def task(self, pid: int) -> TaskInfo:
        """Know one process, one kernel thread, and who asks."""
        if pid not in {PID, KERNEL_THREAD, 0}:
            raise no_such_process(pid, "read /proc")
        return TaskInfo(
            pid=pid or OWN_PID,
            boot_id="",
            start_ticks=1,
            command="kthreadd" if pid == KERNEL_THREAD else "python3",
            uid=1000,
            state="S",
            mems_allowed=self.mems_allowed,
            cpus_allowed=(0,),
            last_cpus=(0,),
            kernel_thread=pid == KERNEL_THREAD,
        )

    def conditions(self) -> Conditions:
        """Return the caller's rights."""
        return Conditions(
            0, demotion=None, swap_bytes=0, sees_pfns=False, moves_shared=self.moves_shared
        )

    def settings(self) -> Settings:
        """Return what the kernel is set to."""
        return Settings(thp="madvise", zone_reclaim_mode=0, perf_event_paranoid=2, ptrace_scope=1)

    def standing(self, _pid: int) -> Standing:
        """Say that the one process is the caller's own, a user without rights."""
        own = {"same_user": True, "dumpable": True, "covered": True}
        return Standing(own_uid=1000, uids=(1000, 1000, 1000), may_trace=False, **own)

    def mappings(self, _pid: int) -> Sequence[Mapping]:
        """Return the mappings of the one process."""
        return self.mapped

    def present(self, _pid: int, ranges: Sequence[tuple[int, int]] | None = None) -> PageRuns:
        """Return the pages that are there."""
        starts = [
            address
            for address in sorted(self.pages)
            if ranges is None or any(start <= address < end for start, end in ranges)
        ]
        ones = np.ones(len(starts), dtype=np.int64)
        return PageRuns(np.array(starts, dtype=np.uint64), ones, ones * self.page_size_bytes)

    def locate(self, pid: int, ranges: Sequence[tuple[int, int]] | None = None) -> Placement:
        """Return where the pages that are there are."""
        if not pid:
            return self._locate_own(ranges)
        runs = self.present(pid, ranges)
        nodes = [self.pages[address] for address in runs.start.tolist()]
        return Placement(
            runs.start, runs.pages, runs.page_size_bytes, np.array(nodes, dtype=np.int32)
        )

    def _locate_own(self, ranges: Sequence[tuple[int, int]]) -> Placement:
        ((start, end),) = ranges
        (line,) = (line for line in read_maps(0) if line.start <= start < line.end)
        starts = np.arange(start, end, PAGE, dtype=np.uint64)
        pages = [(line.offset + address - line.start) // PAGE for address in starts.tolist()]
        for page in pages:
            self.own.setdefault((line.inode, page), self.own_nodes[page % len(self.own_nodes)])
        keys = [(line.inode, page) for page in pages]
        self.own_mapped = dict(zip(starts.tolist(), keys, strict=True))
        nodes = [self.own[key] for key in keys]
        ones = np.ones(len(starts), dtype=np.int64)
        return Placement(starts, ones, ones * PAGE, np.array(nodes, dtype=np.int32))

    def get_policy(self) -> Policy:
        """Return the policy of who asks."""
        return self.policy

    def tasks(self) -> Sequence[TaskInfo]:
        """Return the one process."""
        return [self.task(PID)]

    def threads(self, pid: int) -> Sequence[ThreadInfo]:
        """Return the threads of the one process."""
        self.task(pid)
        return self.running

    def hold(self, task: TaskId) -> FakeMachine:
        """Hold the one process, or who asks: they live for ever."""
        if task not in {self.task(PID).id, self.task(0).id}:
            raise no_such_process(task.pid, "hold process")
        return self

    def alive(self) -> bool:
        """Tell that it lives."""
        return True

    def close(self) -> None:
        """Hold it no longer."""

    def free_bytes(self) -> dict[int, int]:
        """Return the free memory of the four nodes."""
        return {node.id: node.free_bytes for node in self.nodes}

    def query_pages(self, pid: int, addresses: np.ndarray) -> CallResult:
        """Answer with a node or an errno for each page."""
        self._refuse("move_pages", pid)
        return CallResult(0, np.array([self._status(a) for a in addresses.tolist()], np.int32))

    def move_pages(
        self, pid: int, addresses: np.ndarray, nodes: np.ndarray, flags: int
    ) -> CallResult:
        """Move what is there and not stuck."""
        self._refuse("move_pages", pid)
        self.flags = flags
        if flags & MoveFlag.MOVE_ALL and not self.moves_shared:
            raise call_error(-errno.EPERM, "move_pages", pid=pid)
        for address, node in zip(addresses.tolist(), nodes.tolist(), strict=True):
            if address in self.pages and address not in self.stuck:
                self.pages[address] = node
        if pid == OWN_PID and self.own_mapped:
            return self._move_own(addresses.tolist(), nodes.tolist())
        status = [self.stuck.get(a, self._status(a)) for a in addresses.tolist()]
        return CallResult(0, np.array(status, np.int32))

    def _move_own(self, addresses: list[int], nodes: list[int]) -> CallResult:
        keys = [self.own_mapped[address] for address in addresses]
        moved = dict(zip(keys, nodes, strict=True))
        self.own |= {key: node for key, node in moved.items() if key[1] not in self.own_stuck}
        status = [self.own_stuck.get(key[1], self.own[key]) for key in keys]
        return CallResult(0, np.array(status, np.int32))

    def migrate_pages(self, pid: int, from_nodes: Iterable[int], to_nodes: Iterable[int]) -> int:
        """Move what is there and not stuck, and count the rest."""
        self._refuse("migrate_pages", pid)
        source, target = set(from_nodes) - set(to_nodes), next(iter(to_nodes))
        self.pages = {
            address: target if node in source and address not in self.stuck else node
            for address, node in self.pages.items()
        }
        self.mapped = [
            replace(mapping, pages_by_node=dict(_moved(mapping, source, target, self.stuck)))
            for mapping in self.mapped
        ]
        return len(self.stuck)

    def _status(self, address: int) -> int:
        if address in self.own_mapped:
            return self.own[self.own_mapped[address]]
        if not any(mapping.start <= address < mapping.end for mapping in self.mapped):
            return -errno.EFAULT
        return self.pages.get(address, -errno.ENOENT)

    def _refuse(self, call: str, pid: int) -> None:
        if self.refusal:
            raise call_error(-self.refusal, call, pid=pid)


def _moved(mapping: Mapping, source: set[int], target: int, stuck: Iterable[int]) -> Counter[int]:
    """Return the pages of a mapping by node once all but the stuck ones have moved."""
    staying = sum(mapping.start <= address < mapping.end for address in stuck)
    pages: Counter[int] = Counter()
    for node, number in mapping.pages_by_node.items():
        pages[target if node in source else node] += number
    if staying:
        pages[min(source)] += staying
        pages[target] -= staying
    return pages


@dataclass(frozen=True)
class Answer:
    """What a user gets: exit code, standard output, standard error."""

    code: int
    out: str
    err: str


@pytest.fixture
def machine() -> FakeMachine:
    """Return a machine of four nodes with one process, all of whose first 8 pages are on node 0."""
    return FakeMachine(pages={HEAP + page * PAGE: 0 for page in range(8)})


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], machine: FakeMachine) -> Callable[..., Answer]:
    """Return what runs `movepages` with some arguments, its output a pipe."""
    return _runner(capsys, machine, terminal=False)


@pytest.fixture
def run_on_terminal(
    capsys: pytest.CaptureFixture[str], machine: FakeMachine
) -> Callable[..., Answer]:
    """Return what runs `movepages` with some arguments on a terminal of 80 columns, in colour."""
    return _runner(capsys, machine, terminal=True)


def _runner(
    capsys: pytest.CaptureFixture[str], machine: FakeMachine, *, terminal: bool
) -> Callable[..., Answer]:
    def ran(*arguments: str) -> Answer:
        stream = io.StringIO()
        width = 80 if terminal else None
        output = Output(stream, terminal=terminal, width=width, colour=terminal)
        code = main(arguments, machine=machine, output=output)
        captured = capsys.readouterr()
        return Answer(code, stream.getvalue() + captured.out, captured.err)

    return ran

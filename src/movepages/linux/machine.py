"""The real kernel as a Machine. NumPy is loaded with the first call that has arrays."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from movepages.errors import ArgumentError
from movepages.linux.hold import Hold
from movepages.linux.limits import (
    read_demotion_enabled,
    read_numa_balancing,
    read_perf_event_paranoid,
    read_ptrace_scope,
    read_swap_bytes,
    read_thp_mode,
    read_zone_reclaim_mode,
)
from movepages.linux.mappings import read_mappings
from movepages.linux.nodes import read_free_bytes, read_topology
from movepages.linux.reading import ROOT
from movepages.linux.rights import read_standing
from movepages.linux.tasks import read_task_info, read_tasks, read_threads
from movepages.values import Conditions, Settings, Standing

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from movepages.linux.locate import Locator
    from movepages.machine import Machine
    from movepages.topology import Topology
    from movepages.values import (
        CallResult,
        Mapping,
        PageRuns,
        Placement,
        Policy,
        TaskId,
        TaskInfo,
        ThreadInfo,
    )


class LinuxMachine:
    """The machine this runs on; with another root, what a captured tree says of one.

    Satisfies `movepages.machine.Machine`, where the methods are described.
    """

    def __init__(self, root: Path = ROOT) -> None:
        """Read files below `root`; system calls are always those of this kernel."""
        self.root = root
        self.page_size_bytes = os.sysconf("SC_PAGE_SIZE")

    def topology(self) -> Topology:
        """Return the nodes as they are now."""
        return read_topology(self.root)

    def free_bytes(self) -> dict[int, int]:
        """Return free memory by node."""
        return read_free_bytes(self.root)

    def move_pages(
        self, pid: int, addresses: NDArray[np.uint64], nodes: NDArray[np.int32], flags: int
    ) -> CallResult:
        """Move each page to its node: one move_pages(2). Raises CallError, ArgumentError."""
        import numpy as np

        from movepages.linux import page_calls

        if len(addresses) != len(nodes):
            raise ArgumentError(f"there are {len(addresses)} addresses but {len(nodes)} nodes")
        where = np.ascontiguousarray(addresses, dtype=np.uint64)
        to = np.ascontiguousarray(nodes, dtype=np.int32)
        status = page_calls.unwritten(len(where))
        return page_calls.move_pages(pid, where, to, status, flags, self.root)

    def query_pages(self, pid: int, addresses: NDArray[np.uint64]) -> CallResult:
        """Ask for the node of each page: one move_pages(2) without nodes. Raises CallError."""
        import numpy as np

        from movepages.linux import page_calls

        where = np.ascontiguousarray(addresses, dtype=np.uint64)
        return page_calls.query_pages(pid, where, page_calls.unwritten(len(where)), self.root)

    def migrate_pages(self, pid: int, from_nodes: Iterable[int], to_nodes: Iterable[int]) -> int:
        """Move all pages between nodes: migrate_pages(2)."""
        from movepages.linux import mempolicy

        return mempolicy.migrate_pages(pid, from_nodes, to_nodes, self.root)

    def mappings(self, pid: int) -> Sequence[Mapping]:
        """Return the mappings of a process, from maps and one read of numa_maps."""
        return read_mappings(pid, self.root)

    def present(self, pid: int, ranges: Sequence[tuple[int, int]] | None = None) -> PageRuns:
        """Return which pages are present, and of what page size."""
        return self._locator(pid).present(ranges)

    def locate(self, pid: int, ranges: Sequence[tuple[int, int]] | None = None) -> Placement:
        """Return on which node each present page is."""
        return self._locator(pid).locate(ranges)

    def tasks(self) -> Sequence[TaskInfo]:
        """Return the processes in user space, by pid."""
        return read_tasks(self.root)

    def task(self, pid: int) -> TaskInfo:
        """Return who a process is, and where it may run and allocate."""
        return read_task_info(pid, self.root)

    def threads(self, pid: int) -> Sequence[ThreadInfo]:
        """Return where each thread ran last, and for how long in all."""
        return read_threads(pid, self.root)

    def hold(self, task: TaskId) -> Hold:
        """Hold a process by a pidfd. Raises NoSuchProcessError."""
        return Hold(task, self.root)

    def get_policy(self) -> Policy:
        """Return the calling thread's memory policy."""
        from movepages.linux import mempolicy

        return mempolicy.get_mempolicy(root=self.root)

    def set_policy(self, mode: int, nodes: Iterable[int]) -> None:
        """Set the calling thread's memory policy."""
        from movepages.linux import mempolicy

        mempolicy.set_mempolicy(mode, nodes, self.root)

    def mbind(
        self, start: int, length_bytes: int, mode: int, nodes: Iterable[int], flags: int
    ) -> None:
        """Set the policy of a range of the caller."""
        from movepages.linux import mempolicy

        mempolicy.mbind(start, length_bytes, mode, nodes, flags, self.root)

    def conditions(self) -> Conditions:
        """Return what may fight a placement, and the caller's rights."""
        from movepages.linux.page_calls import moves_shared
        from movepages.linux.page_frames import sees_frames

        return Conditions(
            numa_balancing=read_numa_balancing(self.root),
            demotion=read_demotion_enabled(self.root),
            swap_bytes=read_swap_bytes(self.root),
            sees_pfns=sees_frames(self.page_size_bytes, self.root),
            moves_shared=moves_shared(self.root),
        )

    def settings(self) -> Settings:
        """Return what else of the kernel's settings bears on placement."""
        from movepages.linux.filters import refusals

        return Settings(
            thp=read_thp_mode(self.root),
            zone_reclaim_mode=read_zone_reclaim_mode(self.root),
            perf_event_paranoid=read_perf_event_paranoid(self.root),
            ptrace_scope=read_ptrace_scope(self.root),
            refused=refusals(self.root),
        )

    def standing(self, pid: int) -> Standing:
        """Return what decides whether the caller may look at a process."""
        return read_standing(pid, self.root)

    def _locator(self, pid: int) -> Locator:
        from movepages.linux.locate import Locator

        return Locator(
            pid,
            lambda addresses: self.query_pages(pid, addresses).status,
            self.page_size_bytes,
            self.root,
        )


if TYPE_CHECKING:
    _checked: Machine = LinuxMachine()  # mypy compares it with the protocol

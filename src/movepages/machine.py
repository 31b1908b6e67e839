"""The Machine: what every tool may ask, of the real kernel or of the model.

Batched, NumPy in and out. `linux.LinuxMachine` and `kernel.SimulatedMachine` satisfy it; tools take
a Machine as an argument and never know which.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from movepages.topology import Topology
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


class Hold(Protocol):
    """A process that is held: it still may end, but that is noticed."""

    def alive(self) -> bool:
        """Tell whether it has not ended, in about a microsecond."""
        ...

    def close(self) -> None:
        """Hold it no longer."""
        ...


class Machine(Protocol):
    """A machine with memory nodes and processes.

    `pid` 0 is the caller everywhere. Addresses are uint64, in bytes; nodes and statuses int32.
    """

    @property
    def page_size_bytes(self) -> int:
        """The base page size. Asked, never assumed: 64 KiB machines exist."""
        ...

    def topology(self) -> Topology:
        """Return the nodes as they are now."""
        ...

    def free_bytes(self) -> dict[int, int]:
        """Return free memory by node."""
        ...

    def move_pages(
        self, pid: int, addresses: NDArray[np.uint64], nodes: NDArray[np.int32], flags: int
    ) -> CallResult:
        """Move each page to its node: move_pages(2), one call.

        A negative return raises the matching CallError, whose `.result` has the statuses: pages may
        have moved all the same. A positive return does not raise.
        """
        ...

    def query_pages(self, pid: int, addresses: NDArray[np.uint64]) -> CallResult:
        """Ask for the node of each page: move_pages(2) without nodes. Errors as in move_pages."""
        ...

    def migrate_pages(self, pid: int, from_nodes: Iterable[int], to_nodes: Iterable[int]) -> int:
        """Move all pages from some nodes to others: migrate_pages(2).

        Return how many folios could not be moved. Raises CallError.
        """
        ...

    def mappings(self, pid: int) -> Sequence[Mapping]:
        """Return the mappings of a process in rising order, with policy and pages by node."""
        ...

    def present(self, pid: int, ranges: Sequence[tuple[int, int]] | None = None) -> PageRuns:
        """Return which pages of some ranges, or of all mappings, are present, of what page size."""
        ...

    def locate(self, pid: int, ranges: Sequence[tuple[int, int]] | None = None) -> Placement:
        """Return on which node each present page is, of some address ranges or of all mappings."""
        ...

    def tasks(self) -> Sequence[TaskInfo]:
        """Return the processes in user space, by pid; one that ends meanwhile is left out."""
        ...

    def task(self, pid: int) -> TaskInfo:
        """Return who a process is, and where it may run and allocate."""
        ...

    def threads(self, pid: int) -> Sequence[ThreadInfo]:
        """Return where each thread of a process ran last and for how long in all, by thread id.

        A thread that ends meanwhile is left out. Raises NoSuchProcessError where the process has
        ended.
        """
        ...

    def hold(self, task: TaskId) -> Hold:
        """Hold a process, so that its pid cannot come to mean another unnoticed.

        Raises NoSuchProcessError where it has ended, or the pid is another's by now.
        """
        ...

    def get_policy(self) -> Policy:
        """Return the calling thread's memory policy."""
        ...

    def set_policy(self, mode: int, nodes: Iterable[int]) -> None:
        """Set the calling thread's memory policy: set_mempolicy(2). Raises CallError."""
        ...

    def mbind(
        self, start: int, length_bytes: int, mode: int, nodes: Iterable[int], flags: int
    ) -> None:
        """Set the policy of a range of the caller: mbind(2). Raises CallError."""
        ...

    def conditions(self) -> Conditions:
        """Return what may fight a placement on this machine, and the caller's rights."""
        ...

    def settings(self) -> Settings:
        """Return what else of the kernel's settings bears on placement, and which calls it has."""
        ...

    def standing(self, pid: int) -> Standing:
        """Return what decides whether the caller may look at a process. It may be anybody's."""
        ...

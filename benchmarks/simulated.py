"""A process on a simulated machine, and whole system calls on all of its pages."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from movepages.abi import UNWRITTEN, MoveFlag
from movepages.kernel import SimulatedMachine

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from movepages.kernel.process import Task
    from movepages.kernel.semantics import Semantics

PAGE_BYTES = 4096
_SPARE_PAGES = 1 << 14
_FAULTED_AT_ONCE = 1 << 20
_SEED = 2006


@dataclass(slots=True, eq=False)
class Call:
    """A process with pages on node 0, and the arrays of a call on all of them: to node 0 at first.

    Pages are touched, and frames handed out, in the order of the addresses: `shuffle` ends that.
    """

    machine: SimulatedMachine
    task: Task
    start: int
    addresses: NDArray[np.uint64]
    nodes: NDArray[np.int32]
    status: NDArray[np.int32]
    pointers: tuple[int, int, int]
    flags: int = int(MoveFlag.MOVE)
    _chance: np.random.Generator = field(default_factory=lambda: np.random.default_rng(_SEED))

    @classmethod
    def on(
        cls, pages: int, semantics: Semantics, *, shared_every: int = 0, node_count: int = 2
    ) -> Call:
        """Make a machine whose nodes just have room for the pages, 1 in so many shared by fork."""
        size = (pages + _SPARE_PAGES) * PAGE_BYTES >> 20
        machine = SimulatedMachine(f"{node_count} x {size}M", semantics=semantics)
        task = machine.spawn()
        start = task.mmap(pages)
        if shared_every:
            _touch(task, start, np.arange(0, pages, shared_every))
            task.fork()
        for first in range(0, pages, _FAULTED_AT_ONCE):
            at = np.arange(first, min(first + _FAULTED_AT_ONCE, pages))
            _touch(task, start, at[at % shared_every != 0] if shared_every else at)
        addresses = task.addresses(start, pages)
        nodes = np.zeros(pages, dtype=np.int32)
        status = np.full(pages, UNWRITTEN, dtype=np.int32)
        placed = [machine.user.place(array).pointer for array in (addresses, nodes, status)]
        return cls(machine, task, start, addresses, nodes, status, (*placed,))

    def query(self) -> int:
        """Ask for the node of every page; return what the call returns."""
        return self._make(0, 0)

    def move(self, count: int | None = None) -> int:
        """Move all pages, or the first so many, to their nodes; return what the call returns."""
        return self._make(self.pointers[1], self.flags, count)

    def turn(self) -> None:
        """Let the next move go to the other node of two."""
        np.subtract(1, self.nodes, out=self.nodes)

    def shuffle(self) -> None:
        """Name the pages in another order by chance; a move hands out frames in that order."""
        self.addresses[:] = self._chance.permutation(self.addresses)

    def pin(self, every: int, first: int) -> None:
        """Let somebody hold one page in so many, from one of them on."""
        frames = self.task.frames(self.start, len(self.addresses))
        self.machine.memory.pin(frames[first::every])

    def arrived(self) -> int:
        """Count the pages whose status is the node asked for."""
        return int(np.count_nonzero(self.status == self.nodes))

    def _make(self, nodes: int, flags: int, count: int | None = None) -> int:
        pages, _, status = self.pointers
        number = len(self.addresses) if count is None else count
        return self.task.syscall("move_pages", 0, number, pages, nodes, status, flags)


def _touch(task: Task, start: int, pages: NDArray[np.int64]) -> None:
    """Write to pages of the mapping that begins at an address."""
    mm = task.struct.mm
    assert mm is not None  # noqa: S101 - it has just mapped some memory
    page = start >> mm.page_shift
    (vma,) = mm.overlapping(page, page + 1)
    task.machine.faults.touch(task.struct, vma, page + pages, write=True)

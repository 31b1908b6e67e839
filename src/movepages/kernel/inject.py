"""Faults on purpose: what the world may do to pages while a system call works on them.

Each is a value that `machine.inject` arms, and that ends with `release()` or a `with` block:

    with machine.inject(Pin(p, address)):
        p.move_pages(0, addresses, nodes, MoveFlag.MOVE)

The kernel's own words: a pin is get_user_pages(), a busy page is locked, for I/O or by reclaim; an
action before a pass or call is whatever another CPU does at that moment.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np

from movepages.errors import ArgumentError, UnsupportedError
from movepages.kernel.frames import PageFlag

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from numpy.typing import NDArray

    from movepages.kernel.machine import SimulatedMachine
    from movepages.kernel.process import Task

    Action = Callable[[], object]
    Folios = NDArray[np.int64]

_Hook = TypeVar("_Hook")


class Injected:
    """A fault that is armed. Also a context manager."""

    def __init__(self, undo: Action) -> None:
        """`undo` takes it back."""
        self._undo: Action | None = undo

    def release(self) -> None:
        """Take the fault back; more than once is no more than once."""
        undo, self._undo = self._undo, None
        if undo is not None:
            undo()

    def __enter__(self) -> Self:
        """Begin a block; the fault is armed already."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take the fault back."""
        self.release()


class Fault(Protocol):
    """Something that can be made to go wrong."""

    def arm(self, machine: SimulatedMachine) -> Injected:
        """Let it go wrong from now on. Raises ArgumentError."""
        ...


@dataclass(frozen=True, slots=True)
class Pin:
    """Someone holds a reference on pages, for I/O or RDMA: they cannot move."""

    task: Task
    address: int
    pages: int = 1

    def arm(self, machine: SimulatedMachine) -> Injected:
        """Take the references, one for each page, on its folio."""
        folios = _folios_of(self.task, self.address, self.pages)
        machine.memory.pin(folios)
        return Injected(lambda: machine.memory.unpin(folios))


@dataclass(frozen=True, slots=True)
class Busy:
    """Pages are locked for so many passes over a page list: -EAGAIN, then they move.

    From the fourth pass on the kernel waits for the lock, so that more than three make no
    difference.
    """

    task: Task
    address: int
    pages: int = 1
    passes: int = 1

    def arm(self, machine: SimulatedMachine) -> Injected:
        """Lock the pages, and count passes."""
        if self.passes < 1:
            raise ArgumentError(f"busy for {self.passes} passes: it must be at least one")
        memory = machine.memory
        folios = np.unique(_folios_of(self.task, self.address, self.pages))
        memory.frames.set(folios, PageFlag.LOCKED)
        seen = 0

        def before_pass(_number: int) -> None:
            nonlocal seen
            seen += 1
            if seen == self.passes + 1:
                memory.frames.clear(folios, PageFlag.LOCKED)

        def undo() -> None:
            memory.on_pass.remove(before_pass)
            memory.frames.clear(folios, PageFlag.LOCKED)

        memory.on_pass.append(before_pass)
        return Injected(undo)


@dataclass(frozen=True, slots=True)
class LruBusy:
    """Someone else, such as reclaim or compaction, has isolated pages from the LRU."""

    task: Task
    address: int
    pages: int = 1

    def arm(self, machine: SimulatedMachine) -> Injected:
        """Isolate the pages. Raises ArgumentError if one cannot be."""
        memory = machine.memory
        memory.lru.drain_all()
        folios = np.unique(_folios_of(self.task, self.address, self.pages))
        if not memory.on_lru(folios).all():
            raise ArgumentError("a page that is not on the LRU cannot be isolated from it")
        memory.isolate(folios)
        return Injected(lambda: memory.putback(folios))


@dataclass(frozen=True, slots=True)
class InBatch:
    """Pages that wait in a CPU's LRU batch again whenever the batches have been drained.

    Fewer than the batch holds. A kernel that disables the batches while it moves does not see it.
    """

    task: Task
    address: int
    pages: int = 1

    def arm(self, machine: SimulatedMachine) -> Injected:
        """Put the pages into a batch after each drain."""
        memory = machine.memory
        folios = np.unique(_folios_of(self.task, self.address, self.pages))

        def after_drain() -> None:
            back = folios[memory.on_lru(folios)]
            memory.frames.clear(back, PageFlag.LRU)
            memory.lru.add(back, self.task.struct.cpu)

        memory.on_drain.append(after_drain)
        return Injected(lambda: memory.on_drain.remove(after_drain))


@dataclass(frozen=True, slots=True)
class NoMemory:
    """One allocation for a move fails in the next call: the n-th, counted from 1."""

    allocation: int = 1

    def arm(self, machine: SimulatedMachine) -> Injected:
        """Count allocations from the beginning of the next call to its end."""
        if self.allocation < 1:
            raise ArgumentError(f"allocations are counted from 1, not {self.allocation}")
        memory = machine.memory
        if memory.refuses_allocation is not None:
            raise ArgumentError("one failing allocation at a time; release the other first")
        calls = allocations = 0

        def before_call() -> None:
            nonlocal calls
            calls += 1

        def refuses() -> bool:
            nonlocal allocations
            if calls != 1:
                return False
            allocations += 1
            return allocations == self.allocation

        def undo() -> None:
            memory.refuses_allocation = None
            machine.before_call.remove(before_call)

        memory.refuses_allocation = refuses
        machine.before_call.append(before_call)
        return Injected(undo)


@dataclass(frozen=True, slots=True)
class BeforePass:
    """Something happens once, before a pass of that number (the first is 0) over a page list."""

    number: int
    action: Action

    def arm(self, machine: SimulatedMachine) -> Injected:
        """Wait for the pass."""
        hooks = machine.memory.on_pass

        def before_pass(number: int) -> None:
            if number == self.number:
                hooks.remove(before_pass)
                self.action()

        hooks.append(before_pass)
        return Injected(lambda: _remove(hooks, before_pass))


@dataclass(frozen=True, slots=True)
class BeforeCall:
    """Something happens once, before the n-th system call from now on (the next is 1)."""

    number: int
    action: Action

    def arm(self, machine: SimulatedMachine) -> Injected:
        """Wait for the call."""
        hooks, calls = machine.before_call, 0

        def before_call() -> None:
            nonlocal calls
            calls += 1
            if calls == self.number:
                hooks.remove(before_call)
                self.action()

        hooks.append(before_call)
        return Injected(lambda: _remove(hooks, before_call))


@dataclass(frozen=True, slots=True)
class AfterDrain:
    """Something happens once, right after the LRU batches were drained (migrate_prep)."""

    action: Action

    def arm(self, machine: SimulatedMachine) -> Injected:
        """Wait for the drain."""
        hooks = machine.memory.on_drain

        def after_drain() -> None:
            hooks.remove(after_drain)
            self.action()

        hooks.append(after_drain)
        return Injected(lambda: _remove(hooks, after_drain))


@dataclass(frozen=True, slots=True)
class StaleMarker:
    """The uninitialised control array of 2006 has the end marker at an entry (D13)."""

    entry: int

    def arm(self, machine: SimulatedMachine) -> Injected:
        """Put it there. Raises UnsupportedError on a kernel that initialises what it reads."""
        crashes = machine.crashes
        if crashes is None:
            raise UnsupportedError(f"{machine.semantics.name} initialises its control array")
        crashes.stale_marker = self.entry

        def undo() -> None:
            crashes.stale_marker = None

        return Injected(undo)


def pull_back(task: Task, address: int, node: int, pages: int = 1) -> None:
    """Move pages to a node behind everybody's back, as NUMA balancing does: an action.

    Pages that are not there, isolated, pinned or mapped by others stay, as do all from the first
    without memory on.
    """
    memory = task.machine.memory
    found = task.frames(address, pages)
    folios = np.unique(memory.frames.head(found[found >= 0]))
    folios = folios[(memory.mapcount(folios) == 1) & (memory.node(folios) != node)]
    with memory.undisturbed():
        isolated = folios[memory.isolate(folios)]
        new = memory.allocate(isolated, np.full(len(isolated), node, np.int32), exact=True)
        there = new >= 0
        rc = memory.migrate(isolated[there], new[there], force=False)
        memory.free_pages(new[there][rc != 0])
        memory.putback(np.concatenate([isolated[~there], isolated[there][rc != 0]]))


def _folios_of(task: Task, address: int, pages: int) -> Folios:
    """Return the folio of each page, all of them present. Raises ArgumentError."""
    found = task.frames(address, pages)
    memory = task.machine.memory
    if not len(found) or (found < 0).any() or memory.is_zero_page(np.maximum(found, 0)).any():
        raise ArgumentError(f"not all of {pages} pages from {address:#x} on are present")
    return memory.frames.head(found)


def _remove(hooks: list[_Hook], hook: _Hook) -> None:
    if hook in hooks:
        hooks.remove(hook)

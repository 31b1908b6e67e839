"""move_pages(2): SYSCALL_DEFINE6(move_pages) of 2006 and of Linux 6.12.

The checks come in the kernel's own order, which decides who learns what. 2006 copies the whole list
into a control array, checks all of it, and stores statuses only when the move is over; today the
list is walked in place, and what was done before an error stays done.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from movepages.abi import MAX_NUMNODES, QUERY_CHUNK_PAGES, Capability, Errno, MoveFlag
from movepages.abi.limits import CONTROL_ENTRY_BYTES, ULONG_MAX
from movepages.kernel.migrate import PageToNode, do_move_pages, do_pages_stat
from movepages.kernel.migrate_batched import do_pages_move
from movepages.kernel.positions import parts

if TYPE_CHECKING:
    from collections.abc import Set

    from numpy.typing import NDArray

    from movepages.kernel.crash import Crashes
    from movepages.kernel.ports import AddressSpace, Frames, TaskTable, UserMemory
    from movepages.kernel.semantics import Semantics

    Addresses = NDArray[np.uint64]
    Statuses = NDArray[np.int32]

_FLAGS = int(MoveFlag.MOVE | MoveFlag.MOVE_ALL)
_STATUS_BYTES = 4
_POINTER_BYTES = 8
_STAT_PAGES = 1 << 16
"""Pages that are looked up at a time: a whole number of the kernel's chunks."""


@dataclass(frozen=True, slots=True, eq=False)
class MovePages:
    """The call in one kernel: its view of the world, and the limit of its control array."""

    user: UserMemory
    frames: Frames
    tasks: TaskTable
    semantics: Semantics
    vmalloc_limit_bytes: int
    crashes: Crashes | None = None
    """Raises where this kernel would crash or leak; None for one that does not."""

    def __call__(  # noqa: PLR0911 - one return for each check, in the kernel's order
        self, pid: int, nr_pages: int, pages: int, nodes: int, status: int, flags: int
    ) -> int:
        """move_pages(pid, nr_pages, pages, nodes, status, flags); pointers are numbers, 0 is NULL.

        Returns 0 or more, or a negative errno, as the kernel does.
        """
        if flags & ~_FLAGS:
            return -Errno.EINVAL
        migrate_all = bool(flags & MoveFlag.MOVE_ALL)
        if migrate_all and not self.tasks.has_capability(Capability.SYS_NICE):
            return -Errno.EPERM
        target = self.tasks.find(pid)
        if target is None:
            return -Errno.ESRCH
        space = self.tasks.address_space(target)
        refused = self._refusal(pid, target, space)
        if refused or space is None:
            return refused
        if self.semantics.copies_list_first:
            call = _ControlArray(self, space, target, nr_pages)
            return call.run(pages, nodes, status, migrate_all=migrate_all)
        if not nodes:
            return self._stat_in_chunks(space, nr_pages, pages, status)
        task_nodes = self.tasks.cpuset_mems(target)  # once: the task may be gone later
        arguments = _InPlace(self, task_nodes, nr_pages, pages, nodes, status)
        return do_pages_move(space, self.frames, arguments, self.semantics, migrate_all=migrate_all)

    def _refusal(self, pid: int, target: int, space: AddressSpace | None) -> int:
        """Return why the caller may not touch the target, in the order this kernel checks."""
        no_memory = -Errno.EINVAL if space is None else 0
        if self.semantics.checks_memory_before_owner and no_memory:
            return no_memory
        if not self.semantics.owner_by_trace:
            nice = self.tasks.has_capability(Capability.SYS_NICE)
            allowed = nice or self.tasks.shares_owner(target)
        else:
            allowed = pid == 0 or self.tasks.may_trace(target)
        if not allowed:
            return -Errno.EPERM
        asks = self.semantics.asks_lsm and (pid != 0 or not self.semantics.owner_by_trace)
        if asks and not self.tasks.lsm_allows(target):
            return -Errno.EPERM
        return no_memory

    def refused_node(self, nodes: Statuses, allowed: Set[int]) -> tuple[int, int]:
        """Return the index of the first node that may not be a target, and why; or their number.

        A number outside the kernel's range is -ENODEV; the 2006 code tested a bit out of range
        there (D12), so it does here as today.
        """
        there = self.tasks.with_memory() if self.semantics.target_needs_memory else None
        known = np.zeros(MAX_NUMNODES, dtype=np.bool_)
        known[list(there if there is not None else self.tasks.online())] = True
        permitted = np.zeros(MAX_NUMNODES, dtype=np.bool_)
        permitted[[node for node in allowed if node < MAX_NUMNODES]] = True
        in_range = (nodes >= 0) & (nodes < MAX_NUMNODES)
        inside = np.where(in_range, nodes, 0)
        missing = ~(in_range & known[inside])
        refused = missing | ~permitted[inside]
        if not refused.any():
            return len(nodes), 0
        first = int(np.argmax(refused))
        return first, -Errno.ENODEV if missing[first] else -Errno.EACCES

    def _stat_in_chunks(self, space: AddressSpace, nr_pages: int, pages: int, status: int) -> int:
        """Query in chunks of 16: a chunk whose arrays cannot be accessed is not begun."""
        done = 0
        while done < nr_pages:
            wanted = min(_STAT_PAGES, nr_pages - done)
            addr = self.user.read(pages + done * _POINTER_BYTES, np.uint64, wanted)
            if len(addr) < wanted:
                addr = addr[: len(addr) // QUERY_CHUNK_PAGES * QUERY_CHUNK_PAGES]
            found = do_pages_stat(space, self.frames, addr, self.semantics)
            written = self.user.write(status + done * _STATUS_BYTES, found)
            if written < wanted:
                return -Errno.EFAULT
            done += wanted
        return 0


@dataclass(frozen=True, slots=True, eq=False)
class _InPlace:
    """The caller's arrays, read and written as the walk of 6.12 goes."""

    call: MovePages
    task_nodes: Set[int]
    nr_pages: int
    pages: int
    nodes: int
    status: int

    def read(self, first: int, count: int) -> tuple[Addresses, Statuses, int]:
        user = self.call.user
        addr = user.read(self.pages + first * _POINTER_BYTES, np.uint64, count)
        node = user.read(self.nodes + first * _STATUS_BYTES, np.int32, count)
        readable = min(len(addr), len(node))
        errno = -Errno.EFAULT if readable < count else 0
        valid, refused = self.call.refused_node(node[:readable], self.task_nodes)
        return addr[:valid], node[:valid], refused or errno

    def store(self, first: int, status: Statuses) -> bool:
        pointer = self.status + first * _STATUS_BYTES
        return self.call.user.write(pointer, status) == len(status)

    def storable(self, first: int, count: int) -> int:
        return self.call.user.writable(self.status + first * _STATUS_BYTES, np.int32, count)

    def may_allocate(self, nodes: Statuses) -> NDArray[np.bool_]:
        caller = self.call.tasks.find(0)
        mems = self.call.tasks.cpuset_mems(caller) if caller is not None else ()
        permitted = np.zeros(MAX_NUMNODES, dtype=np.bool_)
        permitted[list(mems)] = True
        allowed: NDArray[np.bool_] = permitted[nodes]
        return allowed


@dataclass(frozen=True, slots=True, eq=False)
class _ControlArray:
    """The call of 2006: everything goes through one array of struct page_to_node."""

    call: MovePages
    space: AddressSpace
    target: int
    nr_pages: int

    def run(self, pages: int, nodes: int, status: int, *, migrate_all: bool) -> int:
        refused = self._no_array()
        if refused:
            return refused
        addr, node, errno = self._copy_in(pages, nodes)
        if errno:
            return errno
        frames, semantics = self.call.frames, self.call.semantics
        crashes = self.call.crashes
        if node is None:
            if crashes:
                crashes.on_query(self.nr_pages)
            found = do_pages_stat(self.space, frames, addr, semantics)
            return self._copy_out(status, found, 0)
        if crashes:
            for part in parts(len(addr)):
                crashes.on_move(self.space, addr[part])
        pm = PageToNode(addr, node)
        ret = do_move_pages(self.space, frames, pm, semantics, migrate_all=migrate_all)
        return ret if ret < 0 else self._copy_out(status, pm.status, ret)

    def _no_array(self) -> int:
        entry_bytes = CONTROL_ENTRY_BYTES[64]
        if self.nr_pages >= ULONG_MAX // entry_bytes - 1:
            return -Errno.E2BIG
        if (self.nr_pages + 1) * entry_bytes > self.call.vmalloc_limit_bytes:
            return -Errno.ENOMEM
        return 0

    def _copy_in(self, pages: int, nodes: int) -> tuple[Addresses, Statuses | None, int]:
        """Read and check all entries; the first that cannot be read or is refused decides."""
        addr = self.call.user.read(pages, np.uint64, self.nr_pages)
        if not nodes:
            return addr, None, -Errno.EFAULT if len(addr) < self.nr_pages else 0
        node = self.call.user.read(nodes, np.int32, self.nr_pages)
        readable = min(len(addr), len(node))
        allowed = self.call.tasks.cpuset_mems(self.target)
        _, refused = self.call.refused_node(node[:readable], allowed)
        unreadable = -Errno.EFAULT if readable < self.nr_pages else 0
        return addr, node, refused or unreadable

    def _copy_out(self, status: int, values: Statuses, ret: int) -> int:
        """Store every status that can be stored; one that cannot makes it -EFAULT (D18)."""
        written = self.call.user.write(status, values)
        return ret if written == len(values) else -Errno.EFAULT

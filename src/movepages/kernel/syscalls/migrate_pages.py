"""migrate_pages(2): SYSCALL_DEFINE4(migrate_pages), of 2006 and of Linux 6.12."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from movepages.abi import Capability, Errno, MoveFlag
from movepages.kernel.syscalls.node_mask import get_nodes
from movepages.nodeset import NodeSet

if TYPE_CHECKING:
    from typing import Protocol

    from movepages.kernel.ports import TaskTable, UserMemory
    from movepages.kernel.semantics import Semantics

    class DoMigratePages(Protocol):
        """Moves a process's pages between nodes (do_migrate_pages)."""

        def __call__(self, pid: int, old: NodeSet, new: NodeSet, flags: MoveFlag) -> int:
            """Return how many folios did not move, or a negative errno."""
            ...


@dataclass(frozen=True, slots=True, eq=False)
class MigratePages:
    """The call in one kernel; `migrate` does what it is for."""

    user: UserMemory
    tasks: TaskTable
    semantics: Semantics
    page_size_bytes: int
    migrate: DoMigratePages

    def __call__(self, pid: int, maxnode: int, old_nodes: int, new_nodes: int) -> int:
        """migrate_pages(pid, maxnode, old_nodes, new_nodes); pointers are numbers, 0 is NULL.

        Return how many folios did not move, or a negative errno.
        """
        errno, old = get_nodes(self.user, old_nodes, maxnode, self.page_size_bytes)
        if errno:
            return errno
        errno, new = get_nodes(self.user, new_nodes, maxnode, self.page_size_bytes)
        if errno:
            return errno
        target = self.tasks.find(pid)
        if target is None:
            return -Errno.ESRCH
        errno = self._refusal(target, new)
        if errno:
            return errno
        if self.semantics.cuts_to_own_cpuset:
            new = NodeSet(new & self._own_mems())
        nice = self.tasks.has_capability(Capability.SYS_NICE)
        return self.migrate(target, old, new, MoveFlag.MOVE_ALL if nice else MoveFlag.MOVE)

    def _refusal(self, target: int, new: NodeSet) -> int:
        """Return why the caller may not do this, in the order this kernel checks."""
        no_memory = -Errno.EINVAL if self.tasks.address_space(target) is None else 0
        nice = self.tasks.has_capability(Capability.SYS_NICE)
        if self.semantics.checks_memory_before_owner and no_memory:
            return no_memory
        if self.semantics.owner_by_trace:
            allowed = self.tasks.may_trace(target)
        else:
            allowed = nice or self.tasks.shares_owner(target)
        if not allowed:
            return -Errno.EPERM
        if not nice and not new <= self.tasks.cpuset_mems(target):
            return -Errno.EPERM
        if self.semantics.cuts_to_own_cpuset and not new & self._own_mems():
            return -Errno.EINVAL
        if self.semantics.asks_lsm and not self.tasks.lsm_allows(target):
            return -Errno.EPERM
        return no_memory

    def _own_mems(self) -> NodeSet:
        """Return what the caller's own cpuset allows, which cuts the targets since 3.x."""
        caller = self.tasks.find(0)
        return self.tasks.cpuset_mems(caller if caller is not None else 0)

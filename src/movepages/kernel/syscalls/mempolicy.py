"""mbind, set_mempolicy, get_mempolicy, set_mempolicy_home_node: of 2006 and of Linux 6.12.

Arguments are copied in and checked here, in the kernel's own order; what the calls then do is asked
of `Policies`. Pointers are numbers, 0 is NULL; a negative return is an errno.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from movepages.abi import (
    MAX_NUMNODES,
    Capability,
    Errno,
    Mode,
    ModeFlag,
    MoveFlag,
    PolicyQuery,
)
from movepages.abi.limits import ULONG_MAX
from movepages.kernel.mempolicy import MemPolicy, PolicyRequest
from movepages.kernel.syscalls.node_mask import copy_nodes_to_user, get_nodes
from movepages.nodeset import NodeSet

if TYPE_CHECKING:
    from movepages.kernel.ports import TaskTable, UserMemory
    from movepages.kernel.semantics import Semantics

_MODE_FLAGS = int(ModeFlag.STATIC_NODES | ModeFlag.RELATIVE_NODES | ModeFlag.NUMA_BALANCING)
_OWN_NODES = int(ModeFlag.STATIC_NODES | ModeFlag.RELATIVE_NODES)
_BALANCED = frozenset({Mode.BIND, Mode.PREFERRED_MANY})
_BIND_FLAGS = int(MoveFlag.STRICT | MoveFlag.MOVE | MoveFlag.MOVE_ALL)
_NODE, _ADDR = int(PolicyQuery.NODE), int(PolicyQuery.ADDR)
_MEMS_ALLOWED = int(PolicyQuery.MEMS_ALLOWED)
_QUERY_FLAGS = _NODE | _ADDR | _MEMS_ALLOWED
"""As plain numbers: a flag of an enumeration costs a microsecond each time it is looked at."""
_DEFAULT, _NO_NODES = MemPolicy(), NodeSet()


class Policies(Protocol):
    """The caller's memory policies: of its thread, and of the areas of its address space."""

    @property
    def nr_node_ids(self) -> int:
        """One more than the highest node this machine can have."""
        ...

    def task_policy(self) -> MemPolicy | None:
        """Return the thread's policy; None is MPOL_DEFAULT."""
        ...

    def set_task_policy(self, policy: MemPolicy | None) -> None:
        """Set it."""
        ...

    def is_mapped(self, address: int) -> bool:
        """Tell whether an address lies in an area."""
        ...

    def policy_at(self, address: int) -> MemPolicy | None:
        """Return the policy of a mapped address, None if only the thread's holds there."""
        ...

    def node_at(self, address: int) -> int:
        """Return the node of the page at a mapped address, which is faulted in, or an errno."""
        ...

    def next_interleave_node(self) -> int:
        """Return the node that the thread's interleaving comes to next, or -EINVAL."""
        ...

    def bind(
        self, start: int, end: int, policy: MemPolicy | None, nodes: NodeSet, flags: MoveFlag
    ) -> int:
        """Set the policy of a range in bytes, and move or check its pages not on `nodes`."""
        ...

    def set_home_node(self, start: int, end: int, node: int) -> int:
        """Set the home node of the policies of a range in bytes."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class MempolicyCalls:
    """The four calls in one kernel."""

    user: UserMemory
    tasks: TaskTable
    semantics: Semantics
    page_size_bytes: int
    policies: Policies

    def mbind(
        self, start: int, length: int, mode: int, nmask: int, maxnode: int, flags: int
    ) -> int:
        """mbind(start, length, mode, nmask, maxnode, flags): the policy of a range, in bytes."""
        errno, request = self._request(mode, nmask, maxnode, mode_first=self.semantics.mode_flags)
        if errno or request is None:
            return errno
        if flags & ~_BIND_FLAGS:
            return -Errno.EINVAL
        if flags & MoveFlag.MOVE_ALL and not self.tasks.has_capability(Capability.SYS_NICE):
            return -Errno.EPERM
        if request.mode is Mode.DEFAULT:
            flags &= ~MoveFlag.STRICT
        errno, end = self._range_end(start, length)
        if errno or end == start:
            return errno
        if self.semantics.contextualizes_first:
            inside = NodeSet(request.nodes & self._mems())
            request = PolicyRequest(request.mode, request.flags, inside)
        errno, policy = self._policy(request)
        if errno:
            return errno
        return self.policies.bind(start, end, policy, request.nodes, MoveFlag(flags))

    def set_mempolicy(self, mode: int, nmask: int, maxnode: int) -> int:
        """set_mempolicy(mode, nmask, maxnode): the policy of the calling thread."""
        errno, request = self._request(mode, nmask, maxnode, mode_first=True)
        if errno or request is None:
            return errno
        if self.semantics.contextualizes_first and not request.nodes <= self._mems():
            return -Errno.EINVAL
        errno, policy = self._policy(request)
        if not errno:
            self.policies.set_task_policy(policy)
        return errno

    def get_mempolicy(self, mode: int, nmask: int, maxnode: int, address: int, flags: int) -> int:
        """get_mempolicy(mode, nmask, maxnode, address, flags): write mode (or node) and nodes."""
        ids = MAX_NUMNODES if self.semantics.wants_whole_nodemask else self.policies.nr_node_ids
        if nmask and maxnode < ids:
            return -Errno.EINVAL
        errno, value, nodes = self._retrieve(address, flags)
        if errno:
            return errno
        if mode and not self._put_user(mode, value):
            return -Errno.EFAULT
        if not nmask:
            return 0
        return copy_nodes_to_user(self.user, nmask, maxnode, nodes, ids, self.page_size_bytes)

    def set_mempolicy_home_node(self, start: int, length: int, node: int, flags: int) -> int:
        """set_mempolicy_home_node(start, length, node, flags): where BIND begins to look."""
        if start % self.page_size_bytes or flags or node not in self.tasks.online():
            return -Errno.EINVAL
        errno, end = self._range_end(start, length)
        if errno or end == start:
            return errno
        return self.policies.set_home_node(start, end, node)

    # -- checks -------------------------------------------------------------------------------

    def _request(
        self, mode: int, nmask: int, maxnode: int, *, mode_first: bool
    ) -> tuple[int, PolicyRequest | None]:
        """Read what policy is asked for; 2006 reads the nodes of mbind before it sees the mode."""
        refused, flags = self._mode_flags(mode)
        if refused and mode_first:
            return refused, None
        errno, nodes = get_nodes(self.user, nmask, maxnode, self.page_size_bytes)
        if errno or refused:
            return errno or refused, None
        return 0, PolicyRequest(Mode(mode & ~int(flags)), flags, nodes)

    def _mode_flags(self, mode: int) -> tuple[int, ModeFlag]:
        """Return an errno or 0, and the flags in a mode (sanitize_mpol_flags)."""
        flags = mode & _MODE_FLAGS if self.semantics.mode_flags else 0
        bare = mode & ~flags
        fits = bare in self.semantics.modes and flags & _OWN_NODES != _OWN_NODES
        if flags & ModeFlag.NUMA_BALANCING:
            fits &= bare in _BALANCED
        return 0 if fits else -Errno.EINVAL, ModeFlag(flags)

    def _range_end(self, start: int, length: int) -> tuple[int, int]:
        """Return an errno or 0, and the end of a range; lengths are rounded up to pages."""
        size = self.page_size_bytes
        if start % size:
            return -Errno.EINVAL, start
        end = (start + -(-length // size) * size) & ULONG_MAX
        return -Errno.EINVAL if end < start else 0, end

    def _policy(self, request: PolicyRequest) -> tuple[int, MemPolicy | None]:
        errno = request.refusal()
        if errno:
            return errno, None
        needs_memory = self.semantics.target_needs_memory
        usable = self.tasks.with_memory() if needs_memory else self.tasks.online()
        return request.contextualize(self._mems(), usable, self.semantics)

    def _put_user(self, pointer: int, value: int) -> bool:
        """Write an int whole or not at all: only one that is not aligned could be cut."""
        data = np.array([value], dtype=np.int32)
        if pointer % data.itemsize and not self.user.writable(pointer, data.dtype, 1):
            return False
        return self.user.write(pointer, data) == 1

    def _mems(self) -> NodeSet:
        caller = self.tasks.find(0)
        return self.tasks.cpuset_mems(caller if caller is not None else 0)

    # -- get_mempolicy ------------------------------------------------------------------------

    def _retrieve(self, address: int, flags: int) -> tuple[int, int, NodeSet]:
        """Return an errno or 0, the mode or node, and the nodes asked for (do_get_mempolicy)."""
        known = _QUERY_FLAGS
        if not self.semantics.mems_allowed_query:
            known &= ~_MEMS_ALLOWED
        at_address = bool(flags & _ADDR)
        if flags & ~known:
            return -Errno.EINVAL, 0, _NO_NODES
        if flags & _MEMS_ALLOWED:
            alone = flags == _MEMS_ALLOWED
            return (0, 0, self._mems()) if alone else (-Errno.EINVAL, 0, _NO_NODES)
        if at_address and not self.policies.is_mapped(address):
            return -Errno.EFAULT, 0, _NO_NODES
        if address and not at_address:
            return -Errno.EINVAL, 0, _NO_NODES
        found = self.policies.policy_at(address) if at_address else self.policies.task_policy()
        policy = found or _DEFAULT
        value = policy.mode | policy.flags
        if flags & _NODE:
            ask = self.policies
            value = ask.node_at(address) if at_address else ask.next_interleave_node()
        return min(value, 0), value, policy.shown_nodes

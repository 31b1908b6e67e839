"""The memory policies of a simulated task: what the policy calls do once they are checked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from movepages.abi import Errno
from movepages.errors import ArgumentError
from movepages.kernel import areas
from movepages.kernel.faults import OutOfMemoryError
from movepages.kernel.mempolicy import (
    HOME_MODES,
    Surroundings,
    next_interleave_node,
    set_task_policy,
    set_vma_policy,
    vma_policy,
)
from movepages.kernel.migrate_nodes import Binding, do_mbind, do_migrate_pages
from movepages.kernel.task_table import SimulatedAddressSpace
from movepages.nodeset import NodeSet

if TYPE_CHECKING:
    from movepages.abi import MoveFlag
    from movepages.kernel.address_space import Mm, Vma
    from movepages.kernel.machine import SimulatedMachine
    from movepages.kernel.mempolicy import MemPolicy
    from movepages.kernel.tasks import TaskStruct


@dataclass(frozen=True, slots=True, eq=False)
class SimulatedPolicies:
    """The policies of a task, which makes the calls itself (the port `Policies`)."""

    machine: SimulatedMachine
    task: TaskStruct

    @property
    def nr_node_ids(self) -> int:
        """One more than the highest node this machine can have."""
        return max(self.machine.declared.possible | self.machine.declared.online) + 1

    def task_policy(self) -> MemPolicy | None:
        """Return the task's own policy; None is MPOL_DEFAULT."""
        return self.task.policy

    def set_task_policy(self, policy: MemPolicy | None) -> None:
        """Set it; interleaving begins anew."""
        set_task_policy(self.task, policy)

    def is_mapped(self, address: int) -> bool:
        """Tell whether an address lies in an area."""
        return self._find(address) is not None

    def policy_at(self, address: int) -> MemPolicy | None:
        """Return the policy of a mapped address, None if only the task's holds there."""
        vma = self._find(address)
        assert vma is not None  # noqa: S101 - asked before
        return vma_policy(self.machine, vma, address >> self.machine.page_shift)[0]

    def node_at(self, address: int) -> int:
        """Return the node of the page at a mapped address, which is faulted in, or an errno.

        What nobody has touched becomes the zero page (get_user_pages).
        """
        vma = self._find(address)
        assert vma is not None  # noqa: S101 - asked before
        page = address >> self.machine.page_shift
        try:
            self.machine.faults.touch(self.task, vma, np.array([page]), write=False)
        except OutOfMemoryError:
            return -Errno.ENOMEM
        except ArgumentError:  # no right to read it, or nothing behind it
            return -Errno.EFAULT
        frame = self.machine.memory.tables.entry[vma.slot + page - vma.start]
        return int(self.machine.memory.frames.node[frame])

    def next_interleave_node(self) -> int:
        """Return the node that the task's interleaving comes to next, or -EINVAL."""
        return next_interleave_node(self.task)

    def bind(
        self, start: int, end: int, policy: MemPolicy | None, nodes: NodeSet, flags: MoveFlag
    ) -> int:
        """Set the policy of a range in bytes, and move or check its pages not on `nodes`.

        The policy stays set if pages could not be moved. -EFAULT for a hole, -EIO (do_mbind).
        """
        machine, mm = self.machine, self._mm
        span = start >> machine.page_shift, end >> machine.page_shift

        def set_policy() -> int:
            return self._set_vma_policies(span, policy)

        binding = Binding(policy, nodes, flags, self.task.policy)
        at = Surroundings.of(machine, self.task)
        space = SimulatedAddressSpace(mm, machine.memory)
        return do_mbind(machine.memory, space, span, binding, at, set_policy)

    def set_home_node(self, start: int, end: int, node: int) -> int:
        """Set the home node of the policies of a range in bytes.

        -ENOENT if there is none, -EOPNOTSUPP at one that has no home; those before keep theirs.
        """
        shift, errno = self.machine.page_shift, -Errno.ENOENT
        first, last = start >> shift, end >> shift
        for vma in list(self._mm.overlapping(first, last)):
            policy = vma.policy
            if policy is None:
                continue
            if policy.mode not in HOME_MODES:
                return -Errno.EOPNOTSUPP
            span = max(first, vma.start), min(last, vma.end)
            errno = self._set_vma_policies(span, replace(policy, home_node=node))
            if errno:
                return errno
        return errno

    def migrate(self, pid: int, old: NodeSet, new: NodeSet, flags: MoveFlag) -> int:
        """Move another task's pages between nodes, on the caller's account (do_migrate_pages)."""
        mm = self.machine.task_structs[pid].mm
        assert mm is not None  # noqa: S101 - checked by the call
        at = Surroundings.of(self.machine, self.task)
        if not at.semantics.crashes:
            new = NodeSet(new & self.machine.hotplug.valid_targets())
        space = SimulatedAddressSpace(mm, self.machine.memory)
        return do_migrate_pages(self.machine.memory, space, old, new, flags, at)

    def _set_vma_policies(self, span: tuple[int, int], policy: MemPolicy | None) -> int:
        """Give the areas of a span of pages a policy (mbind_range); return an errno or 0."""

        def change(vma: Vma) -> None:
            set_vma_policy(self.machine, vma, policy)

        try:
            areas.modify_range(
                self.machine.faults, self._mm, *span, lambda vma: vma.policy != policy, change
            )
        except ArgumentError:  # a hugetlb page cannot have two policies
            return -Errno.EINVAL
        return 0

    @property
    def _mm(self) -> Mm:
        mm = self.task.mm
        assert mm is not None  # noqa: S101 - whoever makes a call has memory
        return mm

    def _find(self, address: int) -> Vma | None:
        page = address >> self.machine.page_shift
        return next(self._mm.overlapping(page, page + 1), None)

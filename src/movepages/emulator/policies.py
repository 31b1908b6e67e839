"""The memory policies of a live task: the port `Policies`, over the pages that it really has."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from movepages.abi import Errno
from movepages.emulator.address_space import LiveAddressSpace
from movepages.kernel.mempolicy import HOME_MODES, next_interleave_node, set_task_policy
from movepages.kernel.migrate_nodes import Binding, do_mbind, do_migrate_pages
from movepages.nodeset import NodeSet

if TYPE_CHECKING:
    from movepages.abi import MoveFlag
    from movepages.emulator.live_area import LiveArea
    from movepages.emulator.machine import EmulatedMachine
    from movepages.emulator.objects import PageObject
    from movepages.emulator.processes import LiveTask
    from movepages.kernel.mempolicy import MemPolicy


@dataclass(frozen=True, slots=True, eq=False)
class LivePolicies:
    """The policies of a task that makes the calls itself."""

    machine: EmulatedMachine
    task: LiveTask

    @property
    def nr_node_ids(self) -> int:
        """One more than the highest node this machine can have."""
        return self.machine.nr_node_ids

    def task_policy(self) -> MemPolicy | None:
        """Return the thread's own policy; None is MPOL_DEFAULT."""
        return self.task.policy

    def set_task_policy(self, policy: MemPolicy | None) -> None:
        """Set it, once all is placed that the one before has decided."""
        self.machine.before_policy_change(self.task)
        set_task_policy(self.task, policy)

    def is_mapped(self, address: int) -> bool:
        """Tell whether an address lies in an area."""
        return self._space().area_at(self._page(address)) is not None

    def policy_at(self, address: int) -> MemPolicy | None:
        """Return the policy of a mapped address, None if only the thread's holds there."""
        page = self._page(address)
        area = self._space().area_at(page)
        assert area is not None  # noqa: S101 - asked before
        thing, number = self._policed(area, page)
        return thing.policies.at(number, number + 1)[0]

    def node_at(self, address: int) -> int:
        """Return the node of the page at a mapped address, which is faulted in, or an errno."""
        space = self._space()
        if not space.fault_in(address):
            return -Errno.EFAULT
        where = np.array([address], dtype=np.uint64)
        folio = space.follow_page(space.find_vma(where), where)
        if folio[0] < 0:
            return -Errno.EFAULT
        return int(self.machine.frames.node(folio)[0])

    def next_interleave_node(self) -> int:
        """Return the node that the task's interleaving comes to next, or -EINVAL."""
        return next_interleave_node(self.task)

    def bind(
        self, start: int, end: int, policy: MemPolicy | None, nodes: NodeSet, flags: MoveFlag
    ) -> int:
        """Set the policy of a range in bytes, and move or check its pages not on `nodes`."""
        space = self._space()
        span = self._page(start), self._page(end)
        self.machine.before_map_change(space, *span)

        def set_policy() -> int:
            for area in space.areas(*span):
                first, last = max(span[0], area.start), min(span[1], area.end)
                errno = self._set_policy(area, first, last, policy)
                if errno:
                    return errno
            return 0

        binding = Binding(policy, nodes, flags, self.task.policy)
        at = self.machine.surroundings(self.task)
        return do_mbind(self.machine.frames, space, span, binding, at, set_policy)

    def set_home_node(self, start: int, end: int, node: int) -> int:
        """Set the home node of the policies of a range in bytes.

        -ENOENT if there is none, -EOPNOTSUPP at one that has no home; those before keep theirs.
        What counts is what the areas have, also where a file in memory has another policy since.
        """
        space, errno = self._space(), -Errno.ENOENT
        span = self._page(start), self._page(end)
        self.machine.before_map_change(space, *span)
        for area in space.areas(*span):
            first, last = max(span[0], area.start), min(span[1], area.end)
            for at, until, policy in space.mm.anonymous.policies.within(first, last):
                if policy.mode not in HOME_MODES:
                    return -Errno.EOPNOTSUPP
                errno = self._set_policy(area, at, until, replace(policy, home_node=node))
                if errno:
                    return errno
        return errno

    def migrate(self, pid: int, old: NodeSet, new: NodeSet, flags: MoveFlag) -> int:
        """Move another task's pages between nodes, on the caller's account."""
        target = self.machine.processes.task(pid)
        if target.mm is None:
            return -Errno.EINVAL
        self.machine.processes.materialise(target)
        space = LiveAddressSpace.of(self.machine, target, target.mm)
        at = self.machine.surroundings(self.task)
        new = NodeSet(new & self.machine.with_memory)
        return do_migrate_pages(self.machine.frames, space, old, new, flags, at)

    def _set_policy(self, area: LiveArea, start: int, end: int, policy: MemPolicy | None) -> int:
        """Set the policy of a part of an area, and of the file in memory there (mbind_range).

        Where the area has that policy already, the file keeps the one that it has got elsewhere.
        -EINVAL for a part of an area that cannot be split.
        """
        mm = self.task.mm
        assert mm is not None  # noqa: S101 - whoever makes a call has memory
        thing, number = self._policed(area, start)
        page = start
        while thing is not mm.anonymous and page < end:
            known, until = mm.anonymous.policies.at(page, end)
            if known != policy:
                at = number + page - start
                thing.policies.set(at, at + until - page, policy)
            page = until
        split = (start, end) != (area.start, area.end)
        if area.special and split and mm.anonymous.policies.at(start, end) != (policy, end):
            return -Errno.EINVAL
        mm.anonymous.policies.set(start, end, policy)
        return 0

    def _policed(self, area: LiveArea, page: int) -> tuple[PageObject, int]:
        mm = self.task.mm
        assert mm is not None  # noqa: S101 - whoever makes a call has memory
        return self.machine.policed(mm, area, page)

    def _space(self) -> LiveAddressSpace:
        mm = self.task.mm
        assert mm is not None  # noqa: S101 - whoever makes a call has memory
        return LiveAddressSpace.of(self.machine, self.task, mm)

    def _page(self, address: int) -> int:
        return address >> self.machine.page_shift

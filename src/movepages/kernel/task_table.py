"""The processes of a machine, as one of them sees them: the model's `TaskTable` port."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from movepages.abi import Capability
from movepages.kernel.frames import PageFlag
from movepages.kernel.page_tables import PteFlag
from movepages.kernel.tasks import may_trace, shares_owner
from movepages.nodeset import NodeSet

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from movepages.kernel.address_space import Mm, Vma
    from movepages.kernel.memory import Memory
    from movepages.kernel.tasks import TaskStruct

    Addresses = NDArray[np.uint64]
    Handles = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class SimulatedAddressSpace:
    """An address space behind the `AddressSpace` port; pages are named by the folio's head."""

    mm: Mm
    memory: Memory

    def find_vma(self, addresses: Addresses) -> Handles:
        """Return the first area that ends above each address, or NONE."""
        return self.mm.find_vma(addresses)

    def contains(self, areas: Handles, addresses: Addresses) -> NDArray[np.bool_]:
        """Tell which areas contain their address."""
        return self.mm.contains(areas, addresses)

    def migratable(self, areas: Handles) -> NDArray[np.bool_]:
        """Tell which areas have pages that may be migrated."""
        return self.mm.migratable(areas)

    def follow_page(self, areas: Handles, addresses: Addresses) -> Handles:
        """Return the folio at each address, or NONE."""
        pages = self.mm.follow_page(areas, addresses)
        return self.memory.frames.heads_of_present(pages)

    def areas(self, start: int, end: int) -> list[Vma]:
        """Return the areas that have a page in a range of pages."""
        return list(self.mm.overlapping(start, end))

    def has_area_from(self, page: int) -> bool:
        """Tell whether an area ends above a page."""
        return bool(self.mm.areas) and self.mm.areas[-1].end > page

    def folios(self, start: int, end: int) -> Handles:
        """Return the folios that a range of pages of one area maps, THPs once."""
        frames, tables = self.memory.frames, self.memory.tables
        vma = next(self.mm.overlapping(start, end))
        slots = slice(start - vma.start + vma.slot, end - vma.start + vma.slot)
        entries = tables.entry[slots].astype(np.int64)
        mapped = np.flatnonzero(entries >= 0)
        mapped = mapped[~frames.has(entries[mapped], PageFlag.RESERVED)]
        heads = frames.head(entries[mapped])
        huge = (tables.flags[slots][mapped] & np.uint8(PteFlag.HUGE)) != 0
        if not huge.any():
            return heads
        begins = np.ones(len(heads), dtype=np.bool_)
        begins[1:] = heads[1:] != heads[:-1]
        chosen: Handles = heads[~huge | begins]
        return chosen


@dataclass(frozen=True, slots=True, eq=False)
class SimulatedTaskTable:
    """The tasks of a machine, seen by `caller`."""

    caller: TaskStruct
    tasks: Mapping[int, TaskStruct]
    memory: Memory
    lsm: Callable[[TaskStruct, TaskStruct], bool]

    def find(self, pid: int) -> int | None:
        """Return the pid of the task that a pid or thread id names; 0 is the caller."""
        if pid == 0:
            return self.caller.pid
        return pid if pid in self.tasks else None

    def address_space(self, pid: int) -> SimulatedAddressSpace | None:
        """Return a task's memory, or None for a kernel thread or a zombie."""
        mm = self.tasks[pid].mm
        return None if mm is None else SimulatedAddressSpace(mm, self.memory)

    def has_capability(self, capability: int) -> bool:
        """Tell whether the caller has a capability."""
        return Capability(capability) in self.caller.credentials.capabilities

    def shares_owner(self, pid: int) -> bool:
        """Tell whether the target belongs to the caller's user, by the rule of 2006."""
        return shares_owner(self.caller, self.tasks[pid])

    def may_trace(self, pid: int) -> bool:
        """Tell whether the caller may look at the target, by today's rule."""
        return may_trace(self.caller, self.tasks[pid])

    def lsm_allows(self, pid: int) -> bool:
        """Tell what the security module says."""
        return self.lsm(self.caller, self.tasks[pid])

    def cpuset_mems(self, pid: int) -> NodeSet:
        """Return the nodes that a task's cpuset allows; the caller's even when it is gone."""
        task = self.caller if pid == self.caller.pid else self.tasks[pid]
        return task.cpuset.mems

    def online(self) -> NodeSet:
        """Return the nodes that are online."""
        return NodeSet(node.id for node in self.memory.frames.nodes.values() if node.online)

    def with_memory(self) -> NodeSet:
        """Return the nodes that have memory."""
        nodes = self.memory.frames.nodes.values()
        return NodeSet(node.id for node in nodes if node.online and node.has_memory)

"""Memory and nodes that come and go while the machine runs (mm/memory_hotplug.c).

Before a node's memory goes offline, what is on it moves to the nearest nodes that have room. What
cannot move (pinned pages, pages that someone else has isolated, the kernel's own) stays, and then
the memory stays too, as with -EBUSY in the kernel. A node without memory is online still, unless it
is removed: today's kernel takes it for no target, that of 2006 does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from movepages.errors import ArgumentError
from movepages.kernel.frames import PageFlag
from movepages.kernel.migrate import migrate_pages
from movepages.kernel.ports import NONE
from movepages.nodeset import NodeSet

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from movepages.kernel.machine import SimulatedMachine
    from movepages.kernel.nodes import NodeMemory

    Handles = NDArray[np.int64]


class Hotplug:
    """The state of a machine's nodes, and how it changes."""

    def __init__(self, machine: SimulatedMachine) -> None:
        """Begin with all declared nodes in the machine."""
        self._machine = machine

    def valid_targets(self) -> NodeSet:
        """Return the nodes that pages may be moved to, as this kernel sees it (D23)."""
        needs_memory = self._machine.semantics.target_needs_memory
        nodes = self._machine.memory.frames.nodes.values()
        return NodeSet(n.id for n in nodes if n.online and (n.has_memory or not needs_memory))

    def cpus(self) -> frozenset[int]:
        """Return the CPUs of the online nodes."""
        nodes = self._machine.memory.frames.nodes
        return frozenset(
            cpu for n in self._machine.declared if nodes[n.id].online for cpu in n.cpus
        )

    def offline(self, node_id: int) -> int:
        """Take a node's memory offline; return how many frames stayed in use, 0 if it is off.

        Pages that could move have moved even so. Raises ArgumentError.
        """
        node = self._node(node_id)
        if not node.has_memory:
            raise ArgumentError(f"node {node_id} has no memory that could go offline")
        node.has_memory = False  # nothing more is allocated there
        with self._machine.memory.undisturbed():
            self._evacuate(node)
        left = node.pages - node.free_pages
        if left:
            node.has_memory = True
            return left
        self._update_root_cpuset()
        return 0

    def online(self, node_id: int) -> None:
        """Bring a node's memory online again, all free. Raises ArgumentError."""
        node = self._node(node_id)
        if node.has_memory or not node.pages or not node.online:
            raise ArgumentError(f"node {node_id} has no memory that could come online")
        node.has_memory = True
        self._update_root_cpuset()

    def remove(self, node_id: int) -> None:
        """Take a node and its CPUs out of the machine. Raises ArgumentError if it is in use."""
        node = self._node(node_id)
        if node.has_memory or not node.online:
            raise ArgumentError(f"node {node_id} cannot be removed: take its memory offline first")
        cpus = self._machine.declared.node(node_id).cpus
        for task in self._machine.task_structs.values():
            if task.cpu in cpus:
                raise ArgumentError(f"node {node_id} cannot be removed: task {task.pid} runs on it")
        node.online = False
        self._update_root_cpuset()

    def add(self, node_id: int) -> None:
        """Put a node back that was removed; its memory is not online yet. Raises ArgumentError."""
        node = self._node(node_id)
        if node.online:
            raise ArgumentError(f"node {node_id} is in the machine")
        node.online = True
        self._update_root_cpuset()

    def _node(self, node_id: int) -> NodeMemory:
        nodes = self._machine.memory.frames.nodes
        if node_id not in nodes:
            raise ArgumentError(f"there is no node {node_id}; the machine has {sorted(nodes)}")
        return nodes[node_id]

    def _update_root_cpuset(self) -> None:
        """Let the root cpuset allow what may be a target, as the kernel keeps it."""
        self._machine.root_cpuset.mems = self.valid_targets()

    def _evacuate(self, node: NodeMemory) -> None:
        """Move all pages off a node that can move; free hugetlb pages there are dissolved."""
        memory = self._machine.memory
        memory.pools.dissolve_free(node.id)
        memory.lru.drain_all()
        there = np.arange(node.first, node.end)
        folios = there[memory.frames.has(there, PageFlag.LRU)]
        isolated = folios[memory.isolate(folios)]
        nowhere = np.empty(0, dtype=np.int32)
        migrate_pages(
            memory, isolated, self._new_page_elsewhere, node, nowhere, stop_without_memory=False
        )
        memory.pools.dissolve_free(node.id)

    def _new_page_elsewhere(self, old: Handles, private: object) -> tuple[Handles, Handles]:
        """Allocate on the nearest nodes with room: a new_page_t (alloc_migration_target)."""
        memory = self._machine.memory
        node: NodeMemory = private  # type: ignore[assignment]  # `private` is void * in C
        new = np.full(len(old), NONE, dtype=np.int64)
        for target in memory.frames.zonelists[node.id]:
            missing = np.flatnonzero(new == NONE)
            if not len(missing):
                break
            if memory.frames.nodes[target].has_memory:
                to = np.full(len(missing), target, dtype=np.int32)
                new[missing] = memory.allocate(old[missing], to, exact=True)
        return new, np.full(len(old), NONE, dtype=np.int64)

"""Where pages go when the node that they were to go to is full: to the nearest one with room."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    from movepages.machine import Machine
    from movepages.topology import Topology
    from movepages.values import TaskId


class Spill:
    """Chooses nodes by their distance from the full one, among those that the process may use."""

    def __init__(self, machine: Machine, task: TaskId) -> None:
        """Ask nothing yet: most plans find room."""
        self._machine = machine
        self._task = task
        self._topology: Topology | None = None

    def next_node(self, full: int, without: Collection[int], size_bytes: int) -> int | None:
        """Return the nearest node that has this much free memory; of equals the lowest number.

        None if there is none. Raises CallError where the process has ended.
        """
        topology = self._topology = self._topology or self._machine.topology()
        allowed = self._machine.task(self._task.pid).mems_allowed & topology.with_memory
        free = self._machine.free_bytes()
        distances = topology.node(full).distances if full in topology.online else {}
        near = sorted(allowed, key=lambda node: (distances.get(node, 255), node))
        for node in near:
            if node != full and node not in without and free.get(node, 0) >= size_bytes:
                return node
        return None

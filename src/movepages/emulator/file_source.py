"""What faked files say, from what the emulator knows: the source behind `files.Files`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from movepages.emulator.address_space import LiveAddressSpace
from movepages.emulator.namespaces import host_pid
from movepages.emulator.procfs import NodePool, edit_numa_maps
from movepages.kernel.mempolicy import mpol_to_str

if TYPE_CHECKING:
    from pathlib import Path

    from movepages.emulator.machine import EmulatedMachine
    from movepages.emulator.mm import Mm
    from movepages.emulator.processes import LiveTask
    from movepages.nodeset import NodeSet


@dataclass(frozen=True, slots=True, eq=False)
class LiveFileSource:
    """Asks the emulated machine."""

    machine: EmulatedMachine

    def pid_of(self, tid: int, number: int) -> int | None:
        """Return whom a task means by a number; None for nobody."""
        return host_pid(self.machine.processes.proc, tid, number)

    def mems_allowed(self, tid: int) -> NodeSet:
        """Return the nodes that a task may have memory on."""
        del tid
        return self.machine.topology.with_memory

    def used_pages(self, node: int) -> int:
        """Return how many pages of a node are in use by programs."""
        return int((self.machine.capacity.used - self.machine.pools.held())[node])

    def pool(self, node: int) -> NodePool:
        """Return what has become of a node's pool of huge pages."""
        machine = self.machine
        machine.attributes.take_written()
        machine.count_huge_pages()
        grown_pages = int(machine.pools.grown()[node])
        for size in machine.pools:
            total, surplus = int(size.total[node]), int(size.surplus[node])
            return NodePool(total, size.free(node), surplus, grown_pages)
        return NodePool(0, 0, 0, grown_pages)

    def attribute(self, name: str) -> bytes | None:
        """Return what an attribute says now, by its path."""
        return self.machine.attributes.text(name)

    def open_to_write(self, name: str, file: Path) -> None:
        """Place all that has been touched, before a setting of the machine changes."""
        self.machine.attributes.open_to_write(name, file)

    def numa_maps(self, tid: int, text: bytes) -> bytes:
        """Return the numa_maps of a task, made of the real one."""
        task = self.machine.processes.task(tid)
        if task.mm is None:
            return text
        described = _Described(self.machine, task, task.mm)
        return edit_numa_maps(text, described.policy_at, described.pages_at)


@dataclass(frozen=True, slots=True, eq=False)
class _Described:
    """The mappings of a process as numa_maps describes them, by their start."""

    machine: EmulatedMachine
    task: LiveTask
    mm: Mm

    def policy_at(self, address: int) -> str:
        """Return the policy of a mapping, or of the task where it has none."""
        page = address >> self.machine.page_shift
        space = LiveAddressSpace.of(self.machine, self.task, self.mm)
        area = space.area_at(page)
        if area is None:
            return mpol_to_str(self.task.policy)
        thing, number = self.machine.policed(self.mm, area, page)
        return mpol_to_str(thing.policies.at(number, number + 1)[0] or self.task.policy)

    def pages_at(self, address: int) -> dict[int, int]:
        """Count the pages of a mapping by node, huge ones of hugetlbfs as one each."""
        page = address >> self.machine.page_shift
        space = LiveAddressSpace.of(self.machine, self.task, self.mm)
        area = space.area_at(page)
        if area is None:
            return {}
        pages = (space.folios if area.order else space.page_handles)(area.start, area.end)
        counts = np.bincount(self.machine.frames.node(pages))
        return {node: int(count) for node, count in enumerate(counts.tolist()) if count}

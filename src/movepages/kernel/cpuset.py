"""Cpusets: what happens when their mems are written, or a task joins one (kernel/cgroup/cpuset.c).

Policies follow the new nodes. Pages follow in a cpuset that migrates: on cgroup v2 every one does,
in 2006 those with memory_migrate set. Pages that cannot move stay, and nobody is told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from movepages.abi import MoveFlag
from movepages.errors import ArgumentError
from movepages.kernel.mempolicy import Surroundings, rebind
from movepages.kernel.migrate_nodes import do_migrate_pages
from movepages.kernel.task_table import SimulatedAddressSpace
from movepages.kernel.tasks import Cpuset
from movepages.nodeset import NodeSet

if TYPE_CHECKING:
    from collections.abc import Iterable

    from movepages.kernel.address_space import Mm
    from movepages.kernel.machine import SimulatedMachine
    from movepages.kernel.tasks import TaskStruct


def new_cpuset(
    machine: SimulatedMachine, mems: Iterable[int], *, memory_migrate: bool | None
) -> Cpuset:
    """Make a cpuset; whether it migrates is this kernel's to say unless `memory_migrate` does."""
    migrates = machine.semantics.cpusets_migrate if memory_migrate is None else memory_migrate
    return Cpuset(_usable(machine, mems), migrates)


def set_mems(machine: SimulatedMachine, cpuset: Cpuset, mems: Iterable[int]) -> None:
    """Write a cpuset's mems: rebind its tasks' policies, and migrate their pages if it migrates."""
    old, cpuset.mems = cpuset.mems, _usable(machine, mems)
    members = [task for task in machine.task_structs.values() if task.cpuset is cpuset]
    for task in members:
        task.policy = rebind(task.policy, cpuset.mems, machine.semantics)
    for task in _by_memory(members):
        _follow(machine, task, old, migrates=cpuset.migrates)


def attach(machine: SimulatedMachine, task: TaskStruct, cpuset: Cpuset) -> None:
    """Put a task into a cpuset, its policies and, if that migrates, its pages (cpuset_attach).

    The memory of a process follows its first thread.
    """
    old, task.cpuset = task.cpuset.mems, cpuset
    task.policy = rebind(task.policy, cpuset.mems, machine.semantics)
    if task.pid == task.tgid:
        _follow(machine, task, old, migrates=cpuset.migrates)


def _follow(machine: SimulatedMachine, task: TaskStruct, old: NodeSet, *, migrates: bool) -> None:
    """Let a task's areas and pages follow its cpuset, which now is its own (cpuset_migrate_mm)."""
    mm = task.mm
    if mm is None:
        return
    _rebind_areas(machine, mm, task.cpuset.mems)
    if migrates:
        at = Surroundings.of(machine, task)
        space = SimulatedAddressSpace(mm, machine.memory)
        do_migrate_pages(machine.memory, space, old, at.mems_allowed, MoveFlag.MOVE_ALL, at)


def _rebind_areas(machine: SimulatedMachine, mm: Mm, mems: NodeSet) -> None:
    """Rebind the policies of areas; those of shared memory stay as they are (mpol_rebind_mm)."""
    for vma in mm.areas:
        vma.policy = rebind(vma.policy, mems, machine.semantics)


def _by_memory(tasks: list[TaskStruct]) -> list[TaskStruct]:
    """Return one task for each address space."""
    return list({task.mm: task for task in reversed(tasks) if task.mm is not None}.values())


def _usable(machine: SimulatedMachine, mems: Iterable[int]) -> NodeSet:
    wanted = NodeSet(mems)
    known = machine.hotplug.valid_targets()
    if not wanted or not wanted <= known:
        raise ArgumentError(f"a cpuset needs nodes with memory ({known}), not {wanted or 'none'}")
    return wanted

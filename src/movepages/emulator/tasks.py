"""The tasks of the program, as the one that makes a call sees them: the `TaskTable` port."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from movepages.abi import Capability
from movepages.emulator.address_space import LiveAddressSpace
from movepages.emulator.namespaces import host_pid
from movepages.linux.status import read_status

if TYPE_CHECKING:
    from movepages.emulator.machine import EmulatedMachine
    from movepages.emulator.processes import LiveTask
    from movepages.linux.status import Status
    from movepages.nodeset import NodeSet


@dataclass(frozen=True, slots=True, eq=False)
class LiveTaskTable:
    """All tasks of the host, seen by `caller`; rights are those that the host knows of."""

    machine: EmulatedMachine
    caller: LiveTask

    def find(self, pid: int) -> int | None:
        """Return the thread id that names a task, or None."""
        if pid == 0:
            return self.caller.tid
        named = host_pid(self.machine.processes.proc, self.caller.tid, pid) if pid > 0 else None
        try:
            return self.machine.processes.task(named).tid if named else None
        except ProcessLookupError:
            return None

    def address_space(self, pid: int) -> LiveAddressSpace | None:
        """Return a task's memory, or None for a kernel thread or a zombie."""
        task = self._task(pid)
        return None if task.mm is None else LiveAddressSpace.of(self.machine, task, task.mm)

    def has_capability(self, capability: int) -> bool:
        """Tell whether the caller has a capability."""
        return _has(read_status(self.caller.tid), capability)

    def shares_owner(self, pid: int) -> bool:
        """Tell whether the target belongs to the caller's user, by the rule of 2006."""
        own, other = read_status(self.caller.tid).uids, read_status(pid).uids
        return not {own[0], own[1]}.isdisjoint({other[0], other[2]})

    def may_trace(self, pid: int) -> bool:
        """Tell whether the caller may look at the target, by today's rule."""
        target = self._task(pid)
        if target.tgid == self.caller.tgid:
            return True
        if not self._shows_itself(pid):
            return False
        own = read_status(self.caller.tid)
        if _has(own, Capability.SYS_PTRACE):
            return True
        other = read_status(pid)
        same_user = {own.uids[0]} == set(other.uids[:3])
        covers = not other.cap_eff & ~own.cap_eff
        return same_user and covers and (target.mm is None or self._is_dumpable(pid, other))

    def lsm_allows(self, pid: int) -> bool:
        """No security module is asked: the host's has no say in what is only emulated."""
        del pid
        return True

    def cpuset_mems(self, pid: int) -> NodeSet:
        """Return the nodes that a task may use: all, for cpusets are the host's."""
        del pid
        return self.machine.with_memory

    def online(self) -> NodeSet:
        """Return the nodes that are online."""
        return self.machine.online

    def with_memory(self) -> NodeSet:
        """Return the nodes that have memory."""
        return self.machine.with_memory

    def _task(self, pid: int) -> LiveTask:
        return self.caller if pid == self.caller.tid else self.machine.processes.task(pid)

    def _shows_itself(self, pid: int) -> bool:
        """What a security module of the host hides from the supervisor, nobody may look at."""
        try:
            (self.machine.processes.proc / str(pid) / "ns/user").readlink()
        except PermissionError:
            return False
        except (FileNotFoundError, ProcessLookupError):  # it is about to be gone
            return True
        return True

    def _is_dumpable(self, pid: int, status: Status) -> bool:
        """The files in /proc of what is not dumpable belong to root (task_dump_owner)."""
        owner = (self.machine.processes.proc / str(pid) / "stat").stat().st_uid
        return owner == status.uids[1]


def _has(status: Status, capability: int) -> bool:
    return bool(status.cap_eff >> capability & 1)

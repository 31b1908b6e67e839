"""Processes as the system calls see them: credentials, capabilities, cpusets, memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from movepages.abi import MAX_NUMNODES, Capability

if TYPE_CHECKING:
    from movepages.kernel.address_space import Mm
    from movepages.kernel.mempolicy import MemPolicy
    from movepages.nodeset import NodeSet

ALL_CAPABILITIES = frozenset(Capability)


class TaskState(Enum):
    """Whether a task runs, has exited without its parent taking note, or is the kernel's own."""

    RUNNING = "running"
    ZOMBIE = "zombie"
    KERNEL_THREAD = "kernel thread"


@dataclass(slots=True)
class Credentials:
    """User ids and capabilities. uid 0 has all capabilities, as setuid(2) takes and gives them."""

    uid: int = 0
    euid: int = 0
    suid: int = 0
    capabilities: frozenset[Capability] = ALL_CAPABILITIES

    @classmethod
    def of_user(cls, uid: int) -> Credentials:
        """Return the credentials of a user's process."""
        return cls(uid, uid, uid, ALL_CAPABILITIES if uid == 0 else frozenset())


@dataclass(slots=True, eq=False)
class Cpuset:
    """A cpuset: the nodes that its tasks may allocate on. `migrates`: writing mems moves pages."""

    mems: NodeSet
    migrates: bool = True


@dataclass(slots=True, eq=False)
class TaskStruct:
    """A task: a process or one of its threads. Threads share `mm`."""

    pid: int
    tgid: int
    credentials: Credentials
    cpuset: Cpuset
    mm: Mm | None
    cpu: int = 0
    parent: int = 0
    state: TaskState = TaskState.RUNNING
    dumpable: bool = True
    policy: MemPolicy | None = None
    il_prev: int = MAX_NUMNODES - 1
    """The node that interleaving of page-cache pages used last, and how often more (il_weight)."""
    il_weight: int = 0
    started: int = 0
    cpu_time_ns: int = 0
    """How long it has run, in nanoseconds (sum_exec_runtime)."""
    children: list[int] = field(default_factory=list)


def may_trace(caller: TaskStruct, target: TaskStruct) -> bool:
    """ptrace_may_access(PTRACE_MODE_READ_REALCREDS): today's rule for other processes' memory."""
    if caller.tgid == target.tgid:
        return True
    if Capability.SYS_PTRACE in caller.credentials.capabilities:
        return True
    own, other = caller.credentials, target.credentials
    same_user = own.uid == other.uid == other.euid == other.suid
    covers = other.capabilities <= own.capabilities
    return same_user and covers and target.dumpable


def shares_owner(caller: TaskStruct, target: TaskStruct) -> bool:
    """Uid or euid of the caller is uid or suid of the target: the rule of 2006."""
    own, other = caller.credentials, target.credentials
    return not {own.uid, own.euid}.isdisjoint({other.uid, other.suid})

"""What tools ask of a Machine, of the model: `movepages.machine.Machine` as one task sees it.

Answers that cost a system call make it, with the arguments in user memory; what a real machine
tells in files under /proc and /sys is read from the model's own tables, and refused to those who
may not read it there. `SimulatedMachine` is root's shell; `as_task` is the machine as another task
sees it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from movepages.abi import CALLS, MAX_NUMNODES, Capability, Errno
from movepages.errors import ArgumentError, call_error, no_such_process
from movepages.kernel import residency
from movepages.kernel.address_space import Prot, VmFlag
from movepages.kernel.frames import PageFlag
from movepages.kernel.mempolicy import mpol_to_str
from movepages.kernel.page_tables import PteFlag
from movepages.kernel.tasks import TaskState, may_trace
from movepages.nodeset import NodeSet
from movepages.topology import HugePool, Topology
from movepages.values import (
    CallResult,
    Conditions,
    Mapping,
    PageRuns,
    Placement,
    Policy,
    Settings,
    Standing,
    TaskId,
    TaskInfo,
    ThreadInfo,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from numpy.typing import ArrayLike, NDArray

    from movepages.kernel.address_space import Mm, Vma
    from movepages.kernel.machine import SimulatedMachine
    from movepages.kernel.process import Task
    from movepages.kernel.tasks import TaskStruct
    from movepages.kernel.user_memory import UserArray
    from movepages.topology import Node

_WORD_BITS = 64
_BOOT_ID = "00000000-0000-4000-8000-000000000000"


class MachineView:
    """The machine as a task sees it. Satisfies `movepages.machine.Machine`, described there."""

    page_size_bytes: int

    def __init__(self, machine: SimulatedMachine, caller: Task) -> None:
        """Look at a machine as a task."""
        self._machine = machine
        self._caller = caller
        self.page_size_bytes = machine.page_size_bytes

    def as_task(self, task: Task) -> MachineView:
        """Return the machine as a task sees it."""
        return MachineView(self._machine, task)

    # -- nodes --------------------------------------------------------------------------------

    def topology(self) -> Topology:
        """Return the nodes as they are now."""
        machine = self._machine
        memories = machine.memory.frames.nodes
        online = NodeSet(node.id for node in machine.declared if memories[node.id].online)
        free = self.free_bytes()
        nodes = tuple(
            self._node_now(node, online, free[node.id])
            for node in machine.declared
            if node.id in online
        )
        return replace(machine.declared, nodes=nodes)

    def _node_now(self, node: Node, online: NodeSet, free_bytes: int) -> Node:
        memory = self._machine.memory.frames.nodes[node.id]
        pools = self._machine.memory.pools.pools()
        return replace(
            node,
            memory_bytes=node.memory_bytes if memory.has_memory else 0,
            free_bytes=free_bytes,
            has_memory=memory.has_memory,
            distances={to: node.distances[to] for to in online},
            huge_pools=tuple(
                HugePool(self.page_size_bytes << order, pool.total, len(pool.free), 0)
                for (of_node, order), pool in pools.items()
                if of_node == node.id
            ),
        )

    def free_bytes(self) -> dict[int, int]:
        """Return free memory by node."""
        return {
            node.id: node.free_pages * self.page_size_bytes if node.has_memory else 0
            for node in self._machine.memory.frames.nodes.values()
            if node.online
        }

    # -- pages --------------------------------------------------------------------------------

    def move_pages(
        self, pid: int, addresses: NDArray[np.uint64], nodes: NDArray[np.int32], flags: int
    ) -> CallResult:
        """Move each page to its node: one move_pages(2). Raises CallError, ArgumentError."""
        if len(addresses) != len(nodes):
            raise ArgumentError(f"there are {len(addresses)} addresses but {len(nodes)} nodes")
        result = CallResult(*self._caller.move_pages(pid, addresses, nodes, flags))
        node = self._refused_node(pid, nodes, -result.ret)
        return result.check(
            "move_pages",
            pid=pid,
            node=node,
            arguments={"nr_pages": len(addresses), "flags": int(flags)},
        )

    def query_pages(self, pid: int, addresses: NDArray[np.uint64]) -> CallResult:
        """Ask for the node of each page: one move_pages(2) without nodes. Raises CallError."""
        result = CallResult(*self._caller.move_pages(pid, addresses, None, 0))
        arguments = {"nr_pages": len(addresses), "flags": 0}
        return result.check("move_pages", pid=pid, arguments=arguments)

    def migrate_pages(self, pid: int, from_nodes: Iterable[int], to_nodes: Iterable[int]) -> int:
        """Move all pages between nodes: migrate_pages(2)."""
        old, new = NodeSet(from_nodes), NodeSet(to_nodes)
        words = max(len(old.to_words()), len(new.to_words()))
        masks = [np.array(nodes.to_words(_WORD_BITS, words), np.uint64) for nodes in (old, new)]
        ret = self._call("migrate_pages", pid, words * _WORD_BITS + 1, *masks)
        arguments = {"from_nodes": str(old), "to_nodes": str(new)}
        return _checked("migrate_pages", ret, pid=pid, arguments=arguments)

    def mappings(self, pid: int) -> Sequence[Mapping]:
        """Return the mappings of a process, with what its maps and numa_maps say."""
        struct, mm = self._readable(pid, "read numa_maps")
        return [self._mapping(struct, vma) for vma in (mm.areas if mm else ())]

    def present(self, pid: int, ranges: Sequence[tuple[int, int]] | None = None) -> PageRuns:
        """Return which pages are present, and of what page size: without zero pages."""
        _, mm = self._readable(pid, "read pagemap")
        return residency.present(self._machine.memory, mm, ranges)

    def locate(self, pid: int, ranges: Sequence[tuple[int, int]] | None = None) -> Placement:
        """Return on which node each present page is."""
        _, mm = self._readable(pid, "read pagemap")
        return residency.locate(self._machine.memory, mm, ranges)

    # -- processes ----------------------------------------------------------------------------

    def tasks(self) -> Sequence[TaskInfo]:
        """Return the processes in user space, by pid; threads and zombies are none."""
        structs = [struct for struct in self._machine.task_structs.values() if _is_process(struct)]
        return [self.task(struct.pid) for struct in sorted(structs, key=lambda t: t.pid)]

    def task(self, pid: int) -> TaskInfo:
        """Return who a process is, and where it may run and allocate."""
        struct = self._living(pid, "read /proc")
        kernel_thread = struct.state is TaskState.KERNEL_THREAD
        with_memory = self.topology().with_memory
        return TaskInfo(
            pid=struct.pid,
            boot_id=_BOOT_ID,
            start_ticks=struct.started,
            command=_command(struct),
            uid=struct.credentials.euid,
            state="S",
            mems_allowed=NodeSet(struct.cpuset.mems & with_memory),
            cpus_allowed=tuple(sorted(self._machine.hotplug.cpus())),
            last_cpus=tuple(thread.cpu for thread in self._threads(struct)),
            kernel_thread=kernel_thread,
            parent=struct.parent,
        )

    def threads(self, pid: int) -> Sequence[ThreadInfo]:
        """Return where each thread ran last, and for how long in all: what `Task.run` says."""
        struct = self._living(pid, "read /proc")
        name = _command(struct)
        return [
            ThreadInfo(thread.pid, name, thread.cpu, thread.cpu_time_ns)
            for thread in self._threads(struct)
        ]

    def hold(self, task: TaskId) -> ModelHold:
        """Hold a process: its start time says whether its pid is another's."""
        held = ModelHold(self._machine.task_structs, task)
        if not held.alive():
            raise no_such_process(task.pid, "hold process")
        return held

    # -- policy and rights --------------------------------------------------------------------

    def get_policy(self) -> Policy:
        """Return the caller's memory policy: get_mempolicy(2)."""
        mode = np.zeros(1, dtype=np.int32)
        mask = np.zeros(MAX_NUMNODES // _WORD_BITS, dtype=np.uint64)
        ret = self._call("get_mempolicy", mode, mask, MAX_NUMNODES, 0, 0)
        _checked("get_mempolicy", ret)
        return Policy(int(mode[0]), NodeSet.from_words(mask.tolist(), _WORD_BITS))

    def set_policy(self, mode: int, nodes: Iterable[int]) -> None:
        """Set the caller's memory policy: set_mempolicy(2)."""
        mask, maxnode = _mask_of(nodes)
        ret = self._call("set_mempolicy", mode, mask, maxnode)
        _checked("set_mempolicy", ret, arguments={"mode": mode})

    def mbind(
        self, start: int, length_bytes: int, mode: int, nodes: Iterable[int], flags: int
    ) -> None:
        """Set the policy of a range of the caller: mbind(2)."""
        mask, maxnode = _mask_of(nodes)
        ret = self._call("mbind", start, length_bytes, mode, mask, maxnode, flags)
        arguments = {"length_bytes": length_bytes, "mode": mode, "flags": flags}
        _checked("mbind", ret, address=start, arguments=arguments)

    def conditions(self) -> Conditions:
        """Return what may fight a placement: nothing here balances or demotes by itself."""
        capabilities = self._caller.struct.credentials.capabilities
        return Conditions(
            numa_balancing=0,
            demotion=False,
            swap_bytes=len(self._machine.memory.swap.users) * self.page_size_bytes,
            sees_pfns=Capability.SYS_ADMIN in capabilities,
            moves_shared=Capability.SYS_NICE in capabilities,
        )

    def settings(self) -> Settings:
        """Return which calls this kernel lacks; it has no other settings."""
        machine = self._machine
        lacking = [c for c in CALLS if c in machine.without or c not in machine.semantics.calls]
        return Settings(refused=tuple(call_error(-Errno.ENOSYS, call) for call in lacking))

    def standing(self, pid: int) -> Standing:
        """Return what `may_trace` goes by."""
        own, struct = self._caller.struct.credentials, self._living(pid, "read /proc")
        other = struct.credentials
        return Standing(
            own_uid=own.uid,
            uids=(other.uid, other.euid, other.suid),
            same_user=own.uid == other.uid == other.euid == other.suid,
            dumpable=struct.dumpable,
            covered=other.capabilities <= own.capabilities,
            may_trace=Capability.SYS_PTRACE in own.capabilities,
        )

    # -- inside -------------------------------------------------------------------------------

    def _call(self, name: str, *arguments: int | NDArray[Any]) -> int:
        """Make a system call as the caller; arrays are put into user memory for it."""
        arrays: list[UserArray] = []
        numbers = []
        for argument in arguments:
            if isinstance(argument, np.ndarray):
                arrays.append(self._machine.user.place(argument))
                numbers.append(arrays[-1].pointer)
            else:
                numbers.append(int(argument))
        try:
            return self._caller.syscall(name, *numbers)
        finally:
            for array in arrays:
                self._machine.user.forget(array)

    def _threads(self, struct: TaskStruct) -> list[TaskStruct]:
        """Return the threads of a process, by thread id."""
        same = [t for t in self._machine.task_structs.values() if t.tgid == struct.tgid]
        return sorted(same, key=lambda t: t.pid)

    def _living(self, pid: int, what: str) -> TaskStruct:
        """Return a task that has not ended. Raises NoSuchProcessError."""
        struct = self._machine.task_structs.get(pid or self._caller.pid)
        if struct is None or struct.state is TaskState.ZOMBIE:
            raise no_such_process(pid, what)
        return struct

    def _readable(self, pid: int, what: str) -> tuple[TaskStruct, Mm | None]:
        """Return a task whose memory the caller may look at. Raises CallError."""
        struct = self._living(pid, what)
        if not may_trace(self._caller.struct, struct):
            detail = f"process {pid} is not yours to look at; run as its owner or as root"
            raise call_error(-Errno.EPERM, what, detail=detail, pid=pid)
        return struct, struct.mm

    def _refused_node(self, pid: int, nodes: ArrayLike, errno: int) -> int | None:
        """Return the first node that a refusal is about, if it is about one."""
        allowed = self._machine.hotplug.valid_targets()
        if errno == Errno.EACCES:
            struct = self._machine.task_structs[pid or self._caller.pid]
            allowed = NodeSet(struct.cpuset.mems & allowed)
        elif errno != Errno.ENODEV:
            return None
        refused = [node for node in np.unique(nodes).tolist() if node not in allowed]
        return refused[0] if refused else None

    def _mapping(self, struct: TaskStruct, vma: Vma) -> Mapping:
        """Describe an area as maps and numa_maps do: base pages, huge ones for hugetlb."""
        frames, tables = self._machine.memory.frames, self._machine.memory.tables
        hugetlb = bool(vma.flags & VmFlag.HUGETLB)
        entries = tables.entry[vma.slots].astype(np.int64)
        at = np.flatnonzero(entries >= 0)
        at = at[~frames.has(entries[at], PageFlag.RESERVED)]
        if hugetlb:
            at = at[frames.head(entries[at]) == entries[at]]
        pfns = entries[at]
        heads = frames.head(pfns)
        nodes, counts = np.unique(frames.node[pfns], return_counts=True)
        written = (tables.flags[vma.slots][at] & np.uint8(PteFlag.DIRTY)) != 0
        anon = frames.has(heads, PageFlag.ANON) | (hugetlb and not vma.shared)
        shift = vma.mm.page_shift
        return Mapping(
            start=vma.start << shift,
            end=vma.end << shift,
            permissions=_permissions(vma),
            offset=vma.offset << shift if vma.file else 0,
            inode=vma.file.id if vma.file else 0,
            path=_path(vma),
            policy=mpol_to_str(vma.policy or struct.policy),
            page_size_bytes=self.page_size_bytes << (self._machine.thp_order if hugetlb else 0),
            pages_by_node=dict(zip(nodes.tolist(), counts.tolist(), strict=True)),
            anon_pages=int(anon.sum()),
            dirty_pages=int((written | frames.has(heads, PageFlag.DIRTY)).sum()),
            mapped_pages=len(at),
            most_mapped=int(self._machine.memory.rmap.page_mapcounts(pfns).max(initial=1)),
            hugetlb=hugetlb,
        )


class ModelHold:
    """A process of the model that is held. Satisfies `movepages.machine.Hold`."""

    def __init__(self, structs: dict[int, TaskStruct], task: TaskId) -> None:
        """Remember who is meant."""
        self._structs = structs
        self._task = task

    def alive(self) -> bool:
        """Tell whether it has not ended."""
        if self._task.boot_id != _BOOT_ID:
            return False
        struct = self._structs.get(self._task.pid)
        if struct is None or struct.state is TaskState.ZOMBIE:
            return False
        return struct.started == self._task.start_ticks

    def close(self) -> None:
        """Hold it no longer: the model has nothing to give back."""


def _command(struct: TaskStruct) -> str:
    return "kthreadd" if struct.state is TaskState.KERNEL_THREAD else "simulated"


def _is_process(struct: TaskStruct) -> bool:
    return struct.pid == struct.tgid and struct.state is TaskState.RUNNING


def _checked(call: str, ret: int, **facts: Any) -> int:
    if ret < 0:
        raise call_error(ret, call, **facts)
    return ret


def _mask_of(nodes: Iterable[int]) -> tuple[NDArray[np.uint64], int]:
    words = NodeSet(nodes).to_words(_WORD_BITS)
    return np.array(words, dtype=np.uint64), NodeSet.maxnode(words, _WORD_BITS)


def _permissions(vma: Vma) -> str:
    letters = zip("rwx", (Prot.READ, Prot.WRITE, Prot.EXEC), strict=True)
    allowed = "".join(letter if vma.prot & bit else "-" for letter, bit in letters)
    return allowed + ("s" if vma.shared else "p")


def _path(vma: Vma) -> str:
    if vma.file:
        return vma.file.name
    return "[vvar]" if vma.flags & VmFlag.PFNMAP else ""

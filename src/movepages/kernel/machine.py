"""SimulatedMachine: a NUMA machine in memory, whose system calls behave as a kernel's.

    machine = SimulatedMachine("4 x 64M", semantics=LINUX_6_12)
    p = machine.spawn(uid=1000, cpu=0)
    a = p.mmap(16)
    p.write(a, pages=16)
    ret, status = p.move_pages(0, p.addresses(a, 16), [1] * 16, MoveFlag.MOVE)

The machine itself is hardware, kernel and the life of its processes. What tools ask of a Machine
comes from `machine_view`; the bare machine acts as root's shell there.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from movepages.abi import CALLS, MAX_NUMNODES
from movepages.errors import ArgumentError, TopologyError, UnsupportedError
from movepages.kernel import areas, cpuset as cpusets
from movepages.kernel.address_space import Mm
from movepages.kernel.check import check_machine
from movepages.kernel.crash import Crashes2006
from movepages.kernel.faults import Faults
from movepages.kernel.frames import Frames
from movepages.kernel.hotplug import Hotplug
from movepages.kernel.machine_view import MachineView
from movepages.kernel.mappings import NOT_CACHED, Backing
from movepages.kernel.memory import Memory
from movepages.kernel.mempolicy import SharedPolicies, place
from movepages.kernel.merge import merge_pages
from movepages.kernel.nodes import NodeMemory
from movepages.kernel.page_tables import MAX_FRAMES, MAX_SLOTS
from movepages.kernel.process import Task
from movepages.kernel.semantics import LINUX_6_12, Semantics
from movepages.kernel.syscalls.table import CallTable
from movepages.kernel.task_table import SimulatedTaskTable
from movepages.kernel.tasks import Cpuset, Credentials, TaskState, TaskStruct
from movepages.kernel.user_memory import SimulatedUserMemory
from movepages.kernel.zonelists import build_zonelists
from movepages.topology import Topology, check_topology, parse_topology
from movepages.units import format_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    from movepages.kernel.address_space import Vma
    from movepages.kernel.inject import Fault, Injected
    from movepages.kernel.mappings import File
    from movepages.machine import Machine

    Indices = NDArray[np.int64]

KTHREADD = 2
"""The pid of a kernel thread, on every machine."""
_THP_BYTES = 2 << 20
_PAGE_SIZES = frozenset(1 << shift for shift in range(9, 21))
_DEFAULT_VMALLOC_BYTES = 1 << 36


class SimulatedMachine(MachineView):
    """A machine of a declared topology, running one kernel. Raises TopologyError, ArgumentError."""

    def __init__(
        self,
        topology: str | Topology,
        *,
        semantics: Semantics = LINUX_6_12,
        page_size_bytes: int = 4096,
        swap_bytes: int = 0,
        watermark_pages: int = 0,
        vmalloc_limit_bytes: int = _DEFAULT_VMALLOC_BYTES,
        real_bytes: bool = False,
        without: frozenset[str] = frozenset(),
    ) -> None:
        """Build it, with all memory free and no process but the kernel's own.

        `without` names calls that the kernel was built without: they answer -ENOSYS.
        """
        _check_numbers(page_size_bytes, swap_bytes, watermark_pages, vmalloc_limit_bytes)
        if not isinstance(semantics, Semantics):
            raise ArgumentError(f"{semantics!r} is not one of the kernels, such as LINUX_6_12")
        if unknown := without - frozenset(CALLS):
            raise ArgumentError(f"there are no calls {sorted(unknown)} to leave out")
        topology = parse_topology(topology) if isinstance(topology, str) else topology
        _check_nodes(topology, page_size_bytes)
        self.declared = topology
        self.semantics = semantics
        self.page_size_bytes = page_size_bytes
        self.page_shift = page_size_bytes.bit_length() - 1
        self.thp_order = max(0, (_THP_BYTES >> self.page_shift).bit_length() - 1)
        frames = Frames(
            _node_memories(topology, page_size_bytes, watermark_pages),
            build_zonelists(topology),
            page_size_bytes,
            real_bytes=real_bytes,
        )
        self.memory = Memory(frames, semantics, swap_bytes // page_size_bytes)
        self.faults = Faults(self.memory, self.place_pages, self.thp_order)
        self.user = SimulatedUserMemory()
        self.hotplug = Hotplug(self)
        self.crashes = Crashes2006(frames) if semantics.crashes else None
        self.task_structs: dict[int, TaskStruct] = {}
        """The tasks by pid, zombies and kernel threads among them."""
        self.before_call: list[Callable[[], None]] = []
        """Called when a system call begins: for faults made on purpose."""
        self.root_cpuset = Cpuset(self.hotplug.valid_targets())
        self.interleave_weights = {node.id: node.weight or 1 for node in topology}
        """Weights of weighted interleave, 1 to 255, by node (weighted_interleave/nodeN)."""
        self.shared_policies = SharedPolicies()
        self.vmalloc_limit_bytes = vmalloc_limit_bytes
        self.without = without
        self.lsm = lambda caller, target: True  # noqa: ARG005 - a hook to replace
        """The security module: asked whether a task may move another's memory."""
        self._last_pid = 0
        self._clock = 0
        self._vdso: File | None = None
        self.shell = Task(self, self._add_task(Credentials(), self._new_mm()))
        """Root's shell, pid 1: who acts where no task is named."""
        self._add_task(Credentials(), None, state=TaskState.KERNEL_THREAD)
        super().__init__(self, self.shell)

    # -- processes ----------------------------------------------------------------------------

    def spawn(self, *, uid: int = 0, cpu: int = 0, cpuset: Cpuset | None = None) -> Task:
        """Start a process of a user on a CPU, with an empty address space."""
        self._require_cpu(cpu)
        struct = self._add_task(Credentials.of_user(uid), self._new_mm(), cpu=cpu)
        struct.cpuset = cpuset or self.root_cpuset
        return Task(self, struct)

    def fork(self, task: Task) -> Task:
        """Make a child of a process."""
        parent = task.struct
        if parent.mm is None:
            raise ArgumentError(f"process {parent.pid} has no memory: it has ended")
        child = self._add_task(
            replace(parent.credentials), areas.fork_areas(self.memory, parent.mm)
        )
        child.cpu, child.cpuset, child.parent = parent.cpu, parent.cpuset, parent.tgid
        child.dumpable, child.policy = parent.dumpable, parent.policy
        child.il_prev, child.il_weight = parent.il_prev, parent.il_weight
        self.task_structs[parent.tgid].children.append(child.pid)
        return Task(self, child)

    def clone_thread(self, task: Task, cpu: int | None = None) -> Task:
        """Make a thread of a process."""
        leader = task.struct
        if leader.mm is None:
            raise ArgumentError(f"process {leader.pid} has no memory: it has ended")
        cpu = leader.cpu if cpu is None else cpu
        self._require_cpu(cpu)
        thread = self._add_task(leader.credentials, leader.mm, cpu=cpu)
        thread.tgid, thread.cpuset, thread.parent = leader.tgid, leader.cpuset, leader.parent
        thread.dumpable, thread.policy = leader.dumpable, leader.policy
        thread.il_prev, thread.il_weight = leader.il_prev, leader.il_weight
        leader.mm.users += 1
        return Task(self, thread)

    def run_on(self, task: Task, cpu: int, time_ns: int = 0) -> None:
        """Let a task run on a CPU for a while: nothing but its CPU and its CPU time changes."""
        self._require_cpu(cpu)
        if time_ns < 0:
            raise ArgumentError(f"a task cannot run for {time_ns} ns; give 0 or more")
        task.struct.cpu = cpu
        task.struct.cpu_time_ns += time_ns

    def exit(self, task: Task) -> None:
        """End a task: with the last one its memory goes; a zombie stays until it is waited for."""
        struct = task.struct
        if struct.mm is None:
            raise ArgumentError(f"process {struct.pid} has ended already")
        struct.mm.users -= 1
        if not struct.mm.users:
            for vma in list(struct.mm.areas):
                areas.drop_area(self.faults, struct.mm, vma)
        struct.mm = None
        struct.state = TaskState.ZOMBIE
        if struct.pid != struct.tgid or not struct.parent:
            del self.task_structs[
                struct.pid
            ]  # nobody waits for a thread, or for what the shell started

    def wait(self, task: Task) -> None:
        """Let a process take note of its children that have ended."""
        struct = self.task_structs[task.struct.tgid]
        for pid in list(struct.children):
            if self.task_structs[pid].state is TaskState.ZOMBIE:
                del self.task_structs[pid]
                struct.children.remove(pid)

    def call(self, caller: TaskStruct, name: str, *arguments: int) -> int:
        """Make a system call as a task; a call that this kernel does not have is -ENOSYS.

        Raises ArgumentError for a task that has ended: it makes no calls.
        """
        for hook in list(self.before_call):
            hook()
        if caller.mm is None:
            raise ArgumentError(f"process {caller.pid} makes no calls: it has ended")
        return self.calls_of(caller).make(name, *arguments)

    def calls_of(self, caller: TaskStruct) -> CallTable:
        """Return the system calls as a task makes them."""
        tasks = SimulatedTaskTable(caller, self.task_structs, self.memory, self.lsm)
        return CallTable(self, caller, tasks)

    # -- files and memory ---------------------------------------------------------------------

    def file(self, name: str, pages: int, backing: Backing = Backing.BUFFERS) -> File:
        """Make a file of that many pages, none of them in the page cache yet."""
        return self._new_file(name, pages, backing)

    def shmem_file(self, pages: int) -> File:
        """Make a shared memory object without a name: it goes with its last mapping."""
        return self._new_file("/dev/zero (deleted)", pages, Backing.SHMEM, vanishes=True)

    def hugetlb_file(self, pages: int) -> File:
        """Make a hugetlb file without a name, what MAP_HUGETLB maps; whole huge pages of it."""
        size = 1 << self.thp_order
        pages = -(-pages // size) * size
        return self._new_file("/anon_hugepage (deleted)", pages, Backing.HUGETLB, vanishes=True)

    def evict(self, file: File) -> int:
        """Drop the pages of a file that nobody maps from the page cache; return how many.

        What was written to them is lost, as with a file that is deleted.
        """
        index = np.flatnonzero(file.cache != NOT_CACHED)
        heads = self.memory.frames.head(file.cache[index].astype(np.int64))
        index = index[self.memory.frames.mapcount[heads] == 0]
        self.faults.drop_cache(file, index)
        return len(index)

    def resize_pool(self, node: int, huge_pages: int) -> int:
        """Set the size of a node's hugetlb pool; return what could be reached (nr_hugepages)."""
        if huge_pages < 0 or not self.memory.frames.nodes[node].has_memory:
            raise ArgumentError(f"node {node} cannot have {huge_pages} huge pages")
        return self.memory.pools.resize(node, self.thp_order, huge_pages)

    def merge(self) -> int:
        """Merge equal pages of MERGEABLE mappings; return how many frames that freed (KSM).

        Raises UnsupportedError on the kernels of 2006.
        """
        self.require_large_folios("merged")
        return merge_pages(self.memory, self.mms())

    @property
    def vdso(self) -> File:
        """The kernel's own page that every process maps; root's shell does from here on."""
        if self._vdso is None:
            vdso = self._new_file("[vdso]", 1, Backing.DEVICE)
            self.faults.make_kernel_page(vdso, self.node_of_cpu(self.shell.struct.cpu))
            self._vdso = vdso
            self.shell.map_vdso()
        return self._vdso

    # -- faults on purpose, and checks --------------------------------------------------------

    def inject(self, fault: Fault) -> Injected:
        """Let something go wrong, until `release()` or the end of a `with` block (`inject`)."""
        return fault.arm(self)

    def check(self) -> None:
        """Recount everything the slow way. Raises ModelError where the counts do not agree."""
        check_machine(self)

    def mms(self) -> list[Mm]:
        """Return all address spaces, each once."""
        return list(dict.fromkeys(task.mm for task in self.task_structs.values() if task.mm))

    # -- hardware -----------------------------------------------------------------------------

    def offline(self, node: int) -> int:
        """Take a node's memory away; return how many frames stay in use (`Hotplug.offline`)."""
        return self.hotplug.offline(node)

    def online(self, node: int) -> None:
        """Give a node its memory back."""
        self.hotplug.online(node)

    def remove_node(self, node: int) -> None:
        """Take a node without memory, and its CPUs, out of the machine."""
        self.hotplug.remove(node)

    def add_node(self, node: int) -> None:
        """Put a node back that was taken out; its memory is not online yet."""
        self.hotplug.add(node)

    def require_large_folios(self, what: str) -> None:
        """Refuse THPs and merged pages, which kernels of 2006 lack. Raises UnsupportedError."""
        if not self.semantics.moves_large_folios:
            raise UnsupportedError(f"{self.semantics.name} has no {what} pages in this model")

    def new_cpuset(self, mems: Iterable[int], *, memory_migrate: bool | None = None) -> Cpuset:
        """Make a cpuset whose tasks may allocate on some nodes. Raises ArgumentError.

        `memory_migrate` lets pages follow when mems are written; left out, this kernel decides.
        """
        return cpusets.new_cpuset(self, mems, memory_migrate=memory_migrate)

    def set_cpuset_mems(self, cpuset: Cpuset, mems: Iterable[int]) -> None:
        """Write a cpuset's mems: policies follow, and pages if it migrates. ArgumentError."""
        cpusets.set_mems(self, cpuset, mems)

    def attach(self, task: Task, cpuset: Cpuset) -> None:
        """Move a task into a cpuset: policies follow, and pages if that migrates."""
        cpusets.attach(self, task.struct, cpuset)

    def place_pages(self, task: TaskStruct, vma: Vma, pages: Indices, order: int) -> Indices:
        """Allocate folios for a fault by the policy that holds there."""
        return place(self, task, vma, pages, order)

    def node_of_cpu(self, cpu: int) -> int:
        """Return the node a CPU belongs to."""
        return self.declared.node_of_cpu(cpu)

    # -- inside -------------------------------------------------------------------------------

    def _new_file(self, name: str, pages: int, backing: Backing, *, vanishes: bool = False) -> File:
        if not 0 < pages <= MAX_SLOTS:
            raise ArgumentError(f"a file of {pages} pages: it must have 1 to {MAX_SLOTS}")
        return self.memory.mappings.new_file(name, pages, backing, vanishes=vanishes)

    def _add_task(
        self,
        credentials: Credentials,
        mm: Mm | None,
        *,
        cpu: int = 0,
        state: TaskState = TaskState.RUNNING,
    ) -> TaskStruct:
        self._last_pid += 1
        self._clock += 1
        pid = self._last_pid
        struct = TaskStruct(pid, pid, credentials, self.root_cpuset, mm, cpu, state=state)
        struct.started = self._clock
        self.task_structs[pid] = struct
        return struct

    def _new_mm(self) -> Mm:
        return Mm(self.memory.tables, self.page_shift)

    def _require_cpu(self, cpu: int) -> None:
        if cpu not in self.hotplug.cpus():
            raise ArgumentError(f"the machine has no CPU {cpu}")


def _node_memories(
    topology: Topology, page_size_bytes: int, watermark_pages: int
) -> list[NodeMemory]:
    """Lay the nodes' memory out one after the other; the zero page is the first frame."""
    memories, first = [], 0
    for node in topology:
        pages = node.memory_bytes // page_size_bytes
        memories.append(
            NodeMemory(
                node.id,
                first,
                first + pages,
                pages,
                watermark_pages,
                has_memory=node.has_memory and pages > 0,
                lowest_free=first,
            )
        )
        first += pages
    return memories


def _check_numbers(
    page_size_bytes: int, swap_bytes: int, watermark_pages: int, vmalloc_limit_bytes: int
) -> None:
    if page_size_bytes not in _PAGE_SIZES:
        raise ArgumentError(f"a page of {page_size_bytes} bytes: it must be a power of two, to 1M")
    if min(swap_bytes, watermark_pages, vmalloc_limit_bytes) < 0:
        raise ArgumentError("swap, watermark and vmalloc limit must be 0 or more")
    if swap_bytes // page_size_bytes > MAX_FRAMES:
        raise ArgumentError(f"{format_size(swap_bytes)} of swap is more than a page table can name")


def _check_nodes(topology: Topology, page_size_bytes: int) -> None:
    if not isinstance(topology, Topology):
        raise ArgumentError(f"{topology!r} is not a topology; write it like '4 x 64M'")
    check_topology(topology)
    if not topology.with_cpus:
        raise TopologyError("no node has a CPU to run a process on")
    for node in topology:
        if not 0 <= node.id < MAX_NUMNODES:
            raise TopologyError(f"node {node.id}: nodes are numbered 0 to {MAX_NUMNODES - 1}")
        if node.memory_bytes < 0 or (node.has_memory and node.memory_bytes < page_size_bytes):
            raise TopologyError(f"node {node.id} has memory, but not a page of it")
    pages = sum(node.memory_bytes // page_size_bytes for node in topology)
    if pages > MAX_FRAMES:
        raise TopologyError(f"{pages} pages of memory are more than a page table can name")


if TYPE_CHECKING:
    _checked: Machine = SimulatedMachine("4")  # mypy compares it with the protocol

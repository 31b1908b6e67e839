"""The world of the model: the simulated machine behind the protocol of the suite."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from movepages.abi import UNWRITTEN
from movepages.kernel import SimulatedMachine
from movepages.kernel.address_space import Prot
from movepages.kernel.inject import Pin
from movepages.kernel.mappings import Backing
from movepages.nodeset import NodeSet
from suite.live import policy_text
from suite.outcome import Call
from suite.protocol import Arena, addresses_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from movepages.kernel.inject import Injected
    from movepages.kernel.mappings import File
    from movepages.kernel.process import Task
    from movepages.kernel.tasks import Cpuset

MACHINE = """
nodes = [
    {cpus = 1, memory = "64M", distances = [10, 21, 31, 41]},
    {cpus = 1, memory = "64M", distances = [22, 10, 42, 32]},
    {cpus = 0, memory = "64M", distances = [33, 43, 10, 51]},
    {cpus = 0, memory = "64M", distances = [44, 34, 52, 10]},
]
"""
"""The lab's topology 4node, with less memory."""
_PROTECTIONS = {"": Prot(0), "r": Prot.READ, "rw": Prot.READ | Prot.WRITE}
_MASK_BITS = 1024
_LEFT_WHEN_FULL = 1000


class ModelWorld:
    """A machine of four nodes, two of them with a CPU."""

    def __init__(self) -> None:
        """Begin with no process."""
        self.machine = SimulatedMachine(MACHINE)

    def process(self, *, uid: int = 0, cpu: int = 0, group: Cpuset | None = None) -> ModelProcess:
        """Start a process."""
        return ModelProcess(self, self.machine.spawn(uid=uid, cpu=cpu, cpuset=group), Arena())

    def shmem(self, pages: int) -> File:
        """Make a shared memory object."""
        return self.machine.shmem_file(pages)

    def cached_file(self) -> File:
        """Make a file on a file system."""
        return self.machine.file("LICENSE", 2, Backing.BUFFERS)

    def secret(self, pages: int) -> File:
        """Make a file whose pages refuse to move."""
        return self.machine.file("/secretmem (deleted)", pages, Backing.REFUSES)

    def cpuset(self, nodes: str) -> Cpuset:
        """Make a cpuset."""
        return self.machine.new_cpuset(NodeSet.parse(nodes))

    def allow(self, group: Cpuset, nodes: str) -> None:
        """Change a cpuset's nodes."""
        self.machine.set_cpuset_mems(group, NodeSet.parse(nodes))

    def resize_pool(self, node: int, pages: int) -> None:
        """Set the size of a pool."""
        self.machine.resize_pool(node, pages)

    def pools(self) -> list[int]:
        """Return the size of each node's pool."""
        pools = self.machine.memory.pools
        return [pools.pool(node, self.machine.thp_order).total for node in range(4)]

    def fill(self, node: int) -> None:
        """Take a node's memory."""
        frames = self.machine.memory.frames
        taken = frames.allocate(node, frames.nodes[node].available_pages - _LEFT_WHEN_FULL)
        frames.references[taken] = 0
        self.machine.memory.pin(taken)

    def merge(self) -> None:
        """Merge what is alike."""
        self.machine.merge()


class Pipe:
    """A pipe with pages in it, which are pinned until nobody has it open."""

    def __init__(self, pin: Injected) -> None:
        """Begin as the file of one process."""
        self._pin = pin
        self._processes = 1

    def open(self) -> None:
        """Be the file of one process more."""
        self._processes += 1

    def close(self) -> None:
        """Be that of one less."""
        self._processes -= 1
        if not self._processes:
            self._pin.release()


class ModelProcess:
    """A task of the machine."""

    def __init__(self, world: ModelWorld, task: Task, arena: Arena) -> None:
        """Hold a task, and where its next mapping goes."""
        self.pid = task.pid
        self._world, self._task, self._arena = world, task, arena
        self._pipes: list[Pipe] = []

    def fork(self) -> ModelProcess:
        """Fork; pipes are inherited, and the pages in them."""
        child = ModelProcess(self._world, self._task.fork(), Arena(self._arena.at))
        for pipe in self._pipes:
            pipe.open()
        child._pipes = list(self._pipes)
        return child

    def exit(self) -> None:
        """End it; its files are closed."""
        self._task.exit()
        self.unpin()

    def wait(self) -> None:
        """Reap its children."""
        self._task.wait()

    def set_dumpable(self, value: bool) -> None:
        """Let others look at it, or not."""
        self._task.set_dumpable(dumpable=value)

    def mmap(
        self,
        pages: int,
        *,
        prot: str = "rw",
        shared: bool = False,
        file: File | None = None,
        huge: bool = False,
    ) -> int:
        """Map pages at the arena's next place."""
        at = self._arena.take(pages)
        return self._task.mmap(
            pages, prot=_PROTECTIONS[prot], shared=shared, file=file, huge=huge, at=at
        )

    def munmap(self, address: int, pages: int) -> None:
        """Unmap pages."""
        self._task.munmap(address, pages)

    def mprotect(self, address: int, pages: int, prot: str) -> None:
        """Change what is allowed."""
        self._task.mprotect(address, pages, _PROTECTIONS[prot])

    def madvise(self, address: int, pages: int, advice: str) -> None:
        """Advise."""
        self._task.madvise(address, pages, advice)

    def mlock(self, address: int, pages: int) -> None:
        """Lock in memory."""
        self._task.mlock(address, pages)

    def write(self, address: int, pages: int = 1) -> None:
        """Write to pages."""
        self._task.write(address, pages)

    def read(self, address: int, pages: int = 1) -> None:
        """Read from pages."""
        self._task.read(address, pages)

    def poke(self, address: int, tags: Sequence[int]) -> None:
        """Write a number into each page."""
        self._task.poke(address, tags)

    def peek(self, addresses: Sequence[int]) -> list[int]:
        """Read the number of each page."""
        return [int(self._task.peek(address)[0]) for address in addresses]

    def pin(self, address: int, pages: int = 1) -> None:
        """Refer to the folio of each page."""
        self._pipes.append(Pipe(self._world.machine.inject(Pin(self._task, address, pages))))

    def unpin(self) -> None:
        """Close the pipes: refer to none of the pages any more, unless others have them open."""
        for pipe in self._pipes:
            pipe.close()
        self._pipes.clear()

    def vdso(self) -> int:
        """Map the page that everybody maps."""
        return self._task.map_vdso()

    def vvar(self) -> int:
        """Map memory without pages."""
        return self._task.mmap(1, prot=Prot.READ, device=True)

    # -- system calls -------------------------------------------------------------------------

    def move_pages(
        self,
        pid: int,
        addresses: Sequence[int],
        nodes: int | Sequence[int] | None,
        flags: int,
        *,
        count: int | None = None,
        pages_readable: int | None = None,
        nodes_readable: int | None = None,
        status_writable: int | None = None,
        null: str = "",
    ) -> Call:
        """Make the raw call."""
        entries = len(addresses)
        where = np.array(addresses, dtype=np.uint64)
        status = np.full(entries, UNWRITTEN, dtype=np.int32)
        arrays = {
            "pages": self._task.user_array(where, readable=pages_readable),
            "status": self._task.user_array(status, writable=status_writable),
        }
        if nodes is not None:
            to = np.full(entries, nodes, dtype=np.int32)
            arrays["nodes"] = self._task.user_array(to, readable=nodes_readable)
        pointers = {name: array.pointer for name, array in arrays.items() if name != null}
        ret = self._task.syscall(
            "move_pages",
            pid,
            entries if count is None else count,
            pointers.get("pages", 0),
            pointers.get("nodes", 0),
            pointers.get("status", 0),
            flags,
        )
        for array in arrays.values():
            self._world.machine.user.forget(array)
        return Call(ret, tuple(status.tolist()))

    def where(self, address: int, pages: int = 1) -> tuple[int, ...]:
        """Query pages that lie side by side."""
        return self.move_pages(0, addresses_of(address, pages), None, 0).status

    def migrate_pages(
        self, pid: int, old: Iterable[int], new: Iterable[int], *, maxnode: int | None = None
    ) -> int:
        """Make the raw call."""
        masks = [self._mask(nodes) for nodes in (old, new)]
        bits = _MASK_BITS + 1 if maxnode is None else maxnode
        return self._task.syscall("migrate_pages", pid, bits, *(mask.pointer for mask in masks))

    def mbind(
        self, address: int, length: int, mode: int, nodes: Iterable[int] = (), flags: int = 0
    ) -> int:
        """Make the raw call."""
        mask = self._mask(nodes).pointer
        return self._task.syscall("mbind", address, length, mode, mask, _MASK_BITS + 1, flags)

    def set_mempolicy(self, mode: int, nodes: Iterable[int] = ()) -> int:
        """Make the raw call."""
        mask = self._mask(nodes).pointer
        return self._task.syscall("set_mempolicy", mode, mask, _MASK_BITS + 1)

    def get_mempolicy(self, flags: int = 0, address: int = 0) -> tuple[int, str]:
        """Make the raw call."""
        mode = self._task.user_array(np.array([UNWRITTEN], dtype=np.int32))
        mask = self._mask(())
        at = (mode.pointer, mask.pointer, _MASK_BITS)
        ret = self._task.syscall("get_mempolicy", *at, address, flags)
        return ret, policy_text(int(mode.data[0]), mask.data.tolist())

    def set_mempolicy_home_node(self, address: int, length: int, node: int, flags: int = 0) -> int:
        """Make the raw call."""
        return self._task.syscall("set_mempolicy_home_node", address, length, node, flags)

    def _mask(self, nodes: Iterable[int]) -> Any:
        words = NodeSet(nodes).to_words(64, _MASK_BITS // 64)
        return self._task.user_array(np.array(words, dtype=np.uint64))

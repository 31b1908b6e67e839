"""What a scenario of the decision table works with: a machine of four nodes and a process."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from movepages import kernel
from movepages.abi import UNWRITTEN
from movepages.kernel.inject import Busy, LruBusy, Pin

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from movepages.kernel.mappings import Backing, File
    from movepages.kernel.process import Task

MOVE, MOVE_ALL = 2, 4
U = UNWRITTEN
"""An element that the call did not write: `~` in the table."""
SEMANTICS = ("DOCUMENTED_2006", "PATCH_2006", "LINUX_2_6_18", "LINUX_6_12")


@dataclass(frozen=True)
class Outcome:
    """What a call answered, and the nodes of the pages in question afterwards, if they matter.

    `besides` is what else a scenario looks at, as it says itself.
    """

    ret: int
    status: list[int]
    nodes: list[int] = field(default_factory=list)
    besides: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Row:
    """A row, or one case of it: its text, what happens, and what each kernel makes of it.

    `release` is what LINUX_2_6_18 answers if that is not what PATCH_2006 does. None in a column:
    that kernel has no such thing.
    """

    text: str
    scenario: Callable[[Bench], Outcome]
    documented: Outcome | None
    coded: Outcome | None
    modern: Outcome | None
    release: Outcome | None = None

    def expected(self, semantics: str) -> Outcome | None:
        """Return the column of a kernel."""
        return {
            "DOCUMENTED_2006": self.documented,
            "PATCH_2006": self.coded,
            "LINUX_2_6_18": self.release or self.coded,
            "LINUX_6_12": self.modern,
        }[semantics]


class Bench:
    """A machine of four nodes, and a process of root on node 0."""

    def __init__(self, semantics: str, topology: str = "4 x 4M", **options: object) -> None:
        """Build it with the semantics of that name."""
        self.semantics = semantics
        self.machine = kernel.SimulatedMachine(
            topology, semantics=getattr(kernel, semantics), **options
        )
        self.process = self.machine.spawn()

    def again(self, topology: str = "4 x 4M", **options: object) -> Bench:
        """Return a bench like this one on another machine."""
        return Bench(self.semantics, topology, **options)

    # -- memory -------------------------------------------------------------------------------

    def anon(self, pages: int = 1, *, on: int = 0, task: Task | None = None) -> list[int]:
        """Return addresses of private pages that were written, on a node."""
        task = task or self.process
        address = task.mmap(pages)
        task.struct.cpu = on
        task.write(address, pages)
        return self.addresses(address, pages)

    def mapped(self, file: File, *, task: Task | None = None) -> list[int]:
        """Return addresses of the pages of a file, mapped shared, none touched yet."""
        task = task or self.process
        return self.addresses(task.mmap(file.pages, shared=True, file=file), file.pages)

    def dirty(self, backing: Backing, pages: int = 1) -> list[int]:
        """Return addresses of dirty pages of a file of some backing."""
        where = self.mapped(self.machine.file("f", pages, backing))
        self.process.write(where[0], pages)
        return where

    def zero(self) -> int:
        """Return the address of a page that was only read: the zero page."""
        address = self.process.mmap(1)
        self.process.read(address)
        return address

    def untouched(self) -> int:
        """Return the address of a page that was never touched."""
        return self.process.mmap(1)

    def hole(self) -> int:
        """Return an address in a hole with an area above it: the next mmap closes it."""
        address = self.process.mmap(3)
        self.process.munmap(address + self.machine.page_size_bytes, 1)
        return address + self.machine.page_size_bytes

    def addresses(self, address: int, pages: int) -> list[int]:
        """Return the addresses of pages in a row."""
        return [address + i * self.machine.page_size_bytes for i in range(pages)]

    def pfn(self, address: int, task: Task | None = None) -> int:
        """Return the frame that an address maps."""
        return int((task or self.process).frames(address, 1)[0])

    def pin(self, address: int) -> None:
        """Hold a reference to a page, as I/O in flight does."""
        self.machine.inject(Pin(self.process, address))

    def isolate(self, address: int) -> None:
        """Take a page off the LRU, as reclaim does."""
        self.machine.inject(LruBusy(self.process, address))

    def lock(self, address: int) -> None:
        """Hold a page's lock for longer than the kernel goes without waiting."""
        self.machine.inject(Busy(self.process, address, passes=20))

    def fill(self, node: int, *, leave: int) -> None:
        """Take all memory of a node but some pages."""
        memory = self.machine.memory
        taken = memory.frames.allocate(node, memory.frames.nodes[node].free_pages - leave)
        memory.pins.update(taken.tolist())  # the kernel's own

    def node(self, address: int, task: Task | None = None) -> int:
        """Return the node of the page at an address: the truth."""
        return int((task or self.process).nodes(address, 1)[0])

    # -- calls --------------------------------------------------------------------------------

    def move(
        self,
        addresses: Sequence[int],
        nodes: Sequence[int] | int,
        flags: int = MOVE,
        *,
        pid: int = 0,
        task: Task | None = None,
    ) -> Outcome:
        """Make the call; the nodes afterwards are those of the caller's pages."""
        task = task or self.process
        to = [nodes] * len(addresses) if isinstance(nodes, int) else nodes
        ret, status = task.move_pages(pid, np.array(addresses, dtype=np.uint64), to, flags)
        return Outcome(ret, status.tolist())

    def move_and_look(
        self, addresses: Sequence[int], nodes: Sequence[int] | int, flags: int = MOVE
    ) -> Outcome:
        """Make the call for the process itself, and say where the pages are then."""
        found = self.move(addresses, nodes, flags)
        return Outcome(found.ret, found.status, [self.node(address) for address in addresses])

    def query(
        self, addresses: Sequence[int], flags: int = 0, *, pid: int = 0, task: Task | None = None
    ) -> Outcome:
        """Ask where pages are."""
        task = task or self.process
        ret, status = task.move_pages(pid, np.array(addresses, dtype=np.uint64), None, flags)
        return Outcome(ret, status.tolist())

    def raw(
        self,
        addresses: Sequence[int],
        nodes: Sequence[int] | None,
        *,
        nr_pages: int | None = None,
        readable: int | None = None,
        named: int | None = None,
        writable: int | None = None,
    ) -> Outcome:
        """Make the call with arrays that end early: pages, nodes, statuses."""
        status = np.full(len(addresses), U, dtype=np.int32)
        pages = self.process.user_array(addresses, np.uint64, readable=readable)
        stored = self.process.user_array(status, writable=writable)
        to = self.process.user_array(nodes or [], np.int32, readable=named)
        ret = self.process.syscall(
            "move_pages",
            0,
            len(addresses) if nr_pages is None else nr_pages,
            pages.pointer,
            0 if nodes is None else to.pointer,
            stored.pointer,
            MOVE,
        )
        return Outcome(ret, status.tolist())

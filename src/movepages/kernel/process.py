"""A process of the simulated machine, as a test or a tool holds it in its hand.

Addresses are in bytes. What a real process would get SIGSEGV or ENOMEM for raises an error here;
system calls never raise: they return what the kernel returns.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from movepages.abi import MAX_NUMNODES, UNWRITTEN, Capability
from movepages.errors import ArgumentError, UnsupportedError
from movepages.kernel import areas
from movepages.kernel.address_space import Prot, VmFlag
from movepages.kernel.page_tables import PteFlag
from movepages.nodeset import NodeSet

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from numpy.typing import ArrayLike, NDArray

    from movepages.kernel.address_space import Mm, Vma
    from movepages.kernel.machine import SimulatedMachine
    from movepages.kernel.mappings import File
    from movepages.kernel.tasks import Cpuset, TaskStruct
    from movepages.kernel.user_memory import UserArray


class Task:
    """A process or thread. Made by `SimulatedMachine.spawn`, `fork` and `thread`."""

    def __init__(self, machine: SimulatedMachine, struct: TaskStruct) -> None:
        """Wrap a task of a machine."""
        self.machine = machine
        self.struct = struct

    @property
    def pid(self) -> int:
        """Its process id, or thread id for a thread."""
        return self.struct.pid

    def __repr__(self) -> str:
        """Name it."""
        return f"Task(pid={self.pid})"

    # -- life ---------------------------------------------------------------------------------

    def fork(self) -> Task:
        """Make a child that shares all pages, private ones to be copied on write."""
        return self.machine.fork(self)

    def thread(self, cpu: int | None = None) -> Task:
        """Make a thread: it has its own pid, CPU and policy, and shares the memory."""
        return self.machine.clone_thread(self, cpu)

    def run(self, cpu: int, time_ns: int = 0) -> None:
        """Let it run on a CPU for a while; it stays there. Raises ArgumentError."""
        self.machine.run_on(self, cpu, time_ns)

    def exit(self) -> None:
        """End it: its memory goes at once; it stays a zombie until its parent waits."""
        self.machine.exit(self)

    def wait(self) -> None:
        """Take note of all children that have ended."""
        self.machine.wait(self)

    def grant(self, *capabilities: str) -> None:
        """Give it capabilities by name, such as `SYS_NICE`."""
        added = frozenset(Capability[name] for name in capabilities)
        credentials = self.struct.credentials
        credentials.capabilities |= added

    def drop(self, *capabilities: str) -> None:
        """Take capabilities away."""
        removed = frozenset(Capability[name] for name in capabilities)
        self.struct.credentials.capabilities -= removed

    def set_dumpable(self, *, dumpable: bool) -> None:
        """Let others of its user look at it, or not (PR_SET_DUMPABLE)."""
        self.struct.dumpable = dumpable

    def attach(self, cpuset: Cpuset) -> None:
        """Move it into a cpuset; its policies follow, and its pages if that cpuset migrates."""
        self.machine.attach(self, cpuset)

    # -- address space ------------------------------------------------------------------------

    def mmap(
        self,
        pages: int,
        *,
        shared: bool = False,
        file: File | None = None,
        offset: int = 0,
        huge: bool = False,
        prot: Prot = Prot.READ | Prot.WRITE,
        at: int | None = None,
        device: bool = False,
    ) -> int:
        """Map that many pages, and return the address of the first.

        `shared` memory without a file is a shmem object of its own. `huge` takes hugetlb pages from
        the pools; `pages` counts base pages all the same, and is made a whole number of huge ones.
        `device` maps memory with no page behind. Raises ArgumentError.
        """
        flags = VmFlag.SHARED if shared else VmFlag(0)
        if huge:
            size = 1 << self.machine.thp_order
            pages = -(-pages // size) * size
            flags |= VmFlag.HUGETLB
            file = file or self.machine.hugetlb_file(pages)
        if device:
            flags |= VmFlag.IO | VmFlag.PFNMAP
        if shared and file is None:
            file = self.machine.shmem_file(pages)
        align = 1 << self.machine.thp_order if huge or pages >= 1 << self.machine.thp_order else 1
        vma = areas.map_area(
            self.machine.memory,
            self._mm,
            pages,
            start=None if at is None else self._page(at),
            align_pages=align,
            prot=prot,
            flags=flags,
            file=file,
            offset=offset,
        )
        return vma.start << self._mm.page_shift

    def map_vdso(self) -> int:
        """Map the kernel's own page that all processes share; return its address."""
        vdso = self.machine.vdso
        address = self.mmap(vdso.pages, file=vdso, prot=Prot.READ | Prot.EXEC)
        self.read(address, vdso.pages)
        return address

    def munmap(self, address: int, pages: int) -> None:
        """Unmap a range; holes in it are allowed."""
        first = self._page(address)
        areas.unmap_range(self.machine.faults, self._mm, first, first + pages)

    def mprotect(self, address: int, pages: int, prot: Prot) -> None:
        """Change what a range allows."""
        first = self._page(address)
        areas.protect_range(self.machine.faults, self._mm, first, first + pages, prot)

    def mremap(self, address: int, pages: int) -> int:
        """Move a range's mapping elsewhere, pages and all; return its new address."""
        moved = areas.move_range(self.machine.faults, self._mm, self._page(address), pages)
        return moved << self._mm.page_shift

    def madvise(self, address: int, pages: int, advice: str) -> None:
        """Advise on a range: `dontneed`, `hugepage` or `mergeable`."""
        first = self._page(address)
        if advice == "dontneed":
            areas.discard_range(self.machine.faults, self._mm, first, first + pages)
            return
        self.machine.require_large_folios(advice)
        flag = {"hugepage": VmFlag.HUGEPAGE, "mergeable": VmFlag.MERGEABLE}[advice]
        areas.advise_range(self.machine.faults, self._mm, first, first + pages, flag)

    def mlock(self, address: int, pages: int) -> None:
        """Lock a range in memory; its pages are faulted in."""
        first = self._page(address)
        last = first + pages
        areas.lock_range(self.machine.faults, self._mm, first, last, locked=True)
        for vma in self._mm.overlapping(first, last):
            numbers = np.arange(max(first, vma.start), min(last, vma.end))
            write = bool(vma.prot & Prot.WRITE) and not vma.shared
            self.machine.faults.touch(self.struct, vma, numbers, write=write)

    def munlock(self, address: int, pages: int) -> None:
        """Undo mlock."""
        first = self._page(address)
        areas.lock_range(self.machine.faults, self._mm, first, first + pages, locked=False)

    # -- contents -----------------------------------------------------------------------------

    def write(self, address: int, pages: int = 1) -> None:
        """Write to pages: each is faulted in and made this process's own."""
        self._touch(address, pages, write=True)
        flags = self._mm.tables.flags
        for vma, numbers in self._parts(address, pages):
            flags[numbers - vma.start + vma.slot] |= np.uint8(PteFlag.WRITTEN)

    def read(self, address: int, pages: int = 1) -> None:
        """Read from pages: untouched anonymous ones become the zero page."""
        self._touch(address, pages, write=False)

    def poke(self, address: int, tags: ArrayLike) -> None:
        """Write a tag, uint64, into each page from an address on."""
        values = np.atleast_1d(np.asarray(tags, dtype=np.uint64))
        self._touch(address, len(values), write=True)
        self.machine.memory.frames.content[self.frames(address, len(values))] = values

    def peek(self, address: int, pages: int = 1) -> NDArray[np.uint64]:
        """Return the tags of pages, 0 for pages that hold zeroes; reading faults them in."""
        self.read(address, pages)
        return self.machine.memory.frames.content[self.frames(address, pages)].copy()

    def store(self, address: int, data: bytes) -> None:
        """Write bytes, from any address on. Raises UnsupportedError without `real_bytes`."""
        self._require_bytes()
        pages = self._pages_of(address, len(data))
        self._touch(address, pages, write=True)
        frames = self.frames(address, pages)
        contents = self.machine.memory.frames.data
        assert contents is not None  # noqa: S101 - required above
        buffer = contents[frames].reshape(-1)
        start = address % self.machine.page_size_bytes
        buffer[start : start + len(data)] = np.frombuffer(data, dtype=np.uint8)
        contents[frames] = buffer.reshape(pages, -1)

    def load(self, address: int, size_bytes: int) -> bytes:
        """Read bytes, from any address on. Raises UnsupportedError without `real_bytes`."""
        self._require_bytes()
        pages = self._pages_of(address, size_bytes)
        self.read(address, pages)
        contents = self.machine.memory.frames.data
        assert contents is not None  # noqa: S101 - required above
        buffer = contents[self.frames(address, pages)].reshape(-1)
        start = address % self.machine.page_size_bytes
        return buffer[start : start + size_bytes].tobytes()

    def addresses(self, address: int, pages: int) -> NDArray[np.uint64]:
        """Return the addresses of pages, uint64[pages]."""
        shift = self._mm.page_shift
        return ((np.arange(pages) << shift) + address).astype(np.uint64)

    def nodes(self, address: int, pages: int) -> NDArray[np.int32]:
        """Return the node of each page, -1 where there is none: the truth, not a system call."""
        frames = self.frames(address, pages)
        node = self.machine.memory.frames.node[np.maximum(frames, 0)].astype(np.int32)
        node[frames < 0] = -1
        return node

    def frames(self, address: int, pages: int) -> NDArray[np.int64]:
        """Return the frame behind each page, -1 for none; huge pages frame by frame."""
        addresses = self.addresses(address, pages)
        vma = self._mm.find_vma(addresses)
        inside = self._mm.contains(vma, addresses)
        frames = np.full(pages, -1, dtype=np.int64)
        frames[inside] = self._mm.follow_page(vma[inside], addresses[inside])
        return frames

    # -- system calls -------------------------------------------------------------------------

    def syscall(self, name: str, *arguments: int) -> int:
        """Make a system call; pointers are numbers (`user_array(...).pointer`), 0 is NULL."""
        return self.machine.call(self.struct, name, *arguments)

    def user_array(
        self,
        data: ArrayLike,
        dtype: Any = None,
        *,
        readable: int | None = None,
        writable: int | None = None,
    ) -> UserArray:
        """Put an array into memory that system calls can be pointed to.

        `readable` and `writable` end it early: elements from there on fault.
        """
        array = np.ascontiguousarray(np.asarray(data, dtype=dtype))
        return self.machine.user.place(array, readable=readable, writable=writable)

    def move_pages(
        self, pid: int, addresses: ArrayLike, nodes: ArrayLike | None, flags: int
    ) -> tuple[int, NDArray[np.int32]]:
        """Make the raw call: return what the kernel returned, and the statuses, UNWRITTEN if so."""
        where = np.ascontiguousarray(np.asarray(addresses, dtype=np.uint64))
        status = np.full(len(where), UNWRITTEN, dtype=np.int32)
        arrays = [self.user_array(where), self.user_array(status)]
        to = None
        if nodes is not None:
            to = self.user_array(np.broadcast_to(np.asarray(nodes, dtype=np.int32), where.shape))
            arrays.append(to)
        try:
            ret = self.syscall(
                "move_pages",
                pid,
                len(where),
                arrays[0].pointer,
                to.pointer if to else 0,
                arrays[1].pointer,
                int(flags),
            )
        finally:
            for array in arrays:
                self.machine.user.forget(array)
        return ret, status

    def mbind(
        self,
        address: int,
        pages: int,
        mode: int,
        nodes: Iterable[int] = (),
        flags: int = 0,
    ) -> int:
        """Make the raw call on that many pages, and return what the kernel returned."""
        with self._mask(nodes) as (mask, maxnode):
            size_bytes = pages << self._mm.page_shift
            return self.syscall("mbind", address, size_bytes, mode, mask, maxnode, int(flags))

    def set_mempolicy(self, mode: int, nodes: Iterable[int] = ()) -> int:
        """Make the raw call, and return what the kernel returned."""
        with self._mask(nodes) as (mask, maxnode):
            return self.syscall("set_mempolicy", mode, mask, maxnode)

    def get_mempolicy(self, address: int = 0, flags: int = 0) -> tuple[int, int, NodeSet]:
        """Make the raw call: what the kernel returned, the mode (or node), and the nodes."""
        mode = self.user_array([0], dtype=np.int32)
        nodes = self.user_array(np.zeros(MAX_NUMNODES // 64, dtype=np.uint64))
        try:
            ret = self.syscall(
                "get_mempolicy", mode.pointer, nodes.pointer, MAX_NUMNODES, address, int(flags)
            )
        finally:
            self.machine.user.forget(mode)
            self.machine.user.forget(nodes)
        return ret, int(mode.data[0]), NodeSet.from_words(nodes.data.tolist())

    def set_mempolicy_home_node(self, address: int, pages: int, node: int, flags: int = 0) -> int:
        """Make the raw call on that many pages, and return what the kernel returned."""
        size_bytes = pages << self._mm.page_shift
        return self.syscall("set_mempolicy_home_node", address, size_bytes, node, flags)

    def migrate_pages(self, pid: int, old: Iterable[int], new: Iterable[int]) -> int:
        """Make the raw call, and return what the kernel returned."""
        with self._mask(old) as (from_mask, maxnode), self._mask(new) as (to_mask, _):
            return self.syscall("migrate_pages", pid, maxnode, from_mask, to_mask)

    # -- inside -------------------------------------------------------------------------------

    @contextmanager
    def _mask(self, nodes: Iterable[int]) -> Iterator[tuple[int, int]]:
        """Put a node mask into user memory for a while: its pointer, and `maxnode`."""
        words = NodeSet(nodes).to_words(minimum=MAX_NUMNODES // 64)
        mask = self.user_array(words, dtype=np.uint64)
        try:
            yield mask.pointer, NodeSet.maxnode(words)
        finally:
            self.machine.user.forget(mask)

    @property
    def _mm(self) -> Mm:
        if self.struct.mm is None:
            raise ArgumentError(f"process {self.pid} has no memory: it has ended")
        return self.struct.mm

    def _page(self, address: int) -> int:
        return address >> self._mm.page_shift

    def _require_bytes(self) -> None:
        if self.machine.memory.frames.data is None:
            raise UnsupportedError(
                "pages of this machine hold a tag each; build it with real_bytes=True, or use "
                "poke and peek"
            )

    def _pages_of(self, address: int, size_bytes: int) -> int:
        """Count the pages that some bytes lie in."""
        if size_bytes <= 0:
            raise ArgumentError(f"{size_bytes} bytes from {address:#x} on are nothing to access")
        return self._page(address + size_bytes - 1) - self._page(address) + 1

    def _touch(self, address: int, pages: int, *, write: bool) -> None:
        for vma, numbers in self._parts(address, pages):
            self.machine.faults.touch(self.struct, vma, numbers, write=write)

    def _parts(self, address: int, pages: int) -> Iterator[tuple[Vma, NDArray[np.int64]]]:
        """Go through the areas of a range with the pages of each. Raises ArgumentError."""
        first = self._page(address)
        if pages <= 0 or not self._mm.covers(first, first + pages):
            raise ArgumentError(f"{pages} pages from {address:#x} on are not mapped (SIGSEGV)")
        for vma in self._mm.overlapping(first, first + pages):
            yield vma, np.arange(max(first, vma.start), min(first + pages, vma.end))

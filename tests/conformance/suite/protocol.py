"""What a scenario may ask of a kernel: a world of processes, and what processes do.

Addresses are in bytes; lengths are in pages of 4 KiB. `model` answers from the simulated machine,
`live` from the kernel that this runs on. The world has four nodes; 0 and 1 have a CPU each, of the
same number, and a process runs on CPU 0 unless told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from suite.outcome import Call

PAGE = 4096
HUGE = 512
"""Base pages in a huge one."""

ABILITIES = frozenset(
    {
        "root",  # processes of several users, and capabilities
        "files",  # a clean file of a file system in the page cache
        "device",  # mappings without pages, such as the kernel's data page
        "thp",
        "hugetlb",
        "ksm",
        "pins",  # pages that somebody else refers to
        "lru_busy",  # pages that are not on the LRU, such as the vDSO's
        "cpuset_files",  # groups of processes limited to some nodes
        "reclaim",  # a node without free memory
        "hotplug",  # a node that can lose its memory
    }
)
"""What not every kernel can do; a scenario names what it needs."""

INIT, KTHREADD, NOBODY_HAS_THIS_PID = 1, 2, 999_999
ABSENT_NODE = 9
KERNEL_ADDRESS = 0xFFFF_8880_0000_0000
VSYSCALL = 0xFFFF_FFFF_FF60_0000


class World(Protocol):
    """A machine at the start of a scenario; what the scenario changes is undone at its end."""

    def process(self, *, uid: int = 0, cpu: int = 0, group: Any = None) -> Process:
        """Start a process of a user on a CPU, in a group of `cpuset` if given."""
        ...

    def shmem(self, pages: int) -> Any:
        """Make a shared memory object; processes started later can map it."""
        ...

    def cached_file(self) -> Any:
        """Take a file of two pages or more on a file system, none of it cached."""
        ...

    def secret(self, pages: int) -> Any:
        """Make a file of memory that even the kernel does not see: memfd_secret(2)."""
        ...

    def cpuset(self, nodes: str) -> Any:
        """Make a group of processes that may use some nodes only, given as in `0-1`."""
        ...

    def allow(self, group: Any, nodes: str) -> None:
        """Change the nodes that a group may use: its members' pages move there."""
        ...

    def resize_pool(self, node: int, pages: int) -> None:
        """Give a node's hugetlb pool that many huge pages."""
        ...

    def pools(self) -> list[int]:
        """Return the size of each node's hugetlb pool, in huge pages."""
        ...

    def fill(self, node: int) -> None:
        """Take nearly all free memory of a node: less than 4,096 pages are left."""
        ...

    def merge(self) -> None:
        """Let KSM merge what is marked as mergeable, to the end."""
        ...


class Process(Protocol):
    """A process of the world, driven step by step."""

    pid: int

    def fork(self) -> Process:
        """Make a child that shares all pages."""
        ...

    def exit(self) -> None:
        """End; a zombie until the parent waits."""
        ...

    def wait(self) -> None:
        """Take note of all children that have ended."""
        ...

    def set_dumpable(self, value: bool) -> None:
        """Let others of the same user look at it, or not."""
        ...

    def mmap(
        self,
        pages: int,
        *,
        prot: str = "rw",
        shared: bool = False,
        file: Any = None,
        huge: bool = False,
    ) -> int:
        """Map pages at a multiple of 2 MiB, at least 2 MiB away from any other mapping."""
        ...

    def munmap(self, address: int, pages: int) -> None:
        """Unmap pages."""
        ...

    def mprotect(self, address: int, pages: int, prot: str) -> None:
        """Change what is allowed: a part of "rw", "" for nothing."""
        ...

    def madvise(self, address: int, pages: int, advice: str) -> None:
        """Advise: dontneed, hugepage or mergeable."""
        ...

    def mlock(self, address: int, pages: int) -> None:
        """Lock pages in memory."""
        ...

    def write(self, address: int, pages: int = 1) -> None:
        """Write to pages."""
        ...

    def read(self, address: int, pages: int = 1) -> None:
        """Read from pages."""
        ...

    def poke(self, address: int, tags: Sequence[int]) -> None:
        """Write a number at the start of each page."""
        ...

    def peek(self, addresses: Sequence[int]) -> list[int]:
        """Read the number at the start of each page."""
        ...

    def pin(self, address: int, pages: int = 1) -> None:
        """Let somebody refer to pages, as a pipe does after vmsplice(2); at most 16."""
        ...

    def unpin(self) -> None:
        """End all pins of this process."""
        ...

    def vdso(self) -> int:
        """Return the address of the first page of the vDSO, which all processes share."""
        ...

    def vvar(self) -> int:
        """Return the address of a mapping without pages (VM_PFNMAP)."""
        ...

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
        """Make the raw call. Arrays may end early, or one be NULL; `count` may claim more."""
        ...

    def where(self, address: int, pages: int = 1) -> tuple[int, ...]:
        """Query pages that lie side by side: their statuses."""
        ...

    def migrate_pages(
        self, pid: int, old: Iterable[int], new: Iterable[int], *, maxnode: int | None = None
    ) -> int:
        """Make the raw call with two masks of 1,024 bits."""
        ...

    def mbind(
        self, address: int, length: int, mode: int, nodes: Iterable[int] = (), flags: int = 0
    ) -> int:
        """Make the raw call; the length is in bytes."""
        ...

    def set_mempolicy(self, mode: int, nodes: Iterable[int] = ()) -> int:
        """Make the raw call."""
        ...

    def get_mempolicy(self, flags: int = 0, address: int = 0) -> tuple[int, str]:
        """Make the raw call; return its result, and what it wrote: mode, and nodes as in 0-1."""
        ...

    def set_mempolicy_home_node(self, address: int, length: int, node: int, flags: int = 0) -> int:
        """Make the raw call; the length is in bytes."""
        ...


def addresses_of(address: int, pages: int) -> list[int]:
    """Return the addresses of pages that lie side by side."""
    return [address + PAGE * page for page in range(pages)]


class Arena:
    """Where processes map memory, in every world alike: so that no two mappings ever merge."""

    def __init__(self, at: int = 1 << 44) -> None:
        """Begin at an address."""
        self.at = at

    def take(self, pages: int) -> int:
        """Return where the next mapping goes."""
        address = self.at
        self.at += (-(-pages // HUGE) + 1) * HUGE * PAGE
        return address

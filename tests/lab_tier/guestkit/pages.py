"""Pages, and what the kernel answers about them, in the notation of the recorded observations.

An answer is written `0 | {-ENOENT:8, 1:8}`: the return value, then how many pages have which
status; or `-ENODEV | [1, 99, 99, 99]`, one by one. 99 is a status that the kernel never wrote.
"""

from __future__ import annotations

import ctypes
import mmap
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from movepages.abi import UNWRITTEN, Errno, Mode, MoveFlag
from movepages.linux import syscalls
from movepages.linux.mempolicy import mask_of
from movepages.linux.page_calls import unwritten
from movepages.linux.syscalls import address_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import ArrayLike, NDArray

PAGE_BYTES = mmap.PAGESIZE
HUGE_PAGES = 512
"""Base pages in a huge one."""
HUGE_BYTES = HUGE_PAGES * PAGE_BYTES


def said(code: int) -> str:
    """Write a status or a return value."""
    if code == UNWRITTEN:
        return "99"
    return str(code) if code >= 0 else f"-{Errno(-code).name}"


def counted(status: NDArray[np.int32]) -> str:
    """Write how many pages have which status, in rising order; 99 comes last."""
    codes, counts = np.unique(status, return_counts=True)
    pairs = list(zip(map(said, codes.tolist()), counts.tolist(), strict=True))
    pairs.sort(key=lambda pair: pair[0] == "99")
    return "{" + ", ".join(f"{code}:{count}" for code, count in pairs) + "}"


def listed(status: NDArray[np.int32]) -> str:
    """Write statuses one by one."""
    return "[" + ", ".join(map(said, status.tolist())) + "]"


class Pages:
    """Base pages of this process by their addresses, and the raw calls on them.

    What looks at the memory itself (`data`, `touch`, ...) needs pages that lie side by side.
    """

    def __init__(self, addresses: NDArray[np.uint64]) -> None:
        """Take an address in each page, uint64[n]."""
        self.addresses = addresses

    def __len__(self) -> int:
        """Count the pages."""
        return len(self.addresses)

    def __getitem__(self, part: slice) -> Pages:
        """Return some of the pages."""
        return Pages(np.ascontiguousarray(self.addresses[part]))

    @property
    def start(self) -> int:
        """The address of the first page."""
        return int(self.addresses[0])

    @property
    def size_bytes(self) -> int:
        """Length of the memory in bytes."""
        return len(self) * PAGE_BYTES

    @property
    def range(self) -> tuple[int, int]:
        """The addresses of its first byte, and behind its last."""
        return self.start, self.start + self.size_bytes

    @property
    def data(self) -> NDArray[np.uint64]:
        """The memory itself, uint64[pages, words of a page]."""
        words = (ctypes.c_uint64 * (self.size_bytes // 8)).from_address(self.start)
        return np.ctypeslib.as_array(words).reshape(len(self), -1)

    def touch(self) -> Pages:
        """Write its own address all over each page."""
        self.data[:] = self.addresses[:, None]
        return self

    def intact(self) -> bool:
        """Tell whether each page holds its own address all over still."""
        return bool((self.data == self.addresses[:, None]).all())

    def move(self, nodes: ArrayLike, flags: int = MoveFlag.MOVE, pid: int = 0) -> str:
        """Move the pages to one node, or each to its own; count the statuses."""
        ret, status = self.call(nodes, flags, pid)
        return f"{said(ret)} | {counted(status)}"

    def move_each(self, nodes: ArrayLike, flags: int = MoveFlag.MOVE, pid: int = 0) -> str:
        """Move the pages; list the statuses."""
        ret, status = self.call(nodes, flags, pid)
        return f"{said(ret)} | {listed(status)}"

    def query(self, pid: int = 0) -> str:
        """Ask where the pages are; count the statuses."""
        ret, status = self.call(None, 0, pid)
        return f"{said(ret)} | {counted(status)}"

    def where(self, pid: int = 0) -> str:
        """Ask where the pages are: the counts alone, of a query that has to work."""
        ret, status = self.call(None, 0, pid)
        assert ret == 0, said(ret)
        return counted(status)

    def where_each(self, pid: int = 0) -> str:
        """Ask where the pages are: the list alone, of a query that has to work."""
        ret, status = self.call(None, 0, pid)
        assert ret == 0, said(ret)
        return listed(status)

    def call(self, nodes: ArrayLike | None, flags: int, pid: int) -> tuple[int, NDArray[np.int32]]:
        """Make the raw call, statuses filled as unwritten; nodes None is a query."""
        status = unwritten(len(self))
        to = None if nodes is None else np.array(np.broadcast_to(nodes, len(self)), np.int32)
        ret = syscalls.move_pages(
            pid,
            len(self),
            address_of(self.addresses),
            None if to is None else address_of(to),
            address_of(status),
            int(flags),
        )
        return ret, status

    def mbind(self, mode: Mode, nodes: Iterable[int], flags: int = 0) -> str:
        """Set the policy of the memory with the raw call; write the return value."""
        mask, maxnode = mask_of(nodes)
        ret = syscalls.mbind(
            self.start, self.size_bytes, mode, address_of(mask), maxnode, int(flags)
        )
        return said(ret)

    def numa_maps(self) -> str:
        """Return what numa_maps says of the mapping that starts here, its address left out."""
        for line in Path("/proc/self/numa_maps").read_text(encoding="utf-8").splitlines():
            address, _, rest = line.partition(" ")
            if int(address, 16) == self.start:
                return rest
        raise LookupError(f"numa_maps has no line for {self.start:#x}")

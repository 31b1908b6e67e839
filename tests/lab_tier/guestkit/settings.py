"""Settings of the guest that a test changes: cpusets, pools of huge pages, memory blocks."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from guestkit.pages import HUGE_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

NODES = Path("/sys/devices/system/node")
OVERCOMMIT = Path("/proc/sys/vm/nr_overcommit_hugepages")
_BLOCKS = Path("/sys/devices/system/memory")
_CGROUPS = Path("/sys/fs/cgroup")


def write(path: Path, text: str) -> None:
    """Write to a file of the kernel in one write(2), which tells its error at once."""
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


class Cpuset:
    """A cgroup with memory nodes of its own."""

    def __init__(self, name: str) -> None:
        """Make it, with no limit yet."""
        self._directory = _CGROUPS / name
        self._directory.mkdir()

    def allow(self, nodes: str) -> None:
        """Set cpuset.mems: the kernel moves the pages of its members at once."""
        write(self._directory / "cpuset.mems", nodes)

    def add(self, pid: int) -> None:
        """Move a process into it."""
        write(self._directory / "cgroup.procs", str(pid))

    def remove(self) -> None:
        """Send its members back to the root, and remove it."""
        for pid in (self._directory / "cgroup.procs").read_text(encoding="ascii").split():
            write(_CGROUPS / "cgroup.procs", pid)
        self._directory.rmdir()


class HugePools:
    """The pools of huge pages of all nodes."""

    def __init__(self) -> None:
        """Remember how large they are."""
        self._nodes = sorted(
            int(path.name.removeprefix("node")) for path in NODES.glob("node[0-9]*")
        )
        self._found = {node: self.total(node) for node in self._nodes}

    def set(self, node: int, huge_pages: int) -> None:
        """Ask for so many huge pages on a node; the kernel may find fewer."""
        write(_pool(node) / "nr_hugepages", str(huge_pages))

    def total(self, node: int) -> int:
        """Count the huge pages in the pool of a node, free or not."""
        return int((_pool(node) / "nr_hugepages").read_text(encoding="ascii"))

    def counts(self) -> str:
        """Write total and free of each node in turn, as the observations do."""
        names = ("nr_hugepages", "free_hugepages")
        paths = [_pool(node) / name for node in self._nodes for name in names]
        return str([path.read_text(encoding="ascii").strip() for path in paths])

    def restore(self) -> None:
        """Make them as large as they were found."""
        for node, total in self._found.items():
            self.set(node, total)


@contextmanager
def huge_pages_on_demand(huge_pages: int) -> Iterator[None]:
    """Let so many huge pages more be made when they are mapped, though the pools are empty.

    Nothing is taken before, and nothing is held when they are unmapped.
    """
    _overcommit(huge_pages)
    try:
        yield
    finally:
        _overcommit(-huge_pages)


def _overcommit(more: int) -> None:
    """Change how many there may be; another may do so at the same time."""
    write(OVERCOMMIT, str(int(OVERCOMMIT.read_text(encoding="ascii")) + more))


def _pool(node: int) -> Path:
    return NODES / f"node{node}" / "hugepages" / f"hugepages-{HUGE_BYTES >> 10}kB"


def set_memory(node: int, state: str) -> None:
    """Set the state of all memory blocks of a node: offline, or online_movable."""
    for block in sorted((NODES / f"node{node}").glob("memory[0-9]*")):
        path = _BLOCKS / block.name / "state"
        if not state.startswith(path.read_text(encoding="ascii").strip()):
            write(path, state)

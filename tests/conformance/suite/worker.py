"""A real process that does what it is told: the far end of the live driver.

It is a fork of the driver, or of another worker, for a fork costs a guest milliseconds and a new
interpreter seconds. Commands come over a socket, a message each; its memory is mapped where the
arena says, so that nothing else of the interpreter is near it.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import socket
import sys
import traceback
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from movepages.abi import UNWRITTEN
from movepages.linux import syscalls
from suite import libc
from suite.protocol import PAGE, Arena

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MESSAGE_BYTES = 1 << 17
_MASK_BITS = 1024
_WORDS = _MASK_BITS // 64


class Worker:
    """The commands. Every public method is one."""

    def __init__(self, arena: Arena) -> None:
        """Begin with nothing mapped."""
        self._arena = arena
        self._pipes: list[tuple[int, int]] = []

    # -- life ---------------------------------------------------------------------------------

    def set_dumpable(self, value: bool) -> None:
        """Let others look at this process, or not."""
        libc.set_dumpable(int(value))

    def await_exit(self, pid: int) -> None:
        """Return when a child has ended, and leave it a zombie."""
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)

    def wait(self) -> None:
        """Reap the children that have ended."""
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass

    # -- memory -------------------------------------------------------------------------------

    def reset(self) -> None:
        """Have nothing mapped, pinned or to wait for, as at the start."""
        self.unpin()
        self.wait()
        start = Arena().at
        if self._arena.at > start:
            libc.unmap(start, self._arena.at - start)
        self._arena = Arena()

    def mmap(
        self,
        pages: int,
        *,
        prot: str = "rw",
        shared: bool = False,
        file: int | None = None,
        huge: bool = False,
    ) -> int:
        """Map pages at the arena's next place."""
        flags = (libc.MAP_SHARED if shared else libc.MAP_PRIVATE) | libc.MAP_FIXED_NOREPLACE
        if file is None:
            flags |= libc.MAP_ANONYMOUS
        if huge:
            flags |= libc.MAP_HUGETLB
        address = self._arena.take(pages)
        fd = -1 if file is None else file
        return libc.map_at(address, pages * PAGE, libc.PROTECTIONS[prot], flags, fd)

    def munmap(self, address: int, pages: int) -> None:
        """Unmap pages."""
        libc.unmap(address, pages * PAGE)

    def mprotect(self, address: int, pages: int, prot: str) -> None:
        """Change what is allowed."""
        libc.protect(address, pages * PAGE, libc.PROTECTIONS[prot])

    def madvise(self, address: int, pages: int, advice: str) -> None:
        """Advise."""
        libc.advise(address, pages * PAGE, advice)

    def mlock(self, address: int, pages: int) -> None:
        """Lock in memory."""
        libc.lock(address, pages * PAGE)

    def write(self, address: int, pages: int = 1) -> None:
        """Write to each page; a huge one is there after its first."""
        for at in range(address, address + pages * PAGE, PAGE):
            ctypes.memset(at + 8, 1, 1)

    def read(self, address: int, pages: int = 1) -> None:
        """Read from each page."""
        for at in range(address, address + pages * PAGE, PAGE):
            ctypes.string_at(at, 1)

    def poke(self, address: int, tags: Sequence[int]) -> None:
        """Write a number at the start of each page; ctypes' own assignment would read it first."""
        for number, tag in enumerate(tags):
            ctypes.memmove(address + number * PAGE, tag.to_bytes(8, sys.byteorder), 8)

    def peek(self, addresses: Sequence[int]) -> list[int]:
        """Read the number at the start of each page."""
        return [ctypes.c_uint64.from_address(address).value for address in addresses]

    def pin(self, address: int, pages: int = 1) -> None:
        """Put pages into a pipe."""
        reader, writer = os.pipe()
        self._pipes.append((reader, writer))
        libc.splice_into(writer, address, pages * PAGE)

    def unpin(self) -> None:
        """Close all pipes."""
        for ends in self._pipes:
            for end in ends:
                os.close(end)
        self._pipes.clear()

    def vdso(self) -> int:
        """Return where the vDSO is."""
        return _mapping("[vdso]")

    def vvar(self) -> int:
        """Return where the kernel's data page for the vDSO is."""
        return _mapping("[vvar]")

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
    ) -> tuple[int, tuple[int, ...]]:
        """Make the raw call."""
        entries = len(addresses)
        if isinstance(nodes, int):
            nodes = [nodes] * entries
        unwritten = [UNWRITTEN] * entries
        with ExitStack() as placed:
            pages = _place(placed, ctypes.c_uint64, addresses, pages_readable, "")
            to = None
            if nodes is not None:
                to = _place(placed, ctypes.c_int32, nodes, nodes_readable, "")
            status = _place(placed, ctypes.c_int32, unwritten, status_writable, "r")
            ret = syscalls.move_pages(
                pid,
                entries if count is None else count,
                None if null == "pages" else ctypes.addressof(pages),
                None if to is None or null == "nodes" else ctypes.addressof(to),
                None if null == "status" else ctypes.addressof(status),
                flags,
            )
            return ret, tuple(status)

    def migrate_pages(
        self, pid: int, old: Iterable[int], new: Iterable[int], *, maxnode: int | None = None
    ) -> int:
        """Make the raw call."""
        masks = [_mask(nodes) for nodes in (old, new)]
        bits = _MASK_BITS + 1 if maxnode is None else maxnode
        return syscalls.migrate_pages(pid, bits, *map(ctypes.addressof, masks))

    def mbind(
        self, address: int, length: int, mode: int, nodes: Iterable[int] = (), flags: int = 0
    ) -> int:
        """Make the raw call."""
        mask = _mask(nodes)
        at = ctypes.addressof(mask)
        return syscalls.mbind(address, length, mode, at, _MASK_BITS + 1, flags)

    def set_mempolicy(self, mode: int, nodes: Iterable[int] = ()) -> int:
        """Make the raw call."""
        mask = _mask(nodes)
        return syscalls.set_mempolicy(mode, ctypes.addressof(mask), _MASK_BITS + 1)

    def get_mempolicy(self, flags: int = 0, address: int = 0) -> tuple[int, int, list[int]]:
        """Make the raw call; return its result, the mode and the words of the mask."""
        mode, mask = ctypes.c_int32(UNWRITTEN), _mask(())
        at = (ctypes.addressof(mode), ctypes.addressof(mask), _MASK_BITS)
        ret = syscalls.get_mempolicy(*at, address or None, flags)
        return ret, mode.value, list(mask)

    def set_mempolicy_home_node(self, address: int, length: int, node: int, flags: int = 0) -> int:
        """Make the raw call."""
        return syscalls.set_mempolicy_home_node(address, length, node, flags)


def serve(worker: Worker, commands: socket.socket) -> None:
    """Do what comes over the socket until it ends, or until told to exit; never return."""
    try:
        while True:
            message, descriptors, _, _ = socket.recv_fds(commands, MESSAGE_BYTES, 1)
            if not message:
                break
            name, arguments, options = pickle.loads(message)  # noqa: S301 - from our own driver
            if name == "exit":
                break
            if name == "fork":
                commands = _fork(commands, socket.socket(fileno=descriptors[0]))
                continue
            commands.send(pickle.dumps(_answer(worker, name, arguments, options)))
    finally:
        os._exit(0)


def _fork(commands: socket.socket, of_child: socket.socket) -> socket.socket:
    """Fork; return the socket that this process, parent or child, listens to from now on."""
    pid = os.fork()
    if not pid:
        commands.close()
        return of_child
    of_child.close()
    commands.send(pickle.dumps((True, pid)))
    return commands


def _answer(worker: Worker, name: str, arguments: Any, options: Any) -> tuple[bool, Any]:
    try:
        return True, getattr(worker, name)(*arguments, **options)
    except Exception:  # noqa: BLE001 - whatever it is, the driver must hear of it
        return False, traceback.format_exc()


def _mask(nodes: Iterable[int]) -> Any:
    mask = (ctypes.c_uint64 * _WORDS)()
    for node in nodes:
        mask[node // 64] |= 1 << node % 64
    return mask


def _place(
    placed: ExitStack, kind: Any, values: Sequence[int], usable: int | None, beyond: str
) -> Any:
    """Return an array of C integers; from element `usable` on, its pages allow only `beyond`."""
    array = kind * len(values)
    if usable is None:
        return array(*values)
    size = ctypes.sizeof(kind)
    low = -(-usable * size // PAGE) * PAGE
    high = -(-(len(values) - usable) * size // PAGE) * PAGE
    flags = libc.MAP_PRIVATE | libc.MAP_ANONYMOUS
    start = libc.map_at(None, low + high + PAGE, libc.PROTECTIONS["rw"], flags)
    placed.callback(libc.unmap, start, low + high + PAGE)
    placed = array.from_address(start + low - usable * size)
    placed[:] = values
    libc.protect(start + low, high + PAGE, libc.PROTECTIONS[beyond])
    return placed


def _mapping(name: str) -> int:
    for line in Path("/proc/self/maps").read_text(encoding="ascii").splitlines():
        if line.endswith(name):
            return int(line.partition("-")[0], 16)
    raise LookupError(f"this kernel has no {name}")

"""Real processes on an emulated machine, without a filter: their calls are handed in by hand.

Each process is a fork of the test (`suite.live`, `guestkit.children`) that does what it is told.
Arguments of calls lie in memory that all of them have at the same address.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from typing import TYPE_CHECKING

import numpy as np
from suite.live import LiveWorld

from movepages.abi import UNWRITTEN, Mode, MoveFlag
from movepages.abi.limits import ULONG_MAX
from movepages.emulator.address_space import LiveAddressSpace
from movepages.emulator.filter import Precision
from movepages.emulator.machine import EmulatedMachine
from movepages.emulator.replies import Continue, Value
from movepages.kernel import LINUX_6_12
from movepages.kernel.mempolicy import MemPolicy
from movepages.linux.process_memory import read_into, write_memory
from movepages.linux.seccomp import Notification
from movepages.nodeset import NodeSet
from movepages.topology import parse_topology

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from movepages.kernel.semantics import Semantics
    from movepages.linux.page_facts import PageFactReader

PAGE = 4096
ABSENT = -2
"""The status of a page that is not there: -ENOENT."""
MASK_BITS = 128
_ARRAY_BYTES = 1 << 16
_ARRAYS = 4


def bind(*nodes: int) -> MemPolicy:
    """Return the policy that takes memory of some nodes only."""
    return MemPolicy(Mode.BIND, NodeSet(nodes), user_nodes=NodeSet(nodes))


class LiveMachine:
    """An emulated machine, processes on it, and the calls that they make."""

    def __init__(
        self,
        topology: str = "4x(0cpu,1G)",
        semantics: Semantics = LINUX_6_12,
        precision: Precision = Precision.EXACT,
        page_facts: PageFactReader | None = None,
    ) -> None:
        """Declare the machine; by default host CPUs are spread over four nodes."""
        self.machine = EmulatedMachine(
            parse_topology(topology), semantics, precision, page_facts=page_facts
        )
        self.world = LiveWorld()
        self._handlers = self.machine.handlers()
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        self._arrays = mmap.mmap(-1, _ARRAYS * _ARRAY_BYTES, flags=flags)
        self._start = ctypes.addressof(ctypes.c_char.from_buffer(self._arrays))

    def close(self) -> None:
        """End the processes, and let go of what is known of them."""
        self.world.close()
        for thing in self.machine.processes.prune():
            self.machine.objects.drop(thing)
        self.machine.close()

    # -- calls --------------------------------------------------------------------------------

    def reply(self, name: str, tid: int, *arguments: int) -> Value | Continue:
        """Hand a call of a task in."""
        six = [argument & ULONG_MAX for argument in (*arguments, *[0] * (6 - len(arguments)))]
        return self._handlers[name](Notification(1, tid, 0, tuple(six), 0))

    def call(self, name: str, tid: int, *arguments: int) -> int:
        """Hand a call in that is answered; return what it returns."""
        reply = self.reply(name, tid, *arguments)
        assert isinstance(reply, Value)
        return reply.ret

    def lets_through(self, name: str, tid: int, *arguments: int) -> None:
        """Hand a call in that the kernel is to carry out."""
        assert self.reply(name, tid, *arguments) == Continue()

    def stored(self, tid: int, place: int, values: Iterable[int], dtype: str) -> int:
        """Put an array into the memory of a task; return where it is."""
        pointer = self._start + place * _ARRAY_BYTES
        data = np.array(values, dtype=dtype)
        assert write_memory(tid, pointer, data) == data.nbytes <= _ARRAY_BYTES
        return pointer

    def loaded(self, tid: int, place: int, count: int, dtype: str) -> list[int]:
        """Read an array from the memory of a task."""
        data = np.empty(count, dtype=dtype)
        assert read_into(tid, self._start + place * _ARRAY_BYTES, data) == data.nbytes
        return data.tolist()

    def mask(self, tid: int, nodes: Iterable[int], place: int = 3) -> int:
        """Put a mask of nodes into the memory of a task; return where it is."""
        bits = sum(1 << node for node in nodes)
        return self.stored(tid, place, [bits & ULONG_MAX, bits >> 64], "u8")

    def move(
        self,
        pid: int,
        addresses: Sequence[int],
        nodes: Sequence[int] | None,
        flags: MoveFlag = MoveFlag.MOVE,
    ) -> tuple[int, list[int]]:
        """Let the test itself move, or look for, pages of a process; return result and statuses."""
        caller, count = os.getpid(), len(addresses)
        pages = self.stored(caller, 0, addresses, "u8")
        to = 0 if nodes is None else self.stored(caller, 1, nodes, "i4")
        status = self.stored(caller, 2, [UNWRITTEN] * count, "i4")
        ret = self.call("move_pages", caller, pid, count, pages, to, status, flags)
        return ret, self.loaded(caller, 2, count, "i4")

    def where(self, pid: int, address: int, count: int = 1) -> list[int]:
        """Return the node of each of some pages side by side, or -errno."""
        addresses = [address + number * PAGE for number in range(count)]
        ret, status = self.move(pid, addresses, None, MoveFlag(0))
        assert ret == 0
        return status

    def put(
        self, pid: int, address: int, nodes: Sequence[int], flags: MoveFlag = MoveFlag.MOVE
    ) -> None:
        """Move pages that lie side by side, each to its node."""
        addresses = [address + number * PAGE for number in range(len(nodes))]
        assert self.move(pid, addresses, nodes, flags) == (0, list(nodes))

    def mbind(
        self, tid: int, address: int, pages: int, mode: Mode, nodes: Iterable[int], flags: int = 0
    ) -> int:
        """Let a task set the policy of some of its pages."""
        mask = self.mask(tid, nodes)
        return self.call("mbind", tid, address, pages * PAGE, mode, mask, MASK_BITS, flags)

    def set_mempolicy(self, tid: int, mode: Mode, nodes: Iterable[int] = ()) -> int:
        """Let a task set its own policy."""
        return self.call("set_mempolicy", tid, mode, self.mask(tid, nodes), MASK_BITS)

    def get_mempolicy(self, tid: int, flags: int = 0, address: int = 0) -> tuple[int, int]:
        """Let a task ask for a policy or a node; return the result and the mode, or the node."""
        mode = self.stored(tid, 1, [UNWRITTEN], "i4")
        ret = self.call("get_mempolicy", tid, mode, 0, 0, address, flags)
        return ret, self.loaded(tid, 1, 1, "i4")[0]

    # -- what is known ------------------------------------------------------------------------

    def used(self) -> list[int]:
        """Return how many pages of each node are in use."""
        return [
            int(self.machine.capacity.used[node]) for node in sorted(self.machine.topology.online)
        ]

    def space(self, tid: int) -> LiveAddressSpace:
        """Return the memory of a task behind the port."""
        task = self.machine.processes.task(tid)
        return LiveAddressSpace.of(self.machine, task, task.mm)

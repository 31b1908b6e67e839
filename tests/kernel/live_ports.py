"""A live process behind the ports: the emulator's side of the contract."""

# ruff: noqa: D102, D105, D107 - the same world as the two in test_ports

from __future__ import annotations

import numpy as np
from suite.live import LiveWorld

from movepages.emulator.filter import Precision
from movepages.emulator.machine import EmulatedMachine
from movepages.emulator.tasks import LiveTaskTable
from movepages.emulator.user_memory import LiveUserMemory
from movepages.linux.process_memory import read_into, write_memory
from movepages.topology import parse_topology

PAGE = 4096
KTHREADD = 2


class Stored:
    """An array in the memory of a process, read when it is looked at."""

    def __init__(self, pid, pointer, dtype, count):
        self.pid, self.pointer, self.dtype, self.count = pid, pointer, dtype, count

    def __iter__(self):
        data = np.empty(self.count, dtype=self.dtype)
        assert read_into(self.pid, self.pointer, data) == data.nbytes
        return iter(data.tolist())


class OnLiveProcess:
    """Two nodes and a real process with four pages, a zero page and a hole."""

    def __init__(self, semantics, tags):
        self.world = LiveWorld()
        self.process = self.world.process()
        self.start = self.process.mmap(8)
        self.process.poke(self.start, tags)
        self.process.read(self.start + 4 * PAGE)
        self.process.munmap(self.start + 6 * PAGE, 1)  # the hole; 5 and 7 are untouched
        self.machine = EmulatedMachine(parse_topology("2 x 1G"), semantics, Precision.EXACT)
        self.machine.processes.first = self.process.pid
        task = self.machine.processes.task(self.process.pid)
        self.frames, self.user = self.machine.frames, LiveUserMemory(task)
        self.tasks = LiveTaskTable(self.machine, task)
        self.space = self.tasks.address_space(task.tid)
        self.kernel_thread = KTHREADD

    def close(self):
        self.world.close()

    def place(self, values, dtype, *, readable=None, writable=None):
        """Put an array where the element that can be accessed last is the last of a page."""
        data = np.array(values, dtype=dtype)
        pages = self.process.mmap(2)
        ends = next((end for end in (readable, writable) if end is not None), len(data))
        pointer = pages + PAGE - ends * data.itemsize
        assert write_memory(self.process.pid, pointer, data) == data.nbytes
        if readable is not None or writable is not None:
            self.process.mprotect(pages + PAGE, 1, "" if readable is not None else "r")
        return pointer, Stored(self.process.pid, pointer, dtype, len(data))

    def share(self):
        self.process.fork()

    def contents(self):
        return self.process.peek([self.start + at * PAGE for at in range(4)])

    def fill(self, node):
        self.machine.capacity.take(node, self.machine.capacity.free(node))

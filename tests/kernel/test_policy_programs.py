"""Random programs of policy calls, migrations and cpusets: no frame is lost or doubled."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
import pytest

from movepages.abi import Errno
from movepages.kernel.crash import KernelBugError
from movepages.kernel.faults import OutOfMemoryError
from movepages.kernel.machine import SimulatedMachine
from movepages.kernel.mappings import Backing
from movepages.kernel.semantics import ALL_SEMANTICS

MACHINES = ("4 x 1M", "2x(1cpu,4M) + 2x(0cpu,8M)", "3 x 8M")
STEPS = 40
ANSWERS = {0, -Errno.EINVAL, -Errno.EIO, -Errno.EPERM}
"""What mbind can answer on ranges that are mapped."""


@dataclass
class Program:
    """A machine, and processes on it that do as the dice say."""

    dice: np.random.Generator
    machine: SimulatedMachine
    processes: list = field(default_factory=list)
    areas: list = field(default_factory=list)

    def __post_init__(self):
        """Start two processes, in cpusets of their own."""
        self.count = len(self.machine.declared.nodes)
        self.cpusets = [self.machine.new_cpuset(range(self.count)), self.machine.new_cpuset([0, 1])]
        self.file = self.machine.file("/data", 64)
        self.shared = self.machine.file("/dev/shm/a", 64, Backing.SHMEM)
        for uid in (0, 1000):
            self.processes.append(self.machine.spawn(uid=uid, cpuset=self.cpusets[uid > 0]))

    def choose(self, choices):
        """Choose one of several."""
        return choices[self.dice.integers(len(choices))]

    def nodes(self):
        """Choose some nodes, or none."""
        return np.flatnonzero(self.dice.random(self.count) < 0.5).tolist()

    def part(self):
        """Choose a part of an area: the process, an address and a number of pages."""
        task, address, pages = self.choose(self.areas)
        first = int(self.dice.integers(pages))
        return task, address + first * 4096, int(self.dice.integers(1, pages - first + 1))

    def step(self):
        """Do one thing."""
        steps = [self.map, self.set_policy, self.migrate, self.write_mems, self.fork_or_attach]
        if self.areas:
            steps += [self.touch, self.touch, self.bind, self.bind]
        self.choose(steps)()

    def map(self):
        """Map anonymous, file or shared memory; sometimes with huge pages."""
        task, pages = self.choose(self.processes), self.choose([4, 64, 1024])
        kinds = [{}, {"shared": True}]
        if pages <= 64:
            kinds += [{"file": self.file}, {"file": self.shared, "shared": True}]
        kind = self.choose(kinds)
        address = task.mmap(pages, **kind)
        if not kind and self.machine.semantics.moves_large_folios:
            task.madvise(address, pages, "hugepage")
        self.areas.append((task, address, pages))

    def touch(self):
        """Read or write."""
        task, address, pages = self.part()
        self.choose([task.read, task.write])(address, pages)

    def bind(self):
        """Set a policy of a range, and move or check its pages."""
        task, address, pages = self.part()
        mode = int(self.dice.integers(7)) | self.choose([0, 0, 1 << 14, 1 << 15])
        flags = int(self.dice.integers(8))
        assert task.mbind(address, pages, mode, self.nodes(), flags) in ANSWERS

    def set_policy(self):
        """Set the policy of a task."""
        self.choose(self.processes).set_mempolicy(int(self.dice.integers(7)), self.nodes())

    def migrate(self):
        """Migrate a process from all nodes to some."""
        task = self.choose(self.processes)
        self.machine.shell.migrate_pages(task.pid, range(self.count), self.nodes())

    def write_mems(self):
        """Give a cpuset other nodes."""
        self.machine.set_cpuset_mems(self.choose(self.cpusets), self.nodes() or [0])

    def fork_or_attach(self):
        """Make a child, or move a process into a cpuset."""
        task = self.choose(self.processes)
        if len(self.processes) > 4 or self.dice.random() < 0.5:
            task.attach(self.choose(self.cpusets))
            return
        child = task.fork()
        self.processes.append(child)
        self.areas += [(child, *area) for owner, *area in self.areas if owner is task]


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("semantics", ALL_SEMANTICS, ids=lambda semantics: semantics.name)
def test_no_frame_is_lost(semantics, seed):
    """After every step the slow recount agrees: references, mappings, lists and free memory."""
    dice = np.random.default_rng(seed)
    machine = SimulatedMachine(
        MACHINES[seed % 3],
        semantics=semantics,
        swap_bytes=(seed % 2) << 20,
        watermark_pages=seed % 4,
    )
    program = Program(dice, machine)
    for _ in range(STEPS):
        with suppress(OutOfMemoryError, KernelBugError):  # what there is must still add up
            program.step()
        machine.check()

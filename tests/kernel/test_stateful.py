"""Whole machines, step by step: no frame is ever lost, doubled or left isolated.

After every step the machine recounts itself, and every page that a process wrote still holds what
was written. Hypothesis chooses the steps, and shrinks those that break something.
"""

from __future__ import annotations

import os

import numpy as np
import pytest
from decision.bench import SEMANTICS
from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from movepages import kernel
from movepages.abi import Mode
from movepages.errors import ArgumentError, UnsupportedError
from movepages.kernel.address_space import Prot, VmFlag
from movepages.kernel.crash import KernelBugError
from movepages.kernel.faults import OutOfMemoryError
from movepages.kernel.frames import PageFlag
from movepages.kernel.mappings import Backing

SOAK = 10 if os.environ.get("MOVEPAGES_SOAK") else 1
NODES = 3
PAGE = 64 << 10
"""A THP has 32 pages."""
MOST_PROCESSES = 5
KINDS = ("anon", "anon", "shared", "file", "dirty file", "thp", "hugetlb")

part = st.tuples(st.integers(0, 50), st.integers(1, 40))
"""Which pages of an area: the first, and how many; both cut to the area."""
which = st.integers(0, 50)
node_ids = st.integers(0, NODES - 1)
mode = st.sampled_from([Mode.BIND, Mode.PREFERRED, Mode.INTERLEAVE])


class Machine(RuleBasedStateMachine):
    """A machine with a few processes, each of which remembers what it wrote where."""

    semantics = "LINUX_6_12"

    @initialize(pages=st.sampled_from([120, 400]), swap_pages=st.sampled_from([0, 0, 64]))
    def build(self, pages, swap_pages):
        """Build a machine, and start a process."""
        self.machine = kernel.SimulatedMachine(
            f"{NODES} x {pages * PAGE >> 10}K",
            semantics=getattr(kernel, self.semantics),
            page_size_bytes=PAGE,
            swap_bytes=swap_pages * PAGE,
        )
        self.processes = []
        self.written = {}
        self.pinned = []
        self.tag = 0
        self.start()

    # -- processes ----------------------------------------------------------------------------

    @rule()
    def start(self):
        """A process starts."""
        if len(self.processes) < MOST_PROCESSES:
            self._keep(self.machine.spawn(), {})

    @rule(of=which)
    def fork(self, of):
        """A process forks: its child has the same contents."""
        parent = self._process(of)
        if parent and len(self.processes) < MOST_PROCESSES:
            self._keep(parent.fork(), dict(self.written[parent.pid]))

    @rule(of=which)
    def exit(self, of):
        """A process ends, and somebody waits for it."""
        process = self._process(of)
        if process and len(self.processes) > 1:
            self.processes.remove(process)
            process.exit()

    @rule(of=which, cpu=node_ids)
    def wander(self, of, cpu):
        """A process goes on on another CPU."""
        process = self._process(of)
        if process:
            process.struct.cpu = cpu

    # -- address spaces -----------------------------------------------------------------------

    @rule(of=which, kind=st.sampled_from(KINDS), pages=st.integers(1, 70))
    def mmap(self, of, kind, pages):
        """A process maps memory of some kind, and writes to it."""
        process = self._process(of)
        if process:
            self._attempt(lambda: self._map(process, kind, pages))

    def _map(self, process, kind, pages):
        if kind in {"file", "dirty file"}:
            backing = Backing.NO_METHOD if kind == "dirty file" else Backing.BUFFERS
            file = self.machine.file("f", pages, backing)
            address = process.mmap(pages, shared=kind == "dirty file", file=file)
        elif kind == "hugetlb":
            node = self.machine.node_of_cpu(process.struct.cpu)
            pool = self.machine.memory.pools.pool(node, self.machine.thp_order)
            self.machine.resize_pool(node, pool.total + 1)
            process.write(process.mmap(1, huge=True))
            return
        else:
            address = process.mmap(pages, shared=kind == "shared")
        if kind == "thp":
            process.madvise(address, pages, "hugepage")
        self._write(process, address, pages, private=kind not in ("shared", "dirty file"))

    @rule(of=which, area=which, part=part)
    def write(self, of, area, part):
        """A process writes to a part of a mapping."""
        chosen = self._part(of, area, part)
        if chosen:
            process, vma, address, pages = chosen
            private = not vma.shared and not vma.flags & VmFlag.HUGETLB
            self._attempt(lambda: self._write(process, address, pages, private=private))

    def _write(self, process, address, pages, *, private):
        tags = range(self.tag + 1, self.tag + 1 + pages)
        self.tag += pages
        process.poke(address, tags)
        if private:
            self.written[process.pid] |= dict(
                zip((address + i * PAGE for i in range(pages)), tags, strict=True)
            )

    @rule(of=which, area=which, part=part)
    def read(self, of, area, part):
        """A process reads a part of a mapping."""
        chosen = self._part(of, area, part)
        if chosen:
            self._attempt(lambda: chosen[0].read(*chosen[2:]))

    @rule(of=which, area=which, part=part, lock=st.booleans())
    def mlock(self, of, area, part, lock):
        """A process locks or unlocks a part of a mapping."""
        chosen = self._part(of, area, part)
        if chosen:
            process, _, address, pages = chosen
            call = process.mlock if lock else process.munlock
            self._attempt(lambda: call(address, pages))

    @rule(of=which, area=which, part=part)
    def mprotect(self, of, area, part):
        """A process takes away the rights to a part of a mapping, and gives them back."""
        chosen = self._part(of, area, part)
        if chosen:
            process, vma, address, pages = chosen
            prot = vma.prot
            self._attempt(lambda: process.mprotect(address, pages, Prot.NONE))
            self._attempt(lambda: process.mprotect(address, pages, prot))

    @rule(of=which, area=which, part=part, how=st.sampled_from(["munmap", "dontneed", "mremap"]))
    def let_go(self, of, area, part, how):
        """A process unmaps a part of a mapping, drops its pages, or maps it elsewhere."""
        chosen = self._part(of, area, part)
        if not chosen:
            return
        process, _, address, pages = chosen
        actions = {
            "munmap": lambda: process.munmap(address, pages),
            "dontneed": lambda: process.madvise(address, pages, "dontneed"),
            "mremap": lambda: process.mremap(address, pages),
        }
        moved = []
        self._attempt(lambda: moved.append(actions[how]()))
        if not moved:
            return
        for i in range(pages):
            tag = self.written[process.pid].pop(address + i * PAGE, None)
            if how == "mremap" and tag is not None:
                self.written[process.pid][moved[0] + i * PAGE] = tag

    @precondition(lambda self: self.semantics == "LINUX_6_12")
    @rule(of=which, area=which, part=part)
    def merge(self, of, area, part):
        """A process makes pages equal and has them merged."""
        chosen = self._part(of, area, part)
        if chosen and not chosen[1].shared and chosen[1].file is None:
            process, _, address, pages = chosen
            self._attempt(lambda: self._merge(process, address, pages))

    def _merge(self, process, address, pages):
        process.poke(address, [1] * pages)
        self.written[process.pid] |= {address + i * PAGE: 1 for i in range(pages)}
        process.madvise(address, pages, "mergeable")
        self.machine.merge()

    # -- migration ----------------------------------------------------------------------------

    @rule(of=which, area=which, part=part, nodes=st.lists(node_ids, min_size=1, max_size=3))
    def move(self, of, area, part, nodes):
        """Pages are moved, each to one of some nodes in turn."""
        chosen = self._part(of, area, part)
        if chosen:
            process, _, address, pages = chosen
            to = [nodes[i % len(nodes)] for i in range(pages)]
            self._attempt(lambda: process.move_pages(0, process.addresses(address, pages), to, 4))

    @rule(of=which, node=node_ids)
    def move_everything(self, of, node):
        """All pages of a process are moved to one node."""
        process = self._process(of)
        if process:
            for vma in process.struct.mm.areas:
                addresses = process.addresses(vma.start * PAGE, vma.pages)
                self._attempt(lambda where=addresses: process.move_pages(0, where, node, 2))

    @rule(of=which, area=which, seed=st.integers(0, 1000))
    def move_at_random(self, of, area, seed):
        """Pages of a mapping are named in no order, some twice, and sent anywhere."""
        chosen = self._part(of, area, (0, 100))
        if chosen:
            process, _, address, pages = chosen
            rng = np.random.default_rng(seed)
            where = rng.choice(process.addresses(address, pages), pages + 5)
            to = rng.integers(0, NODES, pages + 5)
            self._attempt(lambda: process.move_pages(0, where, to, 4))

    @rule(of=which, old=st.sets(node_ids, min_size=1), new=st.sets(node_ids, min_size=1))
    def migrate(self, of, old, new):
        """A process is migrated from some nodes to others."""
        process = self._process(of)
        if process:
            self._attempt(lambda: self.machine.shell.migrate_pages(process.pid, old, new))

    @rule(of=which, area=which, part=part, mode=mode, nodes=st.sets(node_ids, min_size=1))
    def mbind(self, of, area, part, mode, nodes):
        """A part of a mapping gets a policy, and its pages are moved by it."""
        chosen = self._part(of, area, part)
        if chosen:
            process, _, address, pages = chosen
            self._attempt(lambda: process.mbind(address, pages, mode, nodes, 4))

    @rule(node=node_ids)
    def offline(self, node):
        """A node loses its memory, and gets it back."""
        if self.machine.memory.frames.nodes[node].has_memory:
            self._attempt(lambda: self.machine.offline(node))
        else:
            self._attempt(lambda: self.machine.online(node))

    @rule(of=which, area=which, part=part)
    def pin(self, of, area, part):
        """Somebody pins a page; whoever pinned another lets go."""
        memory = self.machine.memory
        for head in self.pinned:
            memory.unpin(np.array([head]))
        self.pinned = []
        chosen = self._part(of, area, part)
        if chosen:
            pfn = chosen[0].frames(chosen[2], 1)
            if pfn[0] > 0:
                head = memory.frames.head(pfn)
                memory.pin(head)
                self.pinned = head.tolist()

    # -- what always holds --------------------------------------------------------------------

    @invariant()
    def the_counts_are_right(self):
        """Frames, counters and lists agree, and none is left isolated."""
        self.machine.check()
        frames = self.machine.memory.frames
        assert not frames.has(np.arange(len(frames)), PageFlag.ISOLATED).any()

    @invariant()
    def contents_are_intact(self):
        """Every page that is there holds what its process wrote last."""
        content = self.machine.memory.frames.content
        for process in self.processes:
            for address, tag in self.written[process.pid].items():
                pfn = process.frames(address, 1)[0]
                assert pfn < 0 or content[pfn] == tag

    # -- inside -------------------------------------------------------------------------------

    def _keep(self, process, written):
        self.processes.append(process)
        self.written[process.pid] = written

    def _process(self, number):
        return self.processes[number % len(self.processes)] if self.processes else None

    def _part(self, of, area, part):
        """Return a process, an area of it, and a range in that; None if there is none."""
        process = self._process(of)
        if process is None or not process.struct.mm.areas:
            return None
        areas = process.struct.mm.areas
        vma = areas[area % len(areas)]
        first = part[0] % vma.pages
        pages = min(part[1], vma.pages - first)
        return process, vma, (vma.start + first) * PAGE, pages

    def _attempt(self, action):
        """Do what may be refused: a full machine and a wrong mapping are part of life."""
        try:
            action()
        except (ArgumentError, OutOfMemoryError, UnsupportedError, KernelBugError):
            return


@pytest.mark.timeout(600)
@pytest.mark.parametrize("semantics", SEMANTICS)
def test_whole_machines_keep_their_books(semantics):
    """No sequence of steps loses or doubles a frame, leaves one isolated, or spoils contents."""
    steps = type(f"Machine_{semantics}", (Machine,), {"semantics": semantics})

    run_state_machine_as_test(
        steps,
        settings=settings(
            max_examples=60 * SOAK,
            stateful_step_count=30,
            derandomize=True,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )

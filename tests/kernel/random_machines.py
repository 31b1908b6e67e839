"""Random machines, and random calls on them, from a seed.

A machine is built through what processes do (mmap, touch, fork, mlock ...) and has on purpose what
makes calls go wrong: nodes that fill, pins, locks, pages isolated elsewhere, holes, odd files.
"""

from __future__ import annotations

import random
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from foci import Draft, Foci
from oracle import Call

from movepages import kernel
from movepages.errors import ArgumentError
from movepages.kernel.address_space import Prot
from movepages.kernel.faults import OutOfMemoryError
from movepages.kernel.frames import PageFlag
from movepages.kernel.mappings import Backing
from movepages.kernel.tasks import Cpuset
from movepages.nodeset import NodeSet
from movepages.topology import declared_topology

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from movepages.kernel.process import Task

FILES = (
    Backing.SHMEM,
    Backing.BUFFERS,
    Backing.NO_METHOD,
    Backing.WRITE_FAILS,
    Backing.NO_WRITEPAGE,
    Backing.REFUSES,
)
BOGUS_PIDS = (-5, 99_999, 1 << 30)
BAD_NODES = (-1, -(2**31), 1024, 5000, 2**31 - 1, 9)
KERNEL_ADDRESS = 0xFFFF_FFFF_FF60_0000
MOVE, MOVE_ALL = 2, 4
SMALL_PAGE, LARGE_PAGE = 4096, 512 << 10
"""With pages of 512 KiB a THP has four of them."""


class RandomMachine:
    """A machine from a seed, in a semantics by name, and calls on it."""

    def __init__(self, seed: int, semantics: str) -> None:
        """Build it; the same seed gives the same machine and the same calls."""
        self.rng = random.Random(f"{semantics} {seed}")  # noqa: S311 - not for secrets
        self.modern = semantics == "LINUX_6_12"
        self.large = self.modern and self.rng.random() < 0.3
        self.swaps = self.rng.random() < 0.3
        self.roomy = self.large or self.swaps or self.rng.random() < 0.4
        page_size = LARGE_PAGE if self.large else self.rng.choice((SMALL_PAGE, 64 << 10))
        self.page_size = page_size
        self.machine = kernel.SimulatedMachine(
            declared_topology(self._groups(page_size)),
            semantics=getattr(kernel, semantics),
            page_size_bytes=page_size,
            swap_bytes=64 * page_size if self.swaps else 0,
            vmalloc_limit_bytes=1 << 20,
        )
        self.lsm_refuses = self.rng.random() < 0.04
        if self.lsm_refuses:
            self.machine.lsm = lambda caller, target: False  # noqa: ARG005 - a hook
        self.tasks: list[Task] = []
        self.children: list[Task] = []
        """Of calls: they end after each."""
        self.migrates_next: list[int] = []
        """Folios that someone else will be moving during the next call."""
        self.failed_attempts = 0
        self.tag = 1
        self._populate()
        self.foci = Foci(self)

    # -- the machine --------------------------------------------------------------------------

    def _groups(self, page_size: int) -> list[tuple[int, int, list[int]]]:
        """Choose nodes: CPUs, memory, distances."""
        count = self.rng.choice((1, *(2, 3) * 3, *(4,) * 7))
        tight = (60, 90, 130, 200)
        sizes = [1000 if self.roomy else self.rng.choice(tight) for _ in range(count)]
        if count > 2 and self.rng.random() < 0.5:
            sizes[self.rng.randrange(1, count)] = 0
        distance = [[10] * count for _ in range(count)]
        for near in range(count):
            for far in range(near):
                distance[near][far] = distance[far][near] = self.rng.choice((15, 20, 20, 30))
        return [
            (1 if n == 0 or self.rng.random() < 0.8 else 0, sizes[n] * page_size, distance[n])
            for n in range(count)
        ]

    def _populate(self) -> None:
        nodes = self.machine.declared
        self.all_nodes = list(nodes.online)
        self.cpus = [cpu for node in nodes for cpu in node.cpus]
        for _ in range(self.rng.randint(1, 3)):
            self._spawn()
        for _ in range(self.rng.randint(1, 3)):
            parent = self.rng.choice(self.tasks)
            child = parent.fork()
            child.struct.cpu = self.rng.choice(self.cpus)
            self.tasks.append(child)
            self.attempt(lambda child=child: self._grow(child, self.rng.randint(0, 2)))
        parent = self.rng.choice(self.tasks)
        self.ended = parent.fork()
        self.ended.exit()
        self._spawn_special()
        if self.rng.random() < 0.5:
            thread = self.rng.choice(self.tasks).thread()
            self.tasks.append(thread)
        for _ in range(self.rng.randint(5, 25)):
            self.disturb()

    def _spawn_special(self) -> None:
        """Start processes that the foci of calls ask for."""
        self.nobody = self.machine.spawn(uid=1000)
        self.secretive = self.machine.spawn(uid=1000)
        self.secretive.set_dumpable(dumpable=False)
        self.confined = self.machine.spawn(cpuset=Cpuset(NodeSet([0])))

    def _spawn(self) -> None:
        rng = self.rng
        cpuset = None
        if rng.random() < 0.25:
            mems = rng.sample(self.all_nodes, rng.randint(1, len(self.all_nodes)))
            cpuset = Cpuset(NodeSet(mems))
        uid = rng.choice((0, 0, 1000, 1001))
        task = self.machine.spawn(uid=uid, cpu=rng.choice(self.cpus), cpuset=cpuset)
        if uid and rng.random() < 0.3:
            task.grant("SYS_NICE")
        if uid and rng.random() < 0.2:
            task.set_dumpable(dumpable=False)
        if uid and rng.random() < 0.1:
            task.struct.credentials.suid = 0
        self.tasks.append(task)
        self.attempt(lambda: self._grow(task, rng.randint(3, 7)))

    def attempt(self, action: Callable[[], object]) -> None:
        """Do what a process may fail to do: a full machine and a SIGSEGV are part of life."""
        try:
            action()
        except (OutOfMemoryError, ArgumentError):
            self.failed_attempts += 1

    def _grow(self, task: Task, areas: int) -> None:
        kinds = [self._anon, self._anon, self._anon, self._shared, self._file, self._file]
        kinds += [self._device, self._twice, self._locked]
        if self.large:
            kinds += [self._thp, self._thp, self._thp, self._hugetlb, self._hugetlb]
        for _ in range(areas):
            self.rng.choice(kinds)(task)

    def _touch(self, task: Task, address: int, pages: int) -> None:
        """Touch runs of pages: write most, read some, leave some; from different CPUs."""
        at = 0
        while at < pages:
            run = min(self.rng.randint(1, 12), pages - at)
            task.struct.cpu = self.rng.choice(self.cpus)
            where = address + at * self.page_size
            how = self.rng.random()
            if how < 0.65:
                task.poke(where, range(self.tag, self.tag + run))
                self.tag += run
            elif how < 0.8:
                task.read(where, run)
            at += run

    def _pages(self) -> int:
        return self.rng.choice((3, 8, 20, 40) if not self.roomy else (8, 20, 40, 60))

    def _anon(self, task: Task) -> None:
        pages = self._pages()
        address = task.mmap(pages + 2)  # the last two become a hole below the next area
        self._touch(task, address, pages)
        task.munmap(address + pages * self.page_size, 2)
        if self.rng.random() < 0.2:
            task.mprotect(address, self.rng.randint(1, pages), Prot.NONE)

    def _shared(self, task: Task) -> None:
        pages = self._pages()
        self._touch(task, task.mmap(pages, shared=True), pages)

    def _file(self, task: Task) -> None:
        pages = self._pages()
        file = self.machine.file(f"file {self.tag}", pages, self.rng.choice(FILES))
        shared = self.rng.random() < 0.7
        address = task.mmap(pages + 1, shared=shared, file=file)  # one page past the end of it
        self._touch(task, address, pages)
        if self.rng.random() < 0.3:
            task.madvise(address, self.rng.randint(1, pages), "dontneed")

    def _device(self, task: Task) -> None:
        task.mmap(4, device=True)

    def _twice(self, task: Task) -> None:
        file = self.machine.shmem_file(6)
        first, second = (task.mmap(6, shared=True, file=file) for _ in range(2))
        task.write(first, 5)
        task.read(second + self.page_size, 5)

    def _locked(self, task: Task) -> None:
        pages = self.rng.randint(2, 8)
        address = task.mmap(pages, shared=self.rng.random() < 0.3)
        task.struct.cpu = self.rng.choice(self.cpus)
        task.mlock(address, pages)

    def _thp(self, task: Task) -> None:
        pages = 4 * self.rng.randint(1, 4)
        address = task.mmap(pages)
        task.madvise(address, pages, "hugepage")
        task.struct.cpu = self.rng.choice(self.cpus)
        task.write(address, self.rng.randint(1, pages))
        part = address + self.rng.randrange(pages) * self.page_size
        how = self.rng.random()
        if how < 0.3:
            task.munmap(part, 1)
        elif how < 0.4:
            task.mprotect(part, 1, Prot.READ)

    def _hugetlb(self, task: Task) -> None:
        node = self.rng.choice(sorted(self.machine.hotplug.valid_targets()))
        total = self.machine.memory.pools.pool(node, self.machine.thp_order).total
        self.machine.resize_pool(node, total + 3)
        address = task.mmap(8, huge=True)
        task.write(address, 8)

    # -- what happens between calls -----------------------------------------------------------

    def live_on(self) -> None:
        """Let a few things happen before the next call."""
        for _ in range(self.rng.randint(0, 4)):
            self.disturb()

    def disturb(self) -> None:
        """Let something happen to a page or a process."""
        rng = self.rng
        task = rng.choice(self.tasks)
        if task.struct.mm is None or not task.struct.mm.areas:
            return
        area = rng.choice(task.struct.mm.areas)
        page = rng.randrange(area.start, area.end)
        address = page * self.page_size
        actions = [self._pin, self._lock, self._isolate, self._clean, self._clean]
        actions += [lambda *_: self.attempt(lambda: self._touch(task, address, 1))] * 6
        actions += [lambda *_: self.attempt(lambda: task.madvise(address, 1, "dontneed"))] * 2
        actions += [lambda *_: self.attempt(lambda: task.mlock(address, 1))]
        if self.swaps:
            actions += [self._swap_out] * 3
        if self.modern:
            actions += [self._merge] * 3
        head = self.head_at(task, address)
        rng.choice(actions)(head)

    def head_at(self, task: Task, address: int) -> int:
        """Return the folio at an address, or -1; never the zero page."""
        pfn = int(task.frames(address, 1)[0])
        if pfn <= 0:
            return -1
        order = int(self.machine.memory.frames.order[pfn])
        return pfn >> order << order

    def _pin(self, head: int) -> None:
        if self.rng.random() < 0.6:
            self.pin(head)

    def pin(self, head: int) -> None:
        """Hold a reference on a folio, for good."""
        if head >= 0:
            self.machine.memory.pin(np.array([head]))

    def fill(self, node: int, *, leave: int) -> None:
        """Take the memory of a node but some pages, for good."""
        memory = self.machine.memory
        free = memory.frames.nodes[node].free_pages
        taken = memory.frames.allocate(node, max(0, free - leave))
        memory.pins.update(taken.tolist())

    def targets(self, task: Task) -> list[int]:
        """Return the nodes that pages of a task may be sent to."""
        nodes = self.machine.memory.frames.nodes
        return [node for node in task.struct.cpuset.mems if nodes[node].has_memory]

    def _lock(self, head: int) -> None:
        if head >= 0:
            flag = self.rng.choice((PageFlag.LOCKED, PageFlag.WRITEBACK))
            self.machine.memory.frames.set(np.array([head]), flag)

    def _isolate(self, head: int) -> None:
        """Take it off the LRU, as reclaim or compaction does."""
        if head >= 0 and self.rng.random() < 0.5:
            self.machine.memory.isolate(np.array([head]))

    @contextmanager
    def others_migrate(self) -> Iterator[None]:
        """Let a page or two be under migration by someone else for a while."""
        memory = self.machine.memory
        chosen = self.migrates_next
        self.migrates_next = []
        tasks = self.rng.choices(self.tasks, k=self.rng.randint(0, 2))
        chosen += [self._any_head(task) for task in tasks]
        pages = [np.array([head]) for head in chosen if head >= 0]
        taken = [heads for heads in pages if memory.isolate(heads)[0]]
        meanwhile = [(heads, memory.rmap.try_to_unmap(heads)) for heads in taken]
        yield
        for heads, mapped in meanwhile:
            memory.rmap.remove_migration_ptes(mapped, heads, heads)
            memory.putback(heads)

    def _any_head(self, task: Task) -> int:
        mm = task.struct.mm
        if mm is None or not mm.areas:
            return -1
        area = self.rng.choice(mm.areas)
        return self.head_at(task, self.rng.randrange(area.start, area.end) * self.page_size)

    def _clean(self, head: int) -> None:
        """Write a dirty page back."""
        if head >= 0:
            self.machine.memory.frames.clear(np.array([head]), PageFlag.DIRTY)

    def _swap_out(self, head: int) -> None:
        if head >= 0:
            node = int(self.machine.memory.frames.node[head])
            self.machine.memory.drain()
            self.machine.memory.swap.reclaim(node, self.rng.randint(1, 5))

    def _merge(self, _: int) -> None:
        """Write equal pages somewhere, and merge them."""
        task = self.rng.choice(self.tasks)

        def merge() -> None:
            address = task.mmap(4)
            task.poke(address, [7, 7, 7, 8])
            task.madvise(address, 4, "mergeable")
            self.machine.merge()

        self.attempt(merge)

    # -- calls --------------------------------------------------------------------------------

    def call(self, focus: str = "") -> Call:
        """Choose a call, bent towards a row of the decision table."""
        for child in self.children:
            child.exit()
        self.children.clear()
        draft = self._draft()
        if focus:
            self.attempt(lambda: self.foci.by_row[focus](draft))
        pages = [address % 2**64 for address, _ in draft.entries]
        nodes = [node for _, node in draft.entries]
        return Call(
            draft.caller.pid,
            draft.pid,
            len(pages) if draft.nr_pages is None else draft.nr_pages,
            tuple(pages[: draft.readable]),
            None if draft.query else tuple(nodes[: draft.named]),
            len(pages) if draft.writable is None else draft.writable,
            draft.flags,
        )

    def _draft(self) -> Draft:
        """Make up a call of everything."""
        rng = self.rng
        caller = self.machine.shell if rng.random() < 0.5 else rng.choice(self.tasks)
        target, pid = self._target(caller)
        flags = rng.choices((MOVE, MOVE_ALL, 0, 6, 1, 8, 3), (50, 35, 5, 3, 1, 1, 1))[0]
        entries = self._entries(target)
        draft = Draft(caller, target, pid, flags, entries, query=rng.random() < 0.1)
        if rng.random() < 0.12:
            array = rng.choice(("readable", "named", "writable"))
            setattr(draft, array, rng.randint(0, len(entries)))
        return draft

    def _target(self, caller: Task) -> tuple[Task, int]:
        """Choose whose pages: the task, and the pid to give."""
        rng = self.rng
        task = rng.choice(self.tasks)
        odd = rng.random()
        if odd < 0.02:
            return task, rng.choice(BOGUS_PIDS)
        if odd < 0.03:
            return task, 2
        if odd < 0.04:
            return task, self.ended.pid
        if odd < 0.3 and caller.struct.mm is not None and caller.struct.mm.areas:
            return caller, rng.choice((0, caller.pid))
        return task, task.pid

    def _entries(self, task: Task) -> list[tuple[int, int]]:
        """Choose addresses with their target nodes, from runs and oddities."""
        rng = self.rng
        wanted = rng.choices((0, 1, rng.randint(2, 10), rng.randint(20, 150)), (1, 3, 8, 28))[0]
        entries: list[tuple[int, int]] = []
        allowed = [n for n in task.struct.cpuset.mems if self.machine.declared.node(n).has_memory]
        nodes = allowed if allowed and rng.random() < 0.93 else self.all_nodes
        one_kind = rng.random() < 0.2
        makers = [self._run] * 6 + [self._scattered, self._again, self._nowhere, self._strange]
        maker = rng.choice(makers)
        while len(entries) < wanted:
            if not one_kind:
                maker = rng.choice(makers)
            made = maker(task, entries, nodes)
            entries += made or self._nowhere(task, entries, nodes)
        entries = entries[:wanted]
        if entries and rng.random() < 0.1:
            at = rng.randrange(len(entries))
            bad = rng.choice((*BAD_NODES, *self.all_nodes))
            entries[at] = (entries[at][0], bad)
        return entries

    def _run(self, task: Task, _: object, nodes: list[int]) -> list[tuple[int, int]]:
        """Consecutive pages to one node."""
        mm = task.struct.mm
        if mm is None or not mm.areas:
            return []
        area = self.rng.choice(mm.areas)
        first = self.rng.randrange(area.start, area.end)
        last = min(area.end, first + self.rng.randint(1, 30))
        node = self.rng.choice(nodes)
        return [(page * self.page_size, node) for page in range(first, last)]

    def _scattered(self, task: Task, _: object, nodes: list[int]) -> list[tuple[int, int]]:
        """A few pages anywhere, each to some node, not at the pages' starts."""
        return [
            (address + self.rng.randrange(self.page_size), self.rng.choice(nodes))
            for _ in range(self.rng.randint(1, 5))
            for address, _ in self._run(task, None, nodes)[:1]
        ]

    def _again(
        self, _: Task, entries: list[tuple[int, int]], nodes: list[int]
    ) -> list[tuple[int, int]]:
        """Pages that were named before, to the same node or to another."""
        if not entries:
            return []
        chosen = self.rng.choices(entries[-8:], k=self.rng.randint(1, 4))
        if self.rng.random() < 0.6:
            return chosen
        return [(address, self.rng.choice(nodes)) for address, _ in chosen]

    def _nowhere(self, task: Task, _: object, nodes: list[int]) -> list[tuple[int, int]]:
        """An address in a hole, above everything, or in the kernel."""
        areas = task.struct.mm.areas if task.struct.mm else []
        addresses = [KERNEL_ADDRESS, 0, (1 << 47) - 1]
        if areas:
            area = self.rng.choice(areas)
            addresses += [area.start * self.page_size - 1, area.end * self.page_size] * 2
            addresses += [areas[-1].end * self.page_size]
        return [(self.rng.choice(addresses), self.rng.choice(nodes))]

    def _strange(self, task: Task, _: object, nodes: list[int]) -> list[tuple[int, int]]:
        """Pages that are pinned, locked, isolated or missing, with a plain one after them."""
        found = []
        for address, node in self._run(task, None, nodes):
            head = self.head_at(task, address)
            if head < 0 or not self.machine.memory.on_lru(np.array([head]))[0]:
                found.append((address, node))
        return found[:3] + self._run(task, None, nodes)[:2]

"""What a random call can be bent towards: one focus for each row of the decision table.

A focus changes a draft of a random call so that it most likely meets its row, and leaves the rest
to chance. Whether it did is for `rows_met` to say, which knows nothing of foci.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from movepages.errors import ArgumentError
from movepages.kernel.address_space import Prot
from movepages.kernel.mappings import Backing

if TYPE_CHECKING:
    from collections.abc import Callable

    from random_machines import RandomMachine

    from movepages.kernel.process import Task

    Entries = list[tuple[int, int]]

MOVE, MOVE_ALL = 2, 4
HARD = (
    "swapped out",
    "node online, no memory",
    "node online, no memory",
    "node online, no memory",
    "node online, no memory",
    "busy/pinned page alone",
    "[ok->1, ok->0, pinned->1, ok->0]",
    "3 pinned then 17 already on target",
    "[pinned, ok, ok]",
    "[pinned, hole, ok]",
    "[pinned->1, ok->offline node]",
    "page not on LRU",
    "duplicate [p p p]",
    "[p q p q]",
    "[touched, untouched, zero, hole, touched]",
    "nr_pages 0, nodes NULL",
    "nr_pages absurd",
    "vDSO page: MOVE_ALL",
    "status not writable at k",
    "shared, elsewhere, MOVE: alone",
    "dirty, writepage error",
    "dirty, no writepage",
)
"""Rows of which one turn in a round is not enough."""


@dataclass
class Draft:
    """A call that is still being made up. `readable` and so on: where an array ends, if early."""

    caller: Task
    target: Task
    pid: int
    flags: int
    entries: Entries
    query: bool = False
    nr_pages: int | None = None
    readable: int | None = None
    named: int | None = None
    writable: int | None = None


class Foci:
    """The foci of a machine, by the text of their rows."""

    def __init__(self, machine: RandomMachine) -> None:
        """Work on a machine."""
        self.random = machine
        self.rng = machine.rng
        self.by_row: dict[str, Callable[[Draft], None]] = {
            "flags with other bits": self._set(flags=1),
            "bad flags and bogus pid": self._set(flags=8, pid=99_999),
            "flags 0": self._first(self._plain, flags=0),
            "MOVE_ALL, no CAP_SYS_NICE": self._as_user(flags=MOVE_ALL),
            "pid unknown or negative": self._set(flags=MOVE, pid=-5),
            "kernel thread, privileged": self._set(flags=MOVE, pid=2),
            "kernel thread, not privileged": self._as_user(flags=MOVE, pid=2),
            "zombie": self._set(flags=MOVE, pid=machine.ended.pid),
            "other user's process": self._as_user(flags=MOVE, pid=1),
            "same uid, target not dumpable": self._not_dumpable,
            "nr_pages 0, nodes NULL": self._set(flags=MOVE, entries=[], query=True),
            "nr_pages 0, nodes given": self._set(flags=MOVE, entries=[], query=False),
            "nr_pages absurd": self._absurd,
            "pages unreadable at k": self._ending("readable"),
            "nodes unreadable at k": self._ending("named"),
            "status not writable at k": self._ending("writable"),
            "node negative / >= MAX_NUMNODES": self._bad_node(-1, 1024, 2**31 - 1),
            "node offline at index k": self._bad_node(9),
            "node online, no memory": self._memoryless,
            "node outside target's cpuset": self._outside(9),
            "order offline vs cpuset": self._outside(-1),
            "query, page mapped": self._first(self._plain, query=True),
            "never-touched anon: query": self._first(self._untouched, query=True),
            "never-touched anon: alone": self._only(self._untouched),
            "never-touched anon": self._first(self._untouched),
            "zero page: query": self._first(self._zero, query=True),
            "zero page: alone": self._only(self._zero),
            "zero page": self._first(self._zero),
            "hole below some VMA": self._first(self._hole),
            "above the last VMA, kernel address": self._first(self._above),
            "swapped out": self._first(self._swapped),
            "MADV_DONTNEED": self._first(self._dontneed),
            "file page in cache but not mapped": self._first(self._cached),
            "past EOF": self._first(self._past_eof),
            "page under migration by someone else": self._first(self._migrating),
            "PROT_NONE but touched": self._first(self._prot_none),
            "unaligned address": self._first(self._unaligned),
            "VM_PFNMAP/VM_IO: query": self._first(self._device, query=True),
            "VM_PFNMAP/VM_IO": self._first(self._device),
            "vDSO page": self._first(self._vdso),
            "vDSO page: MOVE_ALL": self._first(self._vdso, flags=MOVE_ALL),
            "already on target, alone": self._only(self._there),
            "already on target, with others": self._first(self._there_and_plain),
            "shared, elsewhere, MOVE": self._first(self._forked),
            "shared, elsewhere, MOVE: alone": self._only(self._forked),
            "shared, on target already": self._first(self._forked_there),
            "shared, MOVE_ALL": self._first(self._forked, flags=MOVE_ALL),
            "memfd page mapped twice in one process, MOVE": self._first(self._twice),
            "mlocked": self._first(self._mlocked),
            "private anon on node 0 to 1": self._first(self._plain),
            "[touched, untouched, zero, hole, touched]": self._first(self._mixed),
            "duplicate [p p p]": self._first(lambda task: self._plain(task)[:1] * 3),
            "[p q p q]": self._first(lambda task: self._plain(task)[:2] * 2),
            "conflicting [p->1, p->0], p on 0": self._first(self._away_and_back),
            "conflicting [p->0, p->1], p on 0": self._first(self._stay_and_away),
            "busy/pinned page alone": self._only(lambda task: self._pinned(task, 1)),
            "[pinned, ok, ok]": self._first(self._pinned_ok_ok),
            "[pinned, hole, ok]": self._first(self._pinned_hole_ok),
            "[ok->1, ok->0, pinned->1, ok->0]": self._first(self._four),
            "3 pinned then 17 already on target": self._only(self._three_pinned),
            "[pinned->1, ok->offline node]": self._only(self._pinned_offline),
            "page not on LRU": self._first(self._off_lru),
            "target full, no swap": self._first(self._full),
            "dirty file page, no migrate hook, writepage ok": self._dirty(Backing.NO_METHOD),
            "dirty, no writepage": self._dirty(Backing.NO_WRITEPAGE),
            "dirty, writepage error": self._dirty(Backing.WRITE_FAILS),
            "a mapping that always refuses": self._dirty(Backing.REFUSES),
            "tmpfs, ext4 dirty shared, mapped once": self._dirty(Backing.BUFFERS),
        }
        if machine.modern:
            self.by_row |= {
                "THP [head, +1, +2, +3]": self._first(self._thp),
                "THP, one tail address": self._first(lambda task: self._thp(task)[2:3]),
                "hugetlb [head, tail]": self._first(lambda task: self._hugetlb(task)[:2]),
                "KSM page MOVE": self._first(self._merged),
                "KSM page MOVE_ALL": self._first(self._merged, flags=MOVE_ALL),
            }

    def turn(self, number: int) -> str:
        """Return the focus whose turn it is; rows that are hard to meet have more turns.

        One that this machine cannot meet gives its turn to one that few machines can.
        """
        turns = [*self.by_row, *HARD]
        row = turns[number % len(turns)]
        special = self._special()
        if special.get(row, True):
            return row
        able = [other for other, can in special.items() if can and other in self.by_row]
        return self.rng.choice(able or [row])

    def _special(self) -> dict[str, bool]:
        """Tell which of the rows that need a special machine this one can meet."""
        nodes = self.random.machine.memory.frames.nodes.values()
        two_cpus = len(self.random.cpus) > 1
        return {
            "swapped out": self.random.swaps,
            "node online, no memory": any(not node.has_memory for node in nodes),
            "target full, no swap": not self.random.swaps and not self.random.large,
            "THP [head, +1, +2, +3]": self.random.large,
            "THP, one tail address": self.random.large,
            "hugetlb [head, tail]": self.random.large,
            "[ok->1, ok->0, pinned->1, ok->0]": two_cpus,
            "3 pinned then 17 already on target": two_cpus,
        }

    # -- how a focus changes a draft ----------------------------------------------------------

    def _set(self, **fields: object) -> Callable[[Draft], None]:
        """Root's shell makes the call, with these fields."""

        def change(draft: Draft) -> None:
            draft.caller = self.random.machine.shell
            for name, value in fields.items():
                setattr(draft, name, value)

        return change

    def _as_user(self, **fields: object) -> Callable[[Draft], None]:
        """Someone without rights makes the call."""

        def change(draft: Draft) -> None:
            self._set(**fields)(draft)
            draft.caller = self.random.nobody

        return change

    def _first(
        self, make: Callable[[Task], Entries], *, flags: int = MOVE, query: bool = False
    ) -> Callable[[Draft], None]:
        """The call is in order, and begins with certain entries."""

        def change(draft: Draft) -> None:
            draft.caller, draft.pid, draft.flags = (
                self.random.machine.shell,
                draft.target.pid,
                flags,
            )
            draft.query = query
            draft.nr_pages = draft.readable = draft.named = draft.writable = None
            draft.entries = make(draft.target) + self._valid(draft)

        return change

    def _valid(self, draft: Draft) -> Entries:
        """Return the entries of a draft whose nodes may be targets."""
        allowed = self.random.targets(draft.target)
        return [(address, node) for address, node in draft.entries if node in allowed]

    def _only(self, make: Callable[[Task], Entries]) -> Callable[[Draft], None]:
        """The call is in order, and has only such entries: several times over."""

        def change(draft: Draft) -> None:
            self._first(lambda _: [])(draft)
            times = self.rng.choice((1, 20))
            draft.entries = [entry for _ in range(times) for entry in make(draft.target)]

        return change

    def _ending(self, array: str) -> Callable[[Draft], None]:
        """The call is in order, but an array ends."""

        def change(draft: Draft) -> None:
            self._first(self._plain)(draft)
            setattr(draft, array, self.rng.randint(0, len(draft.entries) - 1))

        return change

    def _dirty(self, backing: Backing) -> Callable[[Draft], None]:
        """The call begins with dirty pages of such a file."""

        def make(task: Task) -> Entries:
            file = self.random.machine.file("focus", 2, backing)
            address = task.mmap(2, shared=True, file=file)
            task.write(address, 2)
            return self._away(task, address, 2)

        return self._first(make)

    def _bad_node(self, *nodes: int) -> Callable[[Draft], None]:
        """The call is in order, but for one node after a few."""

        def change(draft: Draft) -> None:
            self._first(self._plain)(draft)
            at = self.rng.randrange(len(draft.entries))
            draft.entries[at] = (draft.entries[at][0], self.rng.choice(nodes))

        return change

    def _outside(self, node: int) -> Callable[[Draft], None]:
        """A node that the target's cpuset does not allow; 9 stands for one that there is."""

        def change(draft: Draft) -> None:
            draft.target = self.random.confined
            self._first(self._plain)(draft)
            there = set(self.random.machine.hotplug.valid_targets())
            outside = sorted(there - set(draft.target.struct.cpuset.mems))
            if outside:
                bad = self.rng.choice(outside) if node == 9 else 8
                draft.entries.insert(self.rng.randint(0, 3), (draft.entries[0][0], bad))

        return change

    def _memoryless(self, draft: Draft) -> None:
        """A node that is online and has no memory."""
        draft.target = self.random.secretive
        self._first(self._plain)(draft)
        nodes = self.random.machine.memory.frames.nodes.values()
        empty = [node.id for node in nodes if not node.has_memory and node.online]
        if empty:
            draft.entries = [(address, empty[0]) for address, _ in draft.entries[:8]]

    def _not_dumpable(self, draft: Draft) -> None:
        draft.caller = self.random.nobody
        draft.target = self.random.secretive
        draft.pid, draft.flags = draft.target.pid, MOVE

    def _absurd(self, draft: Draft) -> None:
        self._first(self._plain)(draft)
        draft.nr_pages = self.rng.choice((2**62, (2**64 - 1) // 24 - 2, (2**64 - 1) // 24 - 1))

    # -- entries of certain kinds -------------------------------------------------------------

    def _away(self, task: Task, address: int, pages: int) -> Entries:
        """Return pages, each with one target that none of them is on, if there is such."""
        here = set(task.nodes(address, pages).tolist())
        allowed = self.random.targets(task)
        away = [node for node in allowed if node not in here] or allowed
        if not away:
            raise ArgumentError("the task may send pages nowhere")
        node = self.rng.choice(away)
        return [(address + i * self.random.page_size, node) for i in range(pages)]

    def _two_cpus(self) -> list[int]:
        if len(self.random.cpus) < 2:
            raise ArgumentError("the machine has one CPU only")
        return self.rng.sample(self.random.cpus, 2)

    def _map(self, task: Task, pages: int, touch: str = "write", cpu: int | None = None) -> int:
        address = task.mmap(pages)
        task.struct.cpu = self.rng.choice(self.random.cpus) if cpu is None else cpu
        if touch:
            getattr(task, touch)(address, pages)
        return address

    def _plain(self, task: Task) -> Entries:
        pages = self.rng.randint(2, 6)
        return self._away(task, self._map(task, pages), pages)

    def _untouched(self, task: Task) -> Entries:
        return self._away(task, self._map(task, 2, ""), 2)

    def _zero(self, task: Task) -> Entries:
        return self._away(task, self._map(task, 2, "read"), 2)

    def _hole(self, task: Task) -> Entries:
        plain = self._plain(task)
        address = task.mmap(3)
        task.munmap(address + self.random.page_size, 1)
        return [plain[0], (address + self.random.page_size, plain[0][1])]

    def _above(self, task: Task) -> Entries:
        plain = self._plain(task)
        return [plain[0], (0xFFFF_8000_0000_0000, plain[0][1]), ((1 << 47) - 1, plain[0][1])]

    def _swapped(self, task: Task) -> Entries:
        plain = self._plain(task)
        head = self.random.head_at(task, plain[-1][0])
        memory = self.random.machine.memory
        memory.drain()
        if self.random.swaps:
            memory.swap.reclaim(int(memory.frames.node[head]), 10_000)
        return plain

    def _dontneed(self, task: Task) -> Entries:
        plain = self._plain(task)
        task.madvise(plain[0][0], 1, "dontneed")
        return plain

    def _cached(self, task: Task) -> Entries:
        file = self.random.machine.file("focus", 2, Backing.BUFFERS)
        first, second = (task.mmap(2, shared=True, file=file) for _ in range(2))
        task.read(first, 2)
        return self._away(task, second, 2)

    def _past_eof(self, task: Task) -> Entries:
        file = self.random.machine.file("focus", 1, Backing.BUFFERS)
        address = task.mmap(2, shared=True, file=file)
        return self._away(task, address, 2)[1:]

    def _migrating(self, task: Task) -> Entries:
        plain = self._plain(task)
        self.random.migrates_next.append(self.random.head_at(task, plain[0][0]))
        return plain

    def _prot_none(self, task: Task) -> Entries:
        plain = self._plain(task)
        task.mprotect(plain[0][0], len(plain), Prot.NONE)
        return plain

    def _unaligned(self, task: Task) -> Entries:
        return [(address + 321, node) for address, node in self._plain(task)]

    def _device(self, task: Task) -> Entries:
        plain = self._plain(task)
        return [plain[0], (task.mmap(1, device=True), plain[0][1])]

    def _vdso(self, task: Task) -> Entries:
        plain = self._plain(task)
        return [plain[0], *self._away(task, task.map_vdso(), 1)]

    def _there(self, task: Task) -> Entries:
        address = self._map(task, 2)
        nodes = task.nodes(address, 2).tolist()
        return [(address + i * self.random.page_size, node) for i, node in enumerate(nodes)]

    def _there_and_plain(self, task: Task) -> Entries:
        return self._there(task) + self._plain(task)

    def _forked(self, task: Task) -> Entries:
        plain = self._plain(task)
        self.random.children.append(task.fork())
        return plain

    def _forked_there(self, task: Task) -> Entries:
        there = self._there(task)
        self.random.children.append(task.fork())
        return there + self._plain(task)

    def _twice(self, task: Task) -> Entries:
        file = self.random.machine.shmem_file(2)
        first, second = (task.mmap(2, shared=True, file=file) for _ in range(2))
        task.write(first, 2)
        task.read(second, 2)
        return self._away(task, second, 2) + self._plain(task)

    def _mlocked(self, task: Task) -> Entries:
        plain = self._plain(task)
        task.mlock(plain[0][0], 1)
        return plain

    def _mixed(self, task: Task) -> Entries:
        first, last = self._map(task, 1), self._map(task, 1)
        untouched, zero, area = task.mmap(1), self._map(task, 1, "read"), task.mmap(3)
        hole = area + self.random.page_size
        task.munmap(hole, 1)
        node = self._away(task, first, 1)[0][1]
        return [(address, node) for address in (first, untouched, zero, hole, last)]

    def _away_and_back(self, task: Task) -> Entries:
        (address, away) = self._plain(task)[0]
        return [(address, away), (address, int(task.nodes(address, 1)[0]))]

    def _stay_and_away(self, task: Task) -> Entries:
        return self._away_and_back(task)[::-1]

    def _pinned(self, task: Task, pages: int) -> Entries:
        plain = self._plain(task)[:pages]
        for address, _ in plain:
            self.random.pin(self.random.head_at(task, address))
        return plain

    def _pinned_ok_ok(self, task: Task) -> Entries:
        address = self._map(task, 3)
        self.random.pin(self.random.head_at(task, address))
        return self._away(task, address, 3)

    def _pinned_hole_ok(self, task: Task) -> Entries:
        pinned, ok, node = *self._pinned_ok_ok(task)[:2], 0
        node = pinned[1]
        area = task.mmap(3)
        task.munmap(area + self.random.page_size, 1)
        return [pinned, (area + self.random.page_size, node), ok]

    def _four(self, task: Task) -> Entries:
        """[ok->1, ok->0, pinned->1, ok->0]: two nodes swap pages."""
        one, other = self._two_cpus()
        first, pinned = (self._map(task, 1, cpu=one) for _ in range(2))
        second, last = (self._map(task, 1, cpu=other) for _ in range(2))
        self.random.pin(self.random.head_at(task, pinned))
        here, there = (int(task.nodes(page, 1)[0]) for page in (first, second))
        return [(first, there), (second, here), (pinned, there), (last, here)]

    def _three_pinned(self, task: Task) -> Entries:
        """Three pinned ones to where seventeen are."""
        one, other = self._two_cpus()
        address, there = self._map(task, 3, cpu=one), self._map(task, 17, cpu=other)
        node = int(task.nodes(there, 1)[0])
        size = self.random.page_size
        for i in range(3):
            self.random.pin(self.random.head_at(task, address + i * size))
        pages = [address + i * size for i in range(3)] + [there + i * size for i in range(17)]
        return [(page, node) for page in pages]

    def _pinned_offline(self, task: Task) -> Entries:
        pinned, ok, _ = self._pinned_ok_ok(task)
        return [pinned, (ok[0], 9)]

    def _off_lru(self, task: Task) -> Entries:
        plain = self._plain(task)
        memory = self.random.machine.memory
        memory.drain()
        memory.isolate(np.array([self.random.head_at(task, plain[0][0])]))
        return plain

    def _full(self, task: Task) -> Entries:
        """Pages to a node of which all but a few frames are taken, for the machine's whole life."""
        address = self._map(task, 12)
        entries = self._away(task, address, 12)
        if not self.random.swaps and not self.random.large:
            self.random.fill(entries[0][1], leave=self.rng.randint(0, 6))
        return entries

    def _thp(self, task: Task) -> Entries:
        size = 1 << self.random.machine.thp_order
        if not self.random.large:
            return self._plain(task)
        address = task.mmap(size)
        task.madvise(address, size, "hugepage")
        task.write(address, size)
        return self._away(task, address, size)

    def _hugetlb(self, task: Task) -> Entries:
        size = 1 << self.random.machine.thp_order
        if not self.random.large:
            return self._plain(task)
        node = self.random.machine.node_of_cpu(task.struct.cpu)
        if not self.random.machine.memory.frames.nodes[node].has_memory:
            return self._plain(task)
        order = self.random.machine.thp_order
        pool = self.random.machine.memory.pools.pool(node, order)
        self.random.machine.resize_pool(node, pool.total + 1)
        address = task.mmap(size, huge=True)
        task.write(address, size)
        return self._away(task, address, size)

    def _merged(self, task: Task) -> Entries:
        address = self._map(task, 4)
        task.poke(address, [5, 5, 6, 6])
        task.madvise(address, 4, "mergeable")
        self.random.machine.merge()
        return self._away(task, address, 1) + self._away(task, address, 4)[2:]

"""The ports of `kernel.ports` a third time, on dictionaries: a few pages, no arrays inside.

Shows what the system calls may count on: they run on this as they run on the model.
"""

# ruff: noqa: D102, D107 - what each method does is said in kernel/ports.py

from __future__ import annotations

from dataclasses import dataclass, field
from errno import EAGAIN

import numpy as np

from movepages.kernel.ports import NONE
from movepages.nodeset import NodeSet

PAGE = 4096


@dataclass
class DictPage:
    """A page: where it is, who maps it, and what keeps it from moving."""

    node: int
    content: int = 0
    mapped: list = field(default_factory=list)
    """(address space, address) of each mapping."""
    pinned: bool = False
    mlocked: bool = False
    zero: bool = False
    lru: bool = True


class DictUserMemory:
    """Arrays as lists, by pointer: each a region of its own."""

    def __init__(self):
        self._arrays = {}

    def place(self, values, dtype, *, readable=None, writable=None):
        """Put a list somewhere, and return its pointer."""
        values = list(values)
        pointer = (len(self._arrays) + 1) << 32
        size = np.dtype(dtype).itemsize
        count = len(values)
        ends = [count if end is None else end for end in (readable, writable)]
        self._arrays[pointer] = (values, size, *ends)
        return pointer

    def values(self, pointer):
        """Return the list at a pointer."""
        return self._arrays[pointer][0]

    def _at(self, pointer):
        start = pointer >> 32 << 32
        if start not in self._arrays:
            return [], 0, 0, 0
        values, size, readable, writable = self._arrays[start]
        return values, (pointer - start) // size, readable, writable

    def read(self, pointer, dtype, count):
        values, first, readable, _ = self._at(pointer)
        return np.array(values[first : min(first + count, readable)], dtype=dtype)

    def writable(self, pointer, _, count):
        _, first, _, writable = self._at(pointer)
        return max(0, min(count, writable - first))

    def write(self, pointer, new):
        values, first, _, _ = self._at(pointer)
        count = self.writable(pointer, new.dtype, len(new))
        for i in range(count):
            values[first + i] = int(new[i])
        return count


class DictFrames:
    """Pages by handle, and free memory by node."""

    def __init__(self, free):
        self.pages = {}
        self.free = dict(free)
        self.passes = []
        self._next = 0

    def add(self, page):
        """Let there be a page, and return its handle."""
        self._next += 1
        self.pages[self._next] = page
        return self._next

    def _each(self, tell, pages, dtype):
        return np.array([tell(self.pages[page]) for page in pages.tolist()], dtype=dtype)

    def node(self, pages):
        return self._each(lambda page: page.node, pages, np.int32)

    def mapcount(self, pages):
        return self._each(lambda page: len(page.mapped), pages, np.int64)

    def processes(self, pages):
        return self._each(lambda page: len({id(s) for s, _ in page.mapped}), pages, np.int64)

    def is_zero_page(self, pages):
        return self._each(lambda page: page.zero, pages, np.bool_)

    def is_locked(self, pages):
        return self._each(lambda page: page.mlocked, pages, np.bool_)

    def on_lru(self, pages):
        return self._each(lambda page: page.lru, pages, np.bool_)

    def surely_moves(self, pages):
        return self._each(lambda page: not page.pinned, pages, np.bool_)

    def drain(self):
        """No page waits anywhere."""

    disable_lru_cache = enable_lru_cache = drain

    def isolate(self, pages):
        taken = []
        for page in pages.tolist():
            taken.append(self.pages[page].lru)
            self.pages[page].lru = False
        return np.array(taken, dtype=np.bool_)

    def putback(self, pages):
        for page in pages.tolist():
            self.pages[page].lru = True

    def allocate(self, like, nodes, *, exact):
        new = []
        for _, wanted in zip(like.tolist(), nodes.tolist(), strict=True):
            others = [] if exact else sorted(set(self.free) - {wanted})
            node = next((near for near in (wanted, *others) if self.free.get(near)), None)
            if node is None:
                new.append(NONE)
                continue
            self.free[node] -= 1
            new.append(self.add(DictPage(node, lru=False)))
        return np.array(new, dtype=np.int64)

    def free_pages(self, pages):
        for page in pages.tolist():
            self.free[self.pages.pop(page).node] += 1

    def partially_mapped(self, pages):
        """There are no THPs here."""
        return np.zeros(len(pages), dtype=np.bool_)

    def split_isolated(self, _, *, force):
        """There are no THPs here."""
        del force

    def begin_pass(self, number):
        self.passes.append(number)
        return True

    def migrate(self, old, new, *, force):
        del force
        rc = []
        for before, after in zip(old.tolist(), new.tolist(), strict=True):
            page, target = self.pages[before], self.pages[after]
            if page.pinned:
                rc.append(-EAGAIN)
                continue
            target.content, target.mapped, target.lru = page.content, page.mapped, True
            for space, address in target.mapped:
                space.table[address] = after
            self.free[page.node] += 1
            del self.pages[before]
            rc.append(0)
        return np.array(rc, dtype=np.int32)


class DictAddressSpace:
    """Areas as (start, end, may migrate), rising, and a table from address to page."""

    def __init__(self, areas):
        self.areas = areas
        self.table = {}

    def map(self, frames, address, handle):
        """Let an address map a page."""
        self.table[address] = handle
        frames.pages[handle].mapped.append((self, address))

    def find_vma(self, addresses):
        found = []
        for address in addresses.tolist():
            above = [i for i, area in enumerate(self.areas) if address < area[1]]
            found.append(above[0] if above else NONE)
        return np.array(found, dtype=np.int64)

    def contains(self, areas, addresses):
        pairs = zip(areas.tolist(), addresses.tolist(), strict=True)
        return np.array([a != NONE and self.areas[a][0] <= at for a, at in pairs], dtype=np.bool_)

    def migratable(self, areas):
        return np.array([self.areas[area][2] for area in areas.tolist()], dtype=np.bool_)

    def follow_page(self, _, addresses):
        pages = [self.table.get(address // PAGE * PAGE, NONE) for address in addresses.tolist()]
        return np.array(pages, dtype=np.int64)


class DictTaskTable:
    """Processes by pid; the caller is pid 1 and may do all."""

    def __init__(self, spaces, nodes):
        self.spaces = spaces
        self.nodes = NodeSet(nodes)

    def find(self, pid):
        pid = pid or 1
        return pid if pid in self.spaces else None

    def address_space(self, pid):
        return self.spaces[pid]

    def has_capability(self, _):
        return True

    def shares_owner(self, _):
        return True

    may_trace = lsm_allows = shares_owner

    def cpuset_mems(self, _):
        return self.nodes

    def online(self):
        return self.nodes

    with_memory = online

"""The oracle's little world: nodes, pages, processes and a call, in lists and dictionaries."""

from __future__ import annotations

from dataclasses import dataclass, field

UNWRITTEN = -(2**31)


@dataclass
class Node:
    """A memory node: `free` frames, and the nodes to allocate from, the nearest first."""

    id: int
    free: int
    zonelist: list[int]
    online: bool = True
    has_memory: bool = True
    pool_free: int = 0
    """Hugetlb pages in its pool that nobody uses."""


@dataclass(eq=False)
class Page:
    """A page, or a folio of `size` pages. `mappings`: who maps it, where; one for each mapping."""

    node: int
    content: list[int]
    backing: str = "ANON"
    """How it migrates: the name of a `Backing`."""
    size: int = 1
    mappings: list[tuple[int, int]] = field(default_factory=list)
    by_page: dict[tuple[int, int], int] = field(default_factory=dict)
    """Those mappings of a THP that are of one page alone, and which page that is."""
    zeroes: list[bool] = field(default_factory=list)
    """Of a THP: which pages are full of zeroes."""
    pins: int = 0
    reserved: bool = False
    on_lru: bool = True
    dirty: bool = False
    locked: bool = False
    """Its page lock is held, or it is being written, for a while."""
    hugetlb: bool = False

    def part(self, i: int) -> Page:
        """Return a page as the folio's page of that number is once it is one of its own."""
        return Page(self.node, [self.content[i]], self.backing, on_lru=False, dirty=self.dirty)


@dataclass
class Area:
    """A VMA, `start` to `end` in bytes. `device` is VM_IO or VM_PFNMAP, `mlocked` VM_LOCKED."""

    start: int
    end: int
    mlocked: bool = False
    device: bool = False
    prot_none: bool = False


@dataclass
class Process:
    """A process. `areas` is None for a kernel thread and for a zombie."""

    pid: int
    uid: int
    euid: int
    suid: int
    capabilities: set[str]
    cpuset: set[int]
    dumpable: bool = True
    areas: list[Area] | None = None
    table: dict[int, Page] = field(default_factory=dict)
    """Page tables: address of a page to the page, or the folio, that is mapped there."""
    absent: dict[int, str] = field(default_factory=dict)
    """Page number to why nothing is mapped there, if it was never just untouched."""
    memory_of: int = 0
    """The pid whose page tables these are: threads share them."""


@dataclass
class World:
    """A machine between two calls."""

    page_size: int
    nodes: dict[int, Node]
    processes: dict[int, Process]
    """By pid; threads are in it with their own."""
    lsm_refuses: bool = False
    vmalloc_limit_bytes: int = 1 << 36
    zero_page: Page | None = None

    def find_vma(self, process: Process, address: int) -> Area | None:
        """Return the first area that ends above the address: it may begin above it."""
        for area in process.areas or []:
            if address < area.end:
                return area
        return None

    def page_at(self, process: Process, address: int) -> Page | None:
        """Return what the page tables have at an address."""
        return process.table.get(address // self.page_size * self.page_size)

    def is_mlocked(self, page: Page) -> bool:
        """Tell whether an mlocked area maps the page."""
        for pid, address in page.mappings:
            area = self.find_vma(self.processes[pid], address)
            if area is not None and area.mlocked:
                return True
        return False

    def take(self, page: Page, node: int) -> bool:
        """Allocate a page like another on a node; tell whether there was memory."""
        there = self.nodes.get(node)
        if there is None or not there.has_memory:
            return False
        if page.hugetlb and there.pool_free:
            there.pool_free -= 1
            return True
        if there.free < page.size:
            return False
        there.free -= page.size
        return True

    def take_nearby(self, page: Page, node: int) -> int | None:
        """Allocate on a node, or on the nearest that has memory; return where, or None."""
        for near in self.nodes[node].zonelist:
            if self.take(page, near):
                return near
        return None

    def give_back(self, page: Page, node: int) -> None:
        """Free a page's memory."""
        self.nodes[node].free += page.size


@dataclass(frozen=True)
class Call:
    """move_pages(pid, nr_pages, pages, nodes, status, flags), made by the task `caller`.

    `nodes` None is NULL. An array can be read, or written, as far as its length says, whatever
    nr_pages is; None for `pages` is NULL.
    """

    caller: int
    pid: int
    nr_pages: int
    pages: tuple[int, ...]
    nodes: tuple[int, ...] | None
    status_writable: int
    flags: int


@dataclass
class Answer:
    """What the call returned, and the statuses it wrote: index to value."""

    ret: int
    status: dict[int, int] = field(default_factory=dict)


def zonelists(distances: dict[int, dict[int, int]], with_cpus: set[int]) -> dict[int, list[int]]:
    """Return for each node all nodes in the order in which it asks them for memory.

    find_next_best_node() of mm/page_alloc.c: the nearest first; of equals those above rather than
    those below, those without CPUs, and those that fewer others begin a distance with.
    """
    load = dict.fromkeys(distances, 0)
    lists = {}
    for local in sorted(distances):
        order = [local]
        while len(order) < len(distances):
            best, least = -1, (0, 0)
            for node in sorted(set(distances) - set(order)):
                value = distances[local][node] + (node < local) + (node in with_cpus)
                if best < 0 or (value, load[node]) < least:
                    best, least = node, (value, load[node])
            if distances[local][best] != distances[local][order[-1]]:
                load[best] += 1
            order.append(best)
        lists[local] = order
    return lists

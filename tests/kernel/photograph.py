"""Copies the state of a simulated machine into the oracle's world, slowly, page by page.

Reads page tables, frames and tasks directly, never through what a system call uses. What holds a
page beyond its mappings and its store is its pins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from oracle import Area, Node, Page, Process, World, zonelists

from movepages.abi import Capability
from movepages.kernel.address_space import Prot, VmFlag
from movepages.kernel.frames import ZERO_PFN, PageFlag
from movepages.kernel.mappings import NOT_CACHED
from movepages.kernel.page_tables import EMPTY, PteFlag

if TYPE_CHECKING:
    from movepages.kernel import SimulatedMachine
    from movepages.kernel.address_space import Mm, Vma


def photograph(machine: SimulatedMachine, *, lsm_refuses: bool = False) -> World:
    """Return the machine as it is now, with empty LRU batches: a call drains them first."""
    return _Photographer(machine).world(lsm_refuses)


def differences(expected: World, found: World) -> list[str]:
    """Tell in what two photographs of one machine differ, in sentences."""
    told: list[str] = []
    for name, node in expected.nodes.items():
        if node != found.nodes[name]:
            told.append(f"node {name}: expected {node}, found {found.nodes[name]}")
    for pid, process in expected.processes.items():
        other = found.processes[pid]
        for address in sorted(set(process.table) | set(other.table)):
            page, seen = process.table.get(address), other.table.get(address)
            if page is None or seen is None:
                told.append(f"{pid}:{address:#x}: expected {page}, found {seen}")
            elif _facts(page) != _facts(seen):
                told.append(f"{pid}:{address:#x}: expected {_facts(page)}, found {_facts(seen)}")
    return told


def _facts(page: Page) -> dict[str, object]:
    """Return what must be equal of a page; zero pages have more mappings than anyone counts."""
    facts = dict(vars(page))
    facts["mappings"] = [] if page.reserved else sorted(page.mappings)
    return facts


def _why_absent(vma: Vma, i: int, entry: int) -> str:
    """Tell why an entry of an area maps nothing."""
    if entry < EMPTY:
        return "migrating" if entry % 2 else "swapped"
    if vma.file is None:
        return "untouched"
    if vma.offset + i >= vma.file.pages:
        return "past EOF"
    return "cached" if vma.file.cache[vma.offset + i] != NOT_CACHED else "untouched"


class _Photographer:
    """Goes through a machine once."""

    def __init__(self, machine: SimulatedMachine) -> None:
        self.machine = machine
        self.frames = machine.memory.frames
        self.waiting = set(machine.memory.lru.waiting().tolist())
        self.pages: dict[int, Page] = {}
        self.mapped: dict[int, int] = {}

    def world(self, lsm_refuses: bool) -> World:
        """Return the whole machine."""
        leaders: dict[int, int] = {}
        processes: dict[int, Process] = {}
        for pid, task in self.machine.task_structs.items():
            cred = task.credentials
            process = Process(
                pid,
                cred.uid,
                cred.euid,
                cred.suid,
                {Capability(each).name for each in cred.capabilities},
                set(task.cpuset.mems),
                dumpable=task.dumpable,
            )
            processes[pid] = process
            if task.mm is None:
                continue
            process.memory_of = leaders.setdefault(id(task.mm), pid)
            process.areas = self.areas(task.mm)
            if process.memory_of == pid:
                self.read_tables(process, task.mm)
        for pfn, page in self.pages.items():
            self.check_counts(pfn, page)
        return World(
            self.machine.page_size_bytes,
            self.nodes(),
            processes,
            lsm_refuses,
            self.machine.vmalloc_limit_bytes,
            self.page(ZERO_PFN),
        )

    def nodes(self) -> dict[int, Node]:
        """Return the nodes, with zonelists by the declared distances."""
        topology = self.machine.declared
        order = zonelists(
            {node.id: dict(node.distances) for node in topology}, set(topology.with_cpus)
        )
        found = {}
        for node in topology:
            memory = self.frames.nodes[node.id]
            free = int(self.frames.free[memory.first : memory.end].sum())
            assert free == memory.free_pages, f"node {node.id} miscounts its free frames"
            pool = self.machine.memory.pools.pool(node.id, self.machine.thp_order)
            found[node.id] = Node(
                node.id,
                max(0, free - memory.watermark_pages),
                order[node.id],
                memory.online,
                memory.has_memory,
                len(pool.free),
            )
        return found

    def areas(self, mm: Mm) -> list[Area]:
        """Return the areas of an address space."""
        return [
            Area(
                vma.start << mm.page_shift,
                vma.end << mm.page_shift,
                mlocked=bool(vma.flags & VmFlag.LOCKED),
                device=bool(vma.flags & (VmFlag.IO | VmFlag.PFNMAP)),
                prot_none=vma.prot == Prot.NONE,
            )
            for vma in mm.areas
        ]

    def read_tables(self, process: Process, mm: Mm) -> None:
        """Read an address space's page tables entry by entry."""
        for vma in mm.areas:
            for i in range(vma.pages):
                pfn = int(mm.tables.entry[vma.slot + i])
                if pfn < 0:
                    process.absent[vma.start + i] = _why_absent(vma, i, pfn)
                    continue
                address = vma.start + i << mm.page_shift
                head = pfn >> int(self.frames.order[pfn]) << int(self.frames.order[pfn])
                page = self.page(head)
                process.table[address] = page
                huge = bool(int(mm.tables.flags[vma.slot + i]) & PteFlag.HUGE)
                if not huge or pfn == head:
                    page.mappings.append((process.pid, address))
                if page.zeroes:
                    written = int(mm.tables.flags[vma.slot + i]) & PteFlag.WRITTEN
                    page.zeroes[pfn - head] &= not written
                    if not huge:
                        page.by_page[process.pid, address] = pfn - head

    def page(self, head: int) -> Page:
        """Return the folio of a head frame."""
        if head in self.pages:
            return self.pages[head]
        frames = self.frames
        flags = PageFlag(int(frames.flags[head]))
        size = 1 << int(frames.order[head])
        mapping = int(frames.mapping[head])
        backing = self.machine.memory.mappings[mapping].backing.name if mapping else "ANON"
        page = self.pages[head] = Page(
            int(frames.node[head]),
            frames.content[head : head + size].tolist(),
            backing,
            size,
            reserved=bool(flags & PageFlag.RESERVED),
            on_lru=bool(flags & PageFlag.LRU) or head in self.waiting,
            dirty=bool(flags & PageFlag.DIRTY),
            locked=bool(flags & (PageFlag.LOCKED | PageFlag.WRITEBACK)),
            hugetlb=bool(flags & PageFlag.HUGETLB),
        )
        if flags & PageFlag.THP:
            page.zeroes = [content == 0 for content in page.content]
        assert not frames.free[head], f"frame {head} is mapped and free"
        return page

    def check_counts(self, pfn: int, page: Page) -> None:
        """Compare counters with what was counted; references left over are pins."""
        if page.reserved:
            return
        frames = self.frames
        flags = PageFlag(int(frames.flags[pfn]))
        stores = (PageFlag.PAGE_CACHE, PageFlag.SWAPCACHE, PageFlag.PRIVATE, PageFlag.ISOLATED)
        held = sum(bool(flags & store) for store in stores)
        assert int(frames.mapcount[pfn]) == len(page.mappings), f"frame {pfn} miscounts mappings"
        page.pins = int(frames.references[pfn]) - len(page.mappings) - held
        assert page.pins >= 0, f"frame {pfn} has lost references"

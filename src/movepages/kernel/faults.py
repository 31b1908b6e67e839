"""Page faults: how pages come to be mapped (mm/memory.c), on batches of pages of one area.

A read of untouched anonymous memory maps the zero page; a write allocates by policy. Shared and
file pages come through the page cache. A write to a private page that is not this mapping's alone
makes a copy (copy on write).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from movepages.errors import ArgumentError, MovePagesError
from movepages.kernel.address_space import Prot, VmFlag
from movepages.kernel.frames import NO_MAPPING, ZERO_PFN, PageFlag
from movepages.kernel.huge_memory import first_slots, split_huge_pmds
from movepages.kernel.mappings import NOT_CACHED, Backing, File, KsmNode
from movepages.kernel.move_to_new_page import held_by_store
from movepages.kernel.page_tables import EMPTY, PteFlag, is_swap

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from movepages.kernel.address_space import Vma
    from movepages.kernel.memory import Memory
    from movepages.kernel.tasks import TaskStruct

    Indices = NDArray[np.int64]


_FAULTS_AROUND = frozenset(
    {
        Backing.SHMEM,
        Backing.BUFFERS,
        Backing.NO_METHOD,
        Backing.WRITE_FAILS,
        Backing.NO_WRITEPAGE,
    }
)
"""Files whose reads fault around: all that are in the page cache (filemap_map_pages)."""


class OutOfMemoryError(MovePagesError, MemoryError):
    """The simulated machine has no memory left for a page that is touched."""


class PlacePages(Protocol):
    """Allocates pages for a fault by the policy that holds there (alloc_pages_vma)."""

    def __call__(self, task: TaskStruct, vma: Vma, pages: Indices, order: int) -> Indices:
        """Return the heads of a folio for each of `pages`, as many as there is memory for."""
        ...


class Faults:
    """Handles faults of tasks over a machine's memory."""

    def __init__(self, memory: Memory, place: PlacePages, thp_order: int) -> None:
        """`place` decides where new pages come from; THPs have 2**thp_order pages."""
        self.memory = memory
        self._place = place
        self.thp_order = thp_order

    def touch(self, task: TaskStruct, vma: Vma, pages: Indices, *, write: bool) -> None:
        """Read from or write to pages of an area, given by page number.

        Raises ArgumentError where the process would get SIGSEGV or SIGBUS, OutOfMemoryError.
        """
        self._require_allowed(vma, write=write)
        if vma.flags & VmFlag.HUGETLB:
            self._fault_hugetlb(task, vma, pages)
            if write and not vma.shared:
                self._copy_hugetlb_on_write(task, vma, pages)
            return
        self._swap_in(task, vma, pages)
        entries = self._entries(vma, pages)
        if vma.file is None and not write:
            self._map_zero(vma, self._with_huge_zero_pages(vma, pages[entries == EMPTY]))
        elif vma.file is None:
            untouched = (entries == EMPTY) | (entries == ZERO_PFN)
            self._map_anon(task, vma, pages[untouched])
        else:
            if not write:
                self._fault_around(vma, pages[entries == EMPTY])
                entries = self._entries(vma, pages)
            self._map_file(task, vma, pages[entries == EMPTY])
        if write:
            self._make_writable(task, vma, pages)
        slots = self._slots(vma, pages)
        self.memory.tables.flags[slots] |= np.uint8(PteFlag.YOUNG)

    def _require_allowed(self, vma: Vma, *, write: bool) -> None:
        if vma.flags & (VmFlag.PFNMAP | VmFlag.IO):
            raise ArgumentError("pages of a device mapping are there from the start")
        if not vma.prot & (Prot.WRITE if write else Prot.READ):
            action = "write to" if write else "read"
            raise ArgumentError(f"the mapping does not allow to {action} it (SIGSEGV)")

    def _slots(self, vma: Vma, pages: Indices) -> Indices:
        return pages - vma.start + vma.slot

    def _entries(self, vma: Vma, pages: Indices) -> NDArray[np.int32]:
        return self.memory.tables.entry[self._slots(vma, pages)]

    # -- pages of all kinds -------------------------------------------------------------------

    def _map_zero(self, vma: Vma, pages: Indices) -> None:
        slots = self._slots(vma, pages)
        self.memory.tables.entry[slots] = ZERO_PFN
        self.memory.tables.flags[slots] &= np.uint8(PteFlag.LOCKED)

    def _with_huge_zero_pages(self, vma: Vma, pages: Indices) -> Indices:
        """Add the rest of each block that the huge zero page is mapped in, for pages read."""
        if not vma.flags & VmFlag.HUGEPAGE or not self.memory.semantics.moves_large_folios:
            return pages
        blocks = self._untouched_blocks(vma, pages)
        if len(blocks) and vma.anon is None:
            vma.mm.attach_anon(vma, self.memory.mappings.new_anon(vma.offset))
        whole = (blocks[:, None] + np.arange(1 << self.thp_order)).ravel()
        return np.union1d(pages, whole)

    def _map_anon(self, task: TaskStruct, vma: Vma, pages: Indices) -> None:
        """Map new anonymous pages; whole aligned THPs where the area asks for them."""
        if not len(pages):
            return
        if vma.flags & VmFlag.HUGEPAGE and self.memory.semantics.moves_large_folios:
            pages = self._map_thps(task, vma, pages)
        heads = self._allocate(task, vma, pages, 0)
        self._insert_anon(vma, pages, heads, 0, task.cpu)

    def _map_thps(self, task: TaskStruct, vma: Vma, pages: Indices) -> Indices:
        """Map a THP in each aligned, untouched block that a page is in; return the other pages."""
        size = 1 << self.thp_order
        blocks = self._untouched_blocks(vma, pages)
        heads = self._place(task, vma, blocks, self.thp_order)  # where there are none: base pages
        blocks = blocks[: len(heads)]
        self._insert_anon(vma, blocks, heads, self.thp_order, task.cpu)
        return pages[~np.isin(pages // size * size, blocks)]

    def _untouched_blocks(self, vma: Vma, pages: Indices) -> Indices:
        """Return the first page of each aligned block that has one of `pages` and is all empty."""
        size = 1 << self.thp_order
        blocks = np.unique(pages // size) * size
        blocks = blocks[(blocks >= vma.start) & (blocks + size <= vma.end)]
        members = blocks[:, None] + np.arange(size)
        untouched: NDArray[np.bool_] = self._entries(vma, members.ravel()) == EMPTY
        return blocks[untouched.reshape(members.shape).all(axis=1)]

    def _insert_anon(self, vma: Vma, pages: Indices, heads: Indices, order: int, cpu: int) -> None:
        memory, frames = self.memory, self.memory.frames
        if vma.anon is None:
            vma.mm.attach_anon(vma, memory.mappings.new_anon(vma.offset))
        assert vma.anon is not None  # noqa: S101 - just attached
        flags = PageFlag.ANON | PageFlag.SWAPBACKED | PageFlag.UPTODATE
        frames.set(heads, flags | PageFlag.THP if order else flags)
        frames.mapping[heads] = vma.anon.id
        frames.index[heads] = vma.offset + pages - vma.start - vma.anon.base
        frames.mapcount[heads] = 1
        slots = frames.members(self._slots(vma, pages), order)
        memory.tables.entry[slots] = frames.members(heads, order)
        huge = PteFlag.HUGE if order else PteFlag(0)
        memory.tables.flags[slots] = np.uint8(
            _pte_flags(vma) | PteFlag.WRITE | PteFlag.DIRTY | PteFlag.EXCLUSIVE | huge
        )
        frames.slot[heads] = self._slots(vma, pages)
        memory.lru.add(heads, cpu)

    def _fault_around(self, vma: Vma, pages: Indices) -> None:
        """Map what is cached around pages read, in aligned windows (do_fault_around).

        The window of the area's first pages begins with the area and is as long as the others: it
        may reach into the next.
        """
        file, window = vma.file, self.memory.semantics.fault_around_bytes >> vma.mm.page_shift
        if file is None or file.backing not in _FAULTS_AROUND or window < 2 or not len(pages):
            return
        first = pages < vma.start // window * window + window
        if first.any():
            self._map_cached(vma, file, np.arange(vma.start, min(vma.start + window, vma.end)))
        rest = pages[~first]
        rest = rest[self._entries(vma, rest) == EMPTY]
        starts = np.unique(rest // window) * window
        around = (starts[:, None] + np.arange(window)).ravel()
        self._map_cached(vma, file, around[around < vma.end])

    def _map_cached(self, vma: Vma, file: File, pages: Indices) -> None:
        """Map those of some pages that are in the page cache and not mapped yet."""
        index = vma.offset + pages - vma.start
        inside = (index < file.pages) & (self._entries(vma, pages) == EMPTY)
        pages, index = pages[inside], index[inside]
        cached = file.cache[index] != NOT_CACHED
        pages, heads = pages[cached], file.cache[index[cached]].astype(np.int64)
        idle = ~self.memory.frames.has(heads, PageFlag.LOCKED)
        self._map_heads(vma, pages[idle], heads[idle])

    def _map_file(self, task: TaskStruct, vma: Vma, pages: Indices) -> None:
        """Map pages of the page cache, reading in those that are not there (filemap_fault)."""
        file = vma.file
        if file is None or not len(pages):
            return
        index = vma.offset + pages - vma.start
        if (index >= file.pages).any():
            raise ArgumentError("the mapping reaches beyond the end of its file (SIGBUS)")
        missing = file.cache[index] == NOT_CACHED
        self.fill_cache(task, vma, file, index[missing], pages[missing])
        self._map_heads(vma, pages, file.cache[index].astype(np.int64))

    def _map_heads(self, vma: Vma, pages: Indices, heads: Indices) -> None:
        frames, tables = self.memory.frames, self.memory.tables
        frames.mapcount[heads] += 1
        frames.references[heads] += 1
        slots = self._slots(vma, pages)
        tables.entry[slots] = heads
        tables.flags[slots] = np.uint8(_pte_flags(vma))
        frames.slot[heads] = slots

    def fill_cache(
        self, task: TaskStruct, vma: Vma, file: File, index: Indices, pages: Indices
    ) -> None:
        """Read pages of a file into the page cache; `pages` is where they are to be mapped."""
        heads = self._allocate(task, vma, pages, 0)
        frames = self.memory.frames
        flags = PageFlag.PAGE_CACHE | PageFlag.UPTODATE
        if file.backing is Backing.SHMEM:
            flags |= PageFlag.SWAPBACKED
        if file.backing is Backing.BUFFERS:
            flags |= PageFlag.PRIVATE
            frames.references[heads] += 1
        frames.set(heads, flags)
        frames.mapping[heads] = file.id
        frames.index[heads] = index
        file.cache[index] = heads
        self.memory.lru.add(heads, task.cpu)

    def make_kernel_page(self, file: File, node: int) -> None:
        """Give a file of one page memory that the kernel holds, never on the LRU (the vDSO)."""
        memory, frames = self.memory, self.memory.frames
        page = frames.allocate(node, 1)
        if not len(page):
            raise OutOfMemoryError(f"node {node} has no memory left for a page of the kernel")
        frames.references[page] = 0
        memory.pin(page)
        frames.set(page, PageFlag.UPTODATE)
        frames.mapping[page] = file.id
        file.cache[:] = page

    # -- writing ------------------------------------------------------------------------------

    def _make_writable(self, task: TaskStruct, vma: Vma, pages: Indices) -> None:
        tables, frames = self.memory.tables, self.memory.frames
        slots = self._slots(vma, pages)
        if vma.shared:
            tables.flags[slots] |= np.uint8(PteFlag.WRITE | PteFlag.DIRTY)
            frames.set(tables.entry[slots].astype(np.int64), PageFlag.DIRTY)
            return
        protected = (tables.flags[slots] & np.uint8(PteFlag.WRITE)) == 0
        pages, slots = pages[protected], slots[protected]
        own = self._may_reuse(slots)
        reused = slots[own]
        huge = reused[(tables.flags[reused] & np.uint8(PteFlag.HUGE)) != 0]
        firsts = first_slots(self.memory, huge)
        again = np.append(False, firsts[1:] == firsts[:-1])[: len(firsts)]
        whole = frames.members(firsts[~again], self.thp_order)  # one entry for all of its pages
        for mine in (reused, whole):
            tables.flags[mine] |= np.uint8(PteFlag.WRITE | PteFlag.DIRTY | PteFlag.EXCLUSIVE)
        self._copy_on_write(task, vma, pages[~own])

    def _may_reuse(self, slots: Indices) -> NDArray[np.bool_]:
        """Tell which write-protected pages are nobody else's (wp_can_reuse_anon_folio).

        A page of a THP that is mapped page by page is copied once it has been shared.
        """
        tables, frames = self.memory.tables, self.memory.frames
        held = frames.head(tables.entry[slots].astype(np.int64))
        alone: NDArray[np.bool_] = frames.mapcount[held] == 1
        alone &= frames.references[held] == 1
        alone &= (frames.order[held] == 0) | ((tables.flags[slots] & np.uint8(PteFlag.HUGE)) != 0)
        alone |= (tables.flags[slots] & np.uint8(PteFlag.EXCLUSIVE)) != 0
        alone &= frames.has(held, PageFlag.ANON) & ~frames.has(held, PageFlag.KSM)
        return alone

    def _copy_on_write(self, task: TaskStruct, vma: Vma, pages: Indices) -> None:
        """Give an area copies of pages that it shares (do_wp_page)."""
        if not len(pages):
            return
        memory, frames = self.memory, self.memory.frames
        self.split_thps(vma, pages)
        slots = self._slots(vma, pages)
        old = memory.tables.entry[slots].astype(np.int64)
        new = self._allocate(task, vma, pages, 0)
        frames.content[new] = frames.content[old]
        if frames.data is not None:
            frames.data[new] = frames.data[old]
        self.zap(vma, pages)
        self._insert_anon(vma, pages, new, 0, task.cpu)

    def _allocate(self, task: TaskStruct, vma: Vma, pages: Indices, order: int) -> Indices:
        heads = self._place(task, vma, pages, order)
        if len(heads) < len(pages):
            self.memory.frames.put(heads)
            raise OutOfMemoryError(
                f"no memory is left for {len(pages)} pages of process {task.pid}; "
                "give the machine larger nodes"
            )
        return heads

    # -- unmapping ----------------------------------------------------------------------------

    def zap(self, vma: Vma, pages: Indices) -> None:
        """Unmap pages of an area, and free those that nobody holds any more (zap_pte_range)."""
        self.split_thps(vma, pages)
        memory, frames, tables = self.memory, self.memory.frames, self.memory.tables
        slots = self._slots(vma, pages)
        entries = tables.entry[slots].astype(np.int64)
        memory.swap.drop(entries[is_swap(tables.entry[slots])])
        present = (entries >= 0) & ~frames.has(np.maximum(entries, 0), PageFlag.RESERVED)
        huge = (tables.flags[slots] & np.uint8(PteFlag.HUGE)) != 0
        single = entries[present & ~huge]
        whole = np.unique(frames.head(entries[present & huge]))
        tables.entry[slots] = EMPTY
        tables.flags[slots] &= np.uint8(PteFlag.LOCKED)
        self._forget_merged(vma, single, slots[present & ~huge])
        single = frames.head(single)
        np.subtract.at(frames.mapcount, single, 1)
        np.subtract.at(frames.references, single, 1)
        frames.mapcount[whole] -= 1
        frames.references[whole] -= 1
        memory.free_unused(np.unique(np.concatenate([single, whole])))

    def drop_cache(self, file: File, index: Indices) -> None:
        """Take pages out of a file's page cache, none of them mapped (truncate_inode_pages).

        What was written to them is lost.
        """
        memory, frames = self.memory, self.memory.frames
        heads = np.unique(frames.head(file.cache[index].astype(np.int64)))
        file.cache[index] = NOT_CACHED
        frames.references[heads] -= held_by_store(memory, heads)
        frames.clear(heads, PageFlag.PAGE_CACHE | PageFlag.PRIVATE)
        frames.mapping[heads] = NO_MAPPING
        memory.free_unused(heads)

    def _forget_merged(self, vma: Vma, pfns: Indices, slots: Indices) -> None:
        merged = self.memory.frames.has(pfns, PageFlag.KSM)
        for pfn, slot in zip(pfns[merged].tolist(), slots[merged].tolist(), strict=True):
            node = self.memory.mappings[int(self.memory.frames.mapping[pfn])]
            assert isinstance(node, KsmNode)  # noqa: S101 - what the KSM flag says
            node.mappers[pfn].remove((vma.mm, slot))
            if not node.mappers[pfn]:
                del node.mappers[pfn]

    def split_thps(self, vma: Vma, pages: Indices) -> None:
        """Map page by page the THPs of which some pages of this area are meant but not all."""
        slots = self._huge_slots(vma, pages)
        if len(slots):
            firsts, counts = np.unique(first_slots(self.memory, slots), return_counts=True)
            split_huge_pmds(self.memory, firsts[counts < 1 << self.thp_order])

    def split_all_thps(self, vma: Vma) -> None:
        """Map the THPs of an area page by page, so that their pages can be mapped anywhere."""
        slots = self._huge_slots(vma, np.arange(vma.start, vma.end))
        split_huge_pmds(self.memory, np.unique(first_slots(self.memory, slots)))

    def _huge_slots(self, vma: Vma, pages: Indices) -> Indices:
        """Return the slots of those pages of an area that a THP is mapped whole at."""
        slots = self._slots(vma, pages)
        if vma.flags & VmFlag.HUGETLB:
            return slots[:0]
        huge: NDArray[np.bool_] = (self.memory.tables.flags[slots] & np.uint8(PteFlag.HUGE)) != 0
        return slots[huge]

    # -- swap and hugetlb ---------------------------------------------------------------------

    def _swap_in(self, task: TaskStruct, vma: Vma, pages: Indices) -> None:
        tables = self.memory.tables
        swapped = pages[is_swap(self._entries(vma, pages))]
        if not len(swapped):
            return
        slots = self._slots(vma, swapped)
        entries = tables.entry[slots].astype(np.int64)
        heads = self._allocate(task, vma, swapped, 0)
        self.memory.swap.read(entries, heads)
        self.memory.swap.drop(entries)
        self._insert_anon(vma, swapped, heads, 0, task.cpu)

    def _fault_hugetlb(self, task: TaskStruct, vma: Vma, pages: Indices) -> None:
        """Map hugetlb pages out of the pools, through the page cache of their file."""
        frames, file = self.memory.frames, vma.file
        assert file is not None  # noqa: S101 - hugetlb memory always has one
        size = 1 << self.thp_order
        blocks = self._blocks(vma, pages)
        blocks = blocks[self._entries(vma, blocks) == EMPTY]
        index = vma.offset + blocks - vma.start
        if (index + size > file.pages).any():
            raise ArgumentError("the mapping reaches beyond the end of its file (SIGBUS)")
        for block, at in zip(blocks.tolist(), index.tolist(), strict=True):
            if file.cache[at] == NOT_CACHED:
                head = self._take_hugetlb(task, vma, block)
                frames.set(head, PageFlag.PAGE_CACHE | PageFlag.UPTODATE | PageFlag.LRU)
                frames.mapping[head], frames.index[head] = file.id, at
                file.cache[at : at + size] = frames.members(head, self.thp_order)
            head = np.array([file.cache[at]], dtype=np.int64)
            frames.references[head] += 1
            self._map_hugetlb(vma, block, head)

    def _copy_hugetlb_on_write(self, task: TaskStruct, vma: Vma, pages: Indices) -> None:
        """Give a private area copies of the hugetlb pages that it shares (hugetlb_wp)."""
        memory, frames = self.memory, self.memory.frames
        blocks = self._blocks(vma, pages)
        shared = frames.mapcount[self._entries(vma, blocks).astype(np.int64)] > 1
        for block in blocks[shared].tolist():
            old = self._entries(vma, np.array([block])).astype(np.int64)
            new = self._take_hugetlb(task, vma, block)
            if vma.anon is None:
                vma.mm.attach_anon(vma, memory.mappings.new_anon(vma.offset))
            assert vma.anon is not None  # noqa: S101 - just attached
            frames.set(new, PageFlag.ANON | PageFlag.UPTODATE | PageFlag.LRU)
            frames.mapping[new] = vma.anon.id
            frames.index[new] = vma.offset + block - vma.start - vma.anon.base
            frames.copy(old, new, self.thp_order)
            frames.mapcount[old] -= 1
            frames.references[old] -= 1
            self._map_hugetlb(vma, block, new)

    def _blocks(self, vma: Vma, pages: Indices) -> Indices:
        """Return the first page of each huge page of an area that some pages are in."""
        size = 1 << self.thp_order
        return np.unique((pages - vma.start) // size) * size + vma.start

    def _take_hugetlb(self, task: TaskStruct, vma: Vma, block: int) -> Indices:
        head = self._place(task, vma, np.array([block]), self.thp_order)
        if not len(head):
            raise OutOfMemoryError("no free hugetlb page is left in the pools (SIGBUS)")
        return head

    def _map_hugetlb(self, vma: Vma, block: int, head: Indices) -> None:
        """Map a hugetlb page, of which the caller has a reference for it."""
        frames, tables = self.memory.frames, self.memory.tables
        frames.mapcount[head] += 1
        slots = frames.members(self._slots(vma, np.array([block])), self.thp_order)
        tables.entry[slots] = frames.members(head, self.thp_order)
        tables.flags[slots] = np.uint8(
            _pte_flags(vma) | PteFlag.WRITE | PteFlag.DIRTY | PteFlag.HUGE
        )
        frames.slot[head] = slots[0]


def _pte_flags(vma: Vma) -> PteFlag:
    return PteFlag.LOCKED if vma.flags & VmFlag.LOCKED else PteFlag(0)

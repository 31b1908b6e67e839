"""move_pages(2) of Linux 6.12: batches by target node, stored as the walk goes (2.1, 2.2)."""

from __future__ import annotations

from errno import EACCES, EAGAIN, EBUSY, EFAULT, EINVAL, EIO, ENODEV, ENOENT, ENOMEM, EPERM, ESRCH
from typing import TYPE_CHECKING

from oracle.world import Answer

if TYPE_CHECKING:
    from oracle.world import Call, Page, Process, World

MPOL_MF_MOVE, MPOL_MF_MOVE_ALL = 2, 4
MAX_NUMNODES = 1024
DO_PAGES_STAT_CHUNK_NR = 16
NUMA_NO_NODE = -1


def move_pages(world: World, call: Call) -> Answer:  # noqa: PLR0911 - one return for each check
    """The system call, in the order of 2.1."""
    caller = world.processes[call.caller]
    if call.flags & ~(MPOL_MF_MOVE | MPOL_MF_MOVE_ALL):
        return Answer(-EINVAL)
    if call.flags & MPOL_MF_MOVE_ALL and "SYS_NICE" not in caller.capabilities:
        return Answer(-EPERM)
    task = caller
    if call.pid:  # with pid 0 there is no check of rights
        found = world.processes.get(call.pid)
        if found is None:
            return Answer(-ESRCH)
        task = found
        if not ptrace_may_access(caller, task) or world.lsm_refuses:
            return Answer(-EPERM)
    if task.areas is None:
        return Answer(-EINVAL)
    memory = world.processes[task.memory_of]
    if call.nodes is None:
        return do_pages_stat(world, memory, call)
    return Walk(world, memory, task.cpuset, call).do_pages_move()


def ptrace_may_access(caller: Process, task: Process) -> bool:
    """PTRACE_MODE_READ_REALCREDS."""
    if caller.memory_of == task.memory_of or "SYS_PTRACE" in caller.capabilities:
        return True
    if not (caller.uid == task.uid == task.euid == task.suid):
        return False
    return task.dumpable and task.capabilities <= caller.capabilities


def do_pages_stat(world: World, process: Process, call: Call) -> Answer:
    """Query in chunks of 16 (step 8)."""
    answer = Answer(0)
    done = 0
    while done < call.nr_pages:
        chunk = range(done, min(done + DO_PAGES_STAT_CHUNK_NR, call.nr_pages))
        if chunk[-1] >= len(call.pages):
            return Answer(-EFAULT, answer.status)
        for i in chunk:
            if i < call.status_writable:
                answer.status[i] = status_of(world, process, call.pages[i])
        if chunk[-1] >= call.status_writable:
            return Answer(-EFAULT, answer.status)
        done += len(chunk)
    return answer


def status_of(world: World, process: Process, address: int) -> int:
    """Return the node of the page at an address, or why there is none."""
    area = world.find_vma(process, address)
    if area is None or area.start > address:
        return -EFAULT
    page = world.page_at(process, address)
    if page is None:
        return -ENOENT
    return -EFAULT if page.reserved else page.node


def folio_likely_mapped_shared(page: Page) -> bool:
    """Small pages by their mapcount; a THP that is mapped page by page is a guess (2.1)."""
    mapcount = len(page.mappings)
    if page.size == 1 or page.hugetlb or mapcount <= 1:
        return mapcount > 1
    mapped_whole = mapcount > len(page.by_page)
    if mapped_whole or mapcount > page.size:
        return True
    return list(page.by_page.values()).count(0) > 1


def is_partially_mapped(page: Page) -> bool:
    """Some page of a THP is mapped, and some other by nobody (PG_partially_mapped)."""
    mapped_whole = len(page.mappings) > len(page.by_page)
    pages = set(page.by_page.values())
    return bool(pages) and not mapped_whole and len(pages) < page.size


class Walk:
    """do_pages_move(): what it keeps from entry to entry."""

    def __init__(self, world: World, process: Process, cpuset: set[int], call: Call) -> None:
        """Begin with nothing queued."""
        self.world, self.process, self.cpuset, self.call = world, process, cpuset, call
        self.pagelist: list[Page] = []
        self.answer = Answer(0)

    def do_pages_move(self) -> Answer:
        """Steps 9 and 10."""
        self.answer.ret = self.walk()
        return self.answer

    def walk(self) -> int:
        """Go from entry to entry; an entry that is not queued, or another node, ends a batch."""
        call = self.call
        current_node, start = NUMA_NO_NODE, 0
        i = err = 0
        while i < call.nr_pages:
            err = self.check_entry(i)
            if err:
                break
            node = call.nodes[i]
            if current_node == NUMA_NO_NODE:
                current_node, start = node, i
            elif node != current_node:
                err = self.flush(current_node, start, i)
                if err:
                    return err
                start, current_node = i, node
            err = self.add_page_for_migration(call.pages[i], node)
            if err == 1:  # queued: the batch goes on
                i += 1
                continue
            err = self.store_status(i, err or current_node, 1)
            if err:
                break
            err = self.flush(current_node, start, i)
            if err:
                return err - 1 if err > 0 else err  # entry i has its status: it counts as tried
            current_node = NUMA_NO_NODE
            i += 1
        else:
            err = 0
        flushed = self.flush(current_node, start, i)
        return err or flushed

    def check_entry(self, i: int) -> int:
        """Read an entry, and check its node."""
        call = self.call
        if i >= len(call.pages) or i >= len(call.nodes):
            return -EFAULT
        node = call.nodes[i]
        if not 0 <= node < MAX_NUMNODES:
            return -ENODEV
        there = self.world.nodes.get(node)
        if there is None or not there.online or not there.has_memory:
            return -ENODEV
        return 0 if node in self.cpuset else -EACCES

    def add_page_for_migration(  # noqa: PLR0911 - one return for each check
        self, address: int, node: int
    ) -> int:
        """1: the page is queued; 0: it is there; negative: why it is not."""
        area = self.world.find_vma(self.process, address)
        if area is None or area.start > address or area.device:
            return -EFAULT
        page = self.world.page_at(self.process, address)
        if page is None:
            return -ENOENT
        if page.reserved:
            return -EFAULT
        if page.node == node:
            return 0
        if folio_likely_mapped_shared(page) and not self.call.flags & MPOL_MF_MOVE_ALL:
            return -EACCES
        if not page.on_lru:
            return -EBUSY
        page.on_lru = False
        self.pagelist.append(page)
        return 1

    def flush(self, node: int, start: int, i: int) -> int:
        """move_pages_and_store_status(): no status of the batch unless all of it moved."""
        if not self.pagelist:
            return 0
        err = self.migrate_pages(node)
        if err:
            return err + self.call.nr_pages - i if err > 0 else err
        return self.store_status(start, node, i - start)

    def store_status(self, start: int, value: int, count: int) -> int:
        """Store a status some times; what can be stored is."""
        for i in range(start, start + count):
            if i >= self.call.status_writable:
                return -EFAULT
            self.answer.status[i] = value
        return 0

    def migrate_pages(self, node: int) -> int:
        """MIGRATE_SYNC, node-exact (2.2): how many did not move, or -ENOMEM."""
        pagelist, self.pagelist = self.pagelist, []
        nr_failed = 0
        left = list(pagelist)
        split_folios: list[list[Page]] = []
        for number in range(10):
            again = []
            for page in left:
                if is_partially_mapped(page) and self.try_split_folio(page, split_folios, number):
                    continue
                rc = self.migrate_folio(page, node, number > 2)
                if rc == -ENOMEM and not self.try_split_folio(page, split_folios, number):
                    self.putback(pagelist, *split_folios)
                    return -ENOMEM
                if rc == -EAGAIN:
                    again.append(page)
                elif rc not in (0, -ENOMEM):
                    nr_failed += 1
            left = again
        nr_failed += len(left)
        all_moved = self.migrate_split_folios(split_folios, node)
        self.putback(pagelist, *split_folios)
        return 0 if all_moved and not nr_failed else nr_failed + len(split_folios)

    def putback(self, *pagelists: list[Page]) -> None:
        """Put pages back on the LRU."""
        for page in [page for pagelist in pagelists for page in pagelist]:
            page.on_lru = True

    def migrate_split_folios(self, split_folios: list[list[Page]], node: int) -> bool:
        """Try the pages of split THPs once; tell whether all moved."""
        for page in [page for pages in split_folios for page in pages]:
            rc = self.migrate_folio(page, node, force=False)
            if rc:  # only for want of memory: single pages of a THP that nobody held
                return False
        return True

    def try_split_folio(self, folio: Page, split_folios: list[list[Page]], number: int) -> bool:
        """Split a THP in a pass: unused pages are freed, and empty ones become the zero page."""
        waits = number > 2
        if folio.size == 1 or folio.hugetlb or folio.pins or (folio.locked and not waits):
            return False
        parts: dict[int, Page] = {}
        for pid, address in folio.mappings:
            one = folio.by_page.get((pid, address))
            for i in range(folio.size) if one is None else [one]:
                at = address + (i * self.world.page_size if one is None else 0)
                self.map_part(folio, parts, i, pid, at)
        self.world.nodes[folio.node].free += folio.size - len(parts)
        split_folios.append([parts[i] for i in sorted(parts)])
        return True

    def map_part(self, folio: Page, parts: dict[int, Page], i: int, pid: int, address: int) -> None:
        """Let an address map a page of its own, or the zero page: not where it is mlocked."""
        process = self.world.processes[pid]
        area = self.world.find_vma(process, address)
        if folio.zeroes[i] and not area.mlocked:
            process.table[address] = self.world.zero_page
            return
        part = parts.setdefault(i, folio.part(i))
        part.mappings.append((pid, address))
        process.table[address] = part

    def migrate_folio(self, page: Page, node: int, force: bool) -> int:
        """Move one folio to a newly allocated one."""
        pooled = page.hugetlb and self.world.nodes[node].pool_free > 0
        if not self.world.take(page, node):
            return -ENOMEM
        rc = self.move_locked(page, force)
        source = self.world.nodes[node if rc else page.node]
        if pooled:  # a free page of the target's pool was taken: the one left goes to its own
            source.pool_free += 1
        else:
            source.free += page.size
        if not rc:
            page.node = node
        return rc

    def move_locked(self, page: Page, force: bool) -> int:
        """Under the folio lock: 0 if it can move, or why not."""
        if page.locked and not force:
            return -EAGAIN
        page.locked = False  # slept for
        if page.backing == "REFUSES":
            return -EIO
        if page.dirty and page.backing == "NO_WRITEPAGE":
            return -EINVAL
        if page.dirty and page.backing in ("NO_METHOD", "WRITE_FAILS"):
            page.dirty = False
            return -EIO if page.backing == "WRITE_FAILS" else -EAGAIN
        return -EAGAIN if page.pins else 0

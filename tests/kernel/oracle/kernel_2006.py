"""sys_move_pages() of 2006: the patch's text, the patch's code, and the release 2.6.18.

The three share the patch's structure, so the patch reads along; where they part, one of the four
functions of `Rules` decides, written out once for each.
"""

from __future__ import annotations

from errno import (
    E2BIG,
    EACCES,
    EAGAIN,
    EBUSY,
    EFAULT,
    EINVAL,
    EIO,
    ENODEV,
    ENOENT,
    ENOMEM,
    EPERM,
    ESRCH,
)
from typing import TYPE_CHECKING

from oracle.world import Answer

if TYPE_CHECKING:
    from oracle.world import Call, Page, Process, World

MPOL_MF_MOVE, MPOL_MF_MOVE_ALL = 2, 4
MAX_NUMNODES = 1024
ULONG_MAX = 2**64 - 1
SIZEOF_PAGE_TO_NODE = 24


class AsCoded:
    """The patch's code (1.2), with what the text says otherwise noted in 1.3."""

    zero_page = -ENOENT  # D1
    asks_lsm = False

    def vma_of(self, world: World, process: Process, address: int) -> bool:
        """find_vma() alone: an area above the address will do (D2)."""
        return world.find_vma(process, address) is not None

    def is_shared(self, page: Page) -> bool:
        """page_mapcount(page) > 1 (D10)."""
        return len(page.mappings) > 1

    def unmaps(self, world: World, page: Page) -> bool:
        """try_to_unmap() gives up at VM_LOCKED (D3)."""
        return not world.is_mlocked(page)

    def allocate(self, world: World, page: Page, node: int) -> int | None:
        """alloc_pages_node() without GFP_THISNODE: falls back (D7)."""
        return world.take_nearby(page, node)

    without_memory = "stop"  # D6

    def nothing_queued(self, pm: list[PageToNode]) -> int:
        """-ENOENT, whatever the statuses (D9)."""
        del pm
        return -ENOENT

    def result(self, pm: list[PageToNode], rc: int) -> int:
        """What migrate_pages() returned (D5)."""
        del pm
        return rc


class Released(AsCoded):
    """Linux 2.6.18: mlocked pages move, and the security module is asked (1.3, below the table)."""

    asks_lsm = True

    def unmaps(self, world: World, page: Page) -> bool:
        """VM_LOCKED is ignored when migrating."""
        del world, page
        return True


class Documented(AsCoded):
    """The patch's text (1.1); where it is silent, its code."""

    zero_page = -EFAULT  # "Invalid address (no VMA or zero page)"

    def vma_of(self, world: World, process: Process, address: int) -> bool:
        """Follow the text: "no VMA" is when none contains the address."""
        area = world.find_vma(process, address)
        return area is not None and area.start <= address

    def is_shared(self, page: Page) -> bool:
        """Follow the text: "page is mapped by multiple processes"."""
        return len({pid for pid, _ in page.mappings}) > 1

    def allocate(self, world: World, page: Page, node: int) -> int | None:
        """Follow the text: "unable to allocate memory on target node" means there or nowhere."""
        return node if world.take(page, node) else None

    without_memory = "next page"  # a status of the page, not an end of the call

    def nothing_queued(self, pm: list[PageToNode]) -> int:
        """-ENOENT if all are there already, absent, invalid or shared; else 0 with statuses."""
        for entry in pm:
            if entry.status not in (entry.node, -ENOENT, -EFAULT, -EACCES):
                return 0
        return -ENOENT

    def result(self, pm: list[PageToNode], rc: int) -> int:
        """0 with statuses; "Page is busy and cannot be moved. Try again later" is -EBUSY."""
        del rc
        for entry in pm:
            if entry.status == -EAGAIN:
                entry.status = -EBUSY
        return 0


class PageToNode:
    """struct page_to_node."""

    def __init__(self, addr: int) -> None:
        """Begin with no page."""
        self.addr = addr
        self.page: Page | None = None
        self.node = -1
        self.status = 0


def as_coded(world: World, call: Call) -> Answer:
    """Call it as the patch's code answers."""
    return sys_move_pages(world, call, AsCoded())


def released(world: World, call: Call) -> Answer:
    """Call it as Linux 2.6.18 answers."""
    return sys_move_pages(world, call, Released())


def documented(world: World, call: Call) -> Answer:
    """Call it as the patch's text has it."""
    return sys_move_pages(world, call, Documented())


def sys_move_pages(  # noqa: C901, PLR0911, PLR0912 - one branch for each check, as in the patch
    world: World, call: Call, rules: AsCoded
) -> Answer:
    """The system call, in the order of 1.2."""
    caller = world.processes[call.caller]
    nice = "SYS_NICE" in caller.capabilities
    # Check flags
    if call.flags & ~(MPOL_MF_MOVE | MPOL_MF_MOVE_ALL):
        return Answer(-EINVAL)
    if call.flags & MPOL_MF_MOVE_ALL and not nice:
        return Answer(-EPERM)
    # Find the mm_struct
    task = world.processes.get(call.pid) if call.pid else caller
    if task is None:
        return Answer(-ESRCH)
    if task.areas is None:
        return Answer(-EINVAL)
    # Does the caller have the right?
    if (
        caller.euid not in (task.suid, task.uid)
        and caller.uid not in (task.suid, task.uid)
        and not nice
    ):
        return Answer(-EPERM)
    if rules.asks_lsm and world.lsm_refuses:
        return Answer(-EPERM)
    # Limit nr_pages, and allocate the control array
    if call.nr_pages >= ULONG_MAX // SIZEOF_PAGE_TO_NODE - 1:
        return Answer(-E2BIG)
    if (call.nr_pages + 1) * SIZEOF_PAGE_TO_NODE > world.vmalloc_limit_bytes:
        return Answer(-ENOMEM)
    # Get parameters from user space
    pm: list[PageToNode] = []
    for i in range(call.nr_pages):
        if i >= len(call.pages):
            return Answer(-EFAULT)
        pm.append(PageToNode(call.pages[i]))
        if call.nodes is not None:
            if i >= len(call.nodes):
                return Answer(-EFAULT)
            node = call.nodes[i]
            if not 0 <= node < MAX_NUMNODES:
                return Answer(-ENODEV)  # D12: a bit out of range, undefined; as today
            if node not in world.nodes or not world.nodes[node].online:
                return Answer(-ENODEV)
            if node not in task.cpuset:
                return Answer(-EACCES)
            pm[i].node = node
    memory = world.processes[task.memory_of]
    if call.nodes is not None:
        err = do_move_pages(world, memory, pm, call.flags & MPOL_MF_MOVE_ALL, rules)
    else:
        err = do_pages_stat(world, memory, pm, rules)
    answer = Answer(err)
    if err >= 0:
        for i, entry in enumerate(pm):
            if i < call.status_writable:
                answer.status[i] = entry.status
            else:
                answer.ret = -EFAULT  # D18: the loop goes on
    return answer


def do_pages_stat(world: World, process: Process, pm: list[PageToNode], rules: AsCoded) -> int:
    """Determine the nodes of a list of pages."""
    for entry in pm:
        entry.status = -EFAULT
        if not rules.vma_of(world, process, entry.addr):
            continue
        page = world.page_at(process, entry.addr)
        entry.status = -ENOENT
        if page is None:
            continue
        entry.status = rules.zero_page if page.reserved else page.node
    return 0


def do_move_pages(
    world: World, process: Process, pm: list[PageToNode], migrate_all: int, rules: AsCoded
) -> int:
    """Move a set of pages as indicated in the pm array."""
    pagelist: list[Page] = []
    for pp in pm:
        pp.status = -EFAULT
        if not rules.vma_of(world, process, pp.addr):
            continue
        page = world.page_at(process, pp.addr)
        pp.status = -ENOENT
        if page is None:
            continue
        if page.reserved:
            pp.status = rules.zero_page
            continue
        pp.page = page
        pp.status = page.node
        if page.node == pp.node:
            continue
        pp.status = -EACCES
        if rules.is_shared(page) and not migrate_all:
            continue
        pp.status = isolate_lru_page(page, pagelist)
    if not pagelist:
        return rules.nothing_queued(pm)
    return rules.result(pm, migrate_pages(world, pagelist, pm, rules))


def isolate_lru_page(page: Page, pagelist: list[Page]) -> int:
    """Take a page off the LRU (1.4)."""
    if not page.on_lru:
        return -EBUSY
    page.on_lru = False
    pagelist.append(page)
    return 0


def migrate_pages(world: World, pagelist: list[Page], pm: list[PageToNode], rules: AsCoded) -> int:
    """At most ten passes over the pages that answer -EAGAIN; -ENOMEM stops (1.4)."""
    nr_failed = 0
    left = list(pagelist)
    for number in range(10):
        again = []
        for page in left:
            rc = unmap_and_move(world, page, pm, number > 2, rules)
            if rc == -ENOMEM and rules.without_memory == "stop":
                put_back(pagelist)
                return -ENOMEM
            if rc == -EAGAIN:
                again.append(page)
            elif rc:
                nr_failed += 1
        left = again
    put_back(pagelist)
    return nr_failed + len(left)


def put_back(pagelist: list[Page]) -> None:
    """putback_lru_pages(); the pages that moved are on the LRU already."""
    for page in pagelist:
        page.on_lru = True


def unmap_and_move(
    world: World, page: Page, pm: list[PageToNode], force: bool, rules: AsCoded
) -> int:
    """Obtain the lock on a page, unmap it and move it to a newly allocated page."""
    first = next(pp for pp in pm if pp.page is page)  # new_page_node(): the FIRST entry (D14)
    node = rules.allocate(world, page, first.node)
    if node is None:
        if rules.without_memory == "next page":
            first.status = -ENOMEM
        return -ENOMEM
    rc = move_locked(world, page, force, rules)
    if rc:
        world.give_back(page, node)
        first.status = rc
        return rc
    world.give_back(page, page.node)
    page.node = node
    first.status = node
    return 0


def move_locked(world: World, page: Page, force: bool, rules: AsCoded) -> int:
    """What happens under the page lock: 0 if the page can move, or why not (1.4)."""
    if page.locked and not force:
        return -EAGAIN
    page.locked = False  # with force: waited for
    if not rules.unmaps(world, page):
        return -EPERM
    return migratepage(page)


def migratepage(page: Page) -> int:
    """The method of the page's mapping, and the count of its references."""
    if page.backing == "REFUSES":
        return -EIO  # fail_migrate_page (D22)
    if page.dirty and page.backing == "NO_WRITEPAGE":
        return -EINVAL
    if page.dirty and page.backing in ("NO_METHOD", "WRITE_FAILS"):  # fallback_migrate_page
        page.dirty = False
        return -EIO if page.backing == "WRITE_FAILS" else -EAGAIN
    return -EAGAIN if page.pins else 0

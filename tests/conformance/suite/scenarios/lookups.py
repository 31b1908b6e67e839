"""Addresses without a page to move: what the kernel says of each kind, and what of the others."""

from suite.asking import MOVE, MOVE_ALL, move, query, touched
from suite.outcome import Step
from suite.protocol import HUGE, KERNEL_ADDRESS, PAGE, VSYSCALL, addresses_of
from suite.registry import scenario


@scenario(
    "never-touched anon, query or move",
    "zero page",
    "query half-touched",
    "move half-touched -> 1",
    "query after READ fault of rest (zero page)",
    "move incl. zero pages -> 2",
)
def untouched_and_zero_pages(world):
    """What was never touched is not there; what was only read is the zero page."""
    p = world.process()
    pages = addresses_of(p.mmap(16), 16)
    for page in pages[1::2]:
        p.write(page)
    yield query(p, "every second one touched", pages)
    yield move(p, "move", pages, 1)
    for page in pages[::2]:
        p.read(page)
    yield query(p, "the others read", pages)
    yield move(p, "move", pages, 2)
    p.write(pages[0], 16)
    yield query(p, "all written", pages)


@scenario("hole below some VMA", "query unmapped half", "move unmapped half -> 1")
def unmapped_pages(world):
    """An address that nothing is mapped at is a fault of its own; the others are served."""
    p = world.process()
    pages = touched(p, 8)
    p.munmap(pages[2], 2)
    p.munmap(pages[7], 1)
    yield query(p, "query", pages)
    yield move(p, "move", pages, 1)
    yield move(p, "only holes", [pages[2], pages[3], pages[7]], 2)
    yield query(p, "before and behind", [pages[0] - PAGE, pages[7] + PAGE])


@scenario("[touched, untouched, zero, hole, touched] to 1")
def one_of_each(world):
    """Each address has its own status, whatever is around it."""
    p = world.process()
    pages = addresses_of(p.mmap(5), 5)
    p.write(pages[0])
    p.read(pages[2])
    p.munmap(pages[3], 1)
    p.write(pages[4])
    yield query(p, "query", pages)
    yield move(p, "move", pages, 1)


@scenario(
    "above the last VMA, kernel address, vsyscall",
    "query kernel addr, vsyscall",
    "move kernel addr",
)
def addresses_beyond_user_space(world):
    """Addresses of the kernel, and those above all mappings, are faults."""
    p = world.process()
    beyond = [KERNEL_ADDRESS, VSYSCALL, (1 << 47) - PAGE, 1 << 47, (1 << 64) - 1, 0]
    yield query(p, "query", beyond)
    yield move(p, "move", beyond, 1)
    [page] = touched(p, 1)
    yield move(p, "with a page among them", [beyond[0], page, beyond[1]], 1)


@scenario("swapped out, MADV_DONTNEED, file page in cache but not mapped, past EOF")
def discarded_pages(world):
    """Pages that were let go of are not there, in private and in shared memory."""
    world_file = world.shmem(4)
    p = world.process()
    private = touched(p, 4)
    p.madvise(private[1], 2, "dontneed")
    yield query(p, "private", private)
    yield move(p, "move", private, 1)
    shared = touched(p, 4, shared=True, file=world_file)
    p.madvise(shared[0], 2, "dontneed")
    yield query(p, "shared, still cached", shared)
    yield move(p, "move", shared, 1)
    p.read(shared[0], 4)
    yield query(p, "read again", shared)
    beyond = addresses_of(p.mmap(6, shared=True, file=world_file), 6)
    p.read(beyond[0], 4)
    yield query(p, "two pages past the end of the file", beyond)
    yield move(p, "move", beyond, 2, MOVE_ALL)


@scenario("VM_PFNMAP/VM_IO (vvar): query / move", needs="device")
def mapping_without_pages(world):
    """A mapping without pages behind it has nothing to query, and may not be moved."""
    p = world.process()
    page = p.vvar()
    yield query(p, "query", [page])
    call = p.move_pages(0, [page], 1, MOVE)
    yield Step("move", call.ret, call.status)


@scenario(
    "vDSO page: query / move / MOVE_ALL",
    "page not on LRU (vDSO, isolated elsewhere)",
    needs="lru_busy",
)
def page_that_is_on_no_list(world):
    """The vDSO's page is mapped by everybody, and on no LRU list: nobody can move it."""
    p = world.process()
    page = p.vdso()
    call = p.move_pages(0, [page], None, 0)
    [node] = call.status
    yield Step("query", call.ret, says="a node" if 0 <= node < 4 else "no node")
    elsewhere = (node + 1) % 4
    for flags, name in ((MOVE, "MOVE"), (MOVE_ALL, "MOVE_ALL")):
        call = p.move_pages(0, [page], elsewhere, flags)
        yield Step(name, call.ret, call.status)
    call = p.move_pages(0, [page], node, MOVE)
    yield Step("to its own node", call.ret, says="that node" if call.status == (node,) else "else")
    [other] = touched(p, 1)
    call = p.move_pages(0, [other, page, other], elsewhere, MOVE_ALL)
    status = tuple(7 if code == elsewhere else code for code in call.status)
    yield Step("between two mentions of a page (7: the target)", call.ret, status)


@scenario("query, page mapped")
def queries_in_chunks(world):
    """Queries of more than a chunk of 16 pages, in any order and with repeats."""
    p = world.process()
    pages = touched(p, 40)
    move(p, "", pages, [page % 4 for page in range(40)])
    yield query(p, "40 pages", pages)
    yield query(p, "backwards", pages[::-1])
    yield query(p, "one page 33 times", pages[5:6] * 33)
    yield query(p, "MPOL_MF_MOVE_ALL", pages, flags=MOVE_ALL)


@scenario("zero page", needs="thp")
def huge_zero_page(world):
    """Reading untouched memory that may be huge maps the huge zero page: a fault as well."""
    p = world.process()
    a = p.mmap(HUGE)
    p.madvise(a, HUGE, "hugepage")
    p.read(a + 3 * PAGE)
    pages = [a, a + 3 * PAGE, a + 511 * PAGE]
    yield query(p, "query", pages)
    yield move(p, "move", pages, 1)

"""Huge pages: transparent ones, and those of the hugetlb pools."""

from movepages.abi import Mode
from suite.asking import MOVE, MOVE_ALL, STRICT, at, move, query, touched
from suite.outcome import Step
from suite.protocol import HUGE, PAGE, addresses_of
from suite.registry import scenario


def transparent(process, count):
    """Map and touch transparent huge pages; return the address of the first."""
    a = process.mmap(count * HUGE)
    process.madvise(a, count * HUGE, "hugepage")
    for head in range(a, a + count * HUGE * PAGE, HUGE * PAGE):
        process.write(head)
    return a


@scenario("THP 4x2MiB", "move THP heads -> 1", "move all 2048 4k addrs -> 2", needs="thp")
def whole_huge_pages(world):
    """One address moves a huge page; of more the second is busy and the rest are there."""
    p = world.process()
    a = transparent(p, 4)
    pages = addresses_of(a, 4 * HUGE)
    yield query(p, "touched: one write each", pages)
    yield move(p, "heads to 1", pages[::HUGE], 1)
    yield at(p, "all of their pages", pages)
    yield move(p, "all addresses to 2", pages, 2)


@scenario(
    "THP, one tail address",
    "THP [head, +1, +2, +3] to 1",
    "move ONE tail page -> 3",
    "THP tails to alternating nodes",
    needs="thp",
)
def parts_of_a_huge_page(world):
    """Moving any page of a huge page moves all of it."""
    p = world.process()
    a = transparent(p, 2)
    pages = addresses_of(a, 2 * HUGE)
    yield move(p, "head and three more to 1", pages[:4], 1)
    yield move(p, "one in the middle to 3", [pages[200]], 3)
    yield at(p, "all", pages)
    yield move(p, "in turn to 0 and 3", pages[:HUGE], [0, 3] * (HUGE // 2))
    yield move(p, "middle of one, middle of the other", [pages[100], pages[700]], [2, 2])
    yield move(p, "both, each by two addresses", [pages[i] for i in (1, 513, 2, 514)], 1)


@scenario("THP, one tail address", needs="thp")
def huge_pages_mapped_in_part(world):
    """A huge page of which a part is unmapped moves whole, split or not: its page is one folio."""
    p = world.process()
    a = transparent(p, 2)
    p.write(a, 2 * HUGE)
    p.munmap(a + 4 * PAGE, 4)
    p.mprotect(a + HUGE * PAGE, 8, "r")
    pages = [a + number * PAGE for number in (0, 1, 3, 4, 7, 8, 511, 512, 513, 520, 1023)]
    yield query(p, "query", pages)
    yield move(p, "two of one that is mapped in part", [pages[1], pages[6]], 1)
    yield at(p, "all", pages)
    yield move(p, "one of the other, in the part with other rights", [pages[8]], 2)
    yield at(p, "all", pages)


@scenario("THP, one tail address", needs="thp")
def unused_parts_of_a_huge_page(world):
    """When a move splits a huge page mapped in part, pages full of zeroes become the zero page."""
    p = world.process()
    a = transparent(p, 1)
    p.munmap(a + 4 * PAGE, 4)
    pages = [a + number * PAGE for number in (0, 1, 2, 8, 511)]
    p.write(pages[2])
    yield query(p, "two of its pages were written", pages)
    yield move(p, "move", pages[:1], 1)
    yield query(p, "all", pages)


@scenario("THP, one tail address", "mlocked", needs="thp")
def unused_parts_that_are_locked(world):
    """Pages full of zeroes stay where memory is locked, when the others become the zero page."""
    p = world.process()
    a = transparent(p, 1)
    p.mlock(a + 8 * PAGE, 2)
    p.munmap(a + 16 * PAGE, 4)
    pages = [a + number * PAGE for number in (0, 7, 8, 9, 10, 511)]
    yield move(p, "move", pages[2:3], 1)
    yield query(p, "all", pages)


@scenario("THP, one tail address", needs="thp")
def parts_of_a_huge_page_given_back(world):
    """What is left of a huge page is one folio; what is written in its gap is another page."""
    p = world.process()
    a = transparent(p, 1)
    p.write(a, HUGE)
    p.madvise(a + 4 * PAGE, 8, "dontneed")
    p.write(a + 5 * PAGE)
    pages = [a + number * PAGE for number in (0, 3, 4, 5, 11, 12, 511)]
    yield query(p, "query", pages)
    yield move(p, "the page that was written", [pages[3]], 1)
    yield query(p, "all", pages)
    yield move(p, "one of what is left", [pages[5]], 2)
    yield query(p, "all", pages)


@scenario("THP, one tail address", needs="thp")
def rights_that_come_back(world):
    """A huge page of which a part was protected for a while is mapped by pages, all of them."""
    p = world.process()
    a = transparent(p, 1)
    p.write(a, HUGE)
    p.mprotect(a, 8, "r")
    p.mprotect(a, 8, "rw")
    pages = [a + number * PAGE for number in (0, 7, 8, 300, 511)]
    yield move(p, "one of its pages", [pages[3]], 1)
    p.write(a, 16)
    yield at(p, "all, some written once more", pages)
    yield move(p, "three of its pages", pages[:3], 2)
    yield at(p, "all", pages)


@scenario("shared, MOVE_ALL", "shared (mapcount > 1), elsewhere, MOVE", needs="thp")
def parts_of_a_shared_huge_page(world):
    """A huge page that one process maps whole and another in part is shared, and not split."""
    p = world.process()
    a = transparent(p, 1)
    p.write(a, HUGE)
    child = p.fork()
    child.munmap(a + 8 * PAGE, 8)
    child.write(a + PAGE)
    pages = [a + number * PAGE for number in (0, 1, 2, 100, 511)]
    yield query(child, "the child, which has written one", pages)
    yield move(p, "MOVE", pages[:1], 1)
    yield move(child, "MOVE by the child", [*pages[:2], pages[4]], 1)
    yield move(p, "MOVE_ALL", pages[2:3], 2, MOVE_ALL)
    yield at(p, "all", pages)
    yield at(child, "the child sees", pages)
    p.munmap(a, HUGE)
    yield move(child, "MOVE when only the child is left", pages[:1], 3)
    yield query(child, "all", pages)


@scenario("shared (mapcount > 1), elsewhere, MOVE", needs="thp")
def huge_pages_shared_page_by_page(world):
    """Of one mapped by pages the kernel guesses whether it is shared, by its first page at last."""
    p = world.process()
    a = transparent(p, 1)
    p.write(a, HUGE)
    p.mprotect(a, 8, "r")
    child = p.fork()
    pages = [a + number * PAGE for number in (0, 100, 300, 511)]
    yield move(p, "all of it is shared", pages[2:3], 1)
    child.munmap(a, HUGE - 1)
    yield move(p, "one page of it is", pages[2:3], 1)
    p.munmap(a + 16 * PAGE, 8)
    yield move(p, "so it is, and others are unmapped", pages[2:], 1)
    yield at(p, "all", pages)
    yield at(child, "the child sees", pages[3:])


@scenario("THP, one tail address", needs="thp")
def huge_pages_bound_in_part(world):
    """A huge page of which a part is to be elsewhere by a policy moves whole, and counts once."""
    p = world.process()
    a = transparent(p, 2)
    p.write(a, 2 * HUGE)
    pages = [a + number * PAGE for number in (0, 511, 512, 767, 768, 1023)]
    size = 768 * PAGE
    yield Step(
        "bind", p.mbind(a, size, Mode.BIND, [1], MOVE | STRICT), where=at(p, "", pages).where
    )
    p.munmap(a + 800 * PAGE, 8)
    yield Step("migrate", p.migrate_pages(0, [1], [2]), where=at(p, "", pages).where)


@scenario("shared, MOVE_ALL", "shared (mapcount > 1), elsewhere, MOVE", needs="thp")
def shared_huge_page(world):
    """A huge page that two processes share is left alone by MOVE, and moved by MOVE_ALL."""
    p = world.process()
    a = transparent(p, 1)
    pages = [a, a + 7 * PAGE]
    child = p.fork()
    yield move(p, "MOVE", pages[:1], 1)
    yield move(p, "MOVE_ALL, a tail", pages[1:], 2, MOVE_ALL)
    yield at(child, "the child sees", pages)


@scenario(
    "hugetlb pool",
    "hugetlb touch",
    "move hugetlb -> 1",
    "query hugetlb by 4k addr",
    "move hugetlb by tail 4k addr",
    "hugetlb -> node with empty pool",
    "hugetlb [head, tail] to 1, empty pool there",
    needs="hugetlb root",
)
def pages_of_the_pools(world):
    """A hugetlb page moves into the target's pool, or takes its place in the pool along."""
    for node in range(3):
        world.resize_pool(node, 4)
    p = world.process()
    a = p.mmap(3 * HUGE, huge=True)
    heads = [a, a + HUGE * PAGE, a + 2 * HUGE * PAGE]
    yield query(p, "untouched", heads)
    for head in heads:
        p.write(head)
    yield query(p, "touched", heads)
    yield move(p, "to 1", heads, 1)
    yield Step("pools", says=str(world.pools()))
    yield query(p, "a thousand base pages", addresses_of(a, 1000))
    yield move(p, "one by an address inside", [a + 5 * PAGE], 2)
    yield at(p, "all", heads)
    yield move(p, "to 3, whose pool is empty", heads, 3)
    yield Step("pools", says=str(world.pools()))
    yield move(p, "head and tail of one to 1", [a, a + PAGE], 1)
    yield move(p, "three addresses of one to 2", [a, a + PAGE, a + 2 * PAGE], 2)


@scenario("hugetlb [head, tail] to 1, empty pool there", needs="hugetlb root")
def huge_pages_that_are_shared(world):
    """A shared hugetlb page is left alone by MOVE; base pages around it move."""
    world.resize_pool(0, 2)
    p = world.process()
    a = p.mmap(HUGE, huge=True, shared=True)
    p.write(a)
    base = touched(p, 2)
    child = p.fork()
    child.read(a)
    child.munmap(base[0], 2)
    yield move(p, "MOVE", [base[0], a, base[1]], 1)
    yield move(p, "MOVE_ALL", [base[0], a, base[1]], 2, MOVE_ALL)
    yield at(child, "the child sees", [a])
    yield Step("pools", says=str(world.pools()))

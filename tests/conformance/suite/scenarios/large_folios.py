"""Huge pages: transparent ones, and those of the hugetlb pools."""

from suite.asking import MOVE_ALL, at, move, query, touched
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


@scenario("THP, one tail address", needs="thp split_mappings")
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


@scenario("THP, one tail address", needs="thp split_mappings")
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

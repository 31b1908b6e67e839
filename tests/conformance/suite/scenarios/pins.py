"""Pages that somebody else refers to: they do not move, and the call stops after their batch."""

from suite.asking import MOVE, MOVE_ALL, move, touched
from suite.outcome import Step
from suite.protocol import ABSENT_NODE, PAGE
from suite.registry import scenario


@scenario(
    "busy/pinned page alone",
    "4 pages referenced by pipe (vmsplice 16384)",
    "after pipe drained",
    needs="pins",
)
def pinned_pages(world):
    """Pinned pages are counted in the return value, and have no status; unpinned they move."""
    p = world.process()
    pages = touched(p, 8)
    p.pin(pages[0], 4)
    yield move(p, "one", pages[:1], 1)
    yield move(p, "two", pages[:2], 2, MOVE_ALL)
    yield move(p, "four pinned, four not", pages, 3)
    yield move(p, "where they are", pages[:4], 0)
    p.unpin()
    yield move(p, "unpinned", pages, 1)


@scenario("[pinned, ok, ok] to 1", "[pinned, hole, ok] to 1", needs="pins")
def pinned_page_first(world):
    """The others of its batch have moved, but no status says so; what comes after is not tried."""
    p = world.process()
    pages = touched(p, 3)
    p.pin(pages[0])
    yield move(p, "pinned, ok, ok", pages, 1)
    pages = touched(p, 3)
    p.pin(pages[0])
    p.munmap(pages[1], 1)
    yield move(p, "pinned, hole, ok", pages, 1)
    pages = touched(p, 4)
    p.pin(pages[2])
    yield move(p, "ok, ok, pinned, ok to 1 0 1 0", pages, [1, 0, 1, 0])
    yield move(p, "the same to 3 2 3 2", pages, [3, 2, 3, 2])


@scenario("[ok->1, ok->0, pinned->1, ok->0]", needs="pins")
def pinned_page_in_the_middle(world):
    """Statuses are a prefix with gaps: each batch before the pinned page's has its own."""
    p = world.process()
    pages = touched(p, 4)
    move(p, "", pages[1:2], 1)
    move(p, "", pages[3:], 1)
    p.pin(pages[2])
    yield move(p, "ok to 1, ok to 0, pinned to 1, ok to 0", pages, [1, 0, 1, 0])


@scenario("3 pinned then 17 already on target", needs="pins")
def pinned_then_already_there(world):
    """The entry that ends the batch has its status; the rest is not attempted, but counted."""
    p = world.process()
    pages = touched(p, 20)
    move(p, "", pages[3:], 1)
    p.pin(pages[0], 3)
    yield move(p, "3 pinned, 17 there", pages, 1)


@scenario("[pinned->1, ok->offline node]", needs="pins")
def pinned_then_an_error(world):
    """An error of an argument hides that pages did not move."""
    p = world.process()
    pages = touched(p, 3)
    p.pin(pages[0])
    yield move(p, "pinned to 1, ok to a node that is not there", pages[:2], [1, ABSENT_NODE])
    yield move(p, "addresses end behind it", pages, 1, pages_readable=2)
    ret = p.move_pages(0, pages, 1, MOVE, status_writable=0).ret
    yield Step("statuses cannot be written", ret)


@scenario("busy/pinned page alone", needs="pins")
def pinned_in_a_large_call(world):
    """What comes in the same batch of 512 as a pinned page moves, and so do the batches after."""
    p = world.process()
    pages = touched(p, 1200)
    p.pin(pages[600], 2)
    yield move(p, "1200 pages, two pinned", pages, 1)
    yield move(p, "with a page that is there in the middle", pages, [1] * 500 + [0] + [1] * 699)


@scenario("busy/pinned page alone", needs="pins thp")
def pinned_part_of_a_huge_page(world):
    """A reference to one of its pages pins the whole huge page."""
    p = world.process()
    a = p.mmap(512)
    p.madvise(a, 512, "hugepage")
    p.write(a, 512)
    p.pin(a + 7 * PAGE)
    yield move(p, "head", [a], 1)
    p.unpin()
    yield move(p, "unpinned", [a], 1)

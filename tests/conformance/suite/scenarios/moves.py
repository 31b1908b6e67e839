"""Private memory of one process: that it moves where it is told to, whole and intact."""

from suite.asking import MOVE, at, move, query, touched
from suite.outcome import Step
from suite.protocol import PAGE
from suite.registry import scenario


@scenario(
    "touch on cpu0, query",
    "move 64 -> node 1",
    "move 64 -> node 2",
    "move 64 -> node 3",
    "move round-robin 0..3",
    "query, page mapped",
    "private anon on node 0 to 1",
)
def private_pages_around_all_nodes(world):
    """Sixty-four pages go from node to node together, and then each its own way."""
    p = world.process()
    pages = touched(p, 64)
    yield query(p, "touched on CPU 0", pages)
    for node in (1, 2, 3):
        yield move(p, f"to node {node}", pages, node)
    yield move(p, "round robin", pages, [0, 1, 2, 3] * 16)


@scenario("touch on cpu0, query")
def first_touch_follows_the_cpu(world):
    """Memory comes from the node of the CPU that touches it first."""
    for cpu in (0, 1):
        p = world.process(cpu=cpu)
        yield query(p, f"touched on CPU {cpu}", touched(p, 4))


@scenario("data intact after moves")
def contents_survive_moves(world):
    """What was written into pages is there after moves, in the same order."""
    p = world.process()
    a = p.mmap(8)
    p.poke(a, range(100, 108))
    pages = [a + PAGE * page for page in range(8)]
    yield move(p, "scattered", pages, [1, 2, 3, 0, 3, 2, 1, 0])
    yield Step("contents", says=str(p.peek(pages)))
    yield move(p, "together again", pages[::-1], 1)
    yield Step("contents", says=str(p.peek(pages)))


@scenario("already on target, alone", "already on target, with others that move")
def already_there(world):
    """A page that is on its target has the node as status, alone or among others."""
    p = world.process()
    pages = touched(p, 6)
    yield move(p, "all there already", pages, 0)
    yield move(p, "the even ones away", pages[::2], 1)
    yield move(p, "all to 1, of which half is there", pages, 1)
    yield move(p, "again", pages, 1)


@scenario("flags 0", "flags=0 with nodes")
def flags_0_moves(world):
    """Flags 0 act as MPOL_MF_MOVE."""
    p = world.process()
    yield move(p, "flags 0", touched(p, 4), 1, 0)


@scenario(
    "same page 3x to 1,2,3",
    "conflicting [p->1, p->0], p on 0",
    "conflicting [p->0, p->1], p on 0",
)
def one_page_to_several_nodes(world):
    """Targets that contradict each other are followed one after the other: the last one wins."""
    p = world.process()
    for targets in ([1, 2, 3], [1, 0], [0, 1], [1, 1, 0, 0, 1], [0, 0, 1, 0]):
        [page] = touched(p, 1)
        yield move(p, f"one page to {targets}", [page] * len(targets), targets)


@scenario("duplicate [p p p] to 1", "[p q p q] to 1")
def duplicates(world):
    """The second mention of a page that waits in a batch is busy, and ends the batch."""
    p = world.process()
    page, other = touched(p, 2)
    yield move(p, "p p p", [page] * 3, 1)
    yield move(p, "p q p q", [page, other, page, other], 2)
    yield move(p, "p p p p p", [page] * 5, 3)
    yield move(p, "p q q p p q", [page, other, other, page, page, other], 0)


@scenario("unaligned address", "query unaligned addresses", "move unaligned addresses -> 1")
def unaligned_addresses(world):
    """An address within a page names the page."""
    p = world.process()
    pages = [page + offset for page, offset in zip(touched(p, 4), (1, 8, 123, 4095), strict=True)]
    yield query(p, "query", pages)
    yield move(p, "move", pages, 1)
    yield move(p, "two addresses in one page", [pages[0], pages[0] + 1], 2)


@scenario("mlocked", "mlocked pages")
def locked_pages_move(world):
    """Pages that are locked in memory move like others."""
    p = world.process()
    a = p.mmap(8)
    p.mlock(a, 8)
    pages = [a + PAGE * page for page in range(8)]
    yield query(p, "faulted in by mlock", pages)
    yield move(p, "move", pages, 2)


@scenario("PROT_NONE but touched", "query PROT_NONE untouched")
def pages_without_access(world):
    """A page that may not be accessed is found and moves; one never touched is not there."""
    p = world.process()
    pages = touched(p, 4)
    p.mprotect(pages[0], 4, "")
    yield query(p, "touched, then PROT_NONE", pages)
    yield move(p, "move", pages, 1)
    p.mprotect(pages[0], 4, "r")
    yield move(p, "read only", pages, 2)
    b = p.mmap(2, prot="")
    yield query(p, "PROT_NONE from the start", [b, b + PAGE])
    yield move(p, "move", [b, b + PAGE], 1)


@scenario("private anon on node 0 to 1")
def many_pages_in_any_order(world):
    """More pages than two of the kernel's batches of 512 move in one call, in any order."""
    p = world.process()
    pages = touched(p, 1100)
    yield move(p, "in order", pages, 1)
    yield move(p, "backwards", pages[::-1], 2)
    yield move(p, "strides", pages[::3] + pages[1::3] + pages[2::3], 0)
    yield move(p, "two nodes in turn", pages[:100], [1, 3] * 50)
    call = p.move_pages(0, pages, 0, MOVE)
    yield Step("all to 0", call.ret, call.status)
    yield at(p, "where", pages)

"""What is wrong with the arguments of a call, and what is done before it is found."""

from suite.asking import MOVE, MOVE_ALL, STRICT, move, query, touched
from suite.outcome import Step
from suite.protocol import ABSENT_NODE, KTHREADD, NOBODY_HAS_THIS_PID
from suite.registry import scenario

LAZY = 8


@scenario(
    "flags with other bits",
    "bad flags and bogus pid",
    "flags=MPOL_MF_STRICT",
    "flags=8",
)
def wrong_flags(world):
    """Flags other than MOVE and MOVE_ALL are refused before anything else is looked at."""
    p = world.process()
    pages = touched(p, 4)
    for flags in (STRICT, LAZY, MOVE | 16, MOVE | MOVE_ALL | STRICT):
        yield move(p, f"move, flags {flags}", pages, 1, flags)
        yield query(p, f"query, flags {flags}", pages, flags=flags)
    yield query(p, "and a pid that nobody has", pages, pid=NOBODY_HAS_THIS_PID, flags=LAZY)
    yield query(p, "and no array", pages, flags=LAZY, null="pages")


@scenario("pid unknown or negative", "pid 999999", "pid -5")
def wrong_pids(world):
    """A pid that nobody has is ESRCH, in a query and in a move."""
    p = world.process()
    pages = touched(p, 1)
    for pid in (NOBODY_HAS_THIS_PID, -5, -1):
        yield query(p, f"query {pid}", pages, pid=pid)
        yield move(p, f"move {pid}", pages, 1, pid=pid)


@scenario("kernel thread, privileged / not", "pid 2 (kthread) query")
def kernel_threads(world):
    """A kernel thread has no memory."""
    p = world.process()
    pages = touched(p, 1)
    yield query(p, "query", pages, pid=KTHREADD)
    yield move(p, "move", pages, 1, pid=KTHREADD)


@scenario("zombie", "zombie pid query", "zombie pid move")
def zombies(world):
    """A process that has ended has no memory, and when its parent knows, no pid."""
    p = world.process()
    pages = touched(p, 1)
    child = p.fork()
    child.exit()
    yield query(p, "query", pages, pid=child.pid)
    yield move(p, "move", pages, 1, pid=child.pid)
    p.wait()
    yield query(p, "query after the parent has waited", pages, pid=child.pid)


@scenario("nr_pages 0, nodes NULL", "nr_pages 0, nodes given", "count=0")
def no_pages(world):
    """A call for no page does nothing, whatever the arrays are."""
    p = world.process()
    pages = touched(p, 4)
    yield query(p, "query", pages, count=0)
    yield move(p, "move", pages, 1, count=0)
    yield move(p, "move to a node that is not there", pages, ABSENT_NODE, count=0)
    yield query(p, "query without arrays", pages, count=0, null="pages")
    yield move(p, "move, flags 8", pages, 1, LAZY, count=0)


@scenario("pages=NULL", "status=NULL query", "status=NULL move")
def no_arrays(world):
    """An array that is NULL is a fault; what moved before a status could not be stored stays."""
    p = world.process()
    for null in ("pages", "status"):
        pages = touched(p, 4)
        yield query(p, f"query, {null} NULL", pages, null=null)
        yield move(p, f"move, {null} NULL", pages, 1, null=null)
        yield move(p, f"move, {null} NULL, nodes in turn", pages, [2, 3, 2, 3], null=null)


@scenario("nr_pages absurd")
def absurd_counts(world):
    """A count beyond all memory ends where the arrays do, after what could be done."""
    p = world.process()
    for exponent in (31, 32, 60, 61, 63):
        pages = touched(p, 20)
        ends = {"pages_readable": 20, "nodes_readable": 20, "status_writable": 20}
        yield query(p, f"query 2**{exponent}", pages, count=1 << exponent, **ends)
        yield move(p, f"move 2**{exponent}", pages, 1, count=1 << exponent, **ends)
    yield query(p, "query 2**64 - 1", pages, count=(1 << 64) - 1, **ends)


@scenario("pages unreadable at k")
def addresses_end_early(world):
    """Queries go by chunks of 16; a move does and stores what comes before the end."""
    p = world.process()
    for readable in (0, 1, 15, 16, 17, 18, 19):
        pages = touched(p, 20)
        yield query(p, f"query, {readable} of 20 readable", pages, pages_readable=readable)
        yield move(p, f"move, {readable} of 20 readable", pages, 1, pages_readable=readable)


@scenario("nodes unreadable at k")
def nodes_end_early(world):
    """A move does and stores what comes before the end of the nodes."""
    p = world.process()
    for readable in (0, 1, 3):
        pages = touched(p, 4)
        yield move(p, f"{readable} of 4 readable", pages, 1, nodes_readable=readable)
        targets = [2, 3, 2, 3]
        yield move(p, f"{readable} of 4, in turn", pages, targets, nodes_readable=readable)


@scenario("status not writable at k")
def statuses_end_early(world):
    """What moved before a status could not be stored stays; pending pages move as well."""
    p = world.process()
    for writable in (0, 1, 15, 16, 17, 19):
        pages = touched(p, 20)
        yield query(p, f"query, {writable} of 20 writable", pages, status_writable=writable)
        yield move(p, f"move, {writable} of 20 writable", pages, 1, status_writable=writable)
    for writable in (0, 1, 2, 3):
        pages = touched(p, 4)
        how = {"status_writable": writable}
        yield move(p, f"{writable} of 4, nodes in turn", pages, [1, 2, 1, 2], **how)
        yield move(p, f"{writable} of 4, twice the same", pages[:2] * 2, 3, **how)
        p.munmap(pages[1], 1)
        yield move(p, f"{writable} of 4, a hole is second", pages, 0, **how)


@scenario(
    "node negative / >= MAX_NUMNODES",
    "node offline at index k",
    "node 9 (never existed)",
    "nodes [1,9,2,2]",
    "node -1",
    "node 5000 (>=MAX_NUMNODES)",
)
def nodes_that_are_not_there(world):
    """A node that is not there ends the call; what comes before it has moved."""
    p = world.process()
    for node in (ABSENT_NODE, 4, -1, 1023, 1024, 5000, 2**31 - 1, -(2**31)):
        yield move(p, f"node {node}", touched(p, 4), node)
    for targets in ([1, 9, 2, 2], [1, 1, 9, 2], [1, 2, 3, 9], [0, 9, 1, 1], [1, 1, -1, 9]):
        yield move(p, f"nodes {targets}", touched(p, 4), targets)
    pages = touched(p, 2)
    hole = p.mmap(1)
    yield move(p, "behind a page that is absent", [pages[0], hole, pages[1]], [1, 1, 9])
    yield move(p, "of a page that is absent", [pages[0], hole, pages[1]], [2, 9, 2])


@scenario("nodes unreadable at k", "node offline at index k")
def the_first_fault_of_several_counts(world):
    """Of several things that are wrong with the arrays, the first in the list is what is said."""
    p = world.process()
    pages = touched(p, 6)
    bad = [1, 1, 1, 9, 1, 1]
    yield move(p, "addresses end before the bad node", pages, bad, pages_readable=2)
    yield move(p, "addresses end at the bad node", pages, bad, pages_readable=3)
    yield move(p, "nodes end before it", pages, bad, nodes_readable=3)
    yield move(p, "nodes end behind it", pages, bad, nodes_readable=4)
    yield move(p, "statuses end before it", pages, [2, 2, 2, 9, 2, 2], status_writable=1)
    yield move(p, "nothing can be read", pages, bad, pages_readable=0, nodes_readable=0)
    ret = p.move_pages(0, pages, [3, 3, 2, 2, 9, 9], MOVE, status_writable=0).ret
    yield Step("statuses end at once, in the second batch", ret)

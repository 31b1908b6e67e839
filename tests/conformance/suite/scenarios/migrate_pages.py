"""migrate_pages(2): all pages of a process, from some nodes to others."""

from suite.asking import at, move, touched
from suite.outcome import Step
from suite.protocol import ABSENT_NODE, KTHREADD, NOBODY_HAS_THIS_PID
from suite.registry import scenario


@scenario(
    "migrate_pages(child, 0-3 -> 1)",
    "migrate_pages(child, 1 -> 3)",
    "migrate_pages(child, 3,1 -> 0,2) (relative)",
)
def migrate_another_process(world):
    """Pages keep their place relative to each other: the n-th node goes to the n-th node."""
    p = world.process()
    child = world.process()
    pages = touched(child, 64)
    for old, new in (([0, 1, 2, 3], [1]), ([1], [3]), ([1, 3], [0, 2]), ([0, 1, 2, 3], [0, 1])):
        ret = p.migrate_pages(child.pid, old, new)
        yield Step(f"{old} to {new}", ret, where=child.where(pages[0], 64))


@scenario("migrate_pages(child, 3,1 -> 0,2) (relative)")
def masks_of_all_shapes(world):
    """Source nodes that are targets too stay, if the masks differ in weight; else they shift."""
    pairs = (
        ([1, 2], [1]),
        ([0, 1], [1, 2]),
        ([0, 1, 2], [1, 2, 3]),
        ([0, 1, 2, 3], [3, 2]),
        ([0], [1, 2, 3]),
        ([1, 2, 3], [0]),
        ([2, 3], [0, 1, 2]),
        ([0, 1, 2, 3], [1, 2, 3]),
        ([0, 1, 2, 3], [0, 1, 2, 3]),
    )
    for old, new in pairs:
        p = world.process()
        pages = touched(p, 8)
        move(p, "", pages, [0, 1, 2, 3] * 2)
        ret = p.migrate_pages(0, old, new)
        yield Step(f"{old} to {new}", ret, where=p.where(pages[0], 8))


@scenario(
    "migrate_pages to node 9",
    "migrate_pages empty to",
    "migrate_pages from 9 to 1",
    "migrate_pages bad pid",
    "migrate_pages maxnode 100000",
    "migrate_pages kthread 2",
)
def arguments_of_migrate_pages(world):
    """What is wrong with the arguments."""
    p = world.process()
    [page] = touched(p, 1)
    yield Step("to node 9", p.migrate_pages(0, [0], [ABSENT_NODE]))
    yield Step("to nothing", p.migrate_pages(0, [0], []))
    yield Step("from node 9", p.migrate_pages(0, [ABSENT_NODE], [1]))
    yield Step("from nothing", p.migrate_pages(0, [], [1]))
    yield Step("to 1 and 9", p.migrate_pages(0, [0], [1, ABSENT_NODE]))
    yield at(p, "where", [page])
    yield Step("a pid that nobody has", p.migrate_pages(NOBODY_HAS_THIS_PID, [0], [1]))
    yield Step("maxnode 100000", p.migrate_pages(0, [0], [1], maxnode=100_000))
    yield Step("maxnode 0", p.migrate_pages(0, [0], [1], maxnode=0))
    yield Step("maxnode 1: masks are empty", p.migrate_pages(0, [0], [1], maxnode=1))
    yield Step("maxnode 2: only node 0", p.migrate_pages(0, [0], [1], maxnode=2))
    yield Step("a kernel thread", p.migrate_pages(KTHREADD, [0], [1]))
    child = p.fork()
    child.exit()
    yield Step("a zombie", p.migrate_pages(child.pid, [0], [1]))


@scenario("migrate_pages(child, 1 -> 3)", needs="root")
def shared_pages_migrate_for_the_privileged(world):
    """With CAP_SYS_NICE shared pages move too; without they are counted as not moved."""
    for uid in (0, 1000):
        p = world.process(uid=uid)
        shared = touched(p, 4)
        child = p.fork()
        child.write(shared[0], 1)
        ret = p.migrate_pages(child.pid, [0], [1])
        if uid == 0:
            yield Step("root", ret)
        yield at(child, f"uid {uid}: the child sees", shared)
        yield at(p, f"uid {uid}: the parent sees", shared)


@scenario("migrate_pages(child, 1 -> 3)", needs="pins")
def pinned_pages_do_not_migrate(world):
    """The count of pages not moved is returned."""
    p, q = world.process(), world.process()
    pages = touched(q, 8)
    q.pin(pages[2], 3)
    yield Step("0 to 3", p.migrate_pages(q.pid, [0], [3]), where=q.where(pages[0], 8))


@scenario("migrate_pages(child, 1 -> 3)", needs="thp")
def huge_pages_migrate(world):
    """A huge page migrates whole."""
    p, q = world.process(), world.process()
    a = q.mmap(512)
    q.madvise(a, 512, "hugepage")
    q.write(a, 1)
    ret = p.migrate_pages(q.pid, [0], [2])
    yield Step("0 to 2", ret, where=q.where(a, 512))

"""Pages that are mapped more than once: MOVE leaves them alone, MOVE_ALL moves them for all."""

from suite.asking import MOVE_ALL, at, move, query, touched
from suite.protocol import addresses_of
from suite.registry import scenario


@scenario(
    "shared (mapcount > 1), elsewhere, MOVE",
    "shared, on target already",
    "shared, MOVE_ALL",
    "MAP_SHARED in 2 procs, MF_MOVE",
    "MAP_SHARED in 2 procs, MF_MOVE_ALL (root)",
)
def shared_memory_of_two_processes(world):
    """Shared memory is mapped by parent and child, once both have touched it."""
    p = world.process()
    pages = touched(p, 8, shared=True)
    child = p.fork()
    yield query(child, "the child has not touched them", pages)
    yield move(p, "MOVE: only the parent maps them", pages, 1)
    child.read(pages[0], 8)
    yield move(p, "MOVE to the node they are on", pages, 1)
    yield move(p, "MOVE", pages, 2)
    yield move(p, "MOVE_ALL", pages, 2, MOVE_ALL)
    yield at(child, "the child sees", pages)


@scenario(
    "shared (mapcount > 1), elsewhere, MOVE",
    "shared, MOVE_ALL",
    "private COW-shared after fork, MF_MOVE",
    "private COW-shared, MF_MOVE_ALL",
    "child's COW-shared via pid, MOVE_ALL",
    "same pages once child is gone, MF_MOVE",
    "root moves child's private pages by pid",
)
def private_memory_after_fork(world):
    """Private pages are shared from fork on, until one side writes or ends."""
    p = world.process()
    pages = touched(p, 8)
    child = p.fork()
    yield move(p, "MOVE", pages, 1)
    yield move(p, "MOVE_ALL", pages, 2, MOVE_ALL)
    yield at(child, "the child sees", pages)
    yield move(p, "the child's, MOVE_ALL", pages, 3, MOVE_ALL, pid=child.pid)
    yield at(p, "the parent sees", pages)
    child.write(pages[0], 4)
    yield at(child, "the child has written to half", pages)
    yield move(p, "the child's, MOVE", pages, 1, pid=child.pid)
    yield at(p, "the parent sees", pages)
    yield move(p, "the parent's own, MOVE", pages, 2)
    child.exit()
    p.wait()
    yield move(p, "MOVE when the child has gone", pages, 1)


@scenario("memfd page mapped twice in one process, MOVE")
def mapped_twice_by_one_process(world):
    """Two mappings of a page in one process count as sharing."""
    file = world.shmem(2)
    p = world.process()
    first = touched(p, 2, shared=True, file=file)
    second = addresses_of(p.mmap(2, shared=True, file=file), 2)
    p.read(second[0], 1)
    yield move(p, "MOVE: the second mapping has one of two pages", first, 1)
    yield query(p, "through the second", second)
    yield move(p, "MOVE_ALL through the second", second, 2, MOVE_ALL)
    yield move(p, "MOVE_ALL, each page by both addresses", first + second, 3, MOVE_ALL)
    p.munmap(second[0], 2)
    yield move(p, "MOVE when the second is unmapped", first, 0)


@scenario("shared, MOVE_ALL")
def three_generations(world):
    """A page that three processes share moves for all of them; copies are each one's own."""
    p = world.process()
    pages = touched(p, 6)
    child = p.fork()
    grandchild = child.fork()
    child.write(pages[2], 2)
    yield move(grandchild, "the grandchild's, MOVE", pages, 1)
    yield move(grandchild, "the grandchild's, MOVE_ALL", pages, 1, MOVE_ALL)
    yield at(p, "the parent sees", pages)
    yield at(child, "the child sees", pages)
    yield move(p, "the child's from outside", pages, [3, 3, 2, 2, 0, 0], pid=child.pid)


@scenario("shared (mapcount > 1), elsewhere, MOVE")
def shared_among_others(world):
    """A shared page ends its batch with a status of its own; those around it move."""
    p = world.process()
    pages = touched(p, 6)
    child = p.fork()
    for page in (1, 4):
        child.munmap(pages[page], 1)
    p.write(pages[0])
    yield move(p, "MOVE", pages, 1)
    yield move(p, "MOVE, nodes in turn", pages, [2, 3] * 3)


@scenario("KSM page MOVE / MOVE_ALL", needs="ksm")
def merged_pages(world):
    """Pages that KSM has merged are shared by all that had the same contents."""
    p = world.process()
    a = p.mmap(4)
    p.madvise(a, 4, "mergeable")
    p.poke(a, [7, 8, 7, 7])
    pages = addresses_of(a, 4)
    world.merge()
    yield query(p, "merged", pages)
    yield move(p, "MOVE", pages, 1)
    yield move(p, "MOVE_ALL", pages, 2, MOVE_ALL)
    p.write(pages[2])
    yield query(p, "one written", pages)
    yield move(p, "MOVE", pages, 3)

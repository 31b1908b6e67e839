"""How a list is walked: batches by node, and what ends one."""

from suite.asking import MOVE_ALL, move, touched
from suite.protocol import addresses_of
from suite.registry import scenario


@scenario("already on target, with others that move")
def nodes_change_at_every_page(world):
    """Each change of node ends a batch; all arrive."""
    p = world.process()
    pages = touched(p, 40)
    yield move(p, "in turn", pages, [node % 4 for node in range(40)])
    yield move(p, "in turn, the other way", pages, [3 - node % 4 for node in range(40)])
    yield move(p, "in pairs", pages, [node // 2 % 4 for node in range(40)])


@scenario("duplicate [p p p] to 1", "[touched, untouched, zero, hole, touched] to 1")
def all_kinds_of_entries(world):
    """Pages that move, are there, absent, zero, shared, unmapped or named again, in one list."""
    p = world.process()
    base = addresses_of(p.mmap(24), 24)
    for page in base[:16]:
        p.write(page)
    for page in base[18:20]:
        p.read(page)
    p.munmap(base[22], 2)
    child = p.fork()
    p.write(base[0], 12)
    order = [0, 1, 16, 2, 12, 3, 18, 4, 22, 5, 1, 6, 13, 7, 7, 8, 17, 9, 23, 10, 0, 11, 14, 19]
    pages = [base[number] for number in order]
    yield move(p, "MOVE", pages, 1)
    yield move(p, "MOVE, nodes in turn", pages, [2, 3] * 12)
    yield move(p, "MOVE_ALL", pages, 0, MOVE_ALL)
    yield move(p, "the child's, MOVE_ALL", pages, [1, 1, 2, 2, 3, 3] * 4, MOVE_ALL, pid=child.pid)


@scenario("duplicate [p p p] to 1")
def a_page_again_much_later(world):
    """A page that was moved in an earlier batch is found where it is by then."""
    p = world.process()
    pages = touched(p, 8)
    again = pages + pages
    yield move(p, "all to 1, all to 2", again, [1] * 8 + [2] * 8)
    yield move(p, "all to 3 twice", again, 3)
    yield move(p, "back and forth", again + again, [0, 1, 2, 3] * 8)

"""Processes that may use some nodes only."""

from movepages.abi import Mode, PolicyQuery
from suite.asking import MOVE, MOVE_ALL, move, query, touched
from suite.outcome import Step
from suite.protocol import ABSENT_NODE, PAGE
from suite.registry import scenario


@scenario(
    "node outside target's cpuset",
    "order offline vs cpuset",
    "cpuset 0-1: move -> 1",
    "cpuset 0-1: move -> 2",
    "cpuset 0-1: move -> [1,0,1,2,1..]",
    "cpuset mems=0-1: Mems_allowed_list",
    needs="cpuset_files root",
)
def moves_inside_a_cpuset(world):
    """A target outside ends the call; what comes before it has moved."""
    p = world.process(group=world.cpuset("0-1"))
    yield Step("allowed", *_allowed(p))
    pages = touched(p, 8)
    yield move(p, "to 1", pages, 1)
    yield move(p, "to 2", pages, 2)
    yield move(p, "1 0 1 2 1 1 1 1", pages, [1, 0, 1, 2, 1, 1, 1, 1])
    yield move(p, "not there, outside", pages, [1, ABSENT_NODE, 2, 1, 1, 1, 1, 1])
    yield move(p, "outside, not there", pages, [0, 2, ABSENT_NODE, 1, 1, 1, 1, 1])
    yield move(p, "MOVE_ALL as root", pages, 3, MOVE_ALL)


@scenario(
    "node outside target's cpuset",
    "cpuset 0-1: move parent's (unlimited) pages -> 2",
    "root outside moves limited pid -> 2",
    needs="cpuset_files root",
)
def the_cpuset_of_the_target_counts(world):
    """It is the target's cpuset that limits a move, not the caller's."""
    limited, free = world.process(group=world.cpuset("0-1")), world.process()
    theirs, ours = touched(limited, 4), touched(free, 4)
    yield move(limited, "the free one's to 2, by the limited", ours, 2, pid=free.pid)
    yield move(free, "the limited one's to 2, by the free", theirs, 2, pid=limited.pid)
    yield move(free, "the limited one's to 1, by the free", theirs, 1, pid=limited.pid)


@scenario(
    "cpuset 0-1: migrate_pages self 0 -> 2",
    "cpuset 0-1: migrate_pages self 0->{1,2}",
    "cpuset 0-1: mbind BIND{2}",
    "cpuset 0-1: mbind BIND{1,2} MOVE",
    "cpuset 0-1: set_mempolicy BIND{2}",
    needs="cpuset_files root",
)
def other_calls_inside_a_cpuset(world):
    """Nodes outside are cut off; if nothing is left the call is refused."""
    p = world.process(group=world.cpuset("0-1"))
    pages = touched(p, 8)
    length = 8 * PAGE
    yield Step("migrate_pages 0 to 2", p.migrate_pages(0, [0], [2]), where=p.where(pages[0], 8))
    ret = p.migrate_pages(0, [0], [1, 2])
    yield Step("migrate_pages 0 to 1, 2", ret, where=p.where(pages[0], 8))
    move(p, "", pages, 0)
    yield Step("mbind BIND 2", p.mbind(pages[0], length, Mode.BIND, [2]))
    ret = p.mbind(pages[0], length, Mode.BIND, [1, 2], MOVE)
    yield Step("mbind BIND 1, 2 MOVE", ret, where=p.where(pages[0], 8))
    yield Step("set_mempolicy BIND 2", p.set_mempolicy(Mode.BIND, [2]))
    yield Step("set_mempolicy BIND 1, 2", p.set_mempolicy(Mode.BIND, [1, 2]))
    yield Step("policy", *_policy(p))
    yield query(p, "touched under it", touched(p, 2))


@scenario("cpuset.mems 0-1 -> 3: pages of member", needs="cpuset_files root")
def writing_mems_moves_pages(world):
    """When a group may use other nodes, the pages of its members move there."""
    group = world.cpuset("0-1")
    p = world.process(group=group)
    pages = touched(p, 8)
    move(p, "", pages, [0, 1] * 4)
    world.allow(group, "3")
    yield query(p, "0-1 to 3", pages)
    yield query(p, "touched there", touched(p, 2))
    world.allow(group, "1-2")
    yield query(p, "3 to 1-2", pages)
    move(p, "", pages, [1, 2] * 4)
    world.allow(group, "0,3")
    yield query(p, "1-2 to 0,3: each keeps its place", pages)


def _allowed(process):
    ret, says = process.get_mempolicy(PolicyQuery.MEMS_ALLOWED)
    return ret, None, None, says


def _policy(process):
    ret, says = process.get_mempolicy()
    return ret, None, None, says

"""mbind, set_mempolicy, get_mempolicy and home nodes: what they accept, and where pages go."""

from movepages.abi import Mode, ModeFlag, PolicyQuery
from suite.asking import MOVE, MOVE_ALL, STRICT, at, query, touched
from suite.outcome import Step
from suite.protocol import ABSENT_NODE, PAGE, addresses_of
from suite.registry import scenario

ALL = [0, 1, 2, 3]
STATIC, RELATIVE = int(ModeFlag.STATIC_NODES), int(ModeFlag.RELATIVE_NODES)
BALANCING = int(ModeFlag.NUMA_BALANCING)
ADDR = int(PolicyQuery.ADDR)


def bind(process, label, a, pages, mode, nodes=(), flags=0):
    """Call mbind on pages, then ask for the policy there and where the pages are."""
    ret = process.mbind(a, pages * PAGE, mode, nodes, flags)
    says = process.get_mempolicy(ADDR, a)[1]
    return Step(label, ret, where=process.where(a, pages), says=says)


@scenario(
    "mbind BIND{1} flags=0 on touched",
    "mbind BIND{1} STRICT (pages on wrong node)",
    "mbind BIND{1} MOVE",
    "mbind BIND{2,3} MOVE|STRICT",
    "mbind INTERLEAVE{0-3} MOVE",
    "mbind PREFERRED{3} MOVE",
    "mbind PREFERRED_MANY{1,2} MOVE",
    "mbind WEIGHTED_INTERLEAVE{0-3} MOVE",
    "mbind LOCAL MOVE",
    "mbind DEFAULT MOVE",
)
def policies_of_touched_memory(world):
    """A new policy leaves pages where they are, tests them, or moves those that are misplaced."""
    p = world.process()
    a = touched(p, 32)[0]
    yield bind(p, "BIND 1", a, 32, Mode.BIND, [1])
    yield bind(p, "BIND 1 STRICT", a, 32, Mode.BIND, [1], STRICT)
    yield bind(p, "BIND 1 MOVE", a, 32, Mode.BIND, [1], MOVE)
    yield bind(p, "BIND 1 STRICT again", a, 32, Mode.BIND, [1], STRICT)
    yield bind(p, "BIND 2-3 MOVE|STRICT", a, 32, Mode.BIND, [2, 3], MOVE | STRICT)
    yield bind(p, "INTERLEAVE 0-3 MOVE", a, 32, Mode.INTERLEAVE, ALL, MOVE)
    yield bind(p, "PREFERRED 3 MOVE", a, 32, Mode.PREFERRED, [3], MOVE)
    yield bind(p, "PREFERRED_MANY 1-2 MOVE", a, 32, Mode.PREFERRED_MANY, [1, 2], MOVE)
    yield bind(p, "WEIGHTED 0-3 MOVE", a, 32, Mode.WEIGHTED_INTERLEAVE, ALL, MOVE)
    yield bind(p, "LOCAL MOVE", a, 32, Mode.LOCAL, (), MOVE)
    yield bind(p, "BIND 3 MOVE", a, 32, Mode.BIND, [3], MOVE)
    yield bind(p, "DEFAULT MOVE", a, 32, Mode.DEFAULT, (), MOVE)


@scenario(
    "mbind BIND{9}",
    "mbind BIND{}",
    "mbind BIND{1,9}",
    "mbind unaligned",
    "mbind over hole",
)
def arguments_of_mbind(world):
    """What is wrong with the arguments of mbind."""
    p = world.process()
    a = touched(p, 8)[0]
    yield bind(p, "BIND 9", a, 8, Mode.BIND, [ABSENT_NODE])
    yield bind(p, "BIND nothing", a, 8, Mode.BIND)
    yield bind(p, "BIND 1, 9", a, 8, Mode.BIND, [1, ABSENT_NODE])
    yield bind(p, "INTERLEAVE nothing", a, 8, Mode.INTERLEAVE)
    yield bind(p, "PREFERRED nothing is LOCAL", a, 8, Mode.PREFERRED)
    yield bind(p, "LOCAL with nodes", a, 8, Mode.LOCAL, [1])
    yield bind(p, "DEFAULT with nodes", a, 8, Mode.DEFAULT, [1])
    yield bind(p, "mode 7", a, 8, 7, [1])
    yield bind(p, "mode -1", a, 8, -1, [1])
    yield bind(p, "flags 8", a, 8, Mode.BIND, [1], 8)
    yield bind(p, "flags 16", a, 8, Mode.BIND, [1], 16)
    yield bind(p, "STATIC and RELATIVE", a, 8, Mode.BIND | STATIC | RELATIVE, [1])
    yield Step("unaligned", p.mbind(a + 1, PAGE, Mode.BIND, [1]))
    yield Step("length 0", p.mbind(a, 0, Mode.BIND, [1]))
    yield Step("length 0, mode 7", p.mbind(a, 0, 7, [1]))
    yield Step("end before start", p.mbind(a, 2**64 - PAGE, Mode.BIND, [1]))
    yield Step("part of a page", p.mbind(a, 1, Mode.BIND, [2]))
    yield query(p, "pages", addresses_of(a, 8))
    p.munmap(a + 3 * PAGE, 1)
    yield Step("over a hole", p.mbind(a, 8 * PAGE, Mode.BIND, [1]))
    yield Step("DEFAULT over a hole", p.mbind(a, 8 * PAGE, Mode.DEFAULT))
    yield Step("in a hole", p.mbind(a + 3 * PAGE, PAGE, Mode.BIND, [1]))
    yield Step("DEFAULT in a hole", p.mbind(a + 3 * PAGE, PAGE, Mode.DEFAULT))
    yield Step("DEFAULT STRICT", p.mbind(a, PAGE, Mode.DEFAULT, (), STRICT))


@scenario(
    "mbind BIND{1} MOVE|STRICT, page shared",
    "mbind BIND{1} MOVE_ALL|STRICT, shared",
)
def policies_of_shared_pages(world):
    """A shared page that MOVE skips is not a failure, not even when strict."""
    p = world.process()
    a = touched(p, 8)[0]
    child = p.fork()
    yield bind(p, "BIND 1 MOVE|STRICT", a, 8, Mode.BIND, [1], MOVE | STRICT)
    yield bind(p, "BIND 1 MOVE_ALL|STRICT", a, 8, Mode.BIND, [1], MOVE_ALL | STRICT)
    yield at(child, "the child sees", addresses_of(a, 8))


@scenario("mbind BIND{1} MOVE", needs="pins")
def policies_of_pinned_pages(world):
    """A page that cannot be moved is a failure only when strict; the policy is set all the same."""
    p = world.process()
    a = touched(p, 4)[0]
    p.pin(a, 2)
    yield bind(p, "BIND 1 MOVE", a, 4, Mode.BIND, [1], MOVE)
    yield bind(p, "BIND 2 MOVE|STRICT", a, 4, Mode.BIND, [2], MOVE | STRICT)


@scenario("mbind BIND{1} flags=0 on touched")
def policies_of_untouched_memory(world):
    """Pages come from where the policy of their range says."""
    p = world.process()
    policies = (
        (Mode.BIND, [2]),
        (Mode.BIND, [3, 2]),
        (Mode.PREFERRED, [3]),
        (Mode.PREFERRED_MANY, [2, 3]),
        (Mode.INTERLEAVE, [1, 3]),
        (Mode.INTERLEAVE, ALL),
        (Mode.WEIGHTED_INTERLEAVE, [0, 2]),
        (Mode.LOCAL, ()),
        (Mode.DEFAULT, ()),
        (Mode.INTERLEAVE | STATIC, [0, 3]),
        (Mode.BIND | RELATIVE, [1, 2]),
        (Mode.BIND | BALANCING, [1]),
    )
    for mode, nodes in policies:
        a = p.mmap(16)
        ret = p.mbind(a, 16 * PAGE, mode, nodes)
        p.write(a, 16)
        where = p.where(a, 16)
        yield Step(f"{mode:#x} {nodes}", ret, where=where, says=p.get_mempolicy(ADDR, a)[1])


@scenario("get_mempolicy default / home_node")
def policies_of_the_task(world):
    """A task's policy holds where a range has none, is reported as asked for, and is inherited."""
    p = world.process()
    policies = (
        (Mode.BIND, [1]),
        (Mode.PREFERRED, [2]),
        (Mode.PREFERRED, ()),
        (Mode.LOCAL, ()),
        (Mode.PREFERRED_MANY, [1, 3]),
        (Mode.BIND, [1, ABSENT_NODE]),
        (Mode.BIND, [ABSENT_NODE]),
        (Mode.BIND, ()),
        (Mode.DEFAULT, [1]),
        (Mode.LOCAL, [1]),
        (Mode.BIND | STATIC, [1, ABSENT_NODE]),
        (Mode.BIND | RELATIVE, [1, 2]),
        (Mode.BIND | STATIC | RELATIVE, [1]),
        (Mode.INTERLEAVE | BALANCING, [1]),
        (Mode.BIND | BALANCING, [3]),
        (7, [1]),
        (Mode.DEFAULT, ()),
    )
    yield Step("at the start", says=p.get_mempolicy()[1])
    for mode, nodes in policies:
        ret = p.set_mempolicy(mode, nodes)
        says = p.get_mempolicy()[1]
        a = touched(p, 4)[0]
        yield Step(f"{int(mode):#x} {nodes}", ret, where=p.where(a, 4), says=says)
    p.set_mempolicy(Mode.BIND, [3])
    child = p.fork()
    yield Step("the child's", says=child.get_mempolicy()[1])
    yield query(child, "touched by the child", touched(child, 2))


@scenario("get_mempolicy default / home_node")
def interleaving_of_the_task(world):
    """A task that interleaves takes one node after the other, whatever the addresses are."""
    p = world.process()
    p.set_mempolicy(Mode.INTERLEAVE, [0, 2, 3])
    pages = touched(p, 12)
    counts = sorted(p.where(pages[0], 12).count(node) for node in (0, 2, 3))
    yield Step("twelve pages by node", says=str(counts))


@scenario("get_mempolicy default / home_node")
def questions_about_policies(world):
    """What get_mempolicy tells of nodes and addresses, and what it refuses."""
    p = world.process()
    a = touched(p, 4)[0]
    for flags, address in ((0, 0), (4, 0), (1, 0), (2, a), (3, a), (0, a), (6, a), (8, 0), (3, 0)):
        ret, says = p.get_mempolicy(flags, address)
        yield Step(f"flags {flags}{' at a page' if address else ''}", ret, says=says)
    yield Step("flags 2 in a hole", p.get_mempolicy(2, a + 4 * PAGE)[0])
    yield Step("flags 3 in a hole", p.get_mempolicy(3, a + 4 * PAGE)[0])
    p.mbind(a, 2 * PAGE, Mode.PREFERRED_MANY, [1, 2])
    for page in range(3):
        yield Step(f"page {page}", *_with_text(p.get_mempolicy(2, a + page * PAGE)))


@scenario("get_mempolicy default / home_node", "set_mempolicy_home_node BIND{1,2} home 1")
def home_nodes(world):
    """A home node needs a range with BIND or PREFERRED_MANY; new pages come from nearest to it."""
    p = world.process()
    a = p.mmap(16)
    length = 4 * PAGE
    yield Step("no policy", p.set_mempolicy_home_node(a, length, 1))
    p.mbind(a, length, Mode.BIND, [1, 2])
    yield Step("BIND 1-2, home 1", p.set_mempolicy_home_node(a, length, 1))
    yield Step("home 9", p.set_mempolicy_home_node(a, length, ABSENT_NODE))
    yield Step("home 5000", p.set_mempolicy_home_node(a, length, 5000))
    yield Step("flags 1", p.set_mempolicy_home_node(a, length, 1, 1))
    yield Step("unaligned", p.set_mempolicy_home_node(a + 1, length, 1))
    yield Step("length 0", p.set_mempolicy_home_node(a, 0, 1))
    p.write(a, 4)
    yield query(p, "touched", addresses_of(a, 4))
    b = a + 4 * PAGE
    p.mbind(b, length, Mode.BIND, [2, 3])
    yield Step("BIND 2-3, home 3", p.set_mempolicy_home_node(b, length, 3))
    p.write(b, 4)
    yield query(p, "touched", addresses_of(b, 4))
    c = b + 4 * PAGE
    p.mbind(c, length, Mode.PREFERRED_MANY, [1, 2])
    yield Step("PREFERRED_MANY 1-2, home 0", p.set_mempolicy_home_node(c, length, 0))
    p.write(c, 4)
    yield query(p, "touched", addresses_of(c, 4))
    d = c + 4 * PAGE
    p.mbind(d, length, Mode.INTERLEAVE, [1, 2])
    yield Step("INTERLEAVE", p.set_mempolicy_home_node(d, length, 1))
    yield Step("BIND and INTERLEAVE", p.set_mempolicy_home_node(b, 3 * length, 2))
    yield Step("a hole", p.set_mempolicy_home_node(d + 16 * PAGE, length, 1))


def _with_text(answer):
    ret, says = answer
    return ret, None, None, says

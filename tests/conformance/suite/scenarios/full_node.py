"""A target without free memory."""

from movepages.abi import Mode
from suite.asking import MOVE, STRICT, touched
from suite.outcome import Step
from suite.protocol import PAGE
from suite.registry import scenario

PAGES = 8192
"""More than stays free on a full node, and than could still be reclaimed there."""
FULL = 3


@scenario(
    "target full, base pages, no swap",
    "node3 MemFree KiB",
    "move more than node 3 has",
    "again",
    needs="reclaim hugetlb root",
)
def move_more_than_a_node_has(world):
    """The call ends with ENOMEM; its batch has no status, though part of it may have moved."""
    p = world.process()
    pages = touched(p, PAGES)
    world.fill(FULL)
    for label in ("more than there is", "again"):
        yield _without_full(label, p.move_pages(0, pages, FULL, MOVE))
    targets = [1] * 10 + [FULL] * (PAGES - 10)
    yield _without_full("ten to node 1 first", p.move_pages(0, pages[::-1], targets, MOVE))


@scenario(
    "target full, base pages, no swap",
    "mbind BIND{3} MOVE|STRICT, 3 full",
    "mbind BIND{3} MOVE, 3 full",
    needs="reclaim hugetlb root",
)
def bind_more_than_a_node_has(world):
    """The policy of mbind is kept; that pages did not move is said only when strict."""
    p = world.process()
    world.fill(FULL)
    pages = touched(p, PAGES)
    call = p.mbind(pages[0], PAGES * PAGE, Mode.BIND, [FULL], MOVE | STRICT)
    yield Step("MOVE|STRICT", call)
    yield Step("MOVE", p.mbind(pages[0], PAGES * PAGE, Mode.BIND, [FULL], MOVE))
    yield Step("policy", says=p.get_mempolicy(2, pages[0])[1])
    yield Step("migrate_pages", p.migrate_pages(0, [0], [FULL]))


def _without_full(label, call):
    """Leave out who found room on the node: how many do differs from run to run."""
    others = [code for code in call.status if code != FULL]
    runs = [code for code, before in zip(others, [None, *others], strict=False) if code != before]
    return Step(label, call.ret, tuple(runs))

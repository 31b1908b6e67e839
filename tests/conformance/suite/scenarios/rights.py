"""Who may move whose pages."""

from movepages.abi import Mode
from suite.asking import MOVE, MOVE_ALL, move, query, touched
from suite.outcome import Step
from suite.protocol import INIT, KTHREADD, NOBODY_HAS_THIS_PID
from suite.registry import scenario

USER, OTHER = 1000, 1001


@scenario(
    "MOVE_ALL, no CAP_SYS_NICE (query too; before pid lookup)",
    "uid 1000: own pages",
    "uid 1000: MOVE_ALL own",
    needs="root",
)
def user_without_privileges(world):
    """Anyone may move pages of their own; MOVE_ALL takes CAP_SYS_NICE, whatever else is wrong."""
    p = world.process(uid=USER)
    pages = touched(p, 8)
    yield move(p, "MOVE", pages, 1)
    yield move(p, "MOVE_ALL", pages, 2, MOVE_ALL)
    yield query(p, "query with MOVE_ALL", pages, flags=MOVE_ALL)
    yield query(p, "and a pid that nobody has", pages, pid=NOBODY_HAS_THIS_PID, flags=MOVE_ALL)
    yield query(p, "and a wrong flag", pages, flags=MOVE_ALL | 8)


@scenario(
    "other user's process",
    "kernel thread, privileged / not",
    "uid 1000: query root's pid",
    "uid 1000: move root's pid",
    "uid 1000: move pid 1",
    needs="root",
)
def processes_of_others(world):
    """A process of another user, or of root, may not be looked at; a kernel thread neither."""
    root, owner, p = world.process(), world.process(uid=OTHER), world.process(uid=USER)
    pages = touched(p, 8)
    for name, pid in (("root's", root.pid), ("another's", owner.pid), ("init", INIT)):
        yield Step(f"query {name}", *answer(p, pages, None, pid))
        yield Step(f"move {name}", *answer(p, pages, 1, pid))
    yield Step("query a kernel thread", *answer(p, pages, None, KTHREADD))
    yield Step("root queries the user's", *answer(root, pages, None, p.pid))
    yield Step("root moves the user's", *answer(root, pages, 1, p.pid))


@scenario("same uid, target not dumpable", "uid 1000: query own non-dumpable child", needs="root")
def process_that_is_not_dumpable(world):
    """A process that hides from its own user may not be looked at, but by root and by itself."""
    root, p = world.process(), world.process(uid=USER)
    pages = touched(p, 8)
    child = p.fork()
    yield Step("query the child", *answer(p, pages, None, child.pid))
    child.set_dumpable(False)
    yield Step("query the child that hides", *answer(p, pages, None, child.pid))
    yield Step("move the child that hides", *answer(p, pages, 1, child.pid))
    yield Step("its own", *answer(child, pages, None, 0))
    yield Step("its own, by pid", *answer(child, pages, None, child.pid))
    yield Step("root's query", *answer(root, pages, None, child.pid))
    child.set_dumpable(True)
    yield Step("query when it shows itself again", *answer(p, pages, None, child.pid))


@scenario("zombie", needs="root")
def zombie_of_an_unprivileged_parent(world):
    """What a user without privileges is told of its own child that has ended."""
    p = world.process(uid=USER)
    pages = touched(p, 1)
    child = p.fork()
    child.exit()
    yield Step("query", *answer(p, pages, None, child.pid))


@scenario(
    "uid 1000: migrate_pages(root's pid)",
    "uid 1000: migrate_pages(self)",
    "uid 1000: mbind MOVE_ALL",
    needs="root",
)
def other_calls_without_privileges(world):
    """migrate_pages has the same rule; mbind with MOVE_ALL takes CAP_SYS_NICE."""
    root, p = world.process(), world.process(uid=USER)
    pages = touched(p, 8)
    yield Step("migrate_pages of root's", p.migrate_pages(root.pid, [0], [1]))
    yield Step("migrate_pages of a kernel thread", p.migrate_pages(KTHREADD, [0], [1]))
    child = p.fork()
    yield Step("mbind MOVE_ALL", p.mbind(pages[0], 8 * 4096, Mode.BIND, [1], MOVE_ALL))
    ret = p.mbind(pages[0], 8 * 4096, Mode.BIND, [1], MOVE)
    yield Step("mbind MOVE of shared pages", ret, where=p.where(pages[0], 8))
    child.exit()
    p.wait()
    p.write(pages[0], 8)
    ret = p.mbind(pages[0], 8 * 4096, Mode.BIND, [1], MOVE)
    yield Step("mbind MOVE when they are its own", ret, where=p.where(pages[0], 8))


def answer(process, pages, nodes, pid):
    """Return what a call says, of pages whose place is of no interest."""
    call = process.move_pages(pid, pages, nodes, MOVE if nodes is not None else 0)
    return call.ret, call.status

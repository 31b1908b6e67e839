"""What stops the pages of a process from being moved: on the model, which refuses as Linux does."""

from __future__ import annotations

from dataclasses import replace

import pytest

from movepages.abi import Capability, Errno
from movepages.errors import (
    FilteredError,
    NoSuchCallError,
    UnsupportedError,
    call_error,
    no_such_process,
)
from movepages.kernel import SimulatedMachine
from movepages.kernel.tasks import Cpuset, Credentials, TaskState
from movepages.nodeset import NodeSet
from movepages.placement.doctor import Answer, examine_process
from movepages.placement.reasons import why_not_permitted
from movepages.values import Standing

PAGE = 4096
ALICE, BOB = 1000, 1001


class Other:
    """The model, with some of its answers exchanged."""

    def __init__(self, machine, **answers):
        """Take functions by name."""
        self._machine = machine
        vars(self).update(answers)

    def __getattr__(self, name):
        """Answer all else as the model does."""
        return getattr(self._machine, name)


def start(declared="3 x 8M", pages=8, uid=ALICE, **facts):
    """Return a machine and a process of a user, with some pages on node 0."""
    machine = SimulatedMachine(declared)
    task = machine.spawn(uid=uid, **facts)
    if pages:
        task.write(task.mmap(pages), pages)
    return machine, task


def checks(view, task):
    """Return how each check of a process came out, by name."""
    return {check.name: check for check in examine_process(view, view.task(task.pid))}


def answers(view, task):
    """Return the answer of each check."""
    return {name: str(check.answer) for name, check in checks(view, task).items()}


ALL_WELL = dict.fromkeys(("nodes", "call", "rights", "move", "cpuset", "memory", "shared"), "yes")


def test_root_can_move_what_it_likes():
    """Nothing stops root, and every check says yes."""
    machine, task = start()
    assert answers(machine, task) == ALL_WELL


def test_the_owner_leaves_shared_pages():
    """A user may move his own process, but not what others map as well: that is a note."""
    machine, task = start()
    view = machine.as_task(machine.spawn(uid=ALICE))
    assert answers(view, task) == ALL_WELL | {"shared": "note"}
    assert "CAP_SYS_NICE" in checks(view, task)["shared"].remedy


def test_nothing_is_changed():
    """After it all pages are where they were, and the machine is sound."""
    machine, task = start()
    before = machine.locate(task.pid)
    examine_process(machine, machine.task(task.pid))
    machine.check()
    after = machine.locate(task.pid)
    assert list(after.runs()) == list(before.runs())


@pytest.mark.parametrize(
    ("caller", "dumpable", "told"),
    [
        (BOB, True, f"another user (uid {ALICE}, and you are uid {BOB})"),
        (ALICE, False, "it is not dumpable"),
    ],
)
def test_rights(caller, dumpable, told):
    """Where the kernel says no, its reason is found, and nothing more is tried."""
    machine, task = start()
    task.struct.dumpable = dumpable
    view = machine.as_task(machine.spawn(uid=caller))
    found = checks(view, task)
    assert list(found) == ["nodes", "call", "rights"]
    assert found["rights"].answer is Answer.NO
    assert told in found["rights"].says
    assert found["rights"].remedy == "run as root (CAP_SYS_PTRACE)"


def test_capabilities_of_the_process():
    """A process of one's own that has a capability more is not one's own to look at."""
    machine, task = start()
    task.struct.credentials = Credentials(ALICE, ALICE, ALICE, frozenset({Capability.SYS_NICE}))
    view = machine.as_task(machine.spawn(uid=ALICE))
    assert checks(view, task)["rights"].says == "it has capabilities that you do not have"


def test_ids_of_two_users():
    """A set-user-ID program has the rights of two users."""
    machine, task = start()
    task.struct.credentials = Credentials(ALICE, BOB, BOB, frozenset())
    says = checks(machine.as_task(machine.spawn(uid=ALICE)), task)["rights"].says
    assert f"two users (uids {ALICE}, {BOB} and {BOB})" in says


@pytest.mark.parametrize(
    ("facts", "reason", "remedy"),
    [
        ({"may_trace": True}, "even with CAP_SYS_PTRACE", "outside the container"),
        ({"same_user": False}, "other group ids than you", "run as root"),
        ({}, "it runs as you, but is not dumpable, or belongs to another user", "run as root"),
        ({"dumpable": None}, "it runs as you, but is not dumpable, or", "run as root"),
        ({"own_uid": 0, "uids": (7, 7, 7)}, "another user (uid 7", "--cap-add SYS_PTRACE"),
    ],
)
def test_reasons_that_the_model_does_not_have(facts, reason, remedy):
    """Groups, security modules, user namespaces, and root of a container without the capability."""
    mine = Standing(
        own_uid=ALICE,
        uids=(ALICE, ALICE, ALICE),
        same_user=True,
        dumpable=True,
        covered=True,
        may_trace=False,
    )
    said, to_do = why_not_permitted(replace(mine, **facts))
    assert reason in said
    assert remedy in to_do


def test_one_node():
    """With a single node there is nowhere to move to; the rest is examined all the same."""
    machine, task = start("1 x 8M")
    found = answers(machine, task)
    assert found.pop("nodes") == "no"
    assert set(found.values()) <= {"yes", "no"}
    assert checks(machine, task)["nodes"].says.startswith("only node 0 has memory")
    assert found["cpuset"] == "yes"


def test_a_kernel_without_nodes():
    """Where sysfs shows no nodes that is said, with what to do, and it ends without a traceback."""
    machine, task = start()

    def topology():
        raise UnsupportedError("mount sysfs")

    found = checks(Other(machine, topology=topology), task)
    assert (found["nodes"].answer, found["nodes"].remedy) == (Answer.NO, "mount sysfs")
    assert "cpuset" not in found


@pytest.mark.parametrize(
    ("error", "errno", "name"),
    [(NoSuchCallError, Errno.ENOSYS, "call"), (FilteredError, Errno.EPERM, "filter")],
)
def test_the_call_is_not_to_be_had(error, errno, name):
    """Nothing more is tried; the sentence of the error is divided into reason and remedy."""
    machine, task = start()

    def query_pages(_pid, _addresses):
        raise error(errno, "move_pages: nobody here has it; get it", call="move_pages")

    found = checks(Other(machine, query_pages=query_pages), task)
    assert list(found) == ["nodes", name]
    assert found[name].says == "move_pages(2) is not to be had: nobody here has it"
    assert (found[name].answer, found[name].remedy) == (Answer.NO, "get it")


def test_a_filter_for_moves_only():
    """A filter that lets queries through, and no moves, is found by trying a move."""
    machine, task = start()

    def move_pages(_pid, _addresses, _nodes, _flags):
        raise FilteredError(Errno.EPERM, "move_pages: a filter refuses it", call="move_pages")

    found = checks(Other(machine, move_pages=move_pages), task)
    assert found["filter"].answer is Answer.NO


@pytest.mark.parametrize(
    ("mems", "answer", "told"),
    [
        ([0, 1, 2], "yes", "its cpuset allows every node with memory"),
        ([0, 2], "note", "its cpuset allows nodes 0,2, not 1"),
        ([1], "no", "its cpuset allows node 1 only"),
    ],
)
def test_cpuset(mems, answer, told):
    """One node is none to move to; several are a note where there are more."""
    machine, task = start(pages=0, cpuset=Cpuset(NodeSet(mems)))
    task.write(task.mmap(8), 8)
    check = checks(machine, task)["cpuset"]
    assert (check.answer, check.says) == (answer, told)
    assert ("cpuset.mems" in check.remedy) == (answer != "yes")


@pytest.mark.parametrize(
    ("free", "answer"),
    [
        ({0: 0, 1: 8 * PAGE, 2: 0}, "yes"),
        ({0: 0, 1: 8 * PAGE - 1, 2: 0}, "note"),
        ({0: 0, 1: PAGE, 2: 0}, "note"),
        ({0: 0, 1: PAGE - 1, 2: 0}, "no"),
    ],
)
def test_room(free, answer):
    """Eight pages have to fit on one node where they are not; where no page fits it is a no."""
    machine, task = start()
    elsewhere = [replace(m, pages_by_node={9: 8}) for m in machine.mappings(task.pid)]
    view = Other(machine, free_bytes=lambda: free, mappings=lambda _: elsewhere)
    assert checks(view, task)["memory"].answer == answer


def test_a_process_without_pages():
    """One that has touched nothing cannot be tried with; that is a note."""
    machine, task = start(pages=0)
    found = answers(machine, task)
    assert found["move"] == "note"
    assert "no" not in found.values()


def test_a_page_that_went_meanwhile():
    """The page that is tried may be gone by then: its status says so, and stops nothing."""
    machine, task = start()

    def query_pages(pid, addresses):
        result = machine.query_pages(pid, addresses)
        result.status[:] = -Errno.ENOENT
        return result

    check = checks(Other(machine, query_pages=query_pages), task)["move"]
    assert check.answer is Answer.NOTE
    assert check.says == "the page that was tried answers ENOENT"
    assert check.remedy.endswith("movepages explain ENOENT")


@pytest.mark.parametrize("scope", [None, 0, 1, 3])
def test_ptrace_scope(scope):
    """Yama is named where it restricts anything, and is never what stops a move."""
    machine, task = start()
    settings = replace(machine.settings(), ptrace_scope=scope)
    found = answers(Other(machine, settings=lambda: settings), task)
    assert found.get("ptrace scope") == ("yes" if scope else None)


@pytest.mark.parametrize(
    ("facts", "names"),
    [
        ({}, []),
        ({"numa_balancing": 1}, ["numa balancing"]),
        ({"demotion": True}, ["demotion"]),
        ({"numa_balancing": None, "demotion": None}, []),
    ],
)
def test_what_fights_a_move(facts, names):
    """What takes pages away again is a note."""
    machine, task = start()
    conditions = replace(machine.conditions(), **facts)
    found = answers(Other(machine, conditions=lambda: conditions), task)
    assert [name for name, answer in found.items() if answer == "note"] == names


@pytest.mark.parametrize("name", ["mappings", "present"])
def test_a_map_that_may_not_be_read(name):
    """/proc may be closed to those who may ask move_pages(2): then no page can be found to move."""
    machine, task = start()

    def refuse(*_):
        raise call_error(-Errno.EPERM, name, detail="it is closed; open it")

    found = checks(Other(machine, **{name: refuse}), task)
    assert list(found) == ["nodes", "call", "rights"]
    assert found["rights"].says == f"its memory map may not be read: {name}: it is closed"
    assert (found["rights"].answer, found["rights"].remedy) == (Answer.NO, "open it")


def test_a_kernel_thread():
    """It has no memory: the kernel says so to root when it is asked for nothing."""
    machine, thread = start(pages=0)
    thread.struct.state, thread.struct.mm = TaskState.KERNEL_THREAD, None
    check = checks(machine, thread)["rights"]
    assert (check.answer, check.says) == (Answer.NO, "it has no memory of its own")


def test_a_page_outside_the_cpuset():
    """A page on a node that the cpuset does not allow any more cannot be tried with: a note."""
    machine, task = start()
    task.struct.cpuset = Cpuset(NodeSet([1, 2]))
    check = checks(machine, task)["move"]
    assert check.answer is Answer.NOTE
    assert "outside the cpuset" in check.says


@pytest.mark.parametrize("name", ["mappings", "query_pages", "move_pages"])
def test_a_process_that_ends_meanwhile(name):
    """It is an error, as of a process that was never there."""
    machine, task = start()
    info = machine.task(task.pid)
    ask = getattr(machine, name)

    def gone(pid, *arguments):
        if pid == task.pid:
            raise no_such_process(pid, name)
        return ask(pid, *arguments)

    with pytest.raises(ProcessLookupError):
        examine_process(Other(machine, **{name: gone}), info)

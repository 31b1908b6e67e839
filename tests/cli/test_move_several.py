"""`movepages move` on several processes of the model, some of which end meanwhile."""

from __future__ import annotations

import io
import json

import pytest

from movepages.cli import main
from movepages.kernel import SimulatedMachine
from movepages.kernel.inject import BeforeCall
from movepages.placement.records import read_ledgers
from movepages.report.output import Output

PAGES = 6


@pytest.fixture
def family():
    """Return a machine, and a parent with two children, each with pages of its own on node 0."""
    machine = SimulatedMachine("2 x 16M")
    parent = machine.spawn()
    tasks = [parent, parent.fork(), parent.fork()]
    for task in tasks:
        task.write(task.mmap(PAGES), PAGES)
    return machine, tasks


def move(machine, *arguments):
    """Run `movepages move ... --json`; return its exit code and what it said."""
    stream = io.StringIO()
    code = main(["move", *arguments, "--json"], machine=machine, output=Output(stream))
    return code, json.loads(stream.getvalue() or "null")


def nodes(machine, task):
    """Return where the pages of a process are."""
    return machine.locate(task.pid).bytes_by_node


def test_a_tree_of_processes(family):
    """tree: means a process and its children; sums are those of all of them."""
    machine, tasks = family
    code, said = move(machine, f"tree:{tasks[0].pid}", "--to", "1", "--anon")
    assert (code, said["moved"], said["asked"]) == (0, 3 * PAGES, 3 * PAGES)
    assert [process["pid"] for process in said["processes"]] == [task.pid for task in tasks]
    assert all(nodes(machine, task) == {1: PAGES * 4096} for task in tasks)


@pytest.mark.parametrize("call", [1, 2])
def test_one_that_ends_is_reported(family, call, capsys):
    """The second process ends before the first or the second is moved: the others go on."""
    machine, tasks = family
    machine.inject(BeforeCall(call, tasks[1].exit))
    code, said = move(machine, f"tree:{tasks[0].pid}", "--to", "1", "--anon")
    assert (code, said["moved"], said["not_tried"]) == (1, 2 * PAGES, PAGES)
    assert [process["ended"] for process in said["processes"]] == ["done", "error", "done"]
    assert "there is no process" in said["processes"][1]["error"]
    assert capsys.readouterr().err == ""


def test_one_that_has_ended_before_is_missing(family):
    """A pid among several that nobody has is told, and the others are moved."""
    machine, tasks = family
    tasks[1].exit()
    pids = ",".join(str(task.pid) for task in tasks)
    code, said = move(machine, pids, "--to", "1", "--anon")
    assert (code, said["moved"]) == (1, 2 * PAGES)
    assert said["missing"] == [str(tasks[1].pid)]


def test_one_that_may_not_be_looked_at_is_told(family, capsys):
    """Another user's process among several is left alone and named, and the others are moved."""
    machine, tasks = family
    users = [machine.spawn(uid=1000) for _ in range(2)]
    for task in users:
        task.write(task.mmap(PAGES), PAGES)
    pids = f"{users[0].pid},{tasks[0].pid}"
    as_user = machine.as_task(users[1])
    code, said = move(as_user, pids, "--to", "1", "--anon")
    assert (code, said["moved"], said["missing"]) == (1, PAGES, [str(tasks[0].pid)])
    assert nodes(machine, tasks[0]) == {0: PAGES * 4096}
    code, said = move(as_user, f"{tasks[0].pid},{tasks[1].pid}", "--to", "1", "--anon")
    assert (code, said) == (4, None), "where that goes for all, there is nothing to go on with"
    assert "is not yours to look at" in capsys.readouterr().err


def test_a_limit_of_pages_is_for_all_of_them(family):
    """--max-pages counts over all processes, in order."""
    machine, tasks = family
    _, said = move(machine, f"tree:{tasks[0].pid}", "--to", "1", "--anon", "--max-pages", "8")
    assert [process["moved"] for process in said["processes"]] == [PAGES, 2, 0]


def test_addresses_of_several_processes_make_no_sense(family, capsys):
    """An address is one process's."""
    machine, tasks = family
    code, said = move(machine, f"tree:{tasks[0].pid}", "1000", "--to", "1")
    assert (code, said) == (2, None)
    assert "addresses are those of one process" in capsys.readouterr().err


def test_all_are_undone(family, tmp_path):
    """One file has the ledgers of all processes, and puts all pages back."""
    machine, tasks = family
    file = tmp_path / "moved.json"
    move(machine, f"tree:{tasks[0].pid}", "--to", "1", "--anon", "--ledger", str(file))
    assert len(read_ledgers(file.read_bytes())) == 3
    code, said = move(machine, "--undo", str(file))
    assert (code, said["moved"]) == (0, 3 * PAGES)
    assert all(nodes(machine, task) == {0: PAGES * 4096} for task in tasks)


def test_shared_pages_are_moved_once():
    """Pages that both processes map are moved for the first, and are there for the second."""
    machine = SimulatedMachine("2 x 16M")
    parent = machine.spawn()
    memory = parent.mmap(PAGES, shared=True)
    parent.write(memory, PAGES)
    child = parent.fork()
    child.write(memory, PAGES)
    code, said = move(machine, f"tree:{parent.pid}", "--to", "1", "--shm", "--shared")
    assert (code, said["moved"], said["already_there"]) == (0, PAGES, PAGES)
    assert [process["moved"] for process in said["processes"]] == [PAGES, 0]

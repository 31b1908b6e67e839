from __future__ import annotations

import pytest

from movepages.errors import NoSuchProcessError
from movepages.kernel import SimulatedMachine
from movepages.kernel.inject import Pin, pull_back
from movepages.placement import Options, execute, make_plan, select
from movepages.placement.planning import with_unlocated
from movepages.placement.records import ledgers_json, read_ledgers
from movepages.placement.undo import undo

PAGE = 4096


@pytest.fixture
def process():
    """Return a machine, and a process with ten pages on two nodes and a huge one."""
    machine = SimulatedMachine("4 x 64M")
    task = machine.spawn()
    first = task.mmap(10)
    task.write(first, 10)
    task.move_pages(0, task.addresses(first, 3), [2] * 3, 2)
    huge = task.mmap(1024)
    task.madvise(huge, 1024, "hugepage")
    task.write(huge, 1024)
    return machine, task, first


def where(machine, task):
    """Return the nodes of all pages, in order of address."""
    return select.locate(machine, task.pid, select.everything()).page_nodes().tolist()


def to_node_1(machine, task, options=None):
    """Move all pages to node 1."""
    placement = select.locate(machine, task.pid, select.everything())
    placement = with_unlocated(placement, [PAGE], PAGE)
    return execute(make_plan(machine.task(task.pid).id, placement, 1), machine, options)


def test_pages_go_back_to_where_each_came_from(process):
    """By way of a file, every page is on its old node again; pages that were nowhere are left."""
    machine, task, _ = process
    before = where(machine, task)
    (ledger,) = read_ledgers(ledgers_json([to_node_1(machine, task)]))
    assert set(where(machine, task)) == {1}
    assert execute(undo(ledger), machine).complete
    assert where(machine, task) == before
    machine.check()


def test_what_did_not_move_stays(process):
    """A page that was pinned, and pages that left again by themselves, are not touched."""
    machine, task, first = process
    with machine.inject(Pin(task, first)):
        ledger = to_node_1(machine, task, Options(backoff_s=0.0))
    pull_back(task, first + 5 * PAGE, 3, pages=2)
    verified = to_node_1(machine, task, Options(verify=True))
    assert undo(verified).page_count == verified.moved_pages == 3
    back = undo(ledger)
    assert first not in back.page_runs().addresses().tolist()
    assert back.page_count == ledger.moved_pages


def test_a_page_that_strayed_is_left_where_it_is(process):
    """What verification found elsewhere is not the mover's to put back."""
    machine, task, first = process

    def pulled(_progress):
        pull_back(task, first + 5 * PAGE, 3)

    placement = select.locate(machine, task.pid, select.everything())
    plan = make_plan(machine.task(task.pid).id, placement, 1)
    ledger = execute(plan, machine, Options(verify=True), progress=pulled)
    assert ledger.strayed() == {3: 1}
    assert first + 5 * PAGE not in undo(ledger).page_runs().addresses().tolist()


def test_another_process_with_that_pid_is_refused(process):
    """An undo is for the process that was moved."""
    machine, task, _ = process
    back = undo(to_node_1(machine, task))
    machine.task_structs[task.pid].started += 1
    with pytest.raises(NoSuchProcessError):
        execute(back, machine)


def test_there_is_nothing_to_undo_of_nothing(process):
    """The undo of a ledger without pages is an empty plan; of an undo, it is the move again."""
    machine, task, _ = process
    ledger = to_node_1(machine, task)
    again = undo(execute(undo(ledger), machine))
    assert again.bytes_by_target == {1: ledger.moved_bytes}
    assert execute(again, machine).complete
    assert len(undo(to_node_1(machine, task))) == 0

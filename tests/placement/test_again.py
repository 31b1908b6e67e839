from __future__ import annotations

import numpy as np
import pytest

from movepages.abi import MoveFlag
from movepages.errors import NoSuchProcessError
from movepages.kernel import SimulatedMachine
from movepages.placement import again, in_turn, make_plan, select
from movepages.placement.again import looked_at_again

PAGE = 4096


def planned(pages=6, nodes=(1, 2)):
    """Return a machine, a process with pages on node 0, and the plan to move them by turns."""
    machine = SimulatedMachine("3 x 8M")
    task = machine.spawn()
    task.write(task.mmap(pages), pages)
    placement, to = in_turn(select.locate(machine, task.pid, select.everything()), nodes)
    return machine, task, make_plan(machine.task(task.pid).id, placement, to, reasons=("turns",))


def pages_of(plan):
    """Return the pages of a plan as (address, from, to), in its order."""
    addresses = plan.page_runs().addresses().tolist()
    source, to = np.repeat(plan.from_node, plan.pages), np.repeat(plan.to_node, plan.pages)
    return list(zip(addresses, source.tolist(), to.tolist(), strict=True))


def test_nothing_has_changed():
    """A plan whose pages are where they were is as it was."""
    machine, _, plan = planned()
    same = looked_at_again(machine, plan)
    assert pages_of(same) == pages_of(plan)
    assert (same.there_pages, same.reasons) == (0, ("turns",))


@pytest.mark.parametrize("batch", [1, 5, 6, 7])
def test_what_others_have_moved(monkeypatch, batch):
    """Pages at their target are there; one on a third node comes from that. In parts of any size.

    Three pages go to each node: one of them is moved to its target, and one to the other's.
    """
    monkeypatch.setattr(again, "_ASK_PAGES", batch)
    machine, task, plan = planned()
    (first, second, *_), last = pages_of(plan), pages_of(plan)[-1]
    task.move_pages(0, [first[0], second[0], last[0]], [1, 2, 1], MoveFlag.MOVE)
    seen = looked_at_again(machine, plan)
    assert pages_of(seen) == [
        (second[0], 2, 1),
        *pages_of(plan)[2:5],
        (last[0], 1, 2),
    ]
    assert (seen.there_pages, seen.there_bytes) == (1, PAGE)
    assert seen.bytes_by_node == {0: 3 * PAGE, 1: 2 * PAGE, 2: PAGE}


def test_a_page_that_has_gone_keeps_its_node():
    """What is on no node any more stays in the plan: the kernel says why it is not moved."""
    machine, task, plan = planned(nodes=(1,))
    task.madvise(int(plan.start[0]), 1, "dontneed")
    assert pages_of(looked_at_again(machine, plan)) == pages_of(plan)


def test_what_stayed_before_is_kept():
    """Pages that the plan had left out are still counted."""
    machine, _, plan = planned(nodes=(0, 1))
    assert (plan.there_pages, plan.page_count) == (3, 3)
    assert looked_at_again(machine, plan).there_pages == 3
    assert looked_at_again(machine, plan.first(0)).there_pages == 3


def test_a_process_that_has_ended():
    """It is told as by any other call."""
    machine, task, plan = planned()
    task.exit()
    with pytest.raises(NoSuchProcessError):
        looked_at_again(machine, plan)

"""Migration by the mover puts every page where migrate_pages(2) puts it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from movepages.abi import UNWRITTEN, MoveFlag
from movepages.errors import ArgumentError, NoSuchProcessError
from movepages.kernel import SimulatedMachine
from movepages.kernel.inject import Pin
from movepages.placement import Options, execute, select
from movepages.placement.migrate import plan_migration, relative_targets

PAGE = 4096
QUICK = Options(backoff_s=0.0)
SETS = st.sets(st.integers(0, 4), min_size=1)


def process(nodes, page_size_bytes=PAGE):
    """Return a model of five nodes with a process, and the first of its pages, on these nodes."""
    machine = SimulatedMachine("5 x 16M", page_size_bytes=page_size_bytes)
    task = machine.spawn()
    first = task.mmap(len(nodes))
    task.poke(first, range(1, len(nodes) + 1))
    addresses = task.addresses(first, len(nodes))
    machine.move_pages(task.pid, addresses, np.array(nodes, np.int32), 2)
    return machine, task, first


def migrated(machine, task, source, to, selection=None):
    """Plan, carry out, and return the ledger; nothing is lost."""
    meant = selection or select.everything()
    made = plan_migration(machine, machine.task(task.pid), meant, source, to)
    ledger = execute(made, machine, QUICK)
    machine.check()
    return ledger


@given(st.lists(st.integers(0, 4), min_size=1, max_size=12), SETS, SETS)
@settings(max_examples=60)
def test_pages_go_where_the_kernel_would_put_them(nodes, source, to):
    """On twin machines the mover and migrate_pages(2) leave the same pages on the same nodes."""
    ours, task, first = process(nodes)
    kernels, twin, start = process(nodes)
    ledger = migrated(ours, task, source, to)
    assert kernels.migrate_pages(twin.pid, source, to) == 0
    after = task.nodes(first, len(nodes)).tolist()
    assert after == twin.nodes(start, len(nodes)).tolist()
    assert ledger.complete
    assert ledger.moved_pages == sum(old != new for old, new in zip(nodes, after, strict=True))
    assert task.peek(first, len(nodes)).tolist() == list(range(1, len(nodes) + 1))


@pytest.mark.parametrize(
    ("source", "to", "targets"),
    [
        ([0], [1], {0: 1}),
        ([0, 1], [2, 3], {0: 2, 1: 3}),
        ([1, 0], [3, 2], {0: 2, 1: 3}),
        ([0, 1, 2], [3, 4], {0: 3, 1: 4, 2: 3}),
        ([0, 1], [1, 2], {0: 1, 1: 2}),
        ([0, 1], [1, 0], {0: 0, 1: 1}),
        ([0, 1, 2], [1, 2], {0: 1, 1: 1, 2: 2}),
        ([0], [0, 1], {0: 0}),
    ],
)
def test_relative_places(source, to, targets):
    """The examples in the comment of do_migrate_pages, and what is on a node of both sets."""
    assert relative_targets(source, to) == targets


@pytest.mark.parametrize("page_size_bytes", [4096, 65536])
def test_only_pages_on_the_source_are_asked_for(page_size_bytes):
    """Pages on other nodes are neither moved nor counted."""
    machine, task, first = process([0, 1, 2, 2, 0], page_size_bytes)
    ledger = migrated(machine, task, [0], [3])
    assert task.nodes(first, 5).tolist() == [3, 1, 2, 2, 3]
    assert (ledger.asked, ledger.moved_pages) == (2, 2)


def test_only_what_is_selected():
    """A selection narrows what is migrated."""
    machine, task, first = process([0, 0, 0, 0])
    some = select.within(first + PAGE, first + 3 * PAGE)
    assert migrated(machine, task, [0], [1], some).moved_pages == 2
    assert task.nodes(first, 4).tolist() == [0, 1, 1, 0]


def test_a_pinned_page_is_told():
    """Unlike the kernel's count, the ledger says which page stayed."""
    machine, task, first = process([0, 0, 0])
    with machine.inject(Pin(task, first + PAGE)):
        ledger = migrated(machine, task, [0], [1])
    assert task.nodes(first, 3).tolist() == [1, 0, 1]
    assert ledger.failed() == {UNWRITTEN: 1}


def test_nodes_beyond_any_word_of_a_mask():
    """Of 80 nodes each with a page comes to node 5, by the mover and by the kernel's call alike.

    A mask in one word ends at node 63; hwloc's leaves out nodes 4 to 7 of every eight.
    """
    nodes = [0, 3, 4, 7, 8, 12, 31, 32, 63, 64, 70, 79]
    for call in (False, True):
        machine = SimulatedMachine("80 x 1M")
        task = machine.spawn()
        first = task.mmap(len(nodes))
        task.write(first, len(nodes))
        addresses = task.addresses(first, len(nodes))
        machine.move_pages(task.pid, addresses, np.array(nodes, np.int32), MoveFlag.MOVE)
        assert task.nodes(first, len(nodes)).tolist() == nodes
        if call:
            assert machine.migrate_pages(task.pid, range(80), [5]) == 0
        else:
            assert migrated(machine, task, range(80), [5]).complete
        assert set(task.nodes(first, len(nodes)).tolist()) == {5}


def test_what_a_cpuset_left_behind_is_named():
    """New mems bring pages along, and not a word of one that stays: a migration says which."""
    machine = SimulatedMachine("5 x 16M")
    cpuset = machine.new_cpuset([0])
    task = machine.spawn(cpuset=cpuset)
    first = task.mmap(3)
    task.write(first, 3)
    with machine.inject(Pin(task, first + PAGE)):
        machine.set_cpuset_mems(cpuset, [2])
        assert task.nodes(first, 3).tolist() == [2, 0, 2]
        ledger = migrated(machine, task, [0], [2])
        assert ledger.plan.page_runs().addresses().tolist() == [first + PAGE]
        assert ledger.failed() == {UNWRITTEN: 1}
    assert migrated(machine, task, [0], [2]).complete


@pytest.mark.parametrize(("source", "to"), [([], [1]), ([0], [])])
def test_no_nodes(source, to):
    """Without nodes on either side there is nothing to plan."""
    with pytest.raises(ArgumentError, match="no node to migrate from or to"):
        relative_targets(source, to)


def test_a_process_that_has_ended():
    """Its pages cannot be found."""
    machine, task, _ = process([0])
    info = machine.task(task.pid)
    task.exit()
    with pytest.raises(NoSuchProcessError):
        plan_migration(machine, info, select.everything(), [0], [1])

from __future__ import annotations

from dataclasses import replace

import pytest

from movepages.abi import Mode
from movepages.kernel import SimulatedMachine
from movepages.kernel.tasks import Cpuset
from movepages.nodeset import NodeSet
from movepages.placement import Options, make_plan, select
from movepages.placement.conditions import concerns
from movepages.topology import Tier

PAGE = 4096


class Troubled:
    """The model, with another machine's conditions and tiers."""

    def __init__(self, machine, *, tiers=(), **facts):
        """Change some facts."""
        self._machine, self._tiers, self._facts = machine, tiers, facts

    def __getattr__(self, name):
        """Answer all else as the model does."""
        return getattr(self._machine, name)

    def conditions(self):
        """Return the changed conditions."""
        return replace(self._machine.conditions(), **self._facts)

    def topology(self):
        """Return the nodes with tiers."""
        return replace(self._machine.topology(), tiers=self._tiers)


def start(**facts):
    """Return a machine with three nodes and a process with eight pages on node 0."""
    machine = SimulatedMachine("3 x 8M")
    task = machine.spawn(**facts)
    first = task.mmap(8)
    task.write(first, 8)
    return machine, task, first


def names(machine, task, node=1, **options):
    """Return the names of what would fight a move of all pages to a node."""
    placement = select.locate(machine, task.pid, select.everything())
    plan = make_plan(machine.task(task.pid).id, placement, node)
    return [concern.name for concern in concerns(machine, [plan], Options(**options))]


def test_where_nothing_fights_nothing_is_said():
    """A process of its own on a quiet machine moves without a warning."""
    machine, task, _ = start()
    assert names(machine, task) == []
    assert concerns(machine, [], Options()) == []


@pytest.mark.parametrize(
    ("balancing", "told"), [(None, False), (0, False), (1, True), (2, True), (3, True)]
)
def test_numa_balancing(balancing, told):
    """Every mode of NUMA balancing moves pages; 0 and no support do not."""
    machine, task, _ = start()
    found = names(Troubled(machine, numa_balancing=balancing), task)
    assert found == (["numa balancing"] if told else [])


@pytest.mark.parametrize(
    ("demotion", "node", "told"), [(True, 1, True), (True, 2, False), (False, 1, False)]
)
def test_demotion(demotion, node, told):
    """Demotion fights only what goes to a node that is not of the slowest tier."""
    machine, task, _ = start()
    tiers = (Tier(4, NodeSet([0, 1])), Tier(22, NodeSet([2])))
    found = names(Troubled(machine, tiers=tiers, demotion=demotion), task, node)
    assert found == (["demotion"] if told else [])


def test_a_target_without_room_forbids_the_plan():
    """At as many bytes as are free all is well; one page less, and it is told, unless it spills."""
    machine, task, _ = start()
    memory = machine.memory
    taken = memory.frames.allocate(1, memory.frames.nodes[1].free_pages - 8)
    memory.pins.update(taken.tolist())
    assert names(machine, task) == []
    memory.pins.update(memory.frames.allocate(1, 1).tolist())
    placement = select.locate(machine, task.pid, select.everything())
    plan = make_plan(machine.task(task.pid).id, placement, 1)
    (concern,) = concerns(machine, [plan], Options())
    assert (concern.name, concern.forbids) == ("free memory", True)
    assert "node 1 has 28K of free memory, and 32K are to come there" in str(concern)
    (concern,) = concerns(machine, [plan], Options(spill=True))
    assert not concern.forbids
    half = plan.first(4)
    (concern,) = concerns(machine, [half, half], Options())
    assert concern.forbids, "the plans come together"


def test_shared_memory_takes_room_once():
    """Two processes bring the same eight pages: room for eight will do, and for seven will not."""
    machine = SimulatedMachine("3 x 8M")
    task = machine.spawn()
    first = task.mmap(8, shared=True)
    task.write(first, 8)
    child = task.fork()
    child.write(first, 8)
    memory = machine.memory
    taken = memory.frames.allocate(1, memory.frames.nodes[1].free_pages - 8)
    memory.pins.update(taken.tolist())
    plans = [
        make_plan(machine.task(pid).id, select.locate(machine, pid, select.everything()), 1)
        for pid in (task.pid, child.pid)
    ]
    assert sum(plan.page_count for plan in plans) == 16
    assert concerns(machine, plans, Options(shared=True)) == []
    memory.pins.update(memory.frames.allocate(1, 1).tolist())
    (concern,) = concerns(machine, plans, Options(shared=True))
    assert "node 1 has 28K of free memory, and 32K are to come there" in str(concern)
    halves = [plans[0].first(4), replace(plans[0], start=plans[0].start + 4 * PAGE).first(4)]
    assert len(concerns(machine, halves, Options(shared=True))) == 1, "of one process both count"


def test_a_cpuset_that_excludes_the_target():
    """A process that may not use the node is told with the nodes that it may use."""
    machine, task, _ = start(cpuset=Cpuset(NodeSet([0, 2])))
    assert names(machine, task) == ["cpuset"]
    assert names(machine, task, 2) == []


@pytest.mark.parametrize(
    ("mode", "nodes", "told"),
    [
        (Mode.BIND, [0], True),
        (Mode.BIND, [1], False),
        (Mode.PREFERRED, [2], True),
        (Mode.INTERLEAVE, [0, 1], True),
        (Mode.LOCAL, [], False),
    ],
)
def test_a_policy_that_pulls_later_pages_elsewhere(mode, nodes, told):
    """A policy for nodes besides the target is told, if pages of its mapping are to move."""
    machine, task, first = start()
    task.mbind(first, 8, mode, nodes)
    assert names(machine, task) == (["policy"] if told else [])
    other = task.mmap(2)
    task.mbind(other, 2, Mode.BIND, [0])
    assert names(machine, task) == (["policy"] if told else []), "no page of it is there"


def test_pages_that_others_map():
    """Shared pages are told where they will stay, and not where they move, too."""
    machine, task, _ = start()
    task.fork()
    assert names(machine, task) == ["shared"]
    assert names(machine, task, shared=True) == []
    assert names(machine, task, node=0) == [], "nothing is to move"

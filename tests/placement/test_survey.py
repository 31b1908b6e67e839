"""What a caller can move on a machine: on the model, with settings that other machines have."""

from __future__ import annotations

from dataclasses import replace

import pytest

from movepages.abi import Errno
from movepages.errors import FilteredError, UnsupportedError
from movepages.kernel import SimulatedMachine
from movepages.kernel.semantics import LINUX_2_6_18
from movepages.placement.doctor import Answer
from movepages.placement.survey import examine_machine
from movepages.topology import HugePool
from movepages.values import Settings


class Other:
    """The model, with other settings, conditions and nodes."""

    def __init__(self, machine, settings=None, conditions=None, **of_nodes):
        """Take what is different."""
        self._machine, self._settings, self._of_nodes = machine, settings or {}, of_nodes
        self._conditions = conditions or {}

    def __getattr__(self, name):
        """Answer all else as the model does."""
        return getattr(self._machine, name)

    def settings(self):
        """Return the settings."""
        return replace(Settings(), **self._settings)

    def conditions(self):
        """Return the conditions."""
        return replace(self._machine.conditions(), **self._conditions)

    def topology(self):
        """Return the nodes, with a fact by node exchanged."""
        topology = self._machine.topology()
        facts = {
            node.id: {name: by_node[node.id] for name, by_node in self._of_nodes.items()}
            for node in topology
        }
        return replace(topology, nodes=tuple(replace(n, **facts[n.id]) for n in topology))


@pytest.fixture
def machine():
    """A machine with two nodes; who looks has touched a page."""
    made = SimulatedMachine("2 x 8M")
    made.spawn()
    return made


def view_of(machine, uid):
    """Return the machine as a user sees it whose process has a page."""
    task = machine.spawn(uid=uid)
    task.write(task.mmap(1), 1)
    return machine.as_task(task)


def checks(view):
    """Return how each check came out, by name."""
    return {check.name: check for check in examine_machine(view)}


def test_root_can_move_everything(machine):
    """Root looks at all processes, moves shared pages and sees page frames."""
    found = checks(view_of(machine, 0))
    names = ("nodes", "call", "calls", "move", "rights", "shared", "page frames", "swap")
    assert [found[name].answer for name in names] == [Answer.YES] * len(names)
    assert "no" not in {check.answer for check in found.values()}


def test_a_user_can_move_his_own(machine):
    """A user's limits are notes, each with the right that would lift it."""
    found = checks(view_of(machine, 1000))
    assert (found["call"].answer, found["move"].answer) == (Answer.YES, Answer.YES)
    lifts = {"rights": "SYS_PTRACE", "shared": "SYS_NICE", "page frames": "SYS_ADMIN"}
    for name, right in lifts.items():
        assert found[name].answer is Answer.NOTE
        assert f"CAP_{right}" in found[name].remedy


def test_a_kernel_without_some_calls():
    """Linux 2.6.18 has no home nodes, and says ENOENT where all is in place; pages can move."""
    found = checks(view_of(SimulatedMachine("2 x 8M", semantics=LINUX_2_6_18), 0))
    assert found["call"].answer is Answer.NOTE
    assert found["call"].says.startswith("set_mempolicy_home_node(2) is not to be had")
    assert found["move"].answer is Answer.YES
    assert "calls" not in found


def test_a_filter(machine):
    """Where move_pages(2) itself is refused nothing can be moved, and no more is tried of it."""
    view = view_of(machine, 0)
    error = FilteredError(Errno.EPERM, "move_pages: refused; allow it", call="move_pages")

    class Filtered(Other):
        """Nobody here may call move_pages(2)."""

        def query_pages(self, *_):
            """Refuse."""
            raise error

    found = checks(Filtered(view, {"refused": (error,)}))
    assert (found["filter"].answer, found["filter"].remedy) == (Answer.NO, "allow it")
    assert not {"move", "rights", "shared"} & set(found)


def test_a_kernel_without_nodes(machine):
    """Without nodes in sysfs there are no weights and pools; the rest is told."""

    class Bare(Other):
        """A kernel that shows no nodes."""

        def topology(self):
            """Refuse."""
            raise UnsupportedError("mount sysfs")

    found = checks(Bare(view_of(machine, 0)))
    assert (found["nodes"].answer, found["nodes"].remedy) == (Answer.NO, "mount sysfs")
    assert "weighted interleave" not in found
    assert "swap" in found


@pytest.mark.parametrize(
    ("settings", "conditions", "name", "answer", "told"),
    [
        ({}, {"numa_balancing": 0}, "numa balancing", "yes", "is off"),
        ({}, {"numa_balancing": 1}, "numa balancing", "note", "is on"),
        ({}, {"numa_balancing": None}, "numa balancing", None, ""),
        ({}, {"demotion": True}, "demotion", "note", "slower tier"),
        ({}, {"demotion": False}, "demotion", None, ""),
        ({}, {"swap_bytes": 0}, "swap", "yes", "no swap space"),
        ({}, {"swap_bytes": 1 << 30}, "swap", "note", "there are 1G of swap space"),
        ({"zone_reclaim_mode": 0}, {}, "zone reclaim", None, ""),
        ({"zone_reclaim_mode": 1}, {}, "zone reclaim", "note", "zone_reclaim_mode is 1"),
        ({"thp": "always"}, {}, "thp", "yes", "are made: always"),
        ({"thp": None}, {}, "thp", None, ""),
        ({"perf_event_paranoid": None}, {}, "perf events", None, ""),
        ({"perf_event_paranoid": -1}, {}, "perf events", "yes", "paranoid -1"),
        ({"perf_event_paranoid": 2}, {}, "perf events", "yes", "paranoid 2"),
        ({"perf_event_paranoid": 3}, {}, "perf events", "note", "CAP_PERFMON"),
    ],
)
def test_settings(machine, settings, conditions, name, answer, told):
    """Each setting is a note where it takes pages away or keeps anything from the caller."""
    found = checks(Other(view_of(machine, 0), settings, conditions))
    assert (str(found[name].answer) if name in found else None) == answer
    assert told in (found[name].says if name in found else "")


def pool(free):
    """Return a pool of four pages of 2 MiB."""
    return (HugePool(2 << 20, 4, free, 0),)


@pytest.mark.parametrize(
    ("pools", "answer", "told"),
    [
        ({0: (), 1: ()}, None, ""),
        ({0: pool(1), 1: pool(4)}, "yes", "node 0 1 of 4 (2M), node 1 4 of 4 (2M)"),
        ({0: pool(0), 1: pool(4)}, "note", "node 1 4 of 4 (2M); none on node 0"),
        ({0: pool(1), 1: ()}, "note", "node 0 1 of 4 (2M); none on node 1"),
    ],
)
def test_pools_of_huge_pages(machine, pools, answer, told):
    """A node without a free hugetlb page takes none: a note, where there are pools at all."""
    found = checks(Other(view_of(machine, 0), huge_pools=pools))
    assert (str(found["hugetlb"].answer) if "hugetlb" in found else None) == answer
    assert told in (found["hugetlb"].says if "hugetlb" in found else "")


@pytest.mark.parametrize(
    ("weights", "answer", "told"),
    [
        ({0: 5, 1: 2}, "yes", "node 0 5, node 1 2"),
        ({0: None, 1: None}, "note", "no weights to interleave by"),
    ],
)
def test_weights(machine, weights, answer, told):
    """Weighted interleave needs the kernel's weights, which are seen in sysfs."""
    check = checks(Other(view_of(machine, 0), weight=weights))["weighted interleave"]
    assert check.answer == answer
    assert told in check.says

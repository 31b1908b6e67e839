from __future__ import annotations

import os
from dataclasses import replace

import pytest

from movepages.emulator.host_cpus import place_cpus, read_host_cpus
from movepages.topology import check_topology, parse_topology


@pytest.mark.parametrize(
    ("declared", "host", "cpus", "dropped"),
    [
        ("2", 2, [(0,), (1,)], {}),
        ("4", 2, [(0,), (1,), (), ()], {2: 1, 3: 1}),
        ("2x(8cpu,1G)", 2, [(0,), (1,)], {0: 7, 1: 7}),
        ("2x(8cpu,1G)", 5, [(0, 1, 2), (3, 4)], {0: 5, 1: 6}),
        ("1x(1cpu,1G) + 1x(3cpu,1G)", 2, [(0,), (1,)], {1: 2}),
        ("1x(1cpu,1G) + 1x(3cpu,1G)", 3, [(0,), (1, 2)], {1: 1}),
        ("2x(1cpu,1G) + 1x(0cpu,4G)", 5, [(0, 2, 4), (1, 3), ()], {}),
        ("2x(0cpu,1G)", 3, [(0, 2), (1,)], {}),
        ("3x(2cpu,1G)", 6, [(0, 1), (2, 3), (4, 5)], {}),
        ("3x(2cpu,1G)", 1, [(0,), (), ()], {0: 1, 1: 2, 2: 2}),
    ],
)
def test_each_cpu_of_the_host_has_one_node(declared, host, cpus, dropped):
    """Nodes share the CPUs that there are, and one that declares none has none."""
    placed = place_cpus(parse_topology(declared), range(host))
    assert [node.cpus for node in placed.topology] == cpus
    assert placed.dropped == dropped
    check_topology(placed.topology)


@pytest.mark.parametrize("host", range(1, 20))
@pytest.mark.parametrize("declared", ["4x(3cpu,1G) + 1x(0cpu,1G)", "1x(9cpu,1G) + 3x(1cpu,1G)"])
def test_no_node_is_bereft_without_need(declared, host):
    """All CPUs are given away, and each node that declares some has one if there are as many."""
    placed = place_cpus(parse_topology(declared), range(host))
    given = sorted(cpu for node in placed.topology for cpu in node.cpus)
    assert given == list(range(host))
    wanting = [node.id for node in parse_topology(declared) if node.cpus]
    having = [node for node in wanting if placed.topology.node(node).cpus]
    assert len(having) == min(host, len(wanting))


def test_declared_numbers_are_kept_where_the_host_has_them():
    """Interleaved numbers, as sockets often have, stay with their nodes."""
    declared = parse_topology("2x(2cpu,1G)")
    nodes = tuple(
        replace(node, cpus=cpus) for node, cpus in zip(declared, [(0, 2), (1, 3)], strict=True)
    )
    placed = place_cpus(replace(declared, nodes=nodes), [0, 1, 2, 5])
    assert [node.cpus for node in placed.topology] == [(0, 2), (1, 5)]


def test_what_was_dropped_is_said_in_a_sentence():
    """The notice counts what each node lost, and is empty where nothing was lost."""
    placed = place_cpus(parse_topology("3"), [0, 1])
    assert placed.notice == (
        "this machine has 2 CPUs, so some declared ones are left out: 1 of node 2"
    )
    assert not place_cpus(parse_topology("2"), [0, 1]).notice


@pytest.mark.host
def test_the_cpus_of_this_machine():
    """All CPUs that this process may run on are online."""
    assert os.sched_getaffinity(0) <= set(read_host_cpus())


def test_a_host_that_does_not_show_its_cpus_has_one(tmp_path):
    """Without sysfs there is the CPU that we run on."""
    assert read_host_cpus(tmp_path) == (0,)

"""`movepages run`: what is refused before anything runs, and what a program would start with.

What programs get is compared with numactl's under the emulator, in tests/emulator/programs.
"""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from movepages.abi import Mode, ModeFlag
from movepages.cli.starting import Start, read_start
from movepages.errors import NodeSetError, call_error
from movepages.linux import affinity
from movepages.nodeset import NodeSet
from movepages.values import Policy

USAGE, NOT_PERMITTED, CANNOT = 2, 4, 5
POLICIES = ("membind", "interleave", "weighted_interleave", "preferred", "preferred_many")
NOTHING_GIVEN = dict.fromkeys((*POLICIES, "home", "cpunodebind", "physcpubind")) | dict.fromkeys(
    ("localalloc", "balancing", "all"), False
)


def started(machine, **options):
    """Return what a program would start with."""
    return read_start(machine, NOTHING_GIVEN | options)


def test_show(run, machine, snapshot):
    """A line for each: policy, its nodes, CPUs, their nodes, the nodes that are allowed."""
    assert run("run", "--show").out == snapshot
    machine.policy = Policy(Mode.BIND | ModeFlag.NUMA_BALANCING, NodeSet([0, 1]))
    assert run("run", "--show").out == snapshot


@pytest.mark.parametrize(
    ("mode", "name", "flags"),
    [
        (Mode.PREFERRED_MANY, "preferred-many", []),
        (Mode.WEIGHTED_INTERLEAVE, "weighted-interleave", []),
        (Mode.INTERLEAVE | ModeFlag.STATIC_NODES, "interleave", ["static"]),
        (Mode.BIND | ModeFlag.RELATIVE_NODES, "bind", ["relative"]),
        (9, "9", []),
    ],
)
def test_show_names_the_policy(run, machine, mode, name, flags):
    """Policies have numactl's names; one that is not known is told by its number."""
    machine.policy = Policy(mode, NodeSet([1]))
    said = json.loads(run("run", "--show", "--json").out)
    assert (said["policy"], said["flags"], said["nodes"]) == (name, flags, [1])


@pytest.mark.parametrize(
    ("options", "start"),
    [
        ({}, Start()),
        ({"membind": "0-1"}, Start(Mode.BIND, NodeSet([0, 1]))),
        ({"interleave": "all"}, Start(Mode.INTERLEAVE, NodeSet([0, 1]))),
        ({"weighted_interleave": "!0"}, Start(Mode.WEIGHTED_INTERLEAVE, NodeSet([1]))),
        ({"preferred": "+1"}, Start(Mode.PREFERRED, NodeSet([1]))),
        ({"preferred_many": "1,0"}, Start(Mode.PREFERRED_MANY, NodeSet([0, 1]))),
        ({"localalloc": True}, Start(Mode.LOCAL)),
        ({"interleave": "all", "all": True}, Start(Mode.INTERLEAVE, NodeSet([0, 1, 2]))),
        ({"membind": "!0", "all": True}, Start(Mode.BIND, NodeSet([1, 2]))),
        (
            {"membind": "1", "balancing": True},
            Start(Mode.BIND | ModeFlag.NUMA_BALANCING, NodeSet([1])),
        ),
        (
            {"preferred_many": "1", "balancing": True},
            Start(Mode.PREFERRED_MANY | ModeFlag.NUMA_BALANCING, NodeSet([1])),
        ),
        ({"cpunodebind": "!0"}, Start(cpus={"node 1 (CPUs 4-7)": NodeSet(range(4, 8))})),
        ({"physcpubind": "all"}, Start(cpus={"CPU 0": NodeSet([0])})),
        ({"physcpubind": "+7", "all": True}, Start(cpus={"CPU 7": NodeSet([7])})),
    ],
)
def test_options(machine, options, start):
    """The cpuset has nodes 0 and 1, the caller CPU 0; with --all the machine is meant."""
    assert started(machine, **options) == start


LINES = [
    ("run", USAGE, "give a command to run, or --show"),
    ("run --membind 1", USAGE, "give a command to run, or --show"),
    ("run --json true", USAGE, "--json belongs to --show"),
    (
        "run --show true",
        USAGE,
        "--show tells what this shell's programs start with, and goes alone",
    ),
    ("run --show -l", USAGE, "--show tells what this shell's programs start with, and goes alone"),
    ("run --show --membind=", USAGE, "--show tells what this shell's programs start with"),
    ("run --membind= true", USAGE, "--membind '' names no node"),
    ("run --membind x true", USAGE, "'x' in 'x' is not a node"),
    ("run --membind 4 true", USAGE, "node 4 in '4' does not exist"),
    ("run --membind 1-0 true", USAGE, "range '1-0' in '1-0' is reversed"),
    ("run --membind +2 true", USAGE, "there is no +2"),
    ("run --membind same true", USAGE, "'same' (numactl's previous mask)"),
    ("run --membind netdev:eth0 true", USAGE, "'netdev:' (the node of a device)"),
    ("run --membind 0,3 true", USAGE, "--membind: node 3 has no memory"),
    ("run --preferred-many 0x3 true", USAGE, "--preferred-many: node 3 has no memory"),
    ("run --membind 2 true", NOT_PERMITTED, "node 2 lies outside the cpuset"),
    (
        "run --all --membind 3 true",
        USAGE,
        "--membind: node 3 has no memory; nodes with memory: 0-2",
    ),
    ("run --all --membind 4 true", USAGE, "node 4 in '4' does not exist"),
    ("run --all --membind !0-3 true", USAGE, "--membind '!0-3' names no node"),
    ("run --all --membind +3 true", USAGE, "there is no +3"),
    ("run -m 0 -i 1 true", USAGE, "--membind and --interleave exclude each other"),
    ("run -m 0 -l true", USAGE, "--membind and --localalloc exclude each other"),
    ("run -w 0 -P 1 true", USAGE, "--weighted-interleave and --preferred-many exclude each other"),
    ("run --preferred 0,1 true", USAGE, "--preferred takes one node, not 0-1"),
    ("run --balancing true", USAGE, "--balancing goes with --membind or --preferred-many only"),
    ("run -b -i 0 true", USAGE, "--balancing goes with --membind or --preferred-many only"),
    ("run --cpunodebind= true", USAGE, "--cpunodebind '' names no node"),
    ("run --cpunodebind 2 true", USAGE, "--cpunodebind: node 2 has no CPUs; nodes with CPUs: 0-1"),
    ("run --cpunodebind 4 true", USAGE, "node 4 in '4' does not exist"),
    ("run -N 0 -C 0 true", USAGE, "--cpunodebind and --physcpubind exclude each other"),
    ("run --physcpubind= true", USAGE, "'' are not CPUs that may be used here (0)"),
    ("run --physcpubind 1 true", USAGE, "'1' are not CPUs that may be used here (0)"),
    ("run --physcpubind 0-x true", USAGE, "'0-x' are not CPUs that may be used here (0)"),
    ("run --all --physcpubind 8 true", USAGE, "'8' are not CPUs that may be used here (0-7)"),
    ("run --home 0 true", CANNOT, "--home: the kernel keeps a home node for ranges of memory"),
    ("run --home= true", CANNOT, "--home: the kernel keeps a home node for ranges of memory"),
    ("run -H true", USAGE, "No such option '-H'"),
]


@pytest.mark.parametrize(("line", "code", "told"), LINES, ids=[line for line, _, _ in LINES])
def test_bad_command_line(run, line, code, told):
    """It ends with its code before anything runs, and one line says why."""
    answer = run(*line.split())
    assert told in answer.err
    assert (answer.code, answer.out) == (code, "")
    assert answer.err.startswith("movepages: ")
    assert answer.err.count("\n") == 1


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("--weighted", "this kernel has no such policy; Linux 6.9 and later have it"),
        ("--preferred-many", "this kernel has no such policy; Linux 5.15 and later have it"),
        ("--interleave", "the cpuset leaves none of these nodes"),
        ("-bm", "this kernel does not balance under that policy"),
    ],
)
def test_a_kernel_that_refuses(run, machine, monkeypatch, option, told):
    """Where the nodes are right and the kernel calls the policy invalid, it is said what it lacks.

    The refusal is that of an older kernel: -EINVAL from set_mempolicy(2).
    """

    def set_policy(_mode, _nodes):
        raise call_error(-22, "set_mempolicy")

    monkeypatch.setattr(machine, "set_policy", set_policy, raising=False)
    answer = run("run", option, "1", "true")
    assert (answer.code, answer.out) == (CANNOT, "")
    assert told in answer.err


def test_cpus_of_a_node_without_any_left(machine):
    """A node that has no CPUs is no node to run on, and `all` leaves it out."""
    first, *others = machine.nodes
    nodes = (first, *(replace(node, cpus=()) for node in others))
    machine.nodes = replace(machine.nodes, nodes=nodes)
    assert list(started(machine, cpunodebind="all").cpus) == ["node 0 (CPUs 0-3)"]


def test_cpus_of_a_node_without_memory(machine):
    """To run there needs no memory there; to have memory there does."""
    first, second, *others = machine.nodes
    nodes = (first, replace(second, memory_bytes=0, free_bytes=0, has_memory=False), *others)
    machine.nodes = replace(machine.nodes, nodes=nodes)
    assert list(started(machine, cpunodebind="1").cpus) == ["node 1 (CPUs 4-7)"]
    with pytest.raises(NodeSetError, match="--membind: node 1 has no memory"):
        started(machine, membind="1")


@pytest.mark.parametrize(
    ("option", "name"),
    [("-N0,1", "node 1 (CPUs 4-7)"), ("-C0,5", "CPU 5")],
)
def test_cpus_that_the_cpuset_leaves_out(run, monkeypatch, option, name):
    """What was named and cannot be had ends it before it runs, though the kernel gives the rest."""
    monkeypatch.setattr(affinity, "run_on", lambda _cpus: frozenset([0, 1]))
    answer = run("run", "--all", option, "true")
    assert (answer.code, answer.out) == (NOT_PERMITTED, "")
    assert answer.err == (
        f"movepages: {name} may not be used: the cpuset of this process leaves it out; choose "
        "among the CPUs that movepages run --show lists\n"
    )

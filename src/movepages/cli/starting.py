"""What a program is to start with, read from the options of `movepages run` and checked.

The kernel drops nodes and CPUs that the cpuset does not allow without a word, as long as one is
left. Here what is named and cannot be had is refused by its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import click

from movepages.abi import Mode, ModeFlag
from movepages.cli.parameters import target_nodes
from movepages.errors import NodeSetError, UnsupportedError
from movepages.nodeset import NodeSet

if TYPE_CHECKING:
    from movepages.machine import Machine
    from movepages.topology import Topology
    from movepages.values import TaskInfo

Given = Mapping[str, str | bool | None]
"""The options by name, as they were given."""

_MODES = {
    "membind": Mode.BIND,
    "interleave": Mode.INTERLEAVE,
    "weighted_interleave": Mode.WEIGHTED_INTERLEAVE,
    "preferred": Mode.PREFERRED,
    "preferred_many": Mode.PREFERRED_MANY,
    "localalloc": Mode.LOCAL,
}
"""The options that name a policy, of which a program has one."""
_BALANCED = {Mode.BIND, Mode.PREFERRED_MANY}


@dataclass(frozen=True, slots=True)
class Start:
    """A policy (its mode is None where none is asked for), and CPUs.

    `cpus` are groups by what to call them, such as `CPU 1`; of each one CPU has to be had.
    """

    mode: int | None = None
    nodes: NodeSet = field(default_factory=NodeSet)
    cpus: Mapping[str, NodeSet] = field(default_factory=dict)


def read_start(machine: Machine, options: Given) -> Start:
    """Read the options. Raises UsageError, NodeSetError, OutsideCpusetError, UnsupportedError."""
    if options["home"] is not None:
        raise UnsupportedError(
            "--home: the kernel keeps a home node for ranges of memory, which a program sets for "
            "itself (set_mempolicy_home_node(2)), and none for a program; name that node with "
            "--cpunodebind, for --membind and --preferred-many take memory from their node nearest "
            "to the CPU"
        )
    task, topology = machine.task(0), machine.topology()
    mode = _mode(options)
    nodes = NodeSet() if mode in {None, Mode.LOCAL} else _nodes(options, topology, task)
    if mode is not None and options["balancing"]:
        mode |= ModeFlag.NUMA_BALANCING
    return Start(mode, nodes, _cpus(options, topology, task))


def _mode(options: Given) -> int | None:
    named = _named_policies(options)
    if len(named) > 1:
        raise click.UsageError(
            f"{' and '.join(map(_option, named))} exclude each other: a program has one policy"
        )
    mode = _MODES[named[0]] if named else None
    if options["balancing"] and mode not in _BALANCED:
        raise click.UsageError("--balancing goes with --membind or --preferred-many only")
    return mode


def _nodes(options: Given, topology: Topology, task: TaskInfo) -> NodeSet:
    """Return the nodes of a policy that has some."""
    (name,) = _named_policies(options)
    text = str(options[name])
    if options["all"]:
        nodes = _nodes_with("memory", _option(name), text, topology.with_memory, topology)
    else:
        nodes = target_nodes(_option(name), text, topology, task)
    if name == "preferred" and len(nodes) > 1:
        raise click.UsageError(
            f"--preferred takes one node, not {nodes}; --preferred-many takes several"
        )
    return nodes


def _cpus(options: Given, topology: Topology, task: TaskInfo) -> dict[str, NodeSet]:
    by_node, by_number = options["cpunodebind"], options["physcpubind"]
    if by_node is not None and by_number is not None:
        raise click.UsageError(
            "--cpunodebind and --physcpubind exclude each other: both say where to run"
        )
    of_node = {node.id: NodeSet(node.cpus) for node in topology if node.cpus}
    if by_node is not None:
        base = NodeSet(of_node)
        nodes = _nodes_with("CPUs", "--cpunodebind", str(by_node), base, topology)
        return {f"node {node} (CPUs {of_node[node]})": of_node[node] for node in nodes}
    if by_number is None:
        return {}
    every = NodeSet(cpu for cpus in of_node.values() for cpu in cpus)
    base = every if options["all"] else NodeSet(task.cpus_allowed)
    return {f"CPU {cpu}": NodeSet([cpu]) for cpu in _numbers(str(by_number), base)}


def _numbers(text: str, base: NodeSet) -> NodeSet:
    """Read CPUs of some, written as nodes are. Raises NodeSetError."""
    try:
        chosen = NodeSet.parse(text, allowed=base)
    except NodeSetError:
        chosen = NodeSet()
    if not chosen:
        raise NodeSetError(
            f"--physcpubind: {text!r} are not CPUs that may be used here ({base}); write them like "
            "0-3, 0,2, all, !1 or +0",
            text=text,
        )
    return chosen


def _nodes_with(what: str, option: str, text: str, base: NodeSet, topology: Topology) -> NodeSet:
    """Read nodes that have something. Raises NodeSetError."""
    try:
        nodes = NodeSet.parse(text, allowed=base, existing=topology.online)
    except NodeSetError:
        if "+" in text:  # counts among those that have it
            raise
        without = NodeSet.parse(text, existing=topology.online) - base
        raise NodeSetError(
            f"{option}: node {min(without)} has no {what}; nodes with {what}: {base}", text=text
        ) from None
    if not nodes:
        raise NodeSetError(f"{option} {text!r} names no node; give one like 1 or 0-3", text=text)
    return nodes


def _named_policies(options: Given) -> list[str]:
    return [name for name in _MODES if options[name] not in {None, False}]


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"

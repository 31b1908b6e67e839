"""The CPUs of a declared machine, taken from those that this machine has.

A program is scheduled on real CPUs and sees their numbers, so a declared node can only have some of
these.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

from movepages.linux.reading import parse_list, read_optional

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from movepages.topology import Topology

HOST = Path("/sys")


@dataclass(frozen=True, slots=True)
class Placed:
    """A machine with real CPUs. `dropped` counts the declared CPUs that a node had to give up."""

    topology: Topology
    dropped: Mapping[int, int]

    @property
    def notice(self) -> str:
        """What was dropped, as a sentence; "" if nothing was."""
        if not self.dropped:
            return ""
        cpus = sum(len(node.cpus) for node in self.topology)
        nodes = ", ".join(f"{count} of node {node}" for node, count in self.dropped.items())
        return f"this machine has {cpus} CPUs, so some declared ones are left out: {nodes}"


def read_host_cpus(host: Path = HOST) -> tuple[int, ...]:
    """Return the CPUs that are online, rising. Raises MalformedError."""
    path = host / "devices/system/cpu/online"
    return parse_list(read_optional(path) or "0", path)


def place_cpus(topology: Topology, host_cpus: Iterable[int]) -> Placed:
    """Give each node that declares CPUs some of the host's, so that each of these has one node.

    Too many declared CPUs are dropped round-robin, the last of a node only if the host has fewer
    CPUs than there are nodes that declare some. CPUs that nobody declares are spread round-robin
    over the nodes that declare some, or over all if none does. A node keeps the numbers it declared
    where the host has them.
    """
    available = sorted(set(host_cpus))
    declared = {node.id: len(node.cpus) for node in topology if node.cpus}
    counts = _shares(declared, len(available))
    cpus = {
        node.id: [cpu for cpu in node.cpus if cpu in available][: counts.get(node.id, 0)]
        for node in topology
    }
    free = iter(sorted(set(available) - {cpu for kept in cpus.values() for cpu in kept}))
    for node, count in counts.items():
        cpus[node] += [next(free) for _ in range(count - len(cpus[node]))]
    for node, cpu in zip(cycle(declared or topology.online), free, strict=False):
        cpus[node].append(cpu)
    nodes = tuple(replace(node, cpus=tuple(sorted(cpus[node.id]))) for node in topology)
    dropped = {
        node: count - counts[node] for node, count in declared.items() if counts[node] < count
    }
    return Placed(replace(topology, nodes=nodes), dropped)


def _shares(declared: Mapping[int, int], available: int) -> dict[int, int]:
    """Return how many of the CPUs that it declares each node has, if there are not enough."""
    counts = dict(declared)
    least = 1
    while (surplus := sum(counts.values()) - available) > 0:
        giving = [node for node in reversed(counts) if counts[node] > least][:surplus]
        least -= not giving  # there are fewer CPUs than nodes
        for node in giving:
            counts[node] -= 1
    return counts

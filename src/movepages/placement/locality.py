"""How near the memory of a process is to where its threads run."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from movepages.topology import LOCAL_DISTANCE, REMOTE_DISTANCE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from movepages.topology import Topology
    from movepages.values import ThreadInfo


@dataclass(frozen=True, slots=True)
class Locality:
    """Where threads run, where memory is, and how far apart that is.

    Both derived figures are None where either is not known, and weigh a thread by its running.
    """

    running_by_node: Mapping[int, float]
    """Each node's share of the running, 1 together; empty where no thread is on a known node."""
    bytes_by_node: Mapping[int, int]
    distances: Mapping[int, Mapping[int, int]]
    """From a node with CPUs to a node with memory."""

    @property
    def near_share(self) -> float | None:
        """Share of the memory, 0 to 1, that is on the node where a thread runs."""
        whole = sum(self.bytes_by_node.values())
        if not whole or not self.running_by_node:
            return None
        near = sum(
            share * self.bytes_by_node.get(node, 0) for node, share in self.running_by_node.items()
        )
        return near / whole

    @property
    def mean_distance(self) -> float | None:
        """Mean distance from a thread to the memory; 10 is all of it near."""
        whole = sum(self.bytes_by_node.values())
        if not whole or not self.running_by_node:
            return None
        far = sum(
            share * size_bytes * self._distance(runs_on, node)
            for runs_on, share in self.running_by_node.items()
            for node, size_bytes in self.bytes_by_node.items()
        )
        return far / whole

    def _distance(self, runs_on: int, node: int) -> int:
        unknown = LOCAL_DISTANCE if runs_on == node else REMOTE_DISTANCE
        return self.distances.get(runs_on, {}).get(node, unknown)


def locality(
    threads: Iterable[ThreadInfo], bytes_by_node: Mapping[int, int], topology: Topology
) -> Locality:
    """Return how near memory is to threads, each counted on the node where it ran last.

    A thread weighs as much as the CPU time that it has used; all the same where none has used any.
    """
    return Locality(
        running_by_node(threads, topology),
        bytes_by_node,
        {node.id: node.distances for node in topology if node.cpus},
    )


def running_by_node(threads: Iterable[ThreadInfo], topology: Topology) -> dict[int, float]:
    """Return each node's share of the CPU time of threads, by where each ran last, 1 together.

    A CPU that belongs to no node, such as one that was taken offline, counts for none.
    """
    nodes = {cpu: node.id for node in topology for cpu in node.cpus}
    times: Counter[int] = Counter()
    threads_on: Counter[int] = Counter()
    for thread in threads:
        if thread.cpu in nodes:
            times[nodes[thread.cpu]] += thread.cpu_time_ns
            threads_on[nodes[thread.cpu]] += 1
    weights = times if sum(times.values()) else threads_on
    whole = sum(weights.values())
    return {node: weight / whole for node, weight in sorted(weights.items()) if weight}

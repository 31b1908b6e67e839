"""How much memory each emulated node has, and how much of it is said to be in use, in pages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from movepages.emulator.overlay import MAX_NODES
from movepages.errors import TopologyError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from movepages.topology import Topology


class Room(Protocol):
    """What pages take their place of: the memory of nodes, or their pools of huge pages."""

    def take(self, node: int, folios: int, order: int) -> int:
        """Take room for up to so many folios from a node; return for how many it had some."""
        ...

    def charge(self, pages_by_node: NDArray[np.int64]) -> None:
        """Count pages that are there already, whether or not there is room."""
        ...

    def release(self, pages_by_node: NDArray[np.int64]) -> None:
        """Count pages that are gone."""
        ...


class Capacity:
    """Counters by node: what the nodes have, and what pages that were placed take of it."""

    def __init__(
        self, topology: Topology, page_size_bytes: int, reclaim: Callable[[], None]
    ) -> None:
        """Count a machine's pages. Raises TopologyError for a node with too high a number.

        `reclaim` is called when a node is short: it releases what is no longer there.
        """
        self.reclaim = reclaim
        if max(topology.online) >= MAX_NODES:
            raise TopologyError(
                f"node {max(topology.online)}: emulated nodes are numbered 0 to {MAX_NODES - 1}"
            )
        self.total = np.zeros(MAX_NODES, dtype=np.int64)
        self.used = np.zeros(MAX_NODES, dtype=np.int64)
        for node in topology:
            if node.has_memory:
                self.total[node.id] = node.memory_bytes // page_size_bytes

    def free(self, node: int) -> int:
        """Return how many pages of a node are free, 0 for one that is overdrawn."""
        return max(0, int(self.total[node] - self.used[node]))

    def take(self, node: int, folios: int, order: int = 0) -> int:
        """Take up to so many folios from a node; return how many it had."""
        if folios > self.free(node) >> order and self.total[node]:
            self.reclaim()
        found = min(folios, self.free(node) >> order)
        self.used[node] += found << order
        return found

    def charge(self, pages_by_node: NDArray[np.int64]) -> None:
        """Count pages that are there already, whether or not there is room."""
        self.used += pages_by_node

    def release(self, pages_by_node: NDArray[np.int64]) -> None:
        """Count pages that are gone."""
        self.used -= pages_by_node
        np.maximum(self.used, 0, out=self.used)

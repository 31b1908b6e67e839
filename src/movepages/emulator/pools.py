"""The pools of huge pages of the emulated nodes, as counters (mm/hugetlb.c).

The memory of a huge page is the host's, and comes of the host's own pool; which emulated node has
it, and whether that one's pool has room, is decided here. A pool holds memory of its node whether
or not its pages are in use, so what it grows by it takes of the node's capacity.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from movepages.emulator.host_cpus import HOST
from movepages.emulator.overlay import MAX_NODES, count_pages, runs
from movepages.emulator.sysfs import HUGE_PAGES, pool_name, read_huge_page_sizes
from movepages.linux.reading import read_optional_number

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from movepages.emulator.capacity import Capacity, Room
    from movepages.topology import HugePool, Topology

    Counts = NDArray[np.int64]


class Hstate:
    """The huge pages of one size, by node: int64[MAX_NODES] each, in huge pages."""

    def __init__(self, order: int, capacity: Capacity) -> None:
        """Begin with empty pools; a huge page has 2**order pages."""
        self.order = order
        self.total = np.zeros(MAX_NODES, dtype=np.int64)
        """That belong to a node's pool (nr_huge_pages_node)."""
        self.used = np.zeros(MAX_NODES, dtype=np.int64)
        """Of these, that are not free."""
        self.surplus = np.zeros(MAX_NODES, dtype=np.int64)
        """Of these, that leave the pool when nobody uses them (surplus_huge_pages_node)."""
        self._capacity = capacity

    def declare(self, node: int, pool: HugePool) -> None:
        """Give a node the pool that its machine was declared with."""
        self.total[node], self.surplus[node] = pool.total, pool.surplus
        self.used[node] = pool.total - pool.free
        self._capacity.used[node] += pool.total << self.order

    def free(self, node: int) -> int:
        """Return how many huge pages of a node are free."""
        return int(self.total[node] - self.used[node])

    def resize(self, node: int, huge_pages: int) -> None:
        """Set how many huge pages of a node stay in its pool (set_max_huge_pages).

        It grows as far as the node has memory. Pages in use that are too many become surplus.
        """
        missing = huge_pages - int(self.total[node] - self.surplus[node])
        kept = min(int(self.surplus[node]), max(0, missing))
        self.surplus[node] -= kept
        missing -= kept
        if missing > 0:
            self.total[node] += self._capacity.take(node, missing, self.order)
            return
        leaving = min(self.free(node), -missing)
        self.total[node] -= leaving
        self.surplus[node] -= missing + leaving
        self._capacity.used[node] -= leaving << self.order

    # -- the room of pages that are touched ---------------------------------------------------

    def take(self, node: int, folios: int, order: int) -> int:
        """Take up to so many free huge pages of a node; return how many it had."""
        assert order == self.order  # noqa: S101 - an object has pages of one size
        if folios > self.free(node) and self.total[node]:
            self._capacity.reclaim()
        found = min(folios, self.free(node))
        self.used[node] += found
        return found

    def charge(self, pages_by_node: Counts) -> None:
        """Count pages that are there already: beyond the free ones they are surplus."""
        folios = pages_by_node >> self.order
        made = np.maximum(folios - (self.total - self.used), 0)
        self.used += folios
        self._grow(made)
        self.surplus += made

    def release(self, pages_by_node: Counts) -> None:
        """Count pages that are gone: they are free in their pool, or leave it (free_huge_folio)."""
        folios = np.minimum(pages_by_node >> self.order, self.used)
        leaving = np.minimum(folios, self.surplus)
        self.used -= folios
        self.surplus -= leaving
        self._grow(-leaving)

    # -- moving -------------------------------------------------------------------------------

    def take_for_migration(self, node: int, folios: int) -> tuple[int, int]:
        """Take room to move into: free pages of the pool, then such as are made of other memory.

        Return how many of either kind. What is made belongs to no pool yet.
        """
        pooled = self.take(node, folios, self.order)
        return pooled, self._capacity.take(node, folios - pooled, self.order)

    def moved(self, sources: Counts, targets: Counts, pooled: NDArray[np.bool_]) -> None:
        """Count pages that moved between nodes (move_hugetlb_state).

        One that went into a free page of the pool leaves a free one behind. One for which a page
        was made took its place in the pool along.
        """
        orders = np.full(len(sources), self.order)
        self.release(count_pages(sources[pooled], orders[pooled]))
        made = ~pooled
        for pair, which in runs(sources[made] * MAX_NODES + targets[made]):
            source, target = divmod(pair, MAX_NODES)
            count = len(targets[made][which])
            surplus = min(count, int(self.surplus[source]))
            for node, more, spare in ((source, -count, -surplus), (target, count, surplus)):
                self.total[node] += more
                self.used[node] += more
                self.surplus[node] += spare
        self._capacity.release(count_pages(sources[made], orders[made]))

    def _grow(self, folios: Counts) -> None:
        """Change the sizes of the pools, and what they hold of their nodes' memory."""
        self.total += folios
        self._capacity.charge(folios << self.order)


class Hstates:
    """The huge pages of all sizes."""

    def __init__(
        self,
        topology: Topology,
        page_size_bytes: int,
        sizes_bytes: Iterable[int],
        capacity: Capacity,
    ) -> None:
        """Begin with the pools that a machine declares, and empty ones of further sizes."""
        self._page_shift = page_size_bytes.bit_length() - 1
        self._capacity = capacity
        self._by_order: dict[int, Hstate] = {}
        for size in sizes_bytes:
            self._of_size(size)
        for node in topology:
            for pool in node.huge_pools:
                self._of_size(pool.page_size_bytes).declare(node.id, pool)
        self._declared, self._of_others = self.held(), self._taken()

    def __iter__(self) -> Iterator[Hstate]:
        """Go through the sizes, the smallest first."""
        return iter([self._by_order[order] for order in sorted(self._by_order)])

    def __getitem__(self, order: int) -> Hstate:
        """Return the huge pages of 2**order pages each."""
        found = self._by_order.get(order)
        if found is None:
            found = self._by_order[order] = Hstate(order, self._capacity)
        return found

    def room(self, order: int) -> Room:
        """Return what pages of a pool of an order take their place of; for 0 it is memory."""
        return self[order] if order else self._capacity

    def held(self) -> Counts:
        """Return how many pages of each node its pools hold, of all sizes: int64[MAX_NODES]."""
        held = np.zeros(MAX_NODES, dtype=np.int64)
        for size in self:
            held += size.total << size.order
        return held

    def used(self) -> Counts:
        """Return how many of these programs have; what was declared as used is nobody's."""
        return self._taken() - self._of_others

    def grown(self) -> Counts:
        """Return how many pages the pools hold more than they were declared with."""
        return self.held() - self._declared

    def _taken(self) -> Counts:
        taken = np.zeros(MAX_NODES, dtype=np.int64)
        for size in self:
            taken += size.used << size.order
        return taken

    def _of_size(self, size_bytes: int) -> Hstate:
        return self[size_bytes.bit_length() - 1 - self._page_shift]


def are_in_use_on_host(host: Path = HOST) -> bool:
    """Tell whether anybody on the host has huge pages of its pools."""
    for size_bytes in read_huge_page_sizes(host):
        pool = host / HUGE_PAGES / pool_name(size_bytes)
        total, free = (read_optional_number(pool / f"{name}_hugepages") for name in ("nr", "free"))
        if (total or 0) > (free or 0):
            return True
    return False

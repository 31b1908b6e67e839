"""Pools of hugetlb pages, by node and size (mm/hugetlb.c).

A page of a pool that nobody uses is free in the pool, not in the buddy allocator. A page that is
moved takes a free one of the target's pool; where there is none, one is made of ordinary memory,
and the place in the pool moves along: the old page goes back to the buddy allocator.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from movepages.kernel.frames import PageFlag

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from movepages.kernel.frames import Frames

    Heads = NDArray[np.int64]


@dataclass(slots=True)
class Pool:
    """The hugetlb pages of one size on one node: all that belong to it, and the free ones."""

    total: int = 0
    free: list[int] = field(default_factory=list)


class HugePools:
    """The pools of a machine, by (node, order)."""

    def __init__(self, frames: Frames) -> None:
        """Begin with empty pools."""
        self._frames = frames
        self._pools: dict[tuple[int, int], Pool] = {}
        self._temporary: set[int] = set()
        frames.free_hugetlb = self.give_back

    def pool(self, node: int, order: int) -> Pool:
        """Return the pool of a node and size."""
        return self._pools.setdefault((node, order), Pool())

    def resize(self, node: int, order: int, total: int) -> int:
        """Grow or shrink a pool (nr_hugepages); return the size that could be reached."""
        pool = self.pool(node, order)
        if total > pool.total:
            heads = self._make(node, total - pool.total, order)
            pool.free.extend(heads.tolist())
            pool.total += len(heads)
        while pool.total > total and pool.free:
            self._frames.release(np.array([pool.free.pop()]))
            pool.total -= 1
        return pool.total

    def dissolve_free(self, node: int) -> None:
        """Give the free pages of a node's pools to ordinary memory (dissolve_free_huge_pages)."""
        for (of_node, order), pool in self._pools.items():
            if of_node == node:
                self.resize(node, order, pool.total - len(pool.free))

    def pools(self) -> dict[tuple[int, int], Pool]:
        """Return all pools, by node and order."""
        return dict(self._pools)

    def temporary(self) -> frozenset[int]:
        """Return the pages that belong to no pool: made for a move, or moved out of one."""
        return frozenset(self._temporary)

    def take(self, node: int, count: int, order: int) -> Heads:
        """Take up to `count` free pages of a pool, for a fault; a reference each."""
        free = self.pool(node, order).free
        heads = np.array([free.pop() for _ in range(min(count, len(free)))], dtype=np.int64)
        self._frames.references[heads] = 1
        return heads

    def take_for_migration(self, node: int, count: int, order: int) -> Heads:
        """Take pages to move into: of the pool, then temporary ones of ordinary memory."""
        pooled = self.take(node, count, order)
        made = self._make(node, count - len(pooled), order)
        self._temporary.update(made.tolist())
        self._frames.references[made] = 1
        return np.concatenate([pooled, made])

    def moved(self, old: Heads, new: Heads) -> None:
        """Take note that pages moved (move_hugetlb_state): a temporary page becomes the pool's."""
        for before, after in zip(old.tolist(), new.tolist(), strict=True):
            if after not in self._temporary:
                continue
            self._temporary.discard(after)
            self._temporary.add(before)
            order = int(self._frames.order[before])
            self.pool(int(self._frames.node[before]), order).total -= 1
            self.pool(int(self._frames.node[after]), order).total += 1

    def give_back(self, heads: Heads) -> None:
        """Put pages that nobody uses into their pools, temporary ones to ordinary memory."""
        for head in heads.tolist():
            if head in self._temporary:
                self._temporary.discard(head)
                self._frames.release(np.array([head]))
                continue
            order = int(self._frames.order[head])
            self._frames.reset(self._frames.members(np.array([head]), order))
            self._frames.set(np.array([head]), PageFlag.HUGETLB)
            self.pool(int(self._frames.node[head]), order).free.append(head)

    def _make(self, node: int, count: int, order: int) -> Heads:
        heads = self._frames.allocate(node, max(0, count), order)
        self._frames.set(heads, PageFlag.HUGETLB)
        self._frames.references[heads] = 0
        return heads

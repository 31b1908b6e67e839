"""Allocation along lists of nodes: what a memory policy asks of the page allocator.

Each page has a list of nodes, and takes memory from the first that has some. The kernel decides
page by page; here all pages take from the node that is theirs, until a node runs out: what comes
before that page stands, and those that wanted the full node go on to the next of their list.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from movepages.kernel.ports import LATER, NONE

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Indices = NDArray[np.int64]
    Take = Callable[[int, int], Indices]
    """Take up to so many folios from a node."""
    Reclaim = Callable[[int, int], int]
    """Make room for so many pages on a node; return how many were freed."""

NO_NODE = -1


@dataclass(frozen=True, slots=True, eq=False)
class Preference:
    """Lists of nodes, the best first, and for each page which of them is its own: int64[n]."""

    lists: tuple[tuple[int, ...], ...]
    which: Indices

    @classmethod
    def same(cls, nodes: tuple[int, ...], count: int) -> Preference:
        """Return the preference of pages that have one list in common."""
        return cls((nodes,), np.zeros(count, dtype=np.int64))

    def table(self) -> Indices:
        """Return the lists as rows, each ended by NO_NODE."""
        width = max(map(len, self.lists)) + 1
        rows = [[*nodes, *[NO_NODE] * (width - len(nodes))] for nodes in self.lists]
        return np.array(rows, dtype=np.int64)


def allocate_by(
    preference: Preference,
    take: Take,
    give_back: Callable[[Indices], None],
    reclaim: Reclaim,
    sources: Indices | None = None,
) -> Indices:
    """Allocate a folio for each page by its list, in the order of the pages: int64[n].

    NONE for a page without memory, and LATER for all after it. `sources` are the nodes that pages
    will leave by moving into what is allocated: LATER, too, from where that could make a difference
    on.
    """
    table, which = preference.table(), preference.which
    heads = np.full(len(which), LATER, dtype=np.int64)
    choice = np.zeros(len(which), dtype=np.int64)
    done, end = 0, len(which)
    while done < end:
        wanted = table[which[done:end], choice[done:end]]
        short = done + _take_all(heads[done:end], wanted, take)
        if short == end:
            break
        rest = heads[short:end]
        give_back(rest[rest >= 0])
        rest[:] = LATER
        full = int(wanted[short - done])
        if full == NO_NODE:
            choice[short:end] = 0  # all over again, if there is any room now
            if not _make_room(preference.lists[int(which[short])], end - short, reclaim):
                heads[short] = NONE
                break
        else:
            leaving = np.flatnonzero(sources == full) if sources is not None else which[:0]
            if len(leaving) and leaving[0] < short:
                break
            if len(leaving):
                end = min(end, int(leaving[0]) + 1)
            choice[short:end][wanted[short - done : end - done] == full] += 1
        done = short
    return heads


def _take_all(heads: Indices, wanted: Indices, take: Take) -> int:
    """Take each page's folio from the node it wants; return the first page that got none."""
    short = len(wanted)
    for node in (np.flatnonzero(np.bincount(wanted - NO_NODE)) + NO_NODE).tolist():
        pages = np.flatnonzero(wanted == node)
        found = take(node, len(pages)) if node != NO_NODE else pages[:0]
        heads[pages[: len(found)]] = found
        if len(found) < len(pages):
            short = min(short, int(pages[len(found)]))
    return short


def _make_room(nodes: tuple[int, ...], pages: int, reclaim: Reclaim) -> bool:
    """Reclaim on the first node of a list that gives something (direct reclaim)."""
    return any(reclaim(node, pages) for node in nodes)

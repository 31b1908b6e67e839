"""Disjoint, rising address intervals as pairs of uint64 arrays: cut them, find points in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Addresses = NDArray[np.uint64]
    Indices = NDArray[np.intp]


def cut(
    starts: Addresses, ends: Addresses, borders: Addresses
) -> tuple[Addresses, Addresses, Indices]:
    """Cut intervals at borders inside them; return the pieces, and of which interval each is."""
    owner = find(starts, ends, borders)
    borders, owner = borders[owner >= 0], owner[owner >= 0]
    inner = np.unique(borders[starts[owner] < borders])
    if not len(inner):
        return starts, ends, np.arange(len(starts))
    piece_starts = np.sort(np.concatenate([starts, inner]))
    piece_ends = np.sort(np.concatenate([ends, inner]))
    return piece_starts, piece_ends, find(starts, ends, piece_starts)


def find(starts: Addresses, ends: Addresses, points: Addresses) -> Indices:
    """Return the index of the interval that holds each point, or -1."""
    if not len(starts):
        return np.full(len(points), -1)
    index = np.searchsorted(starts, points, side="right") - 1
    index[points >= ends[index]] = -1  # for index -1 this looks at the last one; set again below
    index[points < starts[0]] = -1
    return index


def subtract(
    starts: Addresses, ends: Addresses, holes: tuple[Addresses, Addresses]
) -> tuple[Addresses, Addresses]:
    """Return what is left of intervals without the holes."""
    pieces, piece_ends, _ = cut(starts, ends, np.concatenate(holes))
    kept = find(*holes, pieces) < 0
    return pieces[kept], piece_ends[kept]


def join(starts: Addresses, ends: Addresses, gap_bytes: int) -> tuple[Addresses, Addresses]:
    """Join intervals that are at most `gap_bytes` apart."""
    if not len(starts):
        return starts, ends
    apart = starts[1:] > ends[:-1] + np.uint64(gap_bytes)
    return starts[np.append(True, apart)], ends[np.append(apart, True)]

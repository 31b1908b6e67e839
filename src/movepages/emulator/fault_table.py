"""The last fault of each page of one address space: sparse arrays over the page numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from movepages.emulator.overlay import distinct

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Pages = NDArray[np.uint64]
    Numbers = NDArray[np.int32]

CHUNK_SHIFT = 11
CHUNK_PAGES = 1 << CHUNK_SHIFT
"""Pages in a chunk, which takes 16 KiB once a page of it was faulted."""

_NO_CHUNK = (1 << 64) - 1  # above the chunk of any page: it ends the sorted list
_NO_ROW = 0  # the row of all chunks that are not there; it stays empty


class FaultTable:
    """Which thread faulted each page last, and on which CPU. Page numbers are uint64[n]."""

    def __init__(self) -> None:
        """Begin with no fault."""
        self._chunks = np.array([_NO_CHUNK], dtype=np.uint64)  # rising
        self._rows = np.array([_NO_ROW], dtype=np.intp)
        self._tid = np.zeros((1, CHUNK_PAGES), dtype=np.int32)
        self._cpu = np.zeros((1, CHUNK_PAGES), dtype=np.int32)
        self._free: list[int] = []

    def __len__(self) -> int:
        """Count the pages that have a fault."""
        return int(np.count_nonzero(self._tid))

    def note(self, pages: Pages, tids: Numbers, cpus: Numbers) -> None:
        """Note faults in the order of time: of several of one page the last one counts."""
        rows, places = self._find(pages)
        missing = rows == _NO_ROW
        if missing.any():
            self._add(distinct(pages[missing] >> np.uint64(CHUNK_SHIFT)))
            rows, places = self._find(pages)
        self._tid[rows, places] = tids
        self._cpu[rows, places] = cpus

    def last(self, pages: Pages) -> tuple[Numbers, Numbers, NDArray[np.bool_]]:
        """Return thread, CPU and whether there was a fault at all, for each page."""
        where = self._find(pages)
        tids = self._tid[where]
        return tids, self._cpu[where], tids != 0

    def take(self, pages: Pages) -> tuple[Numbers, Numbers, NDArray[np.bool_]]:
        """Return what `last` does, and forget these faults."""
        where = self._find(pages)
        tids = self._tid[where]
        self._tid[where] = 0
        return tids, self._cpu[where], tids != 0

    def forget(self, first_page: int, end_page: int) -> None:
        """Forget the faults of pages from the first one on, without the end."""
        if first_page >= end_page:
            return
        low, high = first_page >> CHUNK_SHIFT, (end_page - 1) >> CHUNK_SHIFT
        borders = np.array([low, min(high + 1, _NO_CHUNK)], dtype=np.uint64)
        first, last = np.searchsorted(self._chunks, borders).tolist()
        kept = np.ones(len(self._chunks), dtype=np.bool_)
        for index in range(first, last):
            begin = int(self._chunks[index]) << CHUNK_SHIFT
            row = int(self._rows[index])
            self._tid[row, max(0, first_page - begin) : end_page - begin] = 0
            if not self._tid[row].any():
                kept[index] = False
                self._free.append(row)
        self._chunks, self._rows = self._chunks[kept], self._rows[kept]

    def _find(self, pages: Pages) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return the row of each page and its place there."""
        chunks = pages >> np.uint64(CHUNK_SHIFT)
        index = np.searchsorted(self._chunks, chunks)
        rows = np.where(self._chunks[index] == chunks, self._rows[index], _NO_ROW)
        return rows, (pages & np.uint64(CHUNK_PAGES - 1)).view(np.int64)

    def _add(self, chunks: Pages) -> None:
        """Add chunks that are not there, rising."""
        short = len(chunks) - len(self._free)
        if short > 0:
            old = len(self._tid)
            grown = old + max(short, old)  # twice as many at least: growing copies all there is
            self._tid, self._cpu = _longer(self._tid, grown), _longer(self._cpu, grown)
            self._free.extend(range(old, grown))
        rows = [self._free.pop() for _ in range(len(chunks))]
        at = np.searchsorted(self._chunks, chunks)
        self._chunks = np.insert(self._chunks, at, chunks)
        self._rows = np.insert(self._rows, at, rows)


def _longer(rows: Numbers, count: int) -> Numbers:
    longer = np.zeros((count, rows.shape[1]), dtype=rows.dtype)
    longer[: len(rows)] = rows
    return longer

"""Memory nodes as the page allocator sees them (mmzone, mm/page_alloc.c).

A node owns one contiguous range of page frames. Its free frames are a part of one array of bytes
over the machine; allocation takes the lowest free ones, huge blocks the highest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SEARCH_FRAMES = 1 << 14


@dataclass(slots=True, eq=False)
class NodeMemory:
    """The frames of one node: pfn from `first` up to `end`, and how many of them are free.

    `watermark_pages` frames are kept back: an allocation that would go below it fails.
    """

    id: int
    first: int
    end: int
    free_pages: int
    watermark_pages: int = 0
    online: bool = True
    has_memory: bool = True
    lowest_free: int = 0
    """No frame below this one is free: where a search begins."""

    @property
    def pages(self) -> int:
        """Frames of the node, free or not."""
        return self.end - self.first

    @property
    def available_pages(self) -> int:
        """Frames that may still be allocated."""
        if not self.has_memory:
            return 0
        return max(0, self.free_pages - self.watermark_pages)

    def take(self, free: NDArray[np.bool_], count: int) -> NDArray[np.int64]:
        """Take up to `count` free frames, the lowest first; int64[taken]."""
        count = min(count, self.available_pages)
        found: list[NDArray[np.int64]] = []
        missing, at = count, max(self.first, self.lowest_free)
        while missing:
            end = min(self.end, at + max(_SEARCH_FRAMES, missing))
            frames = at + np.flatnonzero(free[at:end])[:missing]
            found.append(frames)
            missing -= len(frames)
            at = end
        taken = np.concatenate(found) if found else np.empty(0, dtype=np.int64)
        if count:
            self.lowest_free = int(taken[-1]) + 1
        free[taken] = False
        self.free_pages -= count
        return taken

    def take_blocks(
        self, free: NDArray[np.bool_], count: int, block_pages: int
    ) -> NDArray[np.int64]:
        """Take up to `count` free, aligned blocks of frames, the highest first; their heads."""
        count = min(count, self.available_pages // block_pages)
        low = -(-self.first // block_pages)
        high = self.end // block_pages
        if count <= 0 or high <= low:
            return np.empty(0, dtype=np.int64)
        whole = free[low * block_pages : high * block_pages].reshape(-1, block_pages).all(axis=1)
        heads = (low + np.flatnonzero(whole)[::-1][:count]) * block_pages
        free[(heads[:, None] + np.arange(block_pages)).ravel()] = False
        self.free_pages -= len(heads) * block_pages
        return heads

    def give_back(self, free: NDArray[np.bool_], frames: NDArray[np.int64]) -> None:
        """Put frames of this node back."""
        if not len(frames):
            return
        free[frames] = True
        self.free_pages += len(frames)
        self.lowest_free = min(self.lowest_free, int(frames.min()))

"""Huge pages that migration splits on its way (`split_folios` of migrate_pages_batch).

A THP is split where there is no memory for it, and where it is mapped in part. Its pages are tried
once, when all else has been.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from movepages.kernel.ports import Frames

    Handles = NDArray[np.int64]


class SplitFolios:
    """The pages of the THPs that were split during one migration."""

    def __init__(self, frames: Frames) -> None:
        """Begin with none."""
        self._frames = frames
        self._parts = [np.empty(0, dtype=np.int64)]

    @property
    def pages(self) -> Handles:
        """All pages of split THPs that are still in use, isolated."""
        return np.concatenate(self._parts)

    @property
    def count(self) -> int:
        """How many THPs were split."""
        return len(self._parts) - 1

    def split(self, page: int, *, force: bool) -> bool:
        """Split an isolated THP (try_to_split_folio); False if that cannot be."""
        parts = self._frames.split_isolated(page, force=force)
        if parts is None:
            return False
        self._parts.append(parts)
        return True

    def split_partially_mapped(self, pagelist: Handles, *, force: bool) -> Handles:
        """Split the THPs of a list that are mapped in part; return the rest of the list."""
        partly = np.flatnonzero(self._frames.partially_mapped(pagelist))
        if not len(partly):
            return pagelist
        gone = [at for at in partly.tolist() if self.split(int(pagelist[at]), force=force)]
        return np.delete(pagelist, gone)

"""Pages that KSM has merged: one for a page frame, wherever it is mapped (Documentation/mm/ksm)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from movepages.abi.pagemap import PageFlag
from movepages.emulator.overlay import NOT_PLACED, Overlay
from movepages.linux.kpageflags import has, read_flags
from movepages.linux.reading import read_optional

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from movepages.emulator.objects import PageObject
    from movepages.emulator.seen import Seen

    Handles = NDArray[np.int64]

_PAGES_SHARED = "sys/kernel/mm/ksm/pages_shared"


@dataclass(frozen=True, slots=True, eq=False)
class MergedPages:
    """The merged pages of a machine, by page frame; counted are those that they were made of."""

    thing: PageObject
    root: Path

    def has_any(self) -> bool:
        """Tell whether KSM has merged any page here: that is rare, and they are dear to find."""
        return int(read_optional(self.root / _PAGES_SHARED) or 0) > 0

    def among(self, seen: Seen) -> Handles:
        """Return which pages are merged, as indices; none where frames may not be seen."""
        shared = np.flatnonzero(~seen.exclusive & (seen.frames != 0))
        return shared[self._are_merged(seen.frames[shared])]

    def handles(self, frames: Handles, nodes: NDArray[np.int8]) -> Handles:
        """Return the handles of merged pages, that are on these nodes if they are new here."""
        pages = self.thing.pages
        new = pages.nodes(frames) == NOT_PLACED
        pages.set_nodes(frames[new], nodes[new])
        none = np.zeros(len(frames), dtype=np.int64)
        pages.observe(frames, frames, none, none != 0)
        return self.thing.handles(frames)

    def drop_gone(self) -> None:
        """Forget the page frames that are no merged pages any more."""
        frames = self.thing.pages.placed()
        merged = self._are_merged(frames)
        if not merged.all():
            kept = Overlay()
            kept.adopt(self.thing.pages, frames[merged])
            self.thing.pages = kept

    def _are_merged(self, frames: Handles) -> NDArray[np.bool_]:
        if len(frames):
            try:
                return has(read_flags(frames.view(np.uint64), self.root), PageFlag.KSM)
            except PermissionError:  # frames may be seen, and not what they are
                pass
        return np.zeros(len(frames), dtype=np.bool_)

"""Pages that processes share since a fork: what moves for one of them moves for all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from movepages.emulator.overlay import EXCLUSIVE, GROUPED

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from movepages.emulator.large_folios import LargeFolios
    from movepages.emulator.mm import Mm
    from movepages.emulator.objects import PageObject
    from movepages.emulator.processes import Processes

    Handles = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Relatives:
    """Address spaces that came of one another by fork."""

    processes: Processes
    large_folios: LargeFolios

    def of(self, thing: PageObject) -> list[Mm]:
        """Return the other address spaces that may share pages of one's own."""
        for mm in self.processes.mms():
            if mm.own.get(thing.pool_order) is thing:
                return [other for other in mm.relatives if other is not mm]
        return []

    def are_huge(self, thing: PageObject, numbers: Handles) -> NDArray[np.bool_]:
        """Tell which folios others may share in part: transparent huge ones."""
        huge: NDArray[np.bool_] = thing.pages.has(numbers, GROUPED)
        if not thing.pool_order and self.of(thing):
            huge |= thing.pages.orders(numbers) == self.large_folios.order
        return huge

    def tell(self, thing: PageObject, numbers: Handles, nodes: Handles) -> None:
        """Say of the pages of others that have the same frames that they go to these nodes too."""
        relatives = self.of(thing)
        if not relatives:
            return
        huge = self.are_huge(thing, numbers)
        alone = ~huge & ~thing.pages.has(numbers, EXCLUSIVE)
        before = thing.pages.nodes(numbers)
        frames = thing.pages.frames(numbers)
        for mm in relatives:
            _move(mm, thing, numbers[alone], frames[alone], before[alone], nodes[alone])
        inside = np.arange(self.large_folios.pages)
        for at in np.flatnonzero(huge).tolist():
            block = (int(numbers[at]) & -len(inside)) + inside
            first = int(frames[at]) - (int(numbers[at]) - int(block[0])) if frames[at] else 0
            same = first + inside if first else np.zeros_like(inside)
            was, now = before[at].repeat(len(inside)), nodes[at].repeat(len(inside))
            for mm in relatives:
                _move(mm, thing, block, same, was, now)


def _move(
    mm: Mm,
    thing: PageObject,
    numbers: Handles,
    frames: Handles,
    before: NDArray[np.int8],
    nodes: Handles,
) -> None:
    """Move those of some pages that have these frames, and were on these nodes before."""
    if thing.pool_order not in mm.own:
        return
    pages = mm.own[thing.pool_order].pages
    same = (pages.frames(numbers) == frames) & (pages.nodes(numbers) == before)
    pages.set_nodes(numbers[same], nodes[same])

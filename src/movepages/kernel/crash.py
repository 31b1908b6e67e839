"""What crashed or leaked in the kernels of 2006, as errors with names.

The patch and Linux 2.6.18 could be brought down, or made to show what lay in kernel memory. A model
that went on as if nothing had happened would hide that; one that crashed would be of no use. So the
call raises. Today's kernel, and the text of 2006 where it promises nothing of the kind, never does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from movepages.errors import MovePagesError
from movepages.kernel.frames import PageFlag
from movepages.kernel.ports import NONE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from movepages.kernel.frames import Frames
    from movepages.kernel.ports import AddressSpace

    Addresses = NDArray[np.uint64]


class KernelBugError(MovePagesError):
    """The kernel of 2006 would have crashed here: BUG_ON."""


class StaleMemoryError(MovePagesError):
    """The kernel of 2006 would have copied uninitialised memory of its own to the caller."""


class Crashes(Protocol):
    """Asked where a kernel of 2006 may come to grief."""

    def on_move(self, space: AddressSpace, addresses: Addresses) -> None:
        """Before pages are looked up to be moved."""
        ...

    def on_query(self, nr_pages: int) -> None:
        """Before pages are looked up for their nodes, in a control array nobody initialised."""
        ...


class Crashes2006:
    """The two ways that are known, of a machine."""

    def __init__(self, frames: Frames) -> None:
        """Begin with a control array of which no entry looks like the end marker."""
        self._frames = frames
        self.stale_marker: int | None = None
        """The entry whose uninitialised node is MAX_NUMNODES: set by faults made on purpose."""

    def on_move(self, space: AddressSpace, addresses: Addresses) -> None:
        """Raise KernelBugError for a hugetlb page: follow_page() with FOLL_GET is a BUG_ON (D15).

        [2618 mm/memory.c]
        """
        areas = space.find_vma(addresses)
        inside = space.contains(areas, addresses)
        pages = space.follow_page(areas[inside], addresses[inside])
        there = pages != NONE
        huge = np.zeros(len(pages), dtype=np.bool_)
        huge[there] = self._frames.has(pages[there], PageFlag.HUGETLB)
        if huge.any():
            address = int(addresses[inside][huge][0])
            raise KernelBugError(
                f"kernel BUG: move_pages follows the hugetlb page at {address:#x} with FOLL_GET; "
                "this kernel can only be asked for its node"
            )

    def on_query(self, nr_pages: int) -> None:
        """Raise StaleMemoryError if an entry looks like the end marker (D13)."""
        if self.stale_marker is not None and self.stale_marker < nr_pages:
            raise StaleMemoryError(
                f"the query ends at entry {self.stale_marker}, whose node was never initialised, "
                "and would return kernel memory as the statuses from there on"
            )

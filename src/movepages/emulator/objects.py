"""What pages belong to, and how a page is named: a handle is an object's number and a page of it.

Anonymous memory is an object of its address space, by virtual page number; a file or shared memory
is one by page of the file, whoever maps it. No handle names a page frame: frames change under a
program (compaction, swap) and are used anew.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from movepages.emulator.overlay import Overlay
from movepages.emulator.ranges import Ranges

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from movepages.kernel.mempolicy import MemPolicy

    Pages = NDArray[np.int64]

PAGE_BITS = 40
_PAGE_MASK = (1 << PAGE_BITS) - 1
ZERO_PAGE = 0
"""The handle of the zero page: page 0 of object 0, which nothing else has."""
NEW_PAGES = 1
"""The object of pages that are allocated and not mapped yet."""
_FIRST_OBJECT = 2


@dataclass(slots=True, eq=False)
class PageObject:
    """Pages with nodes and, by range, with policies."""

    id: int
    pages: Overlay = field(default_factory=Overlay)
    policies: Ranges[MemPolicy] = field(default_factory=Ranges)
    movable: bool = True
    """False for memory that refuses to move (secretmem)."""
    pool_order: int = 0
    """Of its pages, if they are of the pools of huge pages; 0 for all other memory."""

    def handles(self, pages: Pages) -> Pages:
        """Return the handles of pages of this object."""
        return pages + (self.id << PAGE_BITS)


class Objects:
    """All objects by number."""

    def __init__(self) -> None:
        """Begin with none."""
        self._objects: dict[int, PageObject] = {}
        self._last = _FIRST_OBJECT - 1

    def __getitem__(self, number: int) -> PageObject:
        """Return an object by number."""
        return self._objects[number]

    def anonymous(self, pool_order: int = 0) -> PageObject:
        """Make an object for the anonymous memory of an address space, or its huge pages."""
        thing = self._keep(movable=True)
        thing.pool_order = pool_order
        return thing

    def file(self, *, movable: bool) -> PageObject:
        """Make an object for the pages of a file."""
        return self._keep(movable=movable)

    def drop(self, thing: PageObject) -> None:
        """Forget an object."""
        del self._objects[thing.id]

    def _keep(self, *, movable: bool) -> PageObject:
        self._last += 1
        thing = PageObject(self._last, movable=movable)
        self._objects[thing.id] = thing
        return thing


def object_numbers(handles: Pages) -> Pages:
    """Return the number of the object of each handle."""
    return handles >> PAGE_BITS


def page_numbers(handles: Pages) -> Pages:
    """Return the page of its object of each handle."""
    return handles & _PAGE_MASK

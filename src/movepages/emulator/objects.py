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
    from collections.abc import Collection

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

FileKey = tuple[int, int, int]
"""Device, inode, and what tells two files with one inode number apart."""


@dataclass(slots=True, eq=False)
class PageObject:
    """Pages with nodes and, by range, with policies."""

    id: int
    pages: Overlay = field(default_factory=Overlay)
    policies: Ranges[MemPolicy] = field(default_factory=Ranges)
    movable: bool = True
    """False for memory that refuses to move (secretmem)."""
    vanishes: bool = False
    """Nobody can find it by a name: it goes with its last mapping."""

    def handles(self, pages: Pages) -> Pages:
        """Return the handles of pages of this object."""
        return pages + (self.id << PAGE_BITS)


class Objects:
    """All objects by number, and the files among them by key."""

    def __init__(self) -> None:
        """Begin with none."""
        self._objects: dict[int, PageObject] = {}
        self._files: dict[FileKey, PageObject] = {}
        self._last = _FIRST_OBJECT - 1

    def __getitem__(self, number: int) -> PageObject:
        """Return an object by number."""
        return self._objects[number]

    def anonymous(self) -> PageObject:
        """Make an object for the anonymous memory of an address space."""
        return self._keep()

    def file(self, key: FileKey, *, movable: bool, vanishes: bool) -> PageObject:
        """Return the object of a file, made when it is first asked for."""
        found = self._files.get(key)
        if found is None:
            found = self._files[key] = self._keep()
        found.movable, found.vanishes = movable, vanishes
        return found

    def drop(self, thing: PageObject) -> None:
        """Forget an object."""
        del self._objects[thing.id]

    def drop_vanished(self, mapped: Collection[FileKey]) -> list[PageObject]:
        """Forget the files without a name that nobody maps; return them."""
        gone = [key for key, file in self._files.items() if file.vanishes and key not in mapped]
        return [self._forget_file(key) for key in gone]

    def _forget_file(self, key: FileKey) -> PageObject:
        file = self._files.pop(key)
        self.drop(file)
        return file

    def _keep(self) -> PageObject:
        self._last += 1
        thing = PageObject(self._last)
        self._objects[thing.id] = thing
        return thing


def object_numbers(handles: Pages) -> Pages:
    """Return the number of the object of each handle."""
    return handles >> PAGE_BITS


def page_numbers(handles: Pages) -> Pages:
    """Return the page of its object of each handle."""
    return handles & _PAGE_MASK

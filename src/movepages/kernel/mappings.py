"""What backs a page: its `mapping` (struct address_space, anon_vma), and how that migrates.

A mapping knows the areas (VMAs) that may map its pages: that is the reverse mapping. A file also
has the page cache: which frame holds which page of it.

How a page moves depends on the backing, by its `migratepage` method in 2006 and `migrate_folio`
today. Anonymous and shared memory just move; so do files whose method knows about buffers. A file
without a method is written back first, and then moves clean; if it cannot be, the page stays.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from movepages.kernel.address_space import Mm, Vma

    Indices = NDArray[np.int64]

NOT_CACHED = -1


class Backing(Enum):
    """What kind of mapping it is, by its migrate method."""

    ANON = "anonymous memory: migrate_page"
    SHMEM = "shared memory, tmpfs: migrate_page"
    BUFFERS = "a file whose method moves its buffers: buffer_migrate_page"
    NO_METHOD = "a file without a method, clean or written back: fallback_migrate_page"
    WRITE_FAILS = "the same, but writing back fails: -EIO"
    NO_WRITEPAGE = "the same, but nothing can write it back: -EINVAL"
    REFUSES = "a method that always fails: fail_migrate_page, -EIO"
    HUGETLB = "hugetlb pages: moved whole, with their place in the pool"
    DEVICE = "memory of a device, with no page behind it"
    KSM = "pages merged from several address spaces"


@dataclass(slots=True, eq=False)
class AddressSpaceMapping:
    """A mapping: its id stands in `Frames.mapping`, its areas are the reverse mapping."""

    id: int
    backing: Backing
    base: int = 0
    """The page of the mapping that has index 0: for anonymous memory where it first was."""
    areas: list[Vma] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class File(AddressSpaceMapping):
    """A file or shared memory object: `cache` has the frame of each of its pages, or NOT_CACHED."""

    name: str = ""
    pages: int = 0
    vanishes: bool = False
    """Nobody can find it by a name: it goes with its last mapping."""
    cache: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, dtype=np.int32))

    def __post_init__(self) -> None:
        """Begin with nothing in the page cache."""
        self.cache = np.full(self.pages, NOT_CACHED, dtype=np.int32)


@dataclass(slots=True, eq=False)
class KsmNode(AddressSpaceMapping):
    """The mapping of merged pages: who maps each stands in a list, for they are at no one place."""

    mappers: dict[int, list[tuple[Mm, int]]] = field(default_factory=dict)
    """Frame to the address space and slot of each of its mappings (rmap items)."""

    def items_of(self, pfns: Indices, owner: Indices) -> Iterator[tuple[Mm, Indices, Indices]]:
        """Go through the mappings of some frames: address space, slot, position in the batch."""
        for pfn, position in zip(pfns.tolist(), owner.tolist(), strict=True):
            for mm, slot in self.mappers.get(pfn, ()):
                yield mm, np.array([slot]), np.array([position])


class Mappings:
    """All mappings of a machine, by id. Id 0 is none."""

    def __init__(self) -> None:
        """Start with none."""
        self._by_id: dict[int, AddressSpaceMapping] = {}
        self._last = 0
        self._ksm: KsmNode | None = None

    def __getitem__(self, mapping_id: int) -> AddressSpaceMapping:
        """Return the mapping of an id."""
        return self._by_id[mapping_id]

    def __iter__(self) -> Iterator[AddressSpaceMapping]:
        """Go through all mappings."""
        return iter(self._by_id.values())

    def new_anon(self, base: int) -> AddressSpaceMapping:
        """Make an anon_vma for an area whose offset is `base`."""
        return self._keep(AddressSpaceMapping(self._next(), Backing.ANON, base))

    def new_file(self, name: str, pages: int, backing: Backing, *, vanishes: bool = False) -> File:
        """Make a file, or a shared memory object, of that many pages."""
        file = File(self._next(), backing, name=name, pages=pages, vanishes=vanishes)
        self._by_id[file.id] = file
        return file

    def ksm_node(self) -> KsmNode:
        """Return the mapping of all merged pages."""
        if self._ksm is None:
            self._ksm = KsmNode(self._next(), Backing.KSM)
            self._by_id[self._ksm.id] = self._ksm
        return self._ksm

    def files(self) -> list[File]:
        """Return all files."""
        return [mapping for mapping in self._by_id.values() if isinstance(mapping, File)]

    def _next(self) -> int:
        self._last += 1
        return self._last

    def _keep(self, mapping: AddressSpaceMapping) -> AddressSpaceMapping:
        self._by_id[mapping.id] = mapping
        return mapping

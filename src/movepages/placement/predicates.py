"""The words of a selection: what each says of mappings and pages. Use `select`'s names."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import numpy as np

from movepages.errors import ArgumentError
from movepages.placement.selection import EITHER, Selection, Truth
from movepages.units import format_size

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from movepages.nodeset import NodeSet
    from movepages.placement.selection import Runs, Spans
    from movepages.values import Mapping

_ANON = frozenset({"heap", "stack", "anon"})
_DELETED = " (deleted)"
_TOP = 1 << 64
POLICIES = {
    "default": "default",
    "prefer": "prefer",
    "preferred": "prefer",
    "bind": "bind",
    "membind": "bind",
    "interleave": "interleave",
    "local": "local",
    "prefer-many": "prefer (many)",
    "preferred-many": "prefer (many)",
    "weighted-interleave": "weighted interleave",
}
"""Words for a memory policy, numactl's among them, and how numa_maps begins it."""


class _OfMapping(Selection):
    """Says something of a whole mapping."""

    __slots__ = ()

    def holds(self, mapping: Mapping) -> bool:
        raise NotImplementedError

    def truth(self, mapping: Mapping) -> Truth:
        """Tell what it says of a mapping: it is certain."""
        holds = self.holds(mapping)
        return Truth(holds, not holds)

    def chosen(self, runs: Runs) -> NDArray[np.bool_]:
        """Tell which runs are selected: those of its mappings."""
        return runs.by_mapping(self.holds)


class _OfPages(Selection):
    """Says something of single pages."""

    __slots__ = ()

    def truth(self, mapping: Mapping) -> Truth:  # noqa: ARG002 - whatever mapping it is
        """Tell what it says of a mapping: nothing."""
        return EITHER


@dataclass(frozen=True, slots=True)
class Everything(_OfMapping):
    """All pages."""

    def holds(self, mapping: Mapping) -> bool:  # noqa: ARG002 - whatever mapping it is
        """Every mapping is meant."""
        return True

    def __str__(self) -> str:
        """Write it as a selection is read."""
        return "everything"


@dataclass(frozen=True, slots=True)
class Kind(_OfMapping):
    """Mappings of a kind: heap, stack, anon or shm."""

    name: str

    def holds(self, mapping: Mapping) -> bool:
        """Compare kinds; heap and stack are anonymous memory, too."""
        return mapping.kind == self.name or (self.name == "anon" and mapping.kind in _ANON)

    def __str__(self) -> str:
        """Write it as a selection is read."""
        return self.name


@dataclass(frozen=True, slots=True)
class Huge(_OfMapping):
    """Mappings of hugetlb pages."""

    def holds(self, mapping: Mapping) -> bool:
        """Look at what the kernel says of the mapping."""
        return mapping.hugetlb

    def __str__(self) -> str:
        """Write it as a selection is read."""
        return "hugetlb"


@dataclass(frozen=True, slots=True)
class Writable(_OfMapping):
    """Mappings that may be written to."""

    def holds(self, mapping: Mapping) -> bool:
        """Look at the permissions."""
        return "w" in mapping.permissions

    def __str__(self) -> str:
        """Write it as a selection is read."""
        return "writable"


@dataclass(frozen=True, slots=True)
class File(_OfMapping):
    """Mappings of files whose path, or name where the glob has no slash, matches."""

    glob: str

    def __post_init__(self) -> None:
        """Refuse a glob that matches nothing. Raises ArgumentError."""
        if not self.glob:
            raise ArgumentError("an empty pattern matches no file; give one like '*.so*'")

    def holds(self, mapping: Mapping) -> bool:
        """Match the path, in which `*` stands for slashes, too."""
        if not mapping.path or mapping.path.startswith("["):
            return False
        path = mapping.path.removesuffix(_DELETED)
        name = path if "/" in self.glob else path.rpartition("/")[2]
        return fnmatchcase(name, self.glob)

    def __str__(self) -> str:
        """Write it as a selection is read."""
        return f"file({self.glob!r})"


@dataclass(frozen=True, slots=True)
class PolicyWord(_OfMapping):
    """Mappings under a memory policy of a mode."""

    word: str

    def __post_init__(self) -> None:
        """Refuse what is no policy. Raises ArgumentError."""
        if self.word not in POLICIES:
            raise ArgumentError(
                f"{self.word!r} is not a memory policy; there are {', '.join(POLICIES)}"
            )

    def holds(self, mapping: Mapping) -> bool:
        """Compare with the kernel's wording, such as `bind=static:0-1`."""
        mode = mapping.policy.partition(":")[0].partition("=")[0]
        return mode == POLICIES[self.word]

    def __str__(self) -> str:
        """Write it as a selection is read."""
        return f"policy({self.word!r})"


@dataclass(frozen=True, slots=True)
class LargerThan(_OfMapping):
    """Mappings longer than some bytes."""

    size_bytes: int

    def __post_init__(self) -> None:
        """Refuse a size below 0. Raises ArgumentError."""
        if self.size_bytes < 0:
            raise ArgumentError(f"a size of {self.size_bytes} bytes makes no sense; give 0 or more")

    def holds(self, mapping: Mapping) -> bool:
        """Compare the length of the address range."""
        return mapping.size_bytes > self.size_bytes

    def __str__(self) -> str:
        """Write it as a selection is read."""
        short = format_size(self.size_bytes)
        exact = short[:-1].isdecimal() and self.size_bytes == _binary(short)
        return f"larger_than({short if exact else self.size_bytes})"


@dataclass(frozen=True, slots=True)
class Thp(_OfPages):
    """Transparent huge pages, mapped whole."""

    def truth(self, mapping: Mapping) -> Truth:
        """Tell what it says of a mapping: hugetlb has none."""
        return Truth(true=False, false=True) if mapping.hugetlb else EITHER

    def chosen(self, runs: Runs) -> NDArray[np.bool_]:
        """Tell which runs are of pages larger than the base page, and not of hugetlb."""
        large = runs.placement.page_size_bytes > runs.page_size_bytes
        chosen: NDArray[np.bool_] = large & ~runs.by_mapping(lambda mapping: mapping.hugetlb)
        return chosen

    def __str__(self) -> str:
        """Write it as a selection is read."""
        return "thp"


@dataclass(frozen=True, slots=True)
class OnNode(_OfPages):
    """Pages that are on some nodes."""

    nodes: NodeSet

    def __post_init__(self) -> None:
        """Refuse an empty set. Raises ArgumentError."""
        if not self.nodes:
            raise ArgumentError("no page is on no node; give at least one, like on_node(0)")

    def chosen(self, runs: Runs) -> NDArray[np.bool_]:
        """Tell which runs are on one of the nodes."""
        return np.isin(runs.placement.node, list(self.nodes))

    def __str__(self) -> str:
        """Write it as a selection is read."""
        text = str(self.nodes)
        return f"on_node({text if len(self.nodes) == 1 else repr(text)})"


@dataclass(frozen=True, slots=True)
class Within(_OfPages):
    """Pages that have a byte in an address range."""

    start: int
    end: int

    def __post_init__(self) -> None:
        """Refuse an empty range. Raises ArgumentError."""
        if not 0 <= self.start < self.end <= _TOP:
            raise ArgumentError(
                f"range {self.start:#x}-{self.end:#x} ends before it starts, is empty, or is not "
                "in a 64-bit address space; give start and end, the end excluded"
            )

    def truth(self, mapping: Mapping) -> Truth:
        """Tell what it says of a mapping: nothing of one that it cuts."""
        return Truth(
            mapping.start < self.end and self.start < mapping.end,
            mapping.start < self.start or self.end < mapping.end,
        )

    def chosen(self, runs: Runs) -> NDArray[np.bool_]:
        """Tell which runs reach into the range; they are cut at the pages that it cuts."""
        begins = runs.placement.start <= np.uint64(self.end - 1)
        chosen: NDArray[np.bool_] = begins & (runs.ends > np.uint64(self.start))
        return chosen

    def bounds(self) -> Spans | None:
        """Return the range."""
        return [(self.start, self.end)]

    def edges(self) -> list[int]:
        """Return both ends."""
        return [self.start, min(self.end, _TOP - 1)]

    def __str__(self) -> str:
        """Write it as a selection is read."""
        return f"within({self.start:#x}, {self.end:#x})"


def _binary(text: str) -> int:
    return int(text[:-1]) << 10 * ("KMGTP".index(text[-1]) + 1)

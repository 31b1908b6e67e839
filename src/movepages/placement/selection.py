"""Selections and how they are combined. Their words are in `predicates`; use `select`'s names.

Each answers twice: whether a mapping may have selected pages at all, and which runs are selected.
Both are asked of the whole expression, so that `~` keeps its meaning: a predicate about pages may
be true and may be false of a mapping's pages.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from movepages.values import Mapping, Placement

    Spans = list[tuple[int, int]]


class Truth(NamedTuple):
    """Whether a selection can be true of a page of a mapping, and whether it can be false."""

    true: bool
    false: bool


EITHER = Truth(true=True, false=True)


@dataclass(frozen=True, slots=True, eq=False)
class Runs:
    """Runs of pages to choose from, each inside one mapping and on one side of every edge."""

    placement: Placement
    mappings: Sequence[Mapping]
    page_size_bytes: int

    def by_mapping(self, test: Callable[[Mapping], bool]) -> NDArray[np.bool_]:
        """Ask each mapping, and answer for its runs; a run in none (it is new) is not selected."""
        answers = np.array([*map(test, self.mappings), False], dtype=np.bool_)
        starts = np.array([mapping.start for mapping in self.mappings], dtype=np.uint64)
        ends = np.array([mapping.end for mapping in self.mappings], dtype=np.uint64)
        owner = np.searchsorted(starts, self.placement.start, side="right") - 1
        owner[owner >= 0] = np.where(
            self.placement.start[owner >= 0] < ends[owner[owner >= 0]], owner[owner >= 0], -1
        )
        return answers[owner]

    @property
    def ends(self) -> NDArray[np.uint64]:
        """The address behind each run, uint64[n]."""
        return self.placement.start + (self.placement.pages * self.placement.page_size_bytes).view(
            np.uint64
        )


@dataclass(frozen=True, slots=True)
class Selection:
    """Which pages are meant. Immutable; `&`, `|` and `~` make new ones, `str` prints it."""

    def __and__(self, other: Selection) -> Selection:
        """Select what both select."""
        return Both(self, other)

    def __or__(self, other: Selection) -> Selection:
        """Select what one of them selects."""
        return Either(self, other)

    def __invert__(self) -> Selection:
        """Select what it does not select."""
        return Negation(self)

    def may_select(self, mapping: Mapping) -> bool:
        """Tell whether pages of a mapping can be selected."""
        return self.truth(mapping).true

    def truth(self, mapping: Mapping) -> Truth:
        """Tell what can be said of the pages of a mapping without looking at them."""
        raise NotImplementedError

    def chosen(self, runs: Runs) -> NDArray[np.bool_]:
        """Tell which runs are selected, bool[n]."""
        raise NotImplementedError

    def bounds(self) -> Spans | None:
        """Return address ranges that hold all that is selected, or None if it may be anywhere."""
        return None

    def edges(self) -> list[int]:
        """Return the addresses where runs have to be cut."""
        return []


@dataclass(frozen=True, slots=True)
class Both(Selection):
    """What two selections select."""

    left: Selection
    right: Selection

    def truth(self, mapping: Mapping) -> Truth:
        """Tell what can be said of a mapping."""
        one, other = self.left.truth(mapping), self.right.truth(mapping)
        return Truth(one.true and other.true, one.false or other.false)

    def chosen(self, runs: Runs) -> NDArray[np.bool_]:
        """Tell which runs are selected."""
        return self.left.chosen(runs) & self.right.chosen(runs)

    def bounds(self) -> Spans | None:
        """Return what the bounds have in common."""
        one, other = self.left.bounds(), self.right.bounds()
        if one is None or other is None:
            return other if one is None else one
        return [
            (max(low, start), min(high, end))
            for low, high in one
            for start, end in other
            if low < end and start < high
        ]

    def edges(self) -> list[int]:
        """Return the edges of both."""
        return self.left.edges() + self.right.edges()

    def __str__(self) -> str:
        """Write it as a selection is read."""
        return f"{_operand(self.left, Either)} & {_operand(self.right, Either, Both)}"


@dataclass(frozen=True, slots=True)
class Either(Selection):
    """What at least one of two selections selects."""

    left: Selection
    right: Selection

    def truth(self, mapping: Mapping) -> Truth:
        """Tell what can be said of a mapping."""
        one, other = self.left.truth(mapping), self.right.truth(mapping)
        return Truth(one.true or other.true, one.false and other.false)

    def chosen(self, runs: Runs) -> NDArray[np.bool_]:
        """Tell which runs are selected."""
        return self.left.chosen(runs) | self.right.chosen(runs)

    def bounds(self) -> Spans | None:
        """Return the bounds of both."""
        one, other = self.left.bounds(), self.right.bounds()
        return None if one is None or other is None else one + other

    def edges(self) -> list[int]:
        """Return the edges of both."""
        return self.left.edges() + self.right.edges()

    def __str__(self) -> str:
        """Write it as a selection is read."""
        return f"{self.left} | {_operand(self.right, Either)}"


@dataclass(frozen=True, slots=True)
class Negation(Selection):
    """What a selection does not select."""

    inner: Selection

    def truth(self, mapping: Mapping) -> Truth:
        """Tell what can be said of a mapping."""
        inner = self.inner.truth(mapping)
        return Truth(inner.false, inner.true)

    def chosen(self, runs: Runs) -> NDArray[np.bool_]:
        """Tell which runs are selected."""
        return ~self.inner.chosen(runs)

    def edges(self) -> list[int]:
        """Return the edges of what is negated."""
        return self.inner.edges()

    def __str__(self) -> str:
        """Write it as a selection is read."""
        return f"~{_operand(self.inner, Either, Both)}"


def _operand(selection: Selection, *looser: type[Selection]) -> str:
    """Write an operand, in parentheses where it binds looser than what it stands in."""
    return f"({selection})" if isinstance(selection, looser) else str(selection)

"""Values of ranges of pages: the policies of an address space, or of shared memory."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

T = TypeVar("T")


class Ranges(Generic[T]):
    """Ranges that do not overlap, each with a value; pages outside of them have none."""

    def __init__(self, pieces: list[tuple[int, int, T]] | None = None) -> None:
        """Begin with some pieces (start, end, value), rising; without any by default."""
        self._pieces = pieces or []

    def __iter__(self) -> Iterator[tuple[int, int, T]]:
        """Go through the pieces (start, end, value) in rising order."""
        return iter(self._pieces)

    def copy(self) -> Ranges[T]:
        """Return another with the same pieces."""
        return Ranges(list(self._pieces))

    def set(self, start: int, end: int, value: T | None) -> None:
        """Give pages `start` to `end` a value, or take theirs away."""
        if start >= end:
            return
        kept: list[tuple[int, int, T]] = []
        for first, last, other in self._pieces:
            if first < min(last, start):
                kept.append((first, min(last, start), other))
            if max(first, end) < last:
                kept.append((max(first, end), last, other))
        if value is not None:
            kept.append((start, end, value))
        self._pieces = sorted(kept, key=lambda piece: piece[0])

    def within(self, start: int, end: int) -> list[tuple[int, int, T]]:
        """Return the pieces of a range of pages, cut at its ends."""
        return [
            (max(first, start), min(last, end), value)
            for first, last, value in self._pieces
            if first < end and last > start
        ]

    def at(self, page: int, end: int) -> tuple[T | None, int]:
        """Return the value of a page, and up to which page, `end` at most, it stays the same."""
        index = bisect_right(self._pieces, page, key=lambda piece: piece[0])
        if index and page < self._pieces[index - 1][1]:
            return self._pieces[index - 1][2], min(end, self._pieces[index - 1][1])
        if index < len(self._pieces):
            end = min(end, self._pieces[index][0])
        return None, end

"""Lay out rows as aligned columns of text, no wider than the screen."""

from __future__ import annotations

from itertools import chain, islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from movepages.report.fields import Field

GAP = "  "
_ROWS_TO_MEASURE = 1000
_LEAST = 7
"""A column that may be cut keeps this many characters, so that it still says something."""


def cells(columns: Sequence[Field], row: Any) -> list[str]:
    """Return what a row shows in each column."""
    return [column.show(getattr(row, column.name)) for column in columns]


def fit(columns: Sequence[Field], rows: list[list[str]], width: int | None) -> list[list[str]]:
    """Shorten cells so that no line is wider than `width` characters (None: any width will do).

    Only columns that can be shortened give way, the widest first.
    """
    widths = _widths(columns, rows)
    if width is None or _line_width(widths) <= width:
        return rows
    limits = _limits(columns, widths, width)
    return [_shortened(columns, row, limits) for row in rows]


def lines(columns: Sequence[Field], rows: list[list[str]]) -> Iterator[str]:
    """Yield the titles and then each row, aligned."""
    widths = _widths(columns, rows)
    yield _aligned(columns, [column.title for column in columns], widths)
    for row in rows:
        yield _aligned(columns, row, widths)


def stream(columns: Sequence[Field], rows: Iterable[list[str]], width: int | None) -> Iterator[str]:
    """Yield the titles and then each row, without waiting for the last row.

    Columns are as wide as the first thousand rows need; a later cell that is wider shifts its line.
    """
    rest = iter(rows)
    first = list(islice(rest, _ROWS_TO_MEASURE))
    widths = [
        max(wanted, column.minimum)
        for wanted, column in zip(_widths(columns, first), columns, strict=True)
    ]
    limits: list[int | None] = [None] * len(columns)
    if width is not None and _line_width(widths) > width:
        limits = _limits(columns, widths, width)
        widths = [
            wanted if limit is None else limit for wanted, limit in zip(widths, limits, strict=True)
        ]
    yield _aligned(columns, [column.title for column in columns], widths)
    for row in chain(first, rest):
        yield _aligned(columns, _shortened(columns, row, limits), widths)


def _widths(columns: Sequence[Field], rows: Sequence[Sequence[str]]) -> list[int]:
    return [
        max(len(column.title), *(len(row[index]) for row in rows), 0)
        for index, column in enumerate(columns)
    ]


def _line_width(widths: Sequence[int]) -> int:
    return sum(widths) + len(GAP) * (len(widths) - 1)


def _limits(columns: Sequence[Field], widths: Sequence[int], width: int) -> list[int | None]:
    """Return how wide each column may be; None where it cannot be shortened."""
    limits: list[int | None] = [
        wanted if column.shorten else None for wanted, column in zip(widths, columns, strict=True)
    ]
    excess = _line_width(widths) - width
    while excess > 0:
        widest = max((limit or 0, index) for index, limit in enumerate(limits))
        if widest[0] <= _LEAST:
            break  # the screen is too narrow for this table: its lines will wrap
        limits[widest[1]] = widest[0] - 1
        excess -= 1
    return limits


def _shortened(
    columns: Sequence[Field], row: Sequence[str], limits: Sequence[int | None]
) -> list[str]:
    return [
        cell if limit is None or column.shorten is None else column.shorten(cell, limit)
        for column, cell, limit in zip(columns, row, limits, strict=True)
    ]


def _aligned(columns: Sequence[Field], row: Sequence[str], widths: Sequence[int]) -> str:
    padded = (
        cell.rjust(width) if column.right else cell.ljust(width)
        for column, cell, width in zip(columns, row, widths, strict=True)
    )
    return GAP.join(padded).rstrip()

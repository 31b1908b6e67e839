"""Shares as bars: how much of the whole is on each node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from movepages.units import format_size

if TYPE_CHECKING:
    from collections.abc import Mapping

    from movepages.report.output import Output

BAR_WIDTH = 30
"""Characters for the whole."""

_COLOURS = ("cyan", "magenta", "yellow", "green", "blue", "red")


def write_bars(output: Output, bytes_by_node: Mapping[int, int]) -> None:
    """Write a line for each node: a bar as long as its share, its size, and its share."""
    whole = sum(bytes_by_node.values())
    digits = max((len(str(node)) for node in bytes_by_node), default=1)
    for node, size_bytes in sorted(bytes_by_node.items()):
        share = size_bytes / whole if whole else 0.0
        output.styled(
            (f"  node {node:>{digits}}  ", ""),
            (_bar(share, "█░" if output.terminal else "#."), _COLOURS[node % len(_COLOURS)]),
            (f"  {format_size(size_bytes):>5}  {percent(share):>4}", ""),
        )


def percent(share: float) -> str:
    """Write a share of 0 to 1 in percent; what is there is never 0%, nor all unless it is."""
    rounded = round(share * 100)
    if rounded == 0 and share > 0:
        return "<1%"
    if rounded == 100 and share < 1:
        return ">99%"
    return f"{rounded}%"


def _bar(share: float, marks: str) -> str:
    filled = round(share * BAR_WIDTH)
    if share > 0:
        filled = max(filled, 1)
    return marks[0] * filled + marks[1] * (BAR_WIDTH - filled)

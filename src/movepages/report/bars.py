"""Shares as bars: how much of the whole is on each node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from movepages.report.fields import node_colour, percent
from movepages.units import format_size

if TYPE_CHECKING:
    from collections.abc import Mapping

    from movepages.report.output import Output

BAR_WIDTH = 30
"""Characters for the whole."""


def write_bars(
    output: Output, bytes_by_node: Mapping[int, int], before: Mapping[int, int] | None = None
) -> None:
    """Write a line for each node: a bar as long as its share, its size, and its share.

    Where it is known what was there before, what came or went is written behind.
    """
    whole = sum(bytes_by_node.values())
    digits = max((len(str(node)) for node in bytes_by_node), default=1)
    for node, size_bytes in sorted(bytes_by_node.items()):
        share = size_bytes / whole if whole else 0.0
        output.styled(
            (f"  node {node:>{digits}}  ", ""),
            (_bar(share, "█░" if output.terminal else "#."), node_colour(node)),
            (f"  {format_size(size_bytes):>5}  {percent(share):>4}", ""),
            (_change(before, node, size_bytes), "bold"),
        )


def _change(before: Mapping[int, int] | None, node: int, size_bytes: int) -> str:
    if before is None or not (change := size_bytes - before.get(node, 0)):
        return ""
    return f"  {'+' if change > 0 else '-'}{format_size(abs(change))}"


def _bar(share: float, marks: str) -> str:
    filled = round(share * BAR_WIDTH)
    if share > 0:
        filled = max(filled, 1)
    return marks[0] * filled + marks[1] * (BAR_WIDTH - filled)

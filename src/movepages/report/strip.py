"""Strips of nodes: a character for each part of a mapping, the node that has most of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

CELLS = 24
"""Characters of a strip."""
_NODES = "0123456789abcdefghijklmnopqrstuvwxyz"


def strip_text(nodes: Iterable[int]) -> str:
    """Write a strip: nodes 0 to 9 as digits, to 35 as letters, `+` beyond, `.` where none is."""
    return "".join(_mark(node) for node in nodes)


def _mark(node: int) -> str:
    if node < 0:
        return "."
    return _NODES[node] if node < len(_NODES) else "+"

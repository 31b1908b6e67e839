"""The machine that a user asks for in words: how many nodes, whose kernel, how precise."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from movepages.kernel.semantics import Semantics

SEMANTICS = {
    "6.12": "LINUX_6_12",
    "2.6.18": "LINUX_2_6_18",
    "patch": "PATCH_2006",
    "2006": "DOCUMENTED_2006",
}
"""What a user calls a kernel, and its name in `kernel.semantics`."""
PRECISIONS = ("lazy", "exact", "faults")
"""The values of `filter.Precision`, known without importing it."""
MOST_NODES = 128
"""As `overlay.MAX_NODES`, known without importing NumPy."""


def equal_nodes(nodes: int) -> str:
    """Declare nodes that have this machine's memory between them, in whole MiB."""
    memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return f"{nodes} x {max(1, memory_bytes // nodes >> 20)}M"


def semantics_named(name: str) -> Semantics:
    """Return whose answers a key of `SEMANTICS` means."""
    from movepages.kernel import semantics

    chosen: Semantics = getattr(semantics, SEMANTICS[name])
    return chosen

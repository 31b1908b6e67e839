"""See where the pages of a process are on a NUMA machine, and move them.

Names are loaded when they are first used, so that importing the package costs almost nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from movepages.api import (
        MOVE,
        MOVE_ALL,
        Process,
        empty,
        interleave,
        locate,
        mempolicy,
        migrate_pages,
        move_pages,
        place,
        query_pages,
        read_topology,
    )

__all__ = [
    "MOVE",
    "MOVE_ALL",
    "Process",
    "__version__",
    "empty",
    "interleave",
    "locate",
    "mempolicy",
    "migrate_pages",
    "move_pages",
    "place",
    "query_pages",
    "read_topology",
]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Load a public name from `movepages.api` when it is first asked for."""
    if name not in __all__:
        raise AttributeError(f"module 'movepages' has no attribute {name!r}")
    from movepages import api

    value = getattr(api, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted(__all__)

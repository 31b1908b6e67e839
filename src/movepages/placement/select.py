"""Which pages of a process are meant."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from movepages.machine import Machine
    from movepages.values import PageRuns


def pages_of(
    machine: Machine, pid: int, ranges: Sequence[tuple[int, int]] | None = None
) -> PageRuns:
    """Return the present pages in some address ranges, or in all mappings; one for each folio."""
    return machine.present(pid, ranges)

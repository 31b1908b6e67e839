"""Move pages of this process by a plan, on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from guestkit.pages import PAGE_BYTES
from movepages.linux.machine import LinuxMachine
from movepages.placement import Options, execute, make_plan
from movepages.values import Placement

if TYPE_CHECKING:
    from guestkit.pages import Pages
    from movepages.values import Ledger

MACHINE = LinuxMachine()


def move(pages: Pages, nodes, **options) -> Ledger:
    """Move pages, each named for itself, to one node, or each to its own."""
    ones = np.ones(len(pages), dtype=np.int64)
    now = MACHINE.query_pages(0, pages.addresses).status
    placement = Placement(pages.addresses, ones, ones * PAGE_BYTES, now)
    return execute(make_plan(MACHINE.task(0).id, placement, nodes), MACHINE, Options(**options))

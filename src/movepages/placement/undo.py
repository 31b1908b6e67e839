"""Put back what a ledger moved."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from movepages.placement.planning import make_plan
from movepages.values import Placement

if TYPE_CHECKING:
    from movepages.values import Ledger, Plan


def undo(ledger: Ledger, *, reason: str = "put back") -> Plan:
    """Plan to move every page that arrived back to the node that it came from.

    For the same process only: `execute` refuses another that has its pid. Pages of which nobody
    knew where they were stay, as do those that were found elsewhere when the ledger was verified.
    """
    plan = ledger.plan
    origins = ledger.page_origins()
    back = ledger.arrived & (ledger.now == ledger.to) & (origins >= 0) & (origins != ledger.now)
    addresses = plan.page_runs().addresses()[back]
    sizes = np.repeat(plan.page_size_bytes, plan.pages)[back]
    order = np.argsort(addresses, kind="stable")
    placement = Placement(
        addresses[order],
        np.ones(len(order), dtype=np.int64),
        sizes[order],
        ledger.now[back][order],
        "ledger",
    )
    return make_plan(plan.task, placement, origins[back][order], reasons=(reason,))

"""What tests of the mover share: a clock that waits for nobody, and how to check a ledger."""

from __future__ import annotations

import numpy as np


class Clock:
    """A clock that waits for nobody, and remembers how long it was asked to."""

    def __init__(self, step=0.0):
        """Let each look at it take so many seconds."""
        self.time, self.step, self.slept = 100.0, step, []

    def now(self):
        """Return the time."""
        self.time += self.step
        return self.time

    def sleep(self, seconds):
        """Go forward at once."""
        self.slept.append(seconds)
        self.time += seconds


def accounted(ledger):
    """Tell whether every page has one outcome, and how many have which adds up."""
    sums = ledger.moved_pages + ledger.untried_pages + sum(ledger.failed().values())
    elsewhere = ledger.already_there + ledger.plan.crowded_pages
    return len(ledger) == sums and ledger.asked == sums + elsewhere


def truth(machine, ledger):
    """Return where the last part of each page of a ledger is, or why nowhere.

    A huge page that the kernel divided, for a node had room for some of its parts, is not there.
    """
    plan = ledger.plan
    last = np.repeat(plan.page_size_bytes, plan.pages) - machine.page_size_bytes
    addresses = plan.page_runs().addresses() + last.astype(np.uint64)
    return machine.query_pages(ledger.plan.task.pid, addresses).status

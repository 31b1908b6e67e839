"""Every row of the specification's decision table, in every kernel that can express it."""

from __future__ import annotations

import pytest
from decision import ROWS, Bench
from decision.bench import SEMANTICS

from movepages.errors import UnsupportedError
from movepages.kernel.crash import KernelBugError


def _cases(*, expressible: bool):
    for row in ROWS:
        for semantics in SEMANTICS:
            if (row.expected(semantics) is not None) is expressible:
                yield pytest.param(row, semantics, id=f"{row.text} | {semantics}")


@pytest.mark.parametrize(("row", "semantics"), list(_cases(expressible=True)))
def test_the_kernel_answers_as_the_table_says(row, semantics):
    """A row of the table holds: return value, statuses, and where pages are then."""
    bench = Bench(semantics)

    found = row.scenario(bench)

    assert row.expected(semantics) == found
    if "under migration" not in row.text:  # someone else's migration is still going on
        bench.machine.check()


NEEDS_SWAP = ("target full, swap present",)
"""The table says nothing of these for the kernels of 2006."""


@pytest.mark.parametrize(("row", "semantics"), list(_cases(expressible=False)))
def test_what_a_kernel_of_2006_does_not_have_is_refused(row, semantics):
    """A kernel of 2006 has no THPs and no merged pages; to move a hugetlb page is its end."""
    if row.text in NEEDS_SWAP:
        assert row.scenario(Bench(semantics)).ret >= 0
        return
    if row.text.startswith("hugetlb") and semantics == "DOCUMENTED_2006":
        assert row.scenario(Bench(semantics)).status == [1, -16]  # undefined: as today
        return

    with pytest.raises((UnsupportedError, KernelBugError)):
        row.scenario(Bench(semantics))

"""The decision table of the specification (section 3), row by row, as scenarios.

Every expectation is typed from the table. Column D is DOCUMENTED_2006, C is PATCH_2006 and, unless
the row says otherwise, LINUX_2_6_18, M is LINUX_6_12. Where D is silent it does as C; where C is
undefined, as M.
"""

from __future__ import annotations

from decision import arguments, failures, lists, pages
from decision.bench import Bench, Row

__all__ = ["ROWS", "Bench", "Row"]

ROWS: tuple[Row, ...] = (*arguments.ROWS, *pages.ROWS, *lists.ROWS, *failures.ROWS)

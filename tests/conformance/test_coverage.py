"""The scenarios cover the specification: each row of its table, each line of the observations."""

from __future__ import annotations

from suite import scenarios  # noqa: F401 - registers them
from suite.registry import SCENARIOS
from suite.rows import DECISION_TABLE, NOT_EXPRESSIBLE, OBSERVED

ROWS = {*DECISION_TABLE, *OBSERVED}


def covered():
    """Return all that scenarios say they cover."""
    return {row for scenario in SCENARIOS.values() for row in scenario.covers}


def test_every_row_is_covered_or_said_to_be_impossible():
    """No row is left out in silence."""
    assert covered() | set(NOT_EXPRESSIBLE) == ROWS


def test_no_row_is_covered_that_is_said_to_be_impossible():
    """What can be expressed does not stay on the list of what cannot."""
    assert not covered() & set(NOT_EXPRESSIBLE)


def test_every_scenario_covers_something():
    """A scenario names the rows that it is for."""
    assert all(scenario.covers for scenario in SCENARIOS.values())

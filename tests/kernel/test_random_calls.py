"""The model against the oracle, on random machines: the same call in both, nothing may differ.

Each example is a machine from a seed and ten calls on it, each bent towards a row of the decision
table whose turn it is. A failure names the seed: `RandomMachine(seed, semantics)` builds it again.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from statistics import median

import pytest
from compare import run_call
from decision.bench import SEMANTICS
from random_machines import RandomMachine

SOAK = 10 if os.environ.get("MOVEPAGES_SOAK") else 1
CALLS_ON_A_MACHINE = 10
MACHINES = 60 * SOAK
"""For each of the four semantics: 2,400 calls in all."""
MACHINES_IN_A_TEST = 15
LEAST_TIMES = 5
LEAST_MEDIAN_ENTRIES = 20


@dataclass
class Tally:
    """What the calls of a semantics were: how many, how long, and the rows they met."""

    calls: int = 0
    entries: list[int] = field(default_factory=list)
    rows: Counter[str] = field(default_factory=Counter)
    wanted: set[str] = field(default_factory=set)


@pytest.fixture(scope="module")
def tallies() -> dict[str, Tally]:
    """Count calls over the whole module."""
    return {semantics: Tally() for semantics in SEMANTICS}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("first", range(0, MACHINES, MACHINES_IN_A_TEST))
@pytest.mark.parametrize("semantics", SEMANTICS)
def test_model_and_oracle_agree(semantics, first, tallies):
    """Return value, statuses, unwritten elements, placement, contents and free memory agree."""
    tally = tallies[semantics]
    for seed in range(first, first + MACHINES_IN_A_TEST):
        machine = RandomMachine(seed, semantics)
        tally.wanted = set(machine.foci.by_row)
        for number in range(CALLS_ON_A_MACHINE):
            focus = machine.foci.turn(seed * CALLS_ON_A_MACHINE + number)
            call = machine.call(focus)

            found = run_call(machine, semantics, call)

            assert found.told == [], f"seed {seed}, call {number} ({focus}) of {semantics}: {call}"
            tally.calls += 1
            tally.entries.append(len(call.pages))
            tally.rows.update(found.rows)
            machine.live_on()


@pytest.mark.parametrize("semantics", SEMANTICS)
def test_the_random_calls_meet_every_row_of_the_decision_table(semantics, tallies):
    """Each row is met five times and more, and calls are long: the run above proves something."""
    tally = tallies[semantics]
    if tally.calls < MACHINES * CALLS_ON_A_MACHINE:
        pytest.fail("run the whole module: rows are counted over all of its calls")

    seldom = {row: tally.rows[row] for row in tally.wanted if tally.rows[row] < LEAST_TIMES}

    assert seldom == {}
    assert median(tally.entries) >= LEAST_MEDIAN_ENTRIES

"""The kernel that this runs on answers as it did when it was recorded."""

from __future__ import annotations

import pytest
from suite import scenarios  # noqa: F401 - registers them
from suite.live import LiveWorld, live_programs
from suite.programs import RECORDED_PROGRAMS, digest
from suite.recording import PROGRAMS, SCENARIOS as RECORDED_SCENARIOS, recorded
from suite.registry import SCENARIOS

pytestmark = [pytest.mark.lab, pytest.mark.needs_nodes(4)]


@pytest.fixture(scope="module")
def observed():
    """Return the recorded lines of each scenario."""
    return recorded(RECORDED_SCENARIOS)


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_kernel_answers_as_recorded(name, observed):
    """A scenario has the same answers as when it was recorded, line by line."""
    with LiveWorld() as world:
        assert SCENARIOS[name].run(world) == observed[name]


@pytest.mark.timeout(240)
def test_kernel_runs_random_programs_as_recorded():
    """All random programs have the answers that were recorded, and so those of the model."""
    observed = recorded(PROGRAMS)
    answers = {str(seed): digest(lines) for seed, lines in live_programs(range(RECORDED_PROGRAMS))}
    assert {seed: lines for seed, lines in answers.items() if observed[seed] != lines} == {}

"""The model answers as the recorded kernel did: every scenario, and random programs."""

from __future__ import annotations

import pytest
from suite import scenarios  # noqa: F401 - registers them
from suite.model import ModelWorld
from suite.programs import RECORDED_PROGRAMS, Program, digest
from suite.recording import PROGRAMS, SCENARIOS as RECORDED_SCENARIOS, recorded
from suite.registry import SCENARIOS


@pytest.fixture(scope="module")
def observed():
    """Return the recorded lines of each scenario."""
    return recorded(RECORDED_SCENARIOS)


@pytest.fixture(scope="module")
def observed_programs():
    """Return the recorded digests of each random program."""
    return recorded(PROGRAMS)


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_model_answers_as_recorded(name, observed):
    """A scenario has the same answers on the model, line by line, and leaves it consistent."""
    world = ModelWorld()
    assert SCENARIOS[name].run(world) == observed[name]
    world.machine.check()


def test_every_scenario_is_recorded_and_nothing_else(observed):
    """A scenario without a recording, or a recording without its scenario, is a mistake."""
    assert sorted(observed) == sorted(SCENARIOS)


@pytest.mark.parametrize("first", range(0, RECORDED_PROGRAMS, 50))
def test_model_runs_random_programs_as_recorded(first, observed_programs):
    """Fifty random programs have the same answers on the model, each on a machine of its own."""
    for seed in range(first, first + 50):
        world = ModelWorld()
        answers = Program(seed, world, world.process()).run()
        assert digest(answers) == observed_programs[str(seed)], (seed, answers)
        world.machine.check()


def test_every_program_is_recorded(observed_programs):
    """The recording has as many programs as it should, from seed 0 on."""
    assert list(observed_programs) == [str(seed) for seed in range(RECORDED_PROGRAMS)]

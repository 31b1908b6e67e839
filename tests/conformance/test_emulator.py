"""The emulator answers as the recorded kernel did: scenarios, and random programs."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import under_emulator
from suite.model import MACHINE, ModelWorld
from suite.programs import Program, digest
from suite.recording import PROGRAMS, SCENARIOS as RECORDED_SCENARIOS, recorded
from suite.registry import SCENARIOS

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.emulator

COUNT = 200
TIMEOUT_SECONDS = 120
COPIED_BY_THE_HOST = {202}
"""Programs whose pages the host copies on a write that the recorded kernel had let reuse them.

A page that waits in a CPU's batch for mlock has a reference more, and the copy is a new page.
"""


def run(tmp_path: Path, precision: str, *arguments: str) -> dict[str, list[str]]:
    """Run the suite under the emulator; return its answers."""
    machine = tmp_path / "machine.toml"
    machine.write_text(MACHINE.replace("64M", "512M"), encoding="utf-8")
    answers = tmp_path / "answers.json"
    what, *more = arguments
    command = [
        *(sys.executable, "-m", "movepages", "emulate", "--topology", machine),
        *("--precision", precision, "--", sys.executable, under_emulator.__file__),
        *(what, answers, *more),
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(answers.read_text(encoding="utf-8"))


@pytest.mark.timeout(2 * TIMEOUT_SECONDS)
@pytest.mark.usefixtures("huge_pages")
@pytest.mark.parametrize("precision", ["lazy", "exact", "faults"])
def test_emulator_answers_as_recorded(precision, tmp_path):
    """Every scenario that a live process can offer has the recorded answers, line by line."""
    observed = recorded(RECORDED_SCENARIOS)
    wanted = {name: observed[name] for name in SCENARIOS if under_emulator.can_run(name)}
    assert run(tmp_path, precision, "scenarios") == wanted


def test_what_the_emulator_leaves_out_is_as_small_as_it_is_said_to_be():
    """16 scenarios need what a live process lacks, one of five things; all others are run."""
    left_out = {name for name in SCENARIOS if not under_emulator.can_run(name)}
    assert set(under_emulator.LACKS) == {
        *("pins", "lru_busy", "cpuset_files", "hotplug", "reclaim"),
    }
    assert len(left_out) == 16


@pytest.mark.timeout(2 * TIMEOUT_SECONDS)
def test_emulator_runs_random_programs_as_recorded(tmp_path):
    """Random programs that pin no page have the answers that the real kernel gave."""
    observed = recorded(PROGRAMS)
    answers = run(tmp_path, "faults", "programs", "0", str(COUNT))
    differing = {
        int(seed)
        for seed, lines in answers.items()
        if digest(lines) != observed[seed] and not pins(int(seed))
    }
    assert len(answers) == COUNT
    assert differing <= COPIED_BY_THE_HOST


def pins(seed: int) -> bool:
    """Tell whether a program pins a page, by running it on the model."""
    world = ModelWorld()
    program = Program(seed, world, world.process())
    program.run()
    return program.has_pinned

"""Says, at the end of a run, how much of the suite the emulator was asked."""

from __future__ import annotations

from collections import Counter

import under_emulator
from suite.registry import SCENARIOS

ASKED = "test_emulator_answers_as_recorded"


def pytest_terminal_summary(terminalreporter):
    """Print the count of scenarios that were left out, and what they need, where others ran."""
    ran = any(ASKED in report.nodeid for report in terminalreporter.getreports("passed"))
    if ran:
        terminalreporter.line(left_out())


def left_out():
    """Say how many scenarios the emulator runs, and why not the others."""
    lacking = [
        sorted(scenario.needs & under_emulator.LACKS)
        for name, scenario in SCENARIOS.items()
        if not under_emulator.can_run(name)
    ]
    needs = Counter(need for needs in lacking for need in needs)
    reasons = ", ".join(f"{need} {number}" for need, number in sorted(needs.items()))
    return (
        f"emulator: {len(SCENARIOS) - len(lacking)} of {len(SCENARIOS)} scenarios; "
        f"{len(lacking)} left out, which need {reasons}"
    )

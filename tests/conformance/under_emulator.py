"""Answers of an emulated machine: to run under `movepages emulate`, as a program of its own.

under_emulator.py scenarios FILE              all scenarios that need nothing a live process lacks
under_emulator.py programs FILE FIRST COUNT   random programs without pins, from a seed on
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from suite import scenarios  # noqa: F401 - registers them
from suite.live import LiveWorld, live_programs
from suite.registry import SCENARIOS

LACKS = frozenset({"pins", "lru_busy", "cpuset_files", "hotplug", "reclaim"})
"""What a live process cannot offer: nobody can see it from outside, or bring it about."""


def can_run(name: str) -> bool:
    """Tell whether a scenario needs only what the emulator has."""
    return not SCENARIOS[name].needs & LACKS


def main(arguments: list[str]) -> int:
    """Write the answers to a file."""
    match arguments:
        case ["scenarios", path]:
            answers = {}
            for name in filter(can_run, sorted(SCENARIOS)):
                with LiveWorld() as world:
                    answers[name] = SCENARIOS[name].run(world)
        case ["programs", path, first, count]:
            seeds = range(int(first), int(first) + int(count))
            answers = {str(seed): lines for seed, lines in live_programs(seeds)}
        case _:
            sys.stderr.write(__doc__ or "")
            return 2
    Path(path).write_text(json.dumps(answers), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

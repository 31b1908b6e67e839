"""Record what the kernel that this runs on answers. Nothing else writes recordings.

    record.py scenarios FILE               all scenarios
    record.py programs FILE [FIRST COUNT]  random programs, from a seed on; the first 500

In the lab, both:

    lab/run --topology 4node \
        --fetch /tmp/s.json=tests/conformance/observed/linux-6.12.json \
        --fetch /tmp/p.json=tests/conformance/observed/linux-6.12-programs.json \
        -- python tests/conformance/record.py scenarios /tmp/s.json \
        ::: python tests/conformance/record.py programs /tmp/p.json

Look at the difference before committing it: the model is held to a recording.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from suite import scenarios  # noqa: F401 - registers them
from suite.live import LiveWorld, live_programs
from suite.programs import RECORDED_PROGRAMS, digest
from suite.recording import write_recording
from suite.registry import SCENARIOS

if TYPE_CHECKING:
    from collections.abc import Sequence


def record_scenarios(path: Path) -> None:
    """Run all scenarios, and write their answers to a file."""
    answers = {}
    for name, scenario in sorted(SCENARIOS.items()):
        with LiveWorld() as world:
            answers[name] = scenario.run(world)
    write_recording(path, "record.py scenarios", answers)


def record_programs(path: Path, seeds: Sequence[int]) -> None:
    """Run random programs, and write digests of their answers to a file."""
    answers = {str(seed): digest(lines) for seed, lines in live_programs(seeds)}
    write_recording(path, f"record.py programs: seeds {seeds[0]} to {seeds[-1]}", answers)


def main(arguments: list[str]) -> int:
    """Record what the arguments say; return the exit code."""
    began = time.monotonic()
    match arguments:
        case ["scenarios", path]:
            record_scenarios(Path(path))
        case ["programs", path]:
            record_programs(Path(path), range(RECORDED_PROGRAMS))
        case ["programs", path, first, count]:
            record_programs(Path(path), range(int(first), int(first) + int(count)))
        case _:
            sys.stderr.write(__doc__ or "")
            return 2
    sys.stdout.write(f"recorded in {time.monotonic() - began:.1f} s\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

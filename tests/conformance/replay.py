"""Run recorded random programs on the model, and say which are answered otherwise there.

    replay.py FILE   FILE is what `record.py programs` has written

Exit code: 0, 1 if one differed, 2 usage.
"""

from __future__ import annotations

import sys
from pathlib import Path

from suite.model import ModelWorld
from suite.programs import Program, digest
from suite.recording import recorded


def differing(answers: dict[str, str]) -> list[int]:
    """Return the seeds of programs that the model answers otherwise."""
    found = []
    for seed, expected in answers.items():
        world = ModelWorld()
        if digest(Program(int(seed), world, world.process()).run()) != expected:
            found.append(int(seed))
    return found


def main(arguments: list[str]) -> int:
    """Replay a recording; return the exit code."""
    if len(arguments) != 1:
        sys.stderr.write(__doc__ or "")
        return 2
    answers = recorded(Path(arguments[0]))
    found = differing(answers)
    sys.stdout.write(f"{len(answers)} programs, {len(found)} differ on the model: {found}\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

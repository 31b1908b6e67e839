"""Run what takes too long for every test run; say what each part found.

    tools/soak.py [oracle] [programs] [emulator] [placement] [database]

    oracle     20,000 and more random calls: the model against the page-at-a-time oracle
    programs   20,000 random programs: the model against Linux 6.12, live in the lab
    emulator   30,000 calls of 8 processes with 4 threads each, with forks, execs and signals
    placement  64 MiB that 4 threads check are moved, spread, packed and followed, in the lab, and
               files and segments are moved there
    database   PostgreSQL under pgbench is moved around the nodes of the lab

All by default. Exit code: 0, 1 if anything differed or failed, 2 usage.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent
CONFORMANCE = ROOT / "tests" / "conformance"

if TYPE_CHECKING:
    from collections.abc import Callable

PYTEST = (sys.executable, "-m", "pytest", "-q")
GUEST_FILE = "/tmp/programs.json"  # noqa: S108 - the guest's own, of this boot alone
RANDOM_PROGRAMS = 20_000
PROGRAMS = ROOT / "tests" / "programs"
OBJECTS = ROOT / "tests" / "emulator" / "programs" / "objects.py"
TRANSACTIONS = 300
LAB_SECONDS = 3600
USAGE = 2


def soak_oracle() -> bool:
    """Compare model and oracle."""
    return _pytest("tests/kernel/test_random_calls.py", timeout_seconds=1800)


def soak_emulator() -> bool:
    """Let a storm of calls loose on the emulator."""
    return _pytest("tests/emulator/test_soak.py", timeout_seconds=1800)


def soak_programs() -> bool:
    """Run programs in the lab, then on the model, and compare their answers."""
    with tempfile.TemporaryDirectory() as directory:
        answers = Path(directory) / "programs.json"
        record = (
            "python",
            CONFORMANCE / "record.py",
            "programs",
            GUEST_FILE,
            "0",
            str(RANDOM_PROGRAMS),
        )
        command = (
            *(ROOT / "lab" / "run", "--topology", "4node", "--timeout", str(LAB_SECONDS)),
            *("--fetch", f"{GUEST_FILE}={answers}", "--", *record),
        )
        if subprocess.run(command, cwd=ROOT, check=False).returncode:
            return False
        replay = (sys.executable, CONFORMANCE / "replay.py", answers)
        return not subprocess.run(replay, cwd=ROOT, check=False).returncode


def soak_placement() -> bool:
    """Move memory that threads check around the four nodes of the lab, 100 times; then files."""
    rounds = f"python {PROGRAMS / 'rounds.py'} 64 100 1"
    objects = f"python {PROGRAMS / 'objects_said.py'} {OBJECTS} /tmp/objects"
    return _in_lab("sh", "-c", f"{rounds} && mkdir /tmp/objects && {objects}")


def soak_database() -> bool:
    """Move a database around the four nodes of the lab while it works."""
    made = "mkdir -m 777 /tmp/database"
    run = f"python {PROGRAMS / 'database.py'} /tmp/database {TRANSACTIONS}"
    return _in_lab("sh", "-c", f"{made} && {run}")


def _in_lab(*command: object) -> bool:
    """Run a command on four real nodes; tell whether it ended well."""
    lab = (ROOT / "lab" / "run", "--topology", "4node", "--timeout", str(LAB_SECONDS), "--")
    return not subprocess.run([*map(str, (*lab, *command))], cwd=ROOT, check=False).returncode


def _pytest(path: str, *, timeout_seconds: int) -> bool:
    environment = {**os.environ, "MOVEPAGES_SOAK": "1"}
    command = (*PYTEST, "-o", f"timeout={timeout_seconds}", path)
    return not subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


PARTS: dict[str, Callable[[], bool]] = {
    "oracle": soak_oracle,
    "programs": soak_programs,
    "emulator": soak_emulator,
    "placement": soak_placement,
    "database": soak_database,
}


def main(arguments: list[str]) -> int:
    """Run the parts that the arguments name; return the exit code."""
    if unknown := set(arguments) - set(PARTS):
        sys.stderr.write(f"no such part: {', '.join(sorted(unknown))}\n{__doc__}")
        return USAGE
    failed = []
    for name in arguments or PARTS:
        print(f"== {name}", flush=True)
        began = time.monotonic()
        if not PARTS[name]():
            failed.append(name)
        print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)
    print(f"soak: {'failed: ' + ', '.join(failed) if failed else 'passed'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

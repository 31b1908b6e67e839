"""Everything at once, for long: nothing is lost, nothing hangs, and the emulator does not grow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.emulator

PROGRAMS = Path(__file__).parent / "programs"
SOAK = bool(os.environ.get("MOVEPAGES_SOAK"))
CALLS_OF_A_THREAD = 1000 if SOAK else 40
TIMEOUT_SECONDS = 600 if SOAK else 60
GROWTH_BYTES = 48 << 20
"""What the memory of the emulator may differ by between a short run and a long one."""


@pytest.fixture(scope="module")
def storm(tmp_path_factory):
    """Compile the program."""
    binary = tmp_path_factory.mktemp("storm") / "storm"
    source = PROGRAMS / "storm.c"
    subprocess.run(["cc", "-O2", "-Wall", "-o", binary, source, "-lpthread"], check=True)
    return binary


def run(storm, report, calls, *options):
    """Let 8 processes of 4 threads make calls under the emulator; return its report."""
    command = [
        *(sys.executable, "-m", "movepages", "emulate", "--topology", "4x(2G)"),
        *("--report", report, *options, "--", storm, "8", "4", str(calls)),
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
    )
    complaints = [line for line in done.stderr.splitlines() if "left out" not in line]
    assert (done.stdout, complaints, done.returncode) == ("", [], 0)
    return json.loads(report.read_text(encoding="utf-8"))


@pytest.mark.timeout(2 * TIMEOUT_SECONDS)
def test_a_storm_of_calls_loses_nothing(storm, tmp_path):
    """Each page is where the last call put it, with what was in it; the emulator does not grow."""
    short = run(storm, tmp_path / "short.json", 4)
    long = run(storm, tmp_path / "long.json", CALLS_OF_A_THREAD)
    assert long["calls"]["move_pages"] > 5 * short["calls"]["move_pages"]
    assert long["descriptors"] <= short["descriptors"]
    assert long["peak_memory_bytes"] - short["peak_memory_bytes"] < GROWTH_BYTES


def test_a_build_makes_the_same_files(tmp_path):
    """`make -j2` of a small C project under the emulator gives what it gives without."""
    made = []
    for name, front in (("with", ("-m", "movepages", "emulate", "--")), ("without", ())):
        project = tmp_path / "project"
        write_project(project)
        command = [*((sys.executable, *front) if front else ()), "make", "-s", "-j2"]
        done = subprocess.run(
            command, cwd=project, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        made.append({file.name: file.read_bytes() for file in sorted(project.iterdir())})
        project.rename(tmp_path / name)
    assert made[0] == made[1]
    assert subprocess.run([tmp_path / "with" / "program"], check=False).returncode == 28


def write_project(directory):
    """Write a program of eight sources, a header and a Makefile."""
    directory.mkdir()
    units = range(8)
    names = [f"unit{number}" for number in units]
    (directory / "units.h").write_text("".join(f"int {name}(void);\n" for name in names))
    for number, name in zip(units, names, strict=True):
        body = f'#include "units.h"\nint {name}(void) {{ return {number}; }}\n'
        (directory / f"{name}.c").write_text(body)
    total = " + ".join(f"{name}()" for name in names)
    main = f'#include "units.h"\nint main(void) {{ return {total}; }}\n'
    (directory / "main.c").write_text(main)
    objects = " ".join(f"{name}.o" for name in ("main", *names))
    rules = f"program: {objects}\n\t$(CC) -o $@ $^\n%.o: %.c units.h\n\t$(CC) -O1 -c $<\n"
    (directory / "Makefile").write_text(rules)

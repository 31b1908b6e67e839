"""Run the tiers of the test suite, and say at the end which ran, how many tests, and how long.

    tools/tiers.py [--lab PATH] TIER...

    unit      needs nothing but Python
    host      needs a Linux kernel that answers move_pages(2): this machine's own
    emulator  needs seccomp user notification: runs programs on nodes that are not there
    lab       needs QEMU: boots Linux with several nodes, once per topology, and tests in there

A tier that cannot run here is left out, with the reason; MOVEPAGES_REQUIRE=host,lab makes that a
failure. The last line counts the tests of all tiers. Exit code: 0, 1 if anything failed, 2 usage.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import debian

from movepages.abi import numbers_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    Command = Sequence[str | Path]

ROOT = Path(__file__).resolve().parent.parent
PYTEST = (sys.executable, "-m", "pytest", "-q", "-rs")
PROGRAMS = ROOT / "tests" / "emulator" / "programs" / "debian-packages.txt"
GUEST_JUNIT = "/tmp/junit.xml"  # noqa: S108  the guest's own /tmp, of this boot alone

LAB_CANNOT_RUN = 126
TIMED_OUT = 124
NO_TESTS = 5
USAGE = 2

HARD_LIMIT = 3
"""Times its goal that a tier may take before it is ended."""

MARKER_OF_TOPOLOGY = {"hotplug": "hotplug", "hmat-tiers": "hmat", "tiny": "tiny"}
"""Topologies that only the tests with a certain marker run in; all others run in `4node`."""


@dataclass(frozen=True)
class Run:
    """One pytest: the tests of a marker expression, here or in a topology of the lab."""

    markers: str
    topology: str = ""


@dataclass(frozen=True)
class Tier:
    """A tier. `unable` returns why it cannot run here, "" if it can; it may install things."""

    name: str
    goal_seconds: int
    runs: tuple[Run, ...]
    unable: Callable[[Path], str]


@dataclass(frozen=True)
class Counts:
    """How the tests of a run, a tier or all tiers ended."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def __add__(self, other: Counts) -> Counts:
        """Count both."""
        return Counts(
            self.passed + other.passed, self.failed + other.failed, self.skipped + other.skipped
        )

    def __str__(self) -> str:
        """Say it in the words of pytest."""
        skipped = f", {self.skipped} skipped" if self.skipped else ""
        return f"{self.passed} passed, {self.failed} failed{skipped}"


@dataclass(frozen=True)
class Outcome:
    """What became of a tier; `left_out` is the reason if it did not run."""

    tier: Tier
    seconds: float = 0.0
    counts: Counts = field(default_factory=Counts)
    left_out: str = ""


def always_able(_lab: Path) -> str:
    """Return that nothing is missing."""
    return ""


def host_unable(_lab: Path) -> str:
    """Return why this machine's kernel cannot be tested: containers often filter move_pages."""
    if sys.platform != "linux":
        return f"{sys.platform} is not Linux"
    try:
        number = numbers_for(platform.machine())["move_pages"]
    except KeyError:
        return f"the number of move_pages(2) on {platform.machine()} is not known"
    libc = ctypes.CDLL(None, use_errno=True)
    zero = ctypes.c_long(0)
    if libc.syscall(ctypes.c_long(number), zero, zero, zero, zero, zero, zero) == 0:
        return ""
    return f"move_pages(2) does not answer here: {os.strerror(ctypes.get_errno())}"


def emulator_unable(_lab: Path) -> str:
    """Return why system calls of a program cannot be answered here: containers may forbid it.

    Installs the programs that the tests run; those of them that cannot be had skip theirs.
    """
    if sys.platform != "linux":
        return f"{sys.platform} is not Linux"
    from movepages.emulator.check import notification_problem

    problem = notification_problem()
    if not problem and (left_out := debian.provide(debian.read_list(PROGRAMS))):
        print(f"emulator: {left_out}", flush=True)
    return problem


def lab_unable(lab: Path) -> str:
    """Get what the lab needs; return why it cannot run here. Raises CalledProcessError."""
    said = ""
    command = (sys.executable, lab, "setup")
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as setup:
        for line in setup.stdout or ():
            print(line, end="", flush=True)
            said = line.strip() or said
    if setup.returncode in (0, LAB_CANNOT_RUN):
        return said if setup.returncode else ""
    raise subprocess.CalledProcessError(setup.returncode, command)


UNIT = "not host and not emulator and not lab and not labhost"
_OWN_TOPOLOGY = " or ".join(MARKER_OF_TOPOLOGY.values())
TIERS = {
    tier.name: tier
    for tier in (
        Tier("unit", 240, (Run(UNIT),), always_able),
        Tier("host", 60, (Run("host and not emulator and not lab and not labhost"),), host_unable),
        Tier("emulator", 240, (Run("emulator and not lab and not labhost"),), emulator_unable),
        Tier(
            "lab",
            300,
            (
                Run("labhost"),
                Run(f"lab and not ({_OWN_TOPOLOGY})", "4node"),
                *(Run(f"lab and {mark}", name) for name, mark in MARKER_OF_TOPOLOGY.items()),
            ),
            lab_unable,
        ),
    )
}


def main(argv: list[str]) -> int:
    """Run the tiers named; return the exit code."""
    parser = argparse.ArgumentParser(prog="tools/tiers.py", description="Run test tiers.")
    parser.add_argument("tiers", nargs="+", choices=TIERS, metavar="TIER")
    parser.add_argument("--lab", type=Path, default=ROOT / "lab" / "run", help="the launcher")
    options = parser.parse_args(argv)
    required = {name.strip() for name in os.environ.get("MOVEPAGES_REQUIRE", "").split(",")} - {""}
    if unknown := required - TIERS.keys():
        parser.error(f"MOVEPAGES_REQUIRE names no tier: {', '.join(sorted(unknown))}")
    os.chdir(ROOT)
    # The lab shows its guests the active environment, which may not be this one.
    os.environ["VIRTUAL_ENV"] = sys.prefix
    outcomes = [run_tier(TIERS[name], options.lab) for name in options.tiers]
    print(summary(outcomes, required), flush=True)
    missing = any(outcome.left_out and outcome.tier.name in required for outcome in outcomes)
    failed = any(outcome.counts.failed for outcome in outcomes)
    return 1 if failed or missing else 0


def run_tier(tier: Tier, lab: Path) -> Outcome:
    """Run a tier, all of it even if a part fails."""
    print(f"== {tier.name}", flush=True)
    started = time.monotonic()
    try:
        if reason := tier.unable(lab):
            return Outcome(tier, left_out=reason)
    except subprocess.CalledProcessError as problem:
        print(problem, flush=True)
        return Outcome(tier, time.monotonic() - started, Counts(failed=1))
    end = started + HARD_LIMIT * tier.goal_seconds
    counts = sum((run_pytest(run, lab, end) for run in tier.runs), Counts())
    return Outcome(tier, time.monotonic() - started, counts)


def run_pytest(run: Run, lab: Path, end: float) -> Counts:
    """Run one pytest until `end` at the latest; a run that breaks counts as one failed test."""
    with tempfile.TemporaryDirectory(prefix="movepages-tiers-") as directory:
        junit = Path(directory, "junit.xml")
        if not run.topology:
            return _execute((*PYTEST, "-m", run.markers, f"--junitxml={junit}"), junit, end)
        code, files = collect(run.markers)
        if code == NO_TESTS:
            print(f"lab: no test is for topology {run.topology}; it is not booted", flush=True)
            return Counts()
        if code:
            return Counts(failed=1)
        return _execute(guest_command(run, lab, files, junit, end), junit, end)


def collect(markers: str) -> tuple[int, list[str]]:
    """Return pytest's exit code and the files that hold tests of a marker expression."""
    command = (*PYTEST, "-q", "--collect-only", "-m", markers)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in (0, NO_TESTS):
        print(done.stdout, done.stderr, flush=True)
    files = (line.rpartition(": ")[0] for line in done.stdout.splitlines())
    return done.returncode, [name for name in files if name.endswith(".py")]


def guest_command(run: Run, lab: Path, files: Iterable[str], junit: Path, end: float) -> Command:
    """Return the command that runs tests in a guest and brings back their results.

    A guest computes 5 to 25 times slower than its host, so it imports only the files that matter
    and only the plugins that the tests use.
    """
    remaining = max(1, round(end - time.monotonic()))
    launcher = (sys.executable, lab, "--topology", run.topology, "--timeout", str(remaining))
    results = ("--fetch", f"{GUEST_JUNIT}={junit}", "--env", "PYTEST_DISABLE_PLUGIN_AUTOLOAD=1")
    pytest = ("python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "pytest_timeout")
    tests = ("-m", run.markers, f"--junitxml={GUEST_JUNIT}", *files)
    return (*launcher, *results, "--", *pytest, *tests)


def _execute(command: Command, junit: Path, end: float) -> Counts:
    """Run a command until `end` at the latest, and count what its JUnit file says."""
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as process:
        try:
            code = process.wait(max(1.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            print("tiers: the tier took too long and is ended", flush=True)
            code = TIMED_OUT
            _end(process)
    counts = read_junit(junit) if junit.exists() else Counts()
    if code and not counts.failed:
        problem = "found no test" if code == NO_TESTS else f"broke (exit code {code})"
        print(f"tiers: the run {problem}; it counts as a failed test", flush=True)
        return counts + Counts(failed=1)
    return counts


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process, gently first: the launcher has a guest to take down."""
    process.terminate()
    try:
        process.wait(timeout=15)
    except subprocess.TimeoutExpired:
        process.kill()


def read_junit(path: Path) -> Counts:
    """Count the tests in pytest's JUnit file."""
    suites = list(ET.parse(path).getroot().iter("testsuite"))  # noqa: S314  our own pytest's

    def total(*names: str) -> int:
        return sum(int(suite.get(name, "0")) for suite in suites for name in names)

    failed, skipped = total("failures", "errors"), total("skipped")
    return Counts(total("tests") - failed - skipped, failed, skipped)


def summary(outcomes: list[Outcome], required: set[str]) -> str:
    """Return the closing table, and the total as the last line."""
    lines = ["", f"{'tier':<9}{'result':<10}{'seconds':>8}{'goal':>6}  tests"]
    for outcome in outcomes:
        tier = outcome.tier
        if outcome.left_out:
            must = " (MOVEPAGES_REQUIRE demands it)" if tier.name in required else ""
            lines.append(f"{tier.name:<9}left out  {'-':>8}{'-':>6}  {outcome.left_out}{must}")
            continue
        result = "FAILED" if outcome.counts.failed else "passed"
        lines.append(
            f"{tier.name:<9}{result:<10}{outcome.seconds:>8.1f}{tier.goal_seconds:>6}"
            f"  {outcome.counts}"
        )
    total = sum((outcome.counts for outcome in outcomes), Counts())
    return "\n".join([*lines, str(total)])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

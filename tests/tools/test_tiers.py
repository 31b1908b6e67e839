"""The runner of the tiers: what it leaves out, counts, and passes on."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace

import pytest
import tiers
from tiers import Counts, Run, Tier

REASON = "no qemu-system-x86_64: install qemu-system-x86"
CANNOT_RUN = f"import sys; print('lab:', {REASON!r}, file=sys.stderr); sys.exit(126)"

# A launcher whose guest ran two tests, one of which failed, and that notes how it was called.
GUEST = """
import pathlib, sys
if sys.argv[1:] == ["setup"]:
    sys.exit(0)
junit = sys.argv[sys.argv.index("--fetch") + 1].partition("=")[2]
pathlib.Path(junit).write_text('<testsuite tests="2" failures="1" errors="0" skipped="0"/>')
pathlib.Path(__file__).with_suffix(".called").write_text("\\n".join(sys.argv[1:]))
sys.exit(1)
"""


@pytest.fixture
def launcher(tmp_path):
    """Return a function that makes a launcher of the lab out of Python code."""

    def make(code):
        path = tmp_path / "lab.py"
        path.write_text(code)
        return path

    return make


@pytest.fixture
def run_tiers(launcher, monkeypatch, capsys):
    """Return a function that runs tiers; it gives the exit code and the lines printed."""

    def run(code, *names, require=""):
        monkeypatch.setenv("MOVEPAGES_REQUIRE", require)
        exit_code = tiers.main(["--lab", str(launcher(code)), *names])
        return exit_code, capsys.readouterr().out.splitlines()

    return run


@pytest.fixture(autouse=True)
def _environment_is_restored(monkeypatch):
    monkeypatch.setenv("VIRTUAL_ENV", sys.prefix)
    monkeypatch.chdir(tiers.ROOT)


@pytest.fixture
def lean_pytest(monkeypatch):
    """Have collection look at these tests alone, with no plugin that they do not use."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    lean = (*tiers.PYTEST, "-p", "pytest_timeout", "tests/tools")
    monkeypatch.setattr(tiers, "PYTEST", lean)


def soon():
    """Return an end that is far enough away."""
    return time.monotonic() + 60


def test_left_out_with_the_reason(run_tiers):
    """A tier that cannot run is named with the reason, and is no failure by itself."""
    code, lines = run_tiers(CANNOT_RUN, "lab", require="unit")
    assert code == 0
    (row,) = (line for line in lines if "left out" in line)
    assert row.startswith("lab ")
    assert row.endswith(REASON)
    assert lines[-1] == "0 passed, 0 failed"


def test_left_out_though_required(run_tiers):
    """MOVEPAGES_REQUIRE turns a tier left out into a failure, and the table says so."""
    code, lines = run_tiers(CANNOT_RUN, "lab", require="unit, lab")
    assert code == 1
    assert any(line.endswith(f"{REASON} (MOVEPAGES_REQUIRE demands it)") for line in lines)


def test_unknown_tier_required(run_tiers, capsys):
    """A tier that MOVEPAGES_REQUIRE misspells is wrong usage, not a demand met."""
    with pytest.raises(SystemExit) as ended:
        run_tiers(CANNOT_RUN, "lab", require="labs")
    assert ended.value.code == tiers.USAGE
    assert "labs" in capsys.readouterr().err


def test_setup_that_breaks_is_a_failure(run_tiers):
    """A launcher whose setup breaks is not a tier left out."""
    code, lines = run_tiers("import sys; sys.exit(3)", "lab")
    assert code == 1
    assert lines[-1] == "0 passed, 1 failed"


def test_guest_runs_the_files_that_hold_its_tests(launcher, tmp_path):
    """A guest is booted in the topology asked for, for the files that the host found."""
    files = ["tests/linux/test_syscalls.py", "tests/placement/test_mover.py"]
    junit = tmp_path / "junit.xml"
    command = tiers.guest_command(
        Run("lab and hmat", "hmat-tiers"), launcher(GUEST), files, junit, soon()
    )
    subprocess.run(command, check=False)
    called = (tmp_path / "lab.called").read_text().splitlines()
    assert called[called.index("--topology") + 1] == "hmat-tiers"
    assert called[called.index("-m", called.index("pytest")) + 1] == "lab and hmat"
    assert called[-2:] == files


def test_guest_results_are_counted(launcher, monkeypatch):
    """What the guest's JUnit file says is what the tier reports."""
    monkeypatch.setattr(tiers, "collect", lambda _: (0, ["tests/test_a.py"]))
    tier = Tier("lab", 60, (Run("lab", "4node"), Run("hotplug", "hotplug")), tiers.lab_unable)
    assert tiers.run_tier(tier, launcher(GUEST)).counts == Counts(passed=2, failed=2)


def test_topology_without_tests_is_not_booted(launcher, monkeypatch, capsys):
    """No guest is booted for a topology that no test asks for, and that is said."""
    monkeypatch.setattr(tiers, "collect", lambda _: (tiers.NO_TESTS, []))
    assert tiers.run_pytest(Run("tiny", "tiny"), launcher(GUEST), soon()) == Counts()
    assert "topology tiny; it is not booted" in capsys.readouterr().out


def test_broken_collection_is_a_failure(launcher, monkeypatch):
    """A test file that cannot be imported fails the tier, and no guest is booted."""
    monkeypatch.setattr(tiers, "collect", lambda _: (2, []))
    assert tiers.run_pytest(Run("lab", "4node"), launcher(GUEST), soon()) == Counts(failed=1)


def test_panic_counts_as_a_failure(launcher, monkeypatch):
    """A guest that ends without results is one failed test, never a silent nothing."""
    monkeypatch.setattr(tiers, "collect", lambda _: (0, ["tests/test_a.py"]))
    panicking = "import sys; sys.exit(0 if sys.argv[1:] == ['setup'] else 125)"
    run = Run("lab", "4node")
    assert tiers.run_pytest(run, launcher(panicking), soon()) == Counts(failed=1)


def test_run_that_takes_too_long_is_ended(launcher, monkeypatch):
    """A launcher that does not end by itself is ended, and counts as a failure."""
    monkeypatch.setattr(tiers, "collect", lambda _: (0, ["tests/test_a.py"]))
    hanging = launcher("import signal; signal.pause()")
    started = time.monotonic()
    assert tiers.run_pytest(Run("lab", "4node"), hanging, started) == Counts(failed=1)
    assert time.monotonic() - started < 10


@pytest.mark.usefixtures("lean_pytest")
def test_collect_names_the_files():
    """Collection finds this file by the tests it holds, each file once."""
    code, files = tiers.collect(tiers.UNIT)
    assert code == 0
    assert files.count("tests/tools/test_tiers.py") == 1


@pytest.mark.usefixtures("lean_pytest")
def test_collect_finds_nothing():
    """An expression that fits no test gives pytest's own code for that."""
    assert tiers.collect("lab and not lab") == (tiers.NO_TESTS, [])


def test_every_test_is_in_one_tier_only():
    """The expressions of the tiers divide the suite: no test runs twice, none is forgotten."""
    runs = [run for tier in tiers.TIERS.values() for run in tier.runs]
    marks = ["host", "emulator", "labhost", "lab", *tiers.MARKER_OF_TOPOLOGY.values()]
    kinds = [
        [],
        ["host"],
        ["emulator"],
        ["host", "emulator"],
        ["labhost"],
        ["host", "labhost"],
        ["lab"],
        ["host", "lab"],
    ]
    for chosen in [*kinds, *(["lab", mark] for mark in marks[4:])]:
        facts = {mark: mark in chosen for mark in marks}
        # Marker expressions are Python's boolean ones.
        selected = [run for run in runs if eval(run.markers, {}, facts)]  # noqa: S307
        assert len(selected) == 1, chosen


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        (Counts(3, 0), "3 passed, 0 failed"),
        (Counts(3, 1, 2), "3 passed, 1 failed, 2 skipped"),
    ],
)
def test_total_is_a_plain_line(counts, text):
    """The last line counts the tests of all tiers in pytest's words."""
    outcome = tiers.Outcome(replace(tiers.TIERS["unit"]), 1.0, counts)
    assert tiers.summary([outcome], set()).splitlines()[-1] == text


@pytest.mark.usefixtures("lean_pytest")
def test_junit_of_pytest_is_understood(tmp_path):
    """Passed, failed, broken and skipped tests are told apart in a file that pytest wrote."""
    (tmp_path / "test_a.py").write_text(
        "import pytest\n"
        "@pytest.fixture\n"
        "def broken(): raise ValueError\n"
        "def test_passes(): pass\n"
        "def test_passes_too(): pass\n"
        "def test_fails(): assert False\n"
        "def test_breaks(broken): pass\n"
        "@pytest.mark.skip\n"
        "def test_is_skipped(): pass\n"
    )
    junit = tmp_path / "junit.xml"
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-c", "/dev/null", f"--junitxml={junit}", tmp_path],
        check=False,
        capture_output=True,
    )
    assert tiers.read_junit(junit) == Counts(passed=2, failed=2, skipped=1)

"""The marker `numa_nodes`: tests of tests, in which pytest runs within pytest or beside it."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "downstream"
AS_NOBODY = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
PYTEST = (
    *(sys.executable, "-B", "-m", "pytest", "-p", "no:cacheprovider"),
    *("-p", "no:hypothesispytest", "-p", "no:syrupy"),  # which take half a second to load
)
PRELUDE = """
import os, signal, subprocess, sys, threading, time, warnings
from pathlib import Path
import pytest

def online():
    return Path("/sys/devices/system/node/online").read_text().strip()

numa_nodes = pytest.mark.numa_nodes
"""


@pytest.fixture(scope="module")
def imported():
    """Import what the plugin will: `pytester` forgets later imports, and NumPy allows but one."""
    import movepages.emulator.check
    import movepages.emulator.deferred
    import movepages.emulator.forked
    import movepages.emulator.machine
    import movepages.emulator.pytest_child  # noqa: F401


@pytest.fixture
def project(imported, pytester):  # noqa: ARG001 - a condition
    """Return a function that runs pytest, in this process, on a test file with some lines.

    What the outer pytest makes an error of is a warning again in there.
    """

    def ran(code, *options):
        path = pytester.makepyfile(test_it=PRELUDE + code)
        return pytester.runpytest_inprocess(
            "-p", "no:cacheprovider", "--strict-markers", "-W", "always", *options, path
        )

    return ran


NOT_CI = {name: value for name, value in os.environ.items() if name not in {"CI", "BUILD_NUMBER"}}
"""In CI pytest writes the lines of its summary in full."""


@pytest.fixture
def beside(pytester):
    """Return a function that starts pytest in a process of its own on a test file.

    It gives the process, and the end of a pipe that all processes of it hold open.
    """
    started, ends = [], []

    def start(code, *options, command=PYTEST, **settings):
        path = pytester.makepyfile(test_it=PRELUDE + code)
        held, holds = os.pipe()
        ends.append(held)
        piped = subprocess.PIPE
        process = subprocess.Popen(
            [*command, "--strict-markers", *options, path],
            stdin=piped,
            stdout=piped,
            stderr=piped,
            text=True,
            pass_fds=(holds,),
            env=NOT_CI,
            **settings,
        )
        os.close(holds)
        started.append(process)
        return process, held

    yield start
    for process in started:
        process.kill()
        process.communicate()
    for end in ends:
        os.close(end)


def lines_of(result):
    """Return what pytest has printed, as one text."""
    return "\n".join(result.outlines)


class TestCollection:
    """What happens before any test runs; nothing is emulated."""

    def test_marker_is_registered(self, project):
        """`pytest --markers` tells how to write it."""
        result = project("", "--markers")
        result.stdout.fnmatch_lines(["@pytest.mark.numa_nodes(nodes=None, [*], topology=None, *"])

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            ("", "numa_nodes takes a number of nodes, as in numa_nodes(4), or topology="),
            ("4, topology='4'", "numa_nodes takes a number of nodes, as in numa_nodes(4), or"),
            ("0", "numa_nodes(0): the number of nodes is a whole number from 1 to 128"),
            ("129", "numa_nodes(129): the number of nodes is a whole number from 1 to 128"),
            ("'4'", "numa_nodes('4'): the number of nodes is a whole number from 1 to 128"),
            ("True", "numa_nodes(True): the number of nodes is a whole number from 1 to 128"),
            ("topology='2 y 3'", "'2 y 3' is not a group of nodes"),
            ("topology=4", "numa_nodes(topology=4): topology is a text such as '2x(2cpu,1G) + "),
            (
                "4, semantics='6.13'",
                "numa_nodes(semantics='6.13'): semantics is '6.12', '2.6.18', 'patch' or '2006'",
            ),
            (
                "4, precision='best'",
                "numa_nodes(precision='best'): precision is 'lazy', 'exact', 'faults' or None",
            ),
            ("4, 5", "write numa_nodes(nodes=None, *, topology=None, semantics="),
            ("4, node=5", "numa_nodes() got an unexpected keyword argument 'node'; write numa_"),
        ],
    )
    def test_bad_arguments(self, project, arguments, said):
        """What makes no sense ends pytest before a test runs, and says what does make sense."""
        result = project(f"@numa_nodes({arguments})\ndef test_it(): pass\n")
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        (error,) = [line for line in result.errlines if line]
        assert error.startswith("ERROR: test_it.py::test_it: numa_nodes")
        assert said in error

    def test_all_bad_arguments_at_once(self, project):
        """Every marker that is wrong has its line."""
        result = project("@numa_nodes(0)\ndef test_a(): 1\n@numa_nodes(-1)\ndef test_b(): 1\n")
        assert str(result.stderr).count("ERROR: test_it.py::test_") == 2

    @pytest.mark.parametrize("nodes", [1, 128])
    def test_limits_of_nodes(self, project, nodes):
        """From 1 to 128 nodes are taken."""
        result = project(f"@numa_nodes({nodes})\ndef test_it(): pass\n", "--collect-only")
        assert result.ret == pytest.ExitCode.OK

    def test_bad_option(self, project):
        """What the option may be is said, too."""
        result = project("def test_it(): pass", "-o", "numa_nodes_unavailable=ignore")
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        assert "numa_nodes_unavailable = ignore: write fail or skip" in str(result.stderr)

    def test_nothing_is_imported_without_the_marker(self, beside):
        """Where no test has the marker, the plugin alone is loaded, and nothing that it needs."""
        process, _ = beside(
            "def test_it():\n"
            "    ours = {name for name in sys.modules if name.split('.')[0] == 'movepages'}\n"
            "    assert ours == {'movepages', 'movepages.pytest_plugin'}\n"
            "    assert not {'numpy', 'click', 'rich', 'ctypes'} & set(sys.modules)\n"
        )
        out, _ = process.communicate(timeout=30)
        assert "1 passed" in out
        assert "movepages" in next(line for line in out.splitlines() if "plugins: " in line)


@pytest.mark.emulator
class TestOutcomes:
    """What becomes of a test."""

    def test_nodes(self, project):
        """A test sees the nodes of its marker, and so do programs that it starts."""
        result = project("""
@numa_nodes(4)
def test_nodes():
    assert online() == "0-3"
    shown = subprocess.run(["cat", "/sys/devices/system/node/online"], capture_output=True)
    assert shown.stdout == b"0-3\\n"

@numa_nodes(topology="2x(1cpu,1G) + 1x(0cpu,4G)", semantics="2.6.18", precision="exact")
def test_declared():
    assert online() == "0-2"

HERE = online()

def test_here():
    assert online() == HERE
""")
        result.assert_outcomes(passed=3)

    def test_closest_marker_counts(self, project):
        """A module, a class, a test and a parameter can have the marker; the closest counts."""
        result = project("""
pytestmark = numa_nodes(2)

def test_module():
    assert online() == "0-1"

@numa_nodes(3)
class TestClass:
    def test_class(self):
        assert online() == "0-2"

    @numa_nodes(4)
    def test_function(self):
        assert online() == "0-3"

    @pytest.mark.parametrize("last", [2, pytest.param(4, marks=numa_nodes(5))])
    def test_parameter(self, last):
        assert online() == f"0-{last}"
""")
        result.assert_outcomes(passed=5)

    def test_every_outcome(self, project):
        """Passing, failing, skipping and expecting to fail end as they do without the marker."""
        code = """
import unittest

def test_passes(): pass
def test_fails(): assert online() == "a"
def test_skips(): pytest.skip("why not")
def test_expects(): pytest.xfail("so be it")
@pytest.mark.xfail(reason="known")
def test_xfails(): assert 0
@pytest.mark.xfail(reason="known")
def test_xpasses(): pass
@pytest.mark.xfail(reason="known", strict=True)
def test_xpasses_strictly(): pass
@pytest.mark.xfail(reason="known", raises=KeyError)
def test_xfails_otherwise(): assert 0
@pytest.mark.xfail(reason="known", run=False)
def test_does_not_run(): os.abort()
def test_exits(): sys.exit(3)
class TestCase(unittest.TestCase):
    def setUp(self): self.online = online()
    def test_passes(self): self.assertEqual(self.online, online())
    def test_fails(self): self.assertEqual(self.online, "a")
    def test_skips(self): self.skipTest("why not")
    @unittest.expectedFailure
    def test_expects(self): self.fail()
"""
        without, emulated = project(code), project(f"pytestmark = numa_nodes(2)\n{code}")
        assert emulated.parseoutcomes() == without.parseoutcomes()
        emulated.assert_outcomes(passed=2, failed=5, skipped=2, xfailed=4, xpassed=1)

    def test_traceback(self, project):
        """A failure shows the test's own lines, and what pytest knows of the values."""
        result = project("""
@numa_nodes(2)
def test_fails():
    try:
        {}["cause"]
    except KeyError as error:
        values = [1, 2, 3]
        assert values == [1, 2, 4]
""")
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(
            [
                "*KeyError: 'cause'",
                "During handling of the above exception, another exception occurred:",
                ">           assert values == [[]1, 2, 4]",
                "E           assert [[]1, 2, 3] == [[]1, 2, 4]",
                "E             At index 2 diff: 3 != 4",
                "test_it.py:*: AssertionError",
                "FAILED test_it.py::test_fails - assert [[]1, 2, 3] == [[]1, 2, 4]",
            ]
        )
        assert "movepages" not in lines_of(result)[lines_of(result).index("FAILURES") :]

    def test_subtests(self, project):
        """Subtests count and are shown; one that fails makes the test fail."""
        pytest.importorskip("_pytest.subtests")  # pytest 9
        code = """
def test_parts(subtests):
    for part in range(3):
        with subtests.test(part=part):
            assert part != 1
"""
        without, emulated = project(code), project(f"pytestmark = numa_nodes(2)\n{code}")
        assert emulated.parseoutcomes() == without.parseoutcomes()
        emulated.stdout.fnmatch_lines(["*test_parts (part='1')*", "contains 1 failed subtest"])

    def test_session_ends(self, project):
        """pytest.exit within a test ends pytest, with its reason and its exit code."""
        result = project("@numa_nodes(2)\ndef test_it(): pytest.exit('enough', 7)\n")
        assert result.ret == 7
        assert "Exit: enough" in lines_of(result)

    def test_broken_hook(self, pytester, project):
        """A plugin that raises in the child is a failure, and its traceback is shown."""
        pytester.makeconftest(
            "def pytest_runtest_makereport(item, call): 1 / (call.when != 'call')"
        )
        result = project("@numa_nodes(2)\ndef test_it(): pass\n")
        assert "ZeroDivisionError" in lines_of(result)

    def test_hooks_of_others_see_the_report(self, pytester, project):
        """A conftest that keeps reports for fixtures gets that of the child."""
        pytester.makeconftest("""
import pytest

@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(item, call):
    report = yield
    setattr(item, report.when, report)
    return report

@pytest.fixture(autouse=True)
def shown(request):
    yield
    print("it", request.node.call.outcome)
""")
        result = project("@numa_nodes(2)\ndef test_it(): assert 0\n", "-s")
        assert "it failed" in lines_of(result)


@pytest.mark.emulator
class TestBesidesTheOutcome:
    """What else a test leaves: output, warnings, properties, time."""

    @pytest.mark.parametrize("capture", ["fd", "sys"])
    def test_output(self, project, capture):
        """Standard output, standard error and logging are captured, and shown on failure."""
        result = project(
            """
import logging

@numa_nodes(2)
def test_fails():
    print("on stdout")
    print("on stderr", file=sys.stderr)
    logging.warning("in the log")
    assert 0
""",
            f"--capture={capture}",
        )
        text = lines_of(result)
        shown = re.findall(r"-- Captured (\w+) call -+\n(.*?)\n", text)
        assert shown == [
            ("stdout", "on stdout"),
            ("stderr", "on stderr"),
            ("log", "WARNING  root:test_it.py:16 in the log"),
        ]

    def test_fixtures_that_capture(self, project):
        """capfd, caplog, recwarn and monkeypatch work as ever."""
        result = project("""
import logging

@numa_nodes(2)
def test_it(capfd, caplog, recwarn, monkeypatch):
    os.system("echo from a child")
    assert capfd.readouterr().out == "from a child\\n"
    logging.warning("in the log")
    assert caplog.messages == ["in the log"]
    warnings.warn("careful")
    assert [str(one.message) for one in recwarn] == ["careful"]
    monkeypatch.setenv("HERE", "1")
    assert os.environ["HERE"] == "1"

def test_next():
    assert "HERE" not in os.environ
""")
        result.assert_outcomes(passed=2)

    def test_warnings(self, project):
        """Warnings are in pytest's summary, be their class as odd as it may."""
        result = project("""
class Odd(UserWarning):
    def __init__(self, one, other): super().__init__(one + other)

@numa_nodes(2)
def test_warns(record_property):
    warnings.warn("careful")
    warnings.warn(Odd("very", "careful"))
""")
        result.assert_outcomes(passed=1, warnings=2)
        result.stdout.fnmatch_lines(
            [
                "test_it.py::test_warns",
                "*: UserWarning: careful",
                "*: UserWarning: Odd: verycareful",
            ]
        )

    def test_warnings_as_errors(self, project):
        """A filter that makes a warning an error holds in the child."""
        code = "@numa_nodes(2)\ndef test_it(): warnings.warn('careful')\n"
        project(code, "-W", "error").assert_outcomes(failed=1)

    def test_properties_and_time(self, pytester, project):
        """What a test records, prints and takes is in the JUnit file."""
        project(
            """
@numa_nodes(2)
def test_it(record_property):
    record_property("answer", 42)
    record_property("odd", threading.Lock())
    print("shown")
""",
            "--junitxml=junit.xml",
            "-o",
            "junit_logging=all",
        )
        text = (pytester.path / "junit.xml").read_text()
        assert '<property name="answer" value="42"' in text
        assert '<property name="odd" value="&lt;unlocked' in text
        assert "shown" in text
        assert re.search(r'<testcase [^>]*time="0\.\d+"', text)

    def test_fixtures_live_outside(self, project):
        """Fixtures are pytest's own process's; what the test changes stays in its child."""
        result = project("""
made = []

@pytest.fixture(scope="module")
def pid():
    made.append(1)
    yield os.getpid()
    assert made == [1]

@numa_nodes(2)
def test_changes(pid, tmp_path):
    assert os.getpid() != pid
    made.append(2)
    (tmp_path / "file").write_text("x")

def test_sees(pid):
    assert (os.getpid(), made) == (pid, [1])
""")
        result.assert_outcomes(passed=2)

    def test_teardown_that_fails(self, project):
        """An error in a fixture's end is shown with what the test has printed."""
        result = project("""
@pytest.fixture
def bad():
    yield
    assert 0

@numa_nodes(2)
def test_it(bad): print("from the test")
""")
        result.assert_outcomes(passed=1, errors=1)
        result.stdout.fnmatch_lines(["*- Captured stdout call -*", "from the test"])


@pytest.mark.emulator
class TestTestsThatBreak:
    """A test can harm nobody but itself."""

    def test_crash(self, project):
        """A crash is a failure with Python's traceback of it, and what was printed until then."""
        result = project("""
@numa_nodes(2)
def test_crashes():
    print("so far")
    import ctypes
    ctypes.string_at(0)

@numa_nodes(2)
def test_next(): pass
""")
        result.assert_outcomes(passed=1, failed=1)
        result.stdout.fnmatch_lines(
            [
                "the test was killed by SIGSEGV",
                "*, line * in test_crashes",
                "*stdout call*",
                "so far",
            ]
        )
        assert "_pytest" not in lines_of(result)

    def test_end_of_the_process(self, project):
        """A test whose process ends before it returns has failed, and is told how."""
        result = project("""
pytestmark = numa_nodes(2)

def test_exit_well(): os._exit(0)
def test_exit(): os._exit(3)
def test_execute(): os.execlp("true", "true")
def test_kill(): os.kill(os.getpid(), 9)
def test_kill_supervisor():
    os.kill(os.getppid(), 9)
    signal.pause()
def test_next(): pass
""")
        result.assert_outcomes(failed=5, passed=1)
        ended = "the test ended its process with exit code {} instead of returning*"
        result.stdout.fnmatch_lines(
            [
                ended.format(0),
                ended.format(3),
                ended.format(0),
                "the test was killed by SIGKILL",
                "the emulator's supervisor was ended (killed), so 1 process of test_it.py::*",
            ]
        )

    def test_what_is_left_running_is_ended(self, project, pytester):
        """Children and daemons of a test are gone when it has been reported."""
        result = project("""
@numa_nodes(2)
def test_leaves():
    for daemon in (False, True):
        if os.fork() == 0:
            if daemon:
                os.setsid()
                if os.fork(): os._exit(0)
            with open("pids", "a") as file: file.write(f"{os.getpid()}\\n")
            signal.pause()
    while not Path("pids").exists() or Path("pids").read_text().count("\\n") < 2: time.sleep(0.01)
""")
        result.assert_outcomes(passed=1)
        pids = (pytester.path / "pids").read_text().split()
        assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []

    def test_fork_that_returns(self, project):
        """A child of the test that returns from it as well changes nothing."""
        project("@numa_nodes(2)\ndef test_it(): os.fork()\n").assert_outcomes(passed=1)

    def test_threads(self, project):
        """Threads of pytest's process do no harm, and those of a test do as ever."""
        result = project("""
import numpy

waiting = threading.Event()
threading.Thread(target=waiting.wait, daemon=True).start()
matrix = numpy.ones((300, 300)) @ numpy.ones((300, 300))

@numa_nodes(2)
def test_threads():
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(online())) for _ in range(8)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    assert answers == ["0-1"] * 8
    assert (numpy.ones((300, 300)) @ numpy.ones((300, 300)) == matrix).all()

@numa_nodes(2)
def test_thread_that_raises():
    thread = threading.Thread(target=lambda: 1 / 0)
    thread.start()
    thread.join()

def test_end(): waiting.set()
""")
        result.assert_outcomes(passed=3, warnings=1)

    def test_timeout(self, project):
        """A test that hangs is ended by pytest-timeout, with a traceback of where it hangs."""
        result = project("@numa_nodes(2)\ndef test_it():\n    signal.pause()\n", "--timeout=0.3")
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines([">       signal.pause()", "E       Failed: Timeout (>0.3s)*"])

    def test_timeout_that_the_test_ignores(self, project, monkeypatch):
        """A test that blocks the alarm is ended from outside."""
        monkeypatch.setattr("movepages.emulator.forked._TO_HEED_SECONDS", 0.2)
        result = project(
            "@numa_nodes(2)\ndef test_it():\n"
            "    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})\n    signal.pause()\n"
            "def test_next(): pass\n",
            "--timeout=0.3",
        )
        result.assert_outcomes(failed=1, passed=1)
        assert "Timeout (>0.3s) from pytest-timeout." in lines_of(result)

    def test_alarm_that_does_not_go_off(self, project):
        """A test in time leaves the alarm to those behind it."""
        result = project(
            "@numa_nodes(2)\ndef test_it(): pass\n"
            "def test_alarm(): assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= 50\n"
            "@pytest.fixture\ndef left():\n    yield\n"
            "    assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= 50\n"
            "@numa_nodes(2)\ndef test_teardown(left): pass\n",
            "--timeout=50",
        )
        result.assert_outcomes(passed=3)


WAITS = """
@numa_nodes(2)
def test_waits():
    try:
        print("running", flush=True)
        signal.pause()
    finally:
        print("unwound", flush=True)
"""


@pytest.mark.emulator
class TestInterruption:
    """Whoever ends pytest ends the test as well."""

    @staticmethod
    def gone(held):
        """Wait until no process holds the pipe any more."""
        return os.read(held, 1) == b""

    def test_interrupt(self, beside):
        """SIGINT sent to pytest alone lets the test unwind, and ends pytest."""
        process, held = beside(WAITS, "-s")
        while "running" not in process.stdout.readline():
            pass
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=30)
        assert process.returncode == pytest.ExitCode.INTERRUPTED
        assert "unwound" in out
        assert "KeyboardInterrupt" in out
        assert self.gone(held)

    def test_interrupt_from_the_terminal(self, pytester):
        """Ctrl-C, which reaches all processes at a terminal at once, does the same."""
        path = pytester.makepyfile(test_it=PRELUDE + WAITS)
        pid, terminal = pty.fork()
        if pid == 0:
            os.execv(sys.executable, [*PYTEST, "-s", "--strict-markers", str(path)])  # noqa: S606
        said = b""
        while b"running" not in said:
            said += os.read(terminal, 4096)
        os.write(terminal, b"\x03")
        with suppress(OSError):  # EIO, once nobody has the terminal open any more
            while said := said + os.read(terminal, 4096):
                pass
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        os.close(terminal)
        assert code == pytest.ExitCode.INTERRUPTED
        assert b"unwound" in said

    def test_kill(self, beside):
        """Killed, pytest leaves no process behind."""
        process, held = beside(WAITS, "-s")
        while "running" not in process.stdout.readline():
            pass
        process.kill()
        assert process.wait(timeout=30) == -signal.SIGKILL
        assert self.gone(held)

    def test_debugger_and_output_that_is_not_captured(self, beside):
        """--pdb stops on the emulated machine; with -s each line comes once, and in order."""
        process, _ = beside(
            "print('first')\n@numa_nodes(3)\ndef test_it():\n    print('second')\n    assert 0\n"
            "def test_next(): print('third')\n",
            "--pdb",
            "-qs",
        )
        out, _ = process.communicate("p online()\nc\n", timeout=30)
        assert "post_mortem" in out
        assert "1 failed, 1 passed" in out
        shown = re.findall(r"^F?\W*(first|second|\(Pdb\) '0-2'|third)$", out, re.MULTILINE)
        assert shown == ["first", "second", "(Pdb) '0-2'", "third"], out


@pytest.mark.emulator
class TestUnavailable:
    """Where system calls cannot be answered; here, since an emulator does so already."""

    TWICE = (
        "import pytest, sys; pytest.main(sys.argv[1:]); "
        "pytest.main([*sys.argv[1:], '-rs', '-o', 'numa_nodes_unavailable=skip'])"
    )
    EMULATED = (
        *(sys.executable, "-m", "movepages", "emulate", "--nodes", "2", "--"),
        *(sys.executable, "-B", "-c", TWICE, *PYTEST[4:]),
    )
    CODE = """
@numa_nodes(2)
def test_it(): pass
@pytest.mark.xfail
@numa_nodes(2)
def test_known(): assert 0
"""
    REASON = (
        "numa_nodes cannot emulate nodes here: seccomp: a supervisor answers the system calls of "
        "this process already, and there can be one only; leave that emulator or container, and "
        "start this one outside"
    )

    def test_failure_and_skip(self, beside):
        """A test fails, even one that is expected to; where the project says so, it is skipped.

        The sentence names the remedy, and a skip the test's own place.
        """
        process, _ = beside(self.CODE, command=self.EMULATED)
        out, _ = process.communicate(timeout=30)
        failing, skipping = out.split("2 failed in")
        assert failing.count(f"{self.REASON}; or let such tests be skipped with") == 2
        assert "2 skipped in" in skipping
        skipped = re.findall(r"^SKIPPED \[1\] test_it.py:\d+: (.*)", skipping, re.MULTILINE)
        assert skipped == [self.REASON] * 2


@pytest.mark.emulator
class TestExample:
    """The project of the documentation."""

    COMMAND = (*PYTEST, "-v")
    PAGE = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")

    def said(self, *before):
        """Run its tests, for root or another; return what pytest prints."""
        done = subprocess.run(
            [*before, *self.COMMAND],
            cwd=EXAMPLE,
            capture_output=True,
            text=True,
            check=False,
            timeout=50,
        )
        assert (done.returncode, done.stderr) == (0, ""), done.stdout
        return done.stdout

    def test_as_documented(self):
        """It prints what the page shows."""
        shown = re.search(r"^\$ pytest -v\n(.*?)^```", self.PAGE, re.MULTILINE | re.DOTALL)[1]
        lines = [line for line in shown.splitlines() if line.startswith("test_shards.py::")]
        printed = self.said().splitlines()
        assert len(lines) == 6
        assert [line for line in lines if line not in printed] == []

    def test_as_nobody(self):
        """It needs no privilege at all."""
        drop = AS_NOBODY if os.geteuid() == 0 else ()
        assert "6 passed" in self.said(*drop)

    def test_it_knows_nothing_of_us(self):
        """The marker is all that it uses: nothing of ours is imported."""
        texts = [path.read_text(encoding="utf-8") for path in sorted(EXAMPLE.glob("*.py"))]
        assert len(texts) == 2
        assert [text for text in texts if "movepages" in text] == []

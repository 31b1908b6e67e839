"""`movepages emulate`: what is refused before anything runs, and what a user sees of a run."""

from __future__ import annotations

import errno
import json
import os
import pty
import re
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from movepages.cli.emulate import _topology
from movepages.errors import TopologyError

TOPOLOGIES = Path(__file__).parents[1] / "topologies"
MOVEPAGES = (sys.executable, "-m", "movepages", "emulate")
TOML = """
[[nodes]]
cpus = 2
memory = "1G"
[[nodes]]
cpus = 0
memory = "4G"
"""


def emulate(*arguments, **settings):
    """Run `movepages emulate` as a user would."""
    return subprocess.run(
        [*MOVEPAGES, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
        **settings,
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give a command to run, or --check"),
        (("--nodes", "2"), "give a command to run, or --check"),
        (("--nodes", "0", "true"), "0 is not in the range"),
        (("--nodes", "1025", "true"), "1025 is not in the range"),
        (("--nodes", "two", "true"), "'two' is not a valid integer"),
        (("--nodes", "2", "--topology", "2", "true"), "give either --nodes or --topology"),
        (("--topology", "2 y 3", "true"), "'2 y 3' is not a group of nodes"),
        (("--topology", "1x(1cpu,0)", "true"), "no node has memory"),
        (("--topology", "no/such", "true"), "no/such: there is no such file or directory"),
        (("--topology", "such.toml", "true"), "such.toml: there is no such file or directory"),
        (("--semantics", "6.13", "true"), "'6.13' is not one of"),
        (("--precision", "best", "true"), "'best' is not one of"),
        (("--files", "some", "true"), "'some' is not one of"),
        (("--no-such-option", "true"), "No such option"),
        (("--report", "/no/such/folder/file", "true"), "--report /no/such/folder/file: No such"),
    ],
)
def test_wrong_usage(run, arguments, said):
    """What makes no sense is refused in one line, with exit code 2, before anything runs."""
    answer = run("emulate", *arguments)
    assert answer.code == 2
    assert answer.err.startswith("movepages: ")
    assert said in answer.err
    assert answer.err.count("\n") == 1


def test_machine_from_a_declaration():
    """A declaration gives its nodes."""
    topology = _topology("2x(2cpu,1G) + 1x(0cpu,4G)")
    assert [len(node.cpus) for node in topology] == [2, 2, 0]


def test_machine_from_a_file(tmp_path):
    """A TOML file gives its nodes."""
    path = tmp_path / "machine.toml"
    path.write_text(TOML)
    assert [node.memory_bytes for node in _topology(str(path))] == [1 << 30, 4 << 30]


@pytest.mark.parametrize(("name", "cpus"), [("two-sockets", [2, 2]), ("hmat-tiers", [1, 1, 0, 0])])
def test_machine_from_a_captured_tree(tmp_path, name, cpus):
    """A captured tree gives the nodes of the machine that it was captured on."""
    unfold = runpy.run_path(str(TOPOLOGIES / "capture.py"))["unfold"]
    unfold((TOPOLOGIES / f"{name}.txt").read_text(encoding="utf-8"), tmp_path)
    assert [len(node.cpus) for node in _topology(str(tmp_path))] == cpus


@pytest.mark.parametrize(
    ("name", "said"), [("folder", "name the root of a captured tree"), ("binary", "cannot be read")]
)
def test_machine_from_something_else(tmp_path, name, said):
    """A directory that is no captured tree and a file that is no text are refused by name."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "binary").write_bytes(b"\xff\xfe=\0")
    with pytest.raises(TopologyError, match=said):
        _topology(str(tmp_path / name))


@pytest.mark.emulator
class TestRuns:
    """Programs that run."""

    def test_output_is_the_programs_alone(self):
        """Standard output is untouched, and standard error is, too."""
        done = emulate("--nodes", "2", "--", "echo", "--nodes", "hello")
        assert (done.returncode, done.stdout, done.stderr) == (0, "--nodes hello\n", "")

    def test_options_of_the_command_are_its_own(self):
        """Without `--`, too, what stands behind the command belongs to it."""
        assert emulate("sh", "-c", "exit 3", "--check").returncode == 3

    @pytest.mark.parametrize("code", [0, 1, 2, 3, 70, 255])
    def test_exit_code(self, code):
        """The exit code is the command's."""
        assert emulate("--", "sh", "-c", f"exit {code}").returncode == code

    @pytest.mark.parametrize("name", ["TERM", "KILL", "SEGV"])
    def test_death_by_signal(self, name):
        """Death by a signal passes through."""
        done = emulate("--", "sh", "-c", f"kill -{name} $$")
        assert (done.returncode, done.stderr) == (-getattr(signal, f"SIG{name}"), "")

    def test_missing_command(self):
        """A command that is not there is 127, as in a shell."""
        done = emulate("--", "no-such-command")
        assert done.returncode == 127
        assert "there is no command no-such-command" in done.stderr

    @pytest.mark.parametrize("precision", ["lazy", "exact", "faults"])
    def test_verbose_says_how(self, precision):
        """-v says the precision and the files on standard error, in one line."""
        done = emulate("--precision", precision, "--files", "none", "-v", "--", "true")
        assert done.returncode == 0
        assert f"precision {precision}, files none" in done.stderr

    @pytest.mark.parametrize("semantics", ["6.12", "2.6.18", "patch", "2006"])
    def test_each_semantics_starts(self, semantics):
        """A program runs under each of the four kernels."""
        assert emulate("--semantics", semantics, "--", "true").returncode == 0

    def test_report(self, tmp_path):
        """--report writes JSON at the end, over what was there."""
        path = tmp_path / "report.json"
        path.write_text("x" * 100_000)
        assert emulate("--report", "report.json", "--", "true", cwd=tmp_path).returncode == 0
        assert json.loads(path.read_text())["calls"]["execve"] == 1

    def test_nothing_is_left_behind(self, tmp_path):
        """The files that were generated are gone at the end, also when nothing could be run."""
        environment = {**os.environ, "TMPDIR": str(tmp_path)}
        assert emulate("--", "true", env=environment).returncode == 0
        assert emulate("--", "no-such-command", env=environment).returncode == 127
        assert list(tmp_path.iterdir()) == []

    def test_missing_cpus_are_said_once(self):
        """CPUs that were declared and that this machine lacks are told of; those of --nodes not."""
        done = emulate("--topology", "2x(999cpu,1G)", "--", "true")
        assert (done.returncode, done.stderr.count("\n")) == (0, 1)
        assert "some declared ones are left out" in done.stderr
        assert emulate("--nodes", "64", "--", "true").stderr == ""

    def test_check(self):
        """--check says of each thing whether it works, and with what to do where it does not."""
        done = emulate("--check")
        assert done.returncode == 0
        lines = done.stdout.splitlines()
        assert lines[0] == "yes  system calls are answered (seccomp user notification)"
        assert len([line for line in lines if re.match(r"(yes|no ) ", line)]) == 6

    def test_nested(self):
        """Inside the emulator, --check says why there can be no second, and a run is refused."""
        script = '"$@" --check; echo "code $?"; "$@" -- true; echo "code $?"'
        done = emulate("--", "sh", "-c", script, "-", *MOVEPAGES)
        assert "no   system calls are answered" in done.stdout
        assert done.stdout.count("there can be one only") == 1
        assert done.stdout.count("code 5") == 2
        assert done.stderr.count("there can be one only") == 1


class Terminal:
    """A shell with job control on a terminal of its own."""

    def __init__(self):
        """Start it."""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            # A background job of a shell without job control ignores it, and so would this shell.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.environ.update(PS1="$ ", TERM="dumb", HISTFILE="")
            shell = ["bash", "--norc", "--noprofile", "--noediting", "-i"]
            os.execvp("bash", shell)  # noqa: S606 - it is one
        self.text = ""

    def type(self, text):
        """Type something."""
        os.write(self.fd, text.encode())

    def shows(self, pattern):
        """Wait until what it shows has a pattern, and forget all up to there."""
        while not (match := re.search(pattern, self.text)):
            try:
                self.text += os.read(self.fd, 4096).decode()
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                raise AssertionError(f"{pattern!r} is not in {self.text!r}") from None
        self.text = self.text[match.end() :]
        return match[0]

    def end(self):
        """Hang up."""
        os.close(self.fd)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


@pytest.fixture
def terminal():
    """Return a shell on a terminal."""
    started = Terminal()
    yield started
    started.end()


@pytest.mark.emulator
class TestTerminal:
    """At a terminal it is as without the emulator."""

    EMULATE = " ".join(MOVEPAGES)

    def test_interrupt(self, terminal):
        """Ctrl-C interrupts the program, and the shell sees an interrupted command."""
        terminal.type(f"{self.EMULATE} -- sh -c 'echo rea''dy; exec sleep 300'; echo code=$?\n")
        terminal.shows(r"ready")
        terminal.type("\x03")
        terminal.type("echo co''de=$?\n")
        terminal.shows(r"code=130")

    def test_interrupt_that_the_program_handles(self, terminal):
        """A program that handles Ctrl-C goes on, and its exit code counts."""
        terminal.type(
            f"{self.EMULATE} -- bash -c 'trap \"echo cau''ght; exit 7\" INT; echo rea''dy; "
            "while :; do read -t 300; done'; echo co''de=$?\n"
        )
        terminal.shows(r"ready")
        terminal.type("\x03")
        terminal.shows(r"caught")
        terminal.shows(r"code=7")

    def test_job_control(self, terminal):
        """Ctrl-Z stops it, the shell says so, and `fg` lets it go on."""
        terminal.type(f"{self.EMULATE} -- sh -c 'echo rea''dy; read line; echo \"got $line\"'\n")
        terminal.shows(r"ready")
        terminal.type("\x1a")
        terminal.shows(r"Stopped")
        terminal.type("echo she''ll\n")
        terminal.shows(r"shell")
        terminal.type("fg\n")
        terminal.shows(r"read line")
        terminal.type("input\n")
        terminal.shows(r"got input")
        terminal.type("echo co''de=$?\n")
        terminal.shows(r"code=0")

    def test_full_screen_program(self, terminal):
        """An editor that takes the terminal over works, and leaves it as it was."""
        terminal.type(
            f"{self.EMULATE} -- bash -c 'stty raw -echo; echo r''aw; read -n 1; stty sane; exit 4'"
            "; echo co''de=$?\n"
        )
        terminal.shows(r"raw")
        terminal.type("q")
        terminal.shows(r"code=4")

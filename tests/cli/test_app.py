from __future__ import annotations

import io

import pytest

from movepages import __version__
from movepages.cli import main
from movepages.report.output import Output


class Raising:
    """A machine whose topology cannot be read."""

    def __init__(self, error):
        """Take what it raises."""
        self.error = error

    def topology(self):
        """Fail."""
        raise self.error


class Full(io.StringIO):
    """A stream that cannot take anything."""

    def __init__(self, error):
        """Take what it raises."""
        super().__init__()
        self.error = error

    def write(self, _text):
        """Fail."""
        raise self.error


def test_version(run):
    """--version names the program and its version."""
    assert run("--version").out == f"movepages {__version__}\n"


def test_without_a_command_the_help_is_shown(run):
    """A bare `movepages` shows its help on standard error and ends as misused."""
    answer = run()
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("Usage: movepages [OPTIONS] ")


@pytest.mark.parametrize("error", [ValueError("seven"), FileNotFoundError(2, "gone", "/sys/x")])
def test_a_defect_is_one_line(capsys, error):
    """What nobody foresaw ends with 70 and one line that names it and asks to report it."""
    assert main(["nodes"], machine=Raising(error)) == 70
    told = capsys.readouterr().err
    assert told.startswith(
        f"movepages: unexpected {type(error).__name__}: {error}; this is a defect"
    )
    assert told.count("\n") == 1


def test_a_defect_shows_its_traceback_on_request(capsys, monkeypatch):
    """With MOVEPAGES_DEBUG=1 the traceback comes as well."""
    monkeypatch.setenv("MOVEPAGES_DEBUG", "1")
    assert main(["nodes"], machine=Raising(ValueError("seven"))) == 70
    assert capsys.readouterr().err.startswith("Traceback (most recent call last):\n")


def test_interrupt(capsys):
    """Ctrl-C ends it with one line and the exit code that shells use for it."""
    assert main(["nodes"], machine=Raising(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err.strip() == "movepages: interrupted"


def test_interrupt_of_a_migration_tells_where_to_look(run, machine, monkeypatch):
    """Pages may have moved by then: it is said, with the command that shows where they are."""

    def interrupted(*_arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(machine, "migrate_pages", interrupted)
    answer = run("migrate", "1234", "--from", "0", "--to", "1", "--kernel")
    assert answer.code == 130
    assert answer.err.strip() == (
        "movepages: interrupted; some pages of process 1234 may have moved: see movepages show 1234"
    )


def test_closed_pipe(machine, capfd):
    """`movepages ... | head` ends without a word."""
    output = Output(Full(BrokenPipeError(32, "Broken pipe")))
    assert main(["nodes"], machine=machine, output=output) == 141
    assert capfd.readouterr().err == ""


def test_full_disk(machine, capfd):
    """Output that cannot be written is said to be so, and is no defect of the program."""
    output = Output(Full(OSError(28, "No space left on device")))
    assert main(["nodes"], machine=machine, output=output) == 74
    told = capfd.readouterr().err
    assert told == "movepages: the output cannot be written: No space left on device\n"

from __future__ import annotations

import io
import json
import os
import signal

from movepages.cli import main
from movepages.cli.watching import watch
from movepages.report.output import Output


class Clock:
    """A clock that is set forward by waiting, and by `showing_s` for each look."""

    time = 100.0

    def now(self):
        """Return the time."""
        return self.time

    def sleep(self, seconds):
        """Wait for nobody."""
        self.time += seconds


def watched(times, every_s, showing_s=0.0, *, terminal=False):
    """Watch so many times; return the times at which it was shown, and what was written."""
    clock, shown, stream = Clock(), [], io.StringIO()

    def show(output):
        shown.append(round(clock.now() - 100.0, 3))
        output.line(f"look {len(shown)}")
        clock.time += showing_s

    watch(show, Output(stream, terminal=terminal), every_s, clock, lambda: len(shown) >= times)
    return shown, stream.getvalue()


def test_at_once_and_then_at_each_interval():
    """It is shown at once, and then at multiples of the interval: the times do not drift."""
    assert watched(4, 0.5, 0.2)[0] == [0.0, 0.5, 1.0, 1.5]


def test_a_time_that_is_missed_is_left_out():
    """Where showing takes longer than the interval, the next time is the next multiple of it."""
    assert watched(3, 0.5, 0.7)[0] == [0.0, 1.0, 2.0]


def test_showing_that_takes_just_the_interval():
    """Where showing ends just at the next time, that one has begun and is left out."""
    assert watched(3, 0.5, 0.5)[0] == [0.0, 1.0, 2.0]


def test_in_a_pipe_one_after_the_other():
    """In a pipe looks follow each other, without an escape."""
    assert watched(2, 1)[1] == "look 1\nlook 2\n"


def test_on_a_terminal_in_place():
    """On a terminal each look is written over the last, and what is left of that is cleared."""
    written = watched(2, 1, terminal=True)[1]
    assert written == ("\x1b[H\x1b[2J\x1b[Hlook 1\x1b[K\n\x1b[J\x1b[Hlook 2\x1b[K\n\x1b[J")


def test_no_more_lines_than_the_terminal_has(monkeypatch):
    """What does not fit the terminal is cut: 23 lines on one of 24."""
    monkeypatch.setenv("LINES", "24")
    monkeypatch.setenv("COLUMNS", "80")
    stream, shown = io.StringIO(), []

    def show(output):
        shown.append(1)
        for number in range(24):
            output.line(f"line {number}")

    watch(show, Output(stream, terminal=True), 1, Clock(), lambda: bool(shown))
    assert "line 22" in stream.getvalue()
    assert "line 23" not in stream.getvalue()


def looks(machine, *arguments):
    """Return the exit code of `movepages` and what it writes while it watches a machine.

    All on node 0 moves to node 2 between the first look and the second, at which the person
    presses Ctrl-C.
    """
    seen = []

    def mappings(pid):
        seen.append(pid)
        if len(seen) == 2:
            machine.migrate_pages(pid, [0], [2])
            os.kill(os.getpid(), signal.SIGINT)
        return machine.mapped

    machine.mappings = mappings
    stream = io.StringIO()
    code = main([*arguments, "--watch", "1ms"], machine=machine, output=Output(stream))
    return code, stream.getvalue()


def test_what_changed_is_told(machine):
    """The second look tells what came and went on each node since the first; Ctrl-C is no error."""
    code, written = looks(machine, "show", "1234")
    first, second = written.split("\n\npython3")
    assert code == 0
    assert [line.split()[-1] for line in first.splitlines()[1:4]] == ["80%", "20%", "<1%"]
    assert [line.split()[-1] for line in second.splitlines()[1:4]] == ["-4.00G", "20%", "+4.00G"]


def test_json_has_a_document_on_each_line(machine):
    """--json writes a document on a line for each look."""
    code, written = looks(machine, "show", "1234", "--json")
    assert code == 0
    assert [list(json.loads(line)["bytes_by_node"]) for line in written.splitlines()] == [
        ["0", "1", "2"],
        ["1", "2"],
    ]


def test_several_processes_can_be_watched(machine):
    """Several processes stand side by side at each look."""
    code, written = looks(machine, "show", "1234,77")
    assert code == 0
    assert written.count("PROCESS") == 2


def test_what_follows_ctrl_c_begins_a_line(machine):
    """--watch alone looks every second; on a terminal, which shows ^C, a line ends behind that."""
    mapped = machine.mapped

    def mappings(_pid):
        os.kill(os.getpid(), signal.SIGINT)
        return mapped

    machine.mappings = mappings
    stream = io.StringIO()
    output = Output(stream, terminal=True)
    assert main(["show", "1234", "--watch"], machine=machine, output=output) == 0
    assert stream.getvalue().count("resident in") == 1
    assert stream.getvalue().endswith("\x1b[J\n")

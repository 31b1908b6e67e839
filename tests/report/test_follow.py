"""What a person reads of where threads ran, and of moves while they are made."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest

from movepages.placement.keep_near import Ended
from movepages.placement.running import Running
from movepages.report.follow import followed_json, ran, write_followed
from movepages.report.output import Output

TASK = SimpleNamespace(pid=7, command="a\x1bb")


@pytest.mark.parametrize(
    ("running", "said"),
    [
        (Running({1: 1.0}, ran=True), "ran 100% on node 1"),
        (
            Running({0: 0.004, 2: 0.996}, ran=True),
            "ran >99% on node 2, <1% on node 0",
        ),
        (Running({3: 0.5, 1: 0.5}, ran=True), "ran 50% on node 1, 50% on node 3"),
        (Running({0: 1.0}, ran=False), "did not run; by their last CPUs they are 100% on node 0"),
        (Running({}, ran=True), "ran on no CPU that belongs to a node"),
    ],
)
def test_where_threads_ran(running, said):
    """The busiest node first; not rounded to nothing or all; and whether they ran at all."""
    assert ran(running) == said


@pytest.mark.parametrize(
    ("seconds", "written"),
    [(0.9, "0:00"), (59.99, "0:59"), (60, "1:00"), (3599, "59:59"), (3600, "1:00:00")],
)
def test_the_time_of_an_event(seconds, written):
    """Since the beginning, in minutes and seconds, and hours if there are any; names are safe."""
    stream = io.StringIO()
    write_followed(Ended(TASK, seconds), Output(stream))
    assert stream.getvalue() == f"{written:>7}  a\\x1bb (7) has ended\n"


def test_the_end_of_a_process_as_json():
    """It has no moved pages, not even none."""
    said = followed_json(Ended(TASK, 1.5), "everything")
    assert said == {"seconds": 1.5, "pid": 7, "command": "a\x1bb", "moved": None}

"""The verdict of `movepages doctor`, and how its checks are written."""

from __future__ import annotations

import io

import pytest

from movepages.nodeset import NodeSet
from movepages.placement.doctor import no, note, yes
from movepages.report.doctor import DoctorSnapshot, to_json, write_text
from movepages.report.output import Output
from movepages.values import TaskInfo

TASK = TaskInfo(
    pid=7,
    boot_id="",
    start_ticks=1,
    command="cat",
    uid=0,
    state="S",
    mems_allowed=NodeSet([0]),
    cpus_allowed=(0,),
    last_cpus=(0,),
)
ALL, OWN = yes("rights", "all"), note("rights", "own", "be root")


@pytest.mark.parametrize(
    ("task", "checks", "verdict"),
    [
        (TASK, (yes("call", "it answers"), OWN), "You can move pages of cat (7)"),
        (
            TASK,
            (no("call", "it is gone", "find it"),),
            "You cannot move pages of cat (7): it is gone",
        ),
        (
            TASK,
            (no("nodes", "one", "buy"), ALL, no("cpuset", "node 0 only", "widen")),
            "You cannot move pages of cat (7): one; and node 0 only",
        ),
        (None, (ALL,), "You can move pages here, of all processes"),
        (None, (OWN,), "You can move pages here, of your own processes"),
        (None, (no("nodes", "one", "buy"), ALL), "You cannot move pages here: one"),
    ],
)
def test_verdict(task, checks, verdict):
    """What stops it stands in the verdict, all of it; notes do not."""
    snapshot = DoctorSnapshot(task, checks)
    assert snapshot.verdict == verdict
    assert to_json(snapshot)["can_move"] is verdict.startswith("You can move")


@pytest.mark.parametrize("width", [None, 80, 40])
def test_lines_fit(width):
    """No line is longer than the terminal is wide, or 80 characters, and no word is lost."""
    words = " ".join(f"word{number}" for number in range(60))
    stream = io.StringIO()
    write_text(DoctorSnapshot(TASK, (note("x", words, words),)), Output(stream, width=width))
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) <= (width or 80)
    assert " ".join(" ".join(lines).split()).endswith(f"note {words} What to do: {words}")

"""`movepages run` starts programs as numactl does: one emulated machine, each option on both."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pytest

from movepages.abi import Mode, ModeFlag

pytestmark = pytest.mark.emulator

PROGRAM = Path(__file__).with_name("beside_numactl.py")
CPU = min(os.sched_getaffinity(0))
FOUR = [0, 1, 2, 3]
OPTIONS = {
    "": (Mode.DEFAULT, []),
    "-m 1": (Mode.BIND, [1]),
    "--membind=!1": (Mode.BIND, [0, 2, 3]),
    "-i all": (Mode.INTERLEAVE, FOUR),
    "--interleave=1,3": (Mode.INTERLEAVE, [1, 3]),
    "-p 2": (Mode.PREFERRED, [2]),
    "-P 1,2": (Mode.PREFERRED_MANY, [1, 2]),
    "-l": (Mode.LOCAL, []),
    "-b -m +0-1": (Mode.BIND | ModeFlag.NUMA_BALANCING, [0, 1]),
    "-w 1,2": (Mode.WEIGHTED_INTERLEAVE, [1, 2]),
    "-N 0 -l": (Mode.LOCAL, []),
    "-C all": (Mode.DEFAULT, []),
    f"-a --physcpubind={CPU} -m 3": (Mode.BIND, [3]),
}
"""What a program gets, by the manual pages of numactl and of set_mempolicy."""
SINCE_NUMACTL_2_0_17 = {"-w 1,2"}


@pytest.fixture(scope="module")
def said():
    """Return what the program says, which is started once for all tests."""
    return {}


@pytest.fixture
def outcome(said, emulate):
    """Return what came of every option, and of every way to end."""
    if not said:
        done = emulate(sys.executable, PROGRAM, *(f"{option} --" for option in OPTIONS))
        assert done.returncode == 0, done.stderr
        said |= json.loads(done.stdout)
    return said


def test_each_option_gives_the_policy_that_it_names(outcome):
    """Mode and nodes are as documented, and of CPUs only those that were asked for are left."""
    for (option, (mode, nodes)), both in zip(OPTIONS.items(), outcome["options"], strict=True):
        code, text = both[0]
        assert code == 0, (option, text)
        started = json.loads(text)
        assert (option, started["mode"], started["nodes"]) == (option, mode, nodes)
        if f"physcpubind={CPU}" in option:
            assert started["cpus"] == [CPU]


def test_each_option_does_what_it_does_in_numactl(outcome, program):
    """A program sees the same policy, nodes and CPUs, whichever of the two started it."""
    program("numactl", "numactl")
    for option, (ours, theirs) in zip(OPTIONS, outcome["options"], strict=True):
        if option in SINCE_NUMACTL_2_0_17 and theirs[0] == 1:
            continue
        assert theirs[0] == 0, (option, theirs[1])
        assert json.loads(ours[1]) == json.loads(theirs[1]), option


def test_it_ends_as_the_program_does(outcome):
    """Exit code and signal are the program's own, and what cannot be started is as in a shell."""
    ends = outcome["ends"]
    assert ends["exit"] == [7, ""]
    assert ends["signal"] == [-signal.SIGTERM, ""]
    assert ends["pipe"] == [-signal.SIGPIPE, ""]
    assert ends["missing"][0] == 127
    assert "there is no command no-such-command" in ends["missing"][1]
    assert ends["directory"][0] == 126
    assert "/ cannot be executed: Permission denied" in ends["directory"][1]


def test_show_tells_what_a_program_starts_with(outcome):
    """Under another `movepages run`, --show tells that one's policy."""
    code, text = outcome["ends"]["show"]
    assert code == 0
    assert text.splitlines()[:2] == ["policy: interleave", "nodes: 1,3"]
    assert text.splitlines()[-1] == "nodes allowed: 0-3"

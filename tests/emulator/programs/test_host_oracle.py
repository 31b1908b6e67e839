"""The host's kernel as the oracle: it and an emulated machine with one node answer alike.

`odd_calls.py` makes random calls with odd arguments; the seeds are fixed.
"""

from __future__ import annotations

import os
import shutil
import sys
import tomllib
from itertools import zip_longest
from pathlib import Path

import pytest

pytestmark = pytest.mark.emulator

HERE = Path(__file__).parent
PYTHON = (shutil.which("python3", path=os.defpath) or sys.executable, "-S")
"""One that any user may execute: root's own may lie where no other can go."""
ODD_CALLS = (*PYTHON, HERE / "odd_calls.py")
KNOWN = tomllib.loads((HERE / "differences.toml").read_text())["difference"]
CALLS = 1000
SEEDS = [*((seed, False) for seed in range(8)), *((seed, True) for seed in range(8, 10))]


@pytest.fixture(autouse=True)
def one_node():
    """Leaves the tests out where the host could have more nodes than it is compared with."""
    if Path("/sys/devices/system/node/possible").read_text() != "0\n":
        pytest.skip("this machine may have several nodes: only one with a single node is an oracle")


def kernel_threads():
    """Return a kernel thread, if there is one to be seen: it has no executable, nor has a child."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if "\nKthread:\t1\n" in (path / "status").read_text():
                return [path.name]
        except OSError:
            continue
    return []


@pytest.mark.parametrize(("seed", "as_nobody"), SEEDS)
def test_same_answers(native, emulate, seed, as_nobody):
    """A thousand calls give the same values, errnos, statuses and masks, byte for byte."""
    command = (*ODD_CALLS, seed, CALLS, *kernel_threads())
    of_host = native(*command, as_nobody=as_nobody).stdout.splitlines()
    of_ours = emulate(*command, nodes=1, as_nobody=as_nobody).stdout.splitlines()
    assert len(of_host) == CALLS
    differences = [
        f"kernel:   {host}\nemulator: {ours}"
        for host, ours in zip_longest(of_host, of_ours)
        if host != ours
    ]
    assert differences == []


def test_known_differences_are_few():
    """There are at most five, and ten thousand calls are compared."""
    assert len(KNOWN) <= 5
    assert CALLS * len(SEEDS) == 10_000


@pytest.mark.parametrize("known", KNOWN, ids=lambda known: known["name"])
def test_known_difference(native, emulate, known):
    """What is written down as different is: the kernel says one thing, the emulator the other."""
    command = (*PYTHON, "-c", known["reproducer"])
    assert native(*command, cwd=HERE).stdout.strip() == known["kernel"]
    assert emulate(*command, nodes=1, cwd=HERE).stdout.strip() == known["emulator"]

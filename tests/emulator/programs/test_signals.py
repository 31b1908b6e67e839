"""Signals that arrive while a program waits for an answer."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.emulator

SOURCE = Path(__file__).with_name("signals.c")
CALLS = 20_000
MICROSECONDS = 500


@pytest.fixture(scope="module")
def signals(tmp_path_factory):
    """The compiled program."""
    program = tmp_path_factory.mktemp("signals") / "signals"
    subprocess.run(["cc", "-Wall", "-Wextra", "-o", program, SOURCE], check=True)
    return program


def counted(emulate, program, how):
    """Return how many signals there were, and how many calls failed with EINTR."""
    said = emulate(program, CALLS, MICROSECONDS, how).stdout
    return tuple(map(int, said.split()))


def test_calls_are_restarted_for_handlers_that_want_it(emulate, signals):
    """With SA_RESTART no call fails, though hundreds are interrupted before they are received."""
    handled, interrupted = counted(emulate, signals, "restart")
    assert handled > 100
    assert interrupted == 0


def test_no_signal_interrupts_more_than_one_call(emulate, signals):
    """Without SA_RESTART the kernel lets a signal end a call that was not received yet: that one.

    Once it is received only a fatal signal can (SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV).
    """
    handled, interrupted = counted(emulate, signals, "interrupt")
    assert handled > 100
    assert interrupted <= handled

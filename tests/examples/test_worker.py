"""The program that checks its own memory: it counts, and it notices."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from movepages.units import parse_range

pytestmark = pytest.mark.host

WORKER = Path(__file__).parents[2] / "examples" / "worker.py"


@pytest.fixture
def worker():
    """The program, running, with one mebibyte."""
    with subprocess.Popen(
        [sys.executable, WORKER, "1"], stdout=subprocess.PIPE, text=True
    ) as started:
        try:
            pid, number, memory, started.span = started.stdout.readline().split()
            assert (pid, int(number), memory) == ("pid", started.pid, "memory")
            yield started
        finally:
            started.kill()


def told(worker):
    """Return the counts of its next line: how often checked, and how many errors."""
    checked, times, _, errors, word = worker.stdout.readline().split()
    assert (checked, word) == ("checked", "errors")
    return int(times), int(errors)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_verdict_at_the_end(worker, how):
    """A signal ends it with what it found; without errors its exit code is 0."""
    worker.send_signal(how)
    times, errors = told(worker)
    assert times > 0
    assert (errors, worker.wait()) == (0, 0)


def test_progress(worker):
    """Asked by SIGUSR1 it tells how far it is, and goes on."""
    worker.send_signal(signal.SIGUSR1)
    first, _ = told(worker)
    worker.send_signal(signal.SIGUSR1)
    second, errors = told(worker)
    assert second > first > 0
    assert errors == 0


def test_wrong_byte_is_noticed(worker):
    """One byte changed behind its back is one error, and exit code 1."""
    start, end = parse_range(worker.span)
    assert end - start == 1 << 20
    worker.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, worker.pid, os.WSTOPPED)
    descriptor = os.open(f"/proc/{worker.pid}/mem", os.O_RDWR)
    where = start + 77 * os.sysconf("SC_PAGE_SIZE") + 7
    byte = os.pread(descriptor, 1, where)
    os.pwrite(descriptor, bytes([byte[0] ^ 1]), where)
    os.close(descriptor)
    worker.send_signal(signal.SIGCONT)
    worker.terminate()
    assert told(worker)[1] == 1
    assert worker.wait() == 1

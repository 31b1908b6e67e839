"""A log of faults that nobody asks yet: it does not run full."""

from __future__ import annotations

import mmap
import os
import threading

import pytest

from movepages.emulator.early_faults import MANY_BYTES, EarlyFaults
from movepages.emulator.host_cpus import read_host_cpus
from movepages.errors import NoSuchProcessError

pytestmark = pytest.mark.emulator

PAGE = mmap.PAGESIZE


@pytest.fixture
def toucher():
    """Return what forks a child that touches so many pages, on demand; they end with the test."""
    children = []

    def forked(pages):
        into, out = os.pipe()
        done_into, done_out = os.pipe()
        pid = os.fork()
        if not pid:
            try:
                os.read(into, 1)
                memory = mmap.mmap(-1, pages * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
                memory.madvise(mmap.MADV_NOHUGEPAGE)
                for at in range(0, pages * PAGE, PAGE):
                    memory[at] = 1
                os.write(done_out, b"x")
                os.read(into, 1)
            finally:
                os._exit(0)
        children.append(pid)

        def touch():
            os.write(out, b"x")
            os.read(done_into, 1)

        return pid, touch

    yield forked
    for pid in children:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


def test_what_rings_cannot_hold_is_kept(toucher):
    """Far more faults than there is room for are all in the log when it is handed over."""
    pages = 120_000
    pid, touch = toucher(pages)
    early = EarlyFaults(pid, read_host_cpus(), lambda: None)
    touch()
    log = early.hand_over()
    with log:
        faults = log.drain()
    assert faults.lost == 0
    assert len(faults) >= pages


@pytest.mark.parametrize(
    ("pages", "many"), [(100, False), (MANY_BYTES // 40 * 3 // 4, False), (MANY_BYTES // 20, True)]
)
def test_many_faults_are_told_once(toucher, pages, many):
    """Whoever wants to know of many faults is told, once, and not of few."""
    told = threading.Semaphore(0)
    pid, touch = toucher(pages)
    early = EarlyFaults(pid, read_host_cpus(), told.release)
    touch()
    if many:
        assert told.acquire(timeout=20)
    early.hand_over().close()
    assert not told.acquire(blocking=False)


def test_nobody_has_no_faults():
    """A task that is not there is an error at once."""
    with pytest.raises(NoSuchProcessError):
        EarlyFaults(1 << 30, read_host_cpus(), lambda: None)

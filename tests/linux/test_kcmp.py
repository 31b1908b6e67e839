from __future__ import annotations

import os
import threading

import pytest

from movepages.errors import NoSuchProcessError, NotPermittedError
from movepages.linux.kcmp import same_memory

pytestmark = pytest.mark.host


def test_a_task_shares_with_itself():
    """A process has one memory."""
    assert same_memory(os.getpid(), os.getpid()) is True


def test_threads_share():
    """Two threads of a process have the same memory."""
    tids = []
    done = threading.Event()
    started = threading.Event()

    def body():
        tids.append(threading.get_native_id())
        started.set()
        done.wait(20)

    thread = threading.Thread(target=body)
    thread.start()
    started.wait(20)
    assert same_memory(os.getpid(), tids[0]) is True
    done.set()
    thread.join()


def test_a_forked_child_does_not_share(fork):
    """fork(2) copies the memory, in both directions."""
    child = fork()
    assert same_memory(os.getpid(), child.pid) is False
    assert same_memory(child.pid, os.getpid()) is False


@pytest.mark.parametrize("order", [1, -1])
def test_a_task_that_is_not_there(order):
    """A pid beyond all pids is NoSuchProcessError, on either side."""
    pair = (os.getpid(), 2**22 + 1)[::order]
    with pytest.raises(NoSuchProcessError, match="may have ended"):
        same_memory(*pair)


def test_somebody_elses_task(unprivileged):
    """Without rights over a task, comparing with it is NotPermittedError."""

    def compare():
        try:
            same_memory(os.getpid(), 1)
        except NotPermittedError as error:
            return str(error)
        return ""

    assert "run as their user or as root" in unprivileged(compare)

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from movepages.errors import NoSuchProcessError
from movepages.linux import hold
from movepages.linux.hold import Hold
from movepages.linux.tasks import read_task_info

pytestmark = pytest.mark.host


def open_descriptors():
    """Count the descriptors of this process."""
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture(params=["pidfd", "start time"])
def way(request, monkeypatch):
    """Each of the two ways to notice: a pidfd, and the start time where there is none."""
    if request.param == "start time":
        monkeypatch.setattr(hold, "_pidfd", lambda _pid: None)
    return request.param


@pytest.mark.usefixtures("way")
def test_the_end_of_a_process_is_noticed(fork):
    """A held process is alive until it ends; that its parent has not waited makes no difference."""
    child = fork()
    held = Hold(read_task_info(child.pid).id)
    assert held.alive()
    os.kill(child.pid, 9)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not held.alive()
    held.close()
    held.close()


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("other", [{"start_ticks": 1}, {"boot_id": "another"}])
def test_a_pid_that_is_used_again_is_refused(other):
    """The pid of this process with another start time, or in another boot, is another process."""
    own = read_task_info(0).id
    with pytest.raises(NoSuchProcessError):
        Hold(replace(own, **other))


@pytest.mark.usefixtures("way")
def test_a_pid_that_nobody_has_is_refused(no_pid):
    """An unused pid cannot be held."""
    with pytest.raises(NoSuchProcessError):
        Hold(replace(read_task_info(0).id, pid=no_pid))


def test_descriptors_are_given_back():
    """A hold has one descriptor, and none when it is closed, nor when it is refused."""
    own = read_task_info(0).id
    before = open_descriptors()
    Hold(own).close()
    with pytest.raises(NoSuchProcessError):
        Hold(replace(own, start_ticks=1))
    assert open_descriptors() == before

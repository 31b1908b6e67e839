from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from movepages.emulator.access import may_read

pytestmark = pytest.mark.host

NOBODY = 65534
PR_SET_DUMPABLE = 4  # include/uapi/linux/prctl.h

# Says whether the kernel lets it open numa_maps of each of the pids that it is told.
ASKER = """
echo
while read pid; do
    if (: < /proc/$pid/numa_maps) 2> /dev/null; then echo yes; else echo no; fi
done
"""


@pytest.fixture
def asker():
    """Return what starts a process that asks the kernel, as another user if told so."""
    started = []

    def start(command=(), **settings):
        process = subprocess.Popen(
            [*command, "/bin/sh", "-c", ASKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            **settings,
        )
        started.append(process)
        assert process.stdout.readline() == "\n"
        return process

    yield start
    for process in started:
        process.stdin.close()
        process.wait()
        process.stdout.close()


@pytest.fixture
def agree():
    """Return what checks that we and the kernel answer alike, and returns the answer."""

    def ask(caller, pid):
        caller.stdin.write(f"{pid}\n")
        caller.stdin.flush()
        kernels = caller.stdout.readline() == "yes\n"
        assert may_read(caller.pid, pid) == kernels
        return kernels

    return ask


def as_nobody():
    """Return the settings of a process without rights."""
    return {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}


def test_a_process_and_its_threads_may_read_themselves(asker, agree):
    """A process may read what is its own, and so may each of its threads."""
    caller = asker(**as_nobody())
    assert agree(caller, caller.pid)
    answers = []
    thread = threading.Thread(
        target=lambda: answers.append(may_read(threading.get_native_id(), os.getpid()))
    )
    thread.start()
    thread.join()
    assert answers == [True]


def test_one_user_may_read_what_is_his(asker, agree):
    """Processes of one user may read one another."""
    assert agree(asker(**as_nobody()), asker(**as_nobody()).pid)


def test_rights_of_root(asker, agree, root):  # noqa: ARG001 - a condition
    """Root may read all; nobody may not read what is root's, nor what another user has."""
    of_root, of_nobody = asker(), asker(**as_nobody())
    of_other = asker(user=1000, group=1000, extra_groups=[])
    assert agree(of_root, of_nobody.pid)
    assert not agree(of_nobody, of_root.pid)
    assert not agree(of_nobody, of_other.pid)
    assert not agree(of_nobody, os.getpid())


def test_another_group_is_another_user(asker, agree, root):  # noqa: ARG001 - a condition
    """All ids must agree, those of the group as well."""
    other = asker(user=NOBODY, group=1000, extra_groups=[])
    assert not agree(asker(**as_nobody()), other.pid)


def test_root_without_capabilities(asker, agree, root):  # noqa: ARG001 - a condition
    """The user 0 alone is not enough: a target with capabilities may be read by their like only."""
    weak = asker(command=("setpriv", "--bounding-set=-all", "--inh-caps=-all"))
    assert not agree(weak, os.getpid())
    assert agree(weak, asker(command=("setpriv", "--bounding-set=-all", "--inh-caps=-all")).pid)


def test_what_is_not_dumpable_is_for_the_privileged(asker, agree, root):  # noqa: ARG001 - a condition
    """A process that has hidden itself is hidden from its own user, but not from root."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
        os.write(writing, b"x")
        signal.pause()
    os.read(reading, 1)
    os.close(reading)
    os.close(writing)
    try:
        assert not agree(asker(**as_nobody()), child)
        assert agree(asker(), child)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_another_user_namespace(asker, agree, root):  # noqa: ARG001 - a condition
    """Root of a user namespace of its own has no power over what is outside; root outside has."""
    inside = asker(command=("unshare", "--user", "--map-root-user"))
    assert not agree(inside, os.getpid())
    assert agree(asker(), inside.pid)


def test_a_process_that_has_ended(no_pid):
    """A process that is gone cannot be asked about."""
    with pytest.raises((FileNotFoundError, ProcessLookupError)):
        may_read(os.getpid(), no_pid)


@pytest.fixture
def no_pid():
    """Return a number that no process has: pids are below pid_max."""
    return int(Path("/proc/sys/kernel/pid_max").read_text(encoding="ascii"))

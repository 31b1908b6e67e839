from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from movepages.abi import seccomp as abi
from movepages.emulator.check import (
    best_precision,
    check,
    frames_problem,
    notification_problem,
    outer_filter_problem,
    perf_problem,
)
from movepages.emulator.filter import Precision, call_numbers
from movepages.linux.seccomp import Filter, Rule

pytestmark = pytest.mark.emulator

EPERM_ANSWER = 0x00050001
"""SECCOMP_RET_ERRNO | EPERM."""

OUTER = """
import ctypes, sys
from movepages.emulator import check
from movepages.linux import libc
program = bytes.fromhex(sys.argv[1])
buffer = ctypes.create_string_buffer(program, len(program))
class Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))
header = Program(len(program) // 8, ctypes.addressof(buffer))
libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1)
assert libc.seccomp(1, 0, ctypes.addressof(header)) == 0
print(getattr(check, sys.argv[2])())
"""


def refusing(*calls):
    """Return a filter that answers EPERM to calls, as containers have it."""
    numbers = call_numbers(platform.machine())
    program = Filter.assemble([Rule(numbers[call]) for call in calls], platform.machine()).program
    notify = abi.SOCK_FILTER.pack(0x06, 0, 0, abi.RET_USER_NOTIF)
    return program.replace(notify, abi.SOCK_FILTER.pack(0x06, 0, 0, EPERM_ANSWER))


def within(program, probe):
    """Return what a probe says in a process under a filter."""
    command = (sys.executable, "-c", OUTER, program.hex(), probe)
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    return done.stdout.strip()


def test_everything_required_works_here():
    """On the machine of this tier system calls are answered, and every probe has its say."""
    findings = check()
    assert [finding.problem for finding in findings if finding.required] == [""]
    assert len({finding.what for finding in findings}) == len(findings) == 6


def test_probing_changes_nothing():
    """Probing leaves no child and no descriptor, and can be repeated."""
    before = sorted(os.listdir("/proc/self/fd"))  # noqa: PTH208
    assert check() == check()
    assert sorted(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_outer_filter_that_answers_eperm():
    """A filter outside that refuses some of the calls is found out, and names them."""
    said = within(refusing("move_pages", "mbind"), "notification_problem")
    assert "answers move_pages,mbind before we can" in said
    assert "--cap-add SYS_NICE" in said


def test_outer_filter_that_forbids_filters():
    """A filter outside that refuses seccomp(2) is a sentence with the remedy."""
    assert "seccomp=unconfined" in within(refusing("seccomp"), "notification_problem")


def test_outer_filter_that_forbids_perf():
    """Without perf_event_open the best precision is `exact`, and the sentence names the sysctl."""
    program = refusing("perf_event_open")
    assert "kernel.perf_event_paranoid" in within(program, "perf_problem")
    assert within(program, "best_precision") == "exact"


def test_outer_filter_is_looked_for_where_there_is_one():
    """What a filter outside answers is found out; without any filter nothing is tried."""
    assert "answers mbind before we can" in within(refusing("mbind"), "outer_filter_problem")
    assert within(refusing("kcmp"), "outer_filter_problem") == ""
    assert outer_filter_problem() == ""


def test_filter_on_calls_of_no_concern():
    """A filter outside that refuses other calls is no problem."""
    assert within(refusing("kcmp", "shmdt"), "notification_problem") == ""


def test_best_precision_follows_perf():
    """`faults` where page faults can be logged, `exact` elsewhere."""
    assert best_precision() is (Precision.EXACT if perf_problem() else Precision.FAULTS)


def test_frames_are_hidden_from_an_ordinary_user(unprivileged):
    """Page frame numbers need CAP_SYS_ADMIN, and the sentence says what is lost without."""
    assert "run as root" in unprivileged(frames_problem)
    assert (frames_problem() == "") is (os.geteuid() == 0)


def test_an_ordinary_user_can_be_answered(unprivileged):
    """User notification needs no privilege."""
    assert unprivileged(notification_problem) == ""

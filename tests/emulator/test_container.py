"""The emulator where a container, a sysctl or a filter around it forbids something."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from movepages.abi import seccomp as abi
from movepages.cli.exit_codes import ExitCode
from movepages.emulator.filter import call_numbers
from movepages.linux.seccomp import Filter, Rule

pytestmark = pytest.mark.emulator

EMULATE = (sys.executable, "-m", "movepages", "emulate")
CONTAINER = (
    *("unshare", "--user", "--map-root-user", "--pid", "--mount", "--fork", "--mount-proc"),
)
"""Namespaces of users, pids and mounts, and a /proc of its own."""
NO_NAMESPACES = (
    *("unshare", "--user", "--map-root-user", "sh", "-c"),
    'echo 0 > /proc/sys/user/max_user_namespaces; exec setpriv --bounding-set=-all "$@"',
    "-",
)
"""A user without privilege, and without namespaces (user.max_user_namespaces)."""
EPERM_ANSWER = 0x00050001
"""SECCOMP_RET_ERRNO | EPERM."""
FILTERED = """
import ctypes, os, sys
from movepages.linux import libc
program = bytes.fromhex(sys.argv[1])
buffer = ctypes.create_string_buffer(program, len(program))
class Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))
header = Program(len(program) // 8, ctypes.addressof(buffer))
libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1)
assert libc.seccomp(1, 0, ctypes.addressof(header)) == 0
os.execv(sys.argv[2], sys.argv[2:])
"""


def refusing(*calls):
    """Return how to run a command under a filter that answers EPERM to calls."""
    machine = platform.machine()
    numbers = call_numbers(machine)
    program = Filter.assemble([Rule(numbers[call]) for call in calls], machine).program
    notify = abi.SOCK_FILTER.pack(0x06, 0, 0, abi.RET_USER_NOTIF)
    program = program.replace(notify, abi.SOCK_FILTER.pack(0x06, 0, 0, EPERM_ANSWER))
    return (sys.executable, "-c", FILTERED, program.hex())


def emulate(within, *command, options=()):
    """Run a command under the emulator within something; return what came of it."""
    return subprocess.run(
        [*within, *EMULATE, *options, "--", *command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )


def left_behind(front):
    """Return what the emulator of a front has left of its generated files."""
    places = map(Path, ("/dev/shm", tempfile.gettempdir()))
    return [path for place in places for path in place.glob(f"movepages-{front}-*")]


def test_nodes_of_a_container():
    """In namespaces of its own a program sees the nodes, and its pages are where its policy says.

    Its numa_maps is found by the number that it has there.
    """
    script = "cat /sys/devices/system/node/online; echo $$; exec cat /proc/$$/numa_maps"
    done = emulate(CONTAINER, "numactl", "--membind=3", "sh", "-c", script)
    online, pid, *maps = done.stdout.splitlines()
    assert (done.returncode, done.stderr, online) == (0, "", "0-3")
    assert int(pid) < 100
    assert {line.split()[1] for line in maps} == {"bind:3"}
    touched = [line for line in maps if " anon=" in line]
    assert touched
    assert all(" N3=" in line for line in touched)


def test_outer_filter_that_answers_some_calls():
    """Calls that a filter around us refuses are named, with the remedy; the program runs."""
    done = emulate(refusing("move_pages", "mbind"), "echo", "ran")
    assert (done.returncode, done.stdout) == (0, "ran\n")
    assert "outer system call filter answers move_pages,mbind before we can" in done.stderr
    assert "--cap-add SYS_NICE or --security-opt seccomp=unconfined" in done.stderr
    assert done.stderr.count("\n") == 1


def test_outer_filter_that_answers_none_of_them():
    """A filter around us that has nothing against NUMA calls is not mentioned."""
    done = emulate(refusing("kcmp"), "echo", "ran")
    assert (done.returncode, done.stdout, done.stderr) == (0, "ran\n", "")


def test_outer_filter_that_forbids_filters():
    """Where seccomp(2) itself is refused nothing runs, and one sentence says what to do."""
    done = emulate(refusing("seccomp"), "echo", "ran")
    assert (done.returncode, done.stdout) == (ExitCode.CANNOT, "")
    assert "run the container with --security-opt seccomp=unconfined" in done.stderr
    assert done.stderr.count("\n") == 1


def test_outer_listener():
    """Where somebody answers calls already nothing runs, and one sentence says what to do."""
    done = emulate((*EMULATE, "--"), "echo", "ran")
    assert (done.returncode, done.stdout) == (ExitCode.CANNOT, "")
    assert "leave that emulator or container, and start this one outside" in done.stderr
    assert done.stderr.count("\n") == 1


def test_outer_filter_that_forbids_perf():
    """Without a log of faults the emulator is exact, and says so on demand."""
    done = emulate(refusing("perf_event_open"), "numactl", "--show", options=("-v",))
    assert (done.returncode, "membind: 0 1 2 3 " in done.stdout) == (0, True)
    assert "precision exact" in done.stderr


def test_faults_that_cannot_be_logged():
    """Who insists on a log of faults where there can be none gets a sentence, and nothing runs."""
    within = refusing("perf_event_open")
    done = emulate(within, "echo", "ran", options=("--precision", "faults"))
    assert (done.returncode != 0, done.stdout) == (True, "")
    assert "--cap-add PERFMON" in done.stderr
    assert done.stderr.count("\n") == 1


def test_no_namespaces():
    """Where nothing can be mounted opens are answered, and a sentence names the sysctl."""
    distances = "/sys/devices/system/node/node3/distance"
    done = emulate(NO_NAMESPACES, "cat", distances, options=("-v",))
    assert (done.returncode, done.stdout) == (0, "20 20 20 10\n")
    assert "raise user.max_user_namespaces, or run as root" in done.stderr
    check = subprocess.run(
        [*NO_NAMESPACES, *EMULATE, "--check"], capture_output=True, text=True, check=True
    )
    assert "user.max_user_namespaces" in check.stdout


@pytest.mark.parametrize("within", [(), NO_NAMESPACES], ids=["mounted", "not mounted"])
def test_nothing_stays_of_a_supervisor_that_is_killed(start, within):
    """The generated files go even if the supervisor is killed, whether they are mounted or not."""
    script = "echo $PPID; read -r line"
    program = start(*within, *EMULATE, "--", "sh", "-c", f"exec 0<&1; {script}; sleep 300")
    supervisor = int(program.says())
    front = int(Path(f"/proc/{supervisor}/stat").read_text().rpartition(")")[2].split()[1])
    assert bool(left_behind(front)) is bool(within)
    os.kill(supervisor, signal.SIGKILL)
    code, said = program.ended()
    assert program.gone()
    assert (code, "supervisor was ended (killed)" in said) == (ExitCode.CANNOT, True)
    assert left_behind(front) == []

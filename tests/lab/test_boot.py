"""The lab itself, on real guests: two boots, and one that is broken off."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from labkit import kernels, launch, rootfs
from labkit.errors import GuestDiedError, UnavailableError
from labkit.guest import Command
from labkit.project import LAB, Project
from labkit.topologies import TOPOLOGIES

pytestmark = [pytest.mark.labhost, pytest.mark.timeout(150)]


@pytest.fixture(scope="module")
def kernel():
    """Return the kernel to boot; skip where there is none."""
    try:
        launch.find_qemu()
        return kernels.require(kernels.variant(kernels.DEFAULT_KERNEL, rootfs.preferred()))
    except UnavailableError as problem:
        pytest.skip(str(problem))


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Return a project in a place that is hard to reach: below /tmp, private, with a space."""
    root = tmp_path_factory.mktemp("lab") / "a project"
    root.mkdir(mode=0o700)
    (root / "here").write_text("the project\n")
    return Project(root, Path(sys.prefix), Path(sys.executable).resolve())


@pytest.fixture(scope="module")
def guest(kernel, project):
    """Return a running guest."""
    with ExitStack() as stack:
        yield stack.enter_context(launch.boot(TOPOLOGIES["4node"], kernel, project))


class Ran:
    """What a command did."""

    def __init__(self, guest, *argv, **options):
        """Run the command and keep its output, with the time that each piece came."""
        self.pieces = []
        options = {"timeout": 60, **options}
        result = guest.run(Command(argv, **options), self._keep)
        self.code = result.code
        self.timed_out = result.timed_out
        self.out = b"".join(data for stream, _, data in self.pieces if stream == "out")
        self.err = b"".join(data for stream, _, data in self.pieces if stream == "err")

    def _keep(self, stream, data):
        self.pieces.append((stream, time.monotonic(), data))


def test_the_guest_is_the_machine_asked_for(guest):
    """A real kernel with four nodes, two of them without CPUs, has booted."""
    ran = Ran(
        guest, "sh", "-c", "cd /sys/devices/system/node; cat has_memory has_cpu node1/distance"
    )
    assert ran.out == b"0-3\n0-1\n22 10 42 32\n"
    assert guest.release.startswith("6.12.")


def test_exit_codes_pass_through(guest):
    """Also that of a command that a signal ended, as shells tell it, or that does not exist."""
    assert Ran(guest, "sh", "-c", "exit 3").code == 3
    assert Ran(guest, "sh", "-c", "kill -SEGV $$").code == 139
    assert Ran(guest, "no-such-command").code == 127


def test_bytes_pass_unmodified(guest):
    """Every byte value passes, on the stream that it was written to."""
    script = r"import os; os.write(1, bytes(range(256)) * 300); os.write(2, b'\r\n\0')"
    ran = Ran(guest, "python", "-S", "-c", script)
    assert ran.out == bytes(range(256)) * 300
    assert ran.err == b"\r\n\0"


def test_output_arrives_while_the_command_runs(guest):
    """The first line is here before the command writes its second."""
    ran = Ran(guest, "sh", "-c", "echo one; sleep 1; echo two")
    (_, first, one), (_, second, two) = ran.pieces
    assert (one, two) == (b"one\n", b"two\n")
    assert second - first > 0.5


def test_the_project_is_there_for_everybody(guest, project):
    """Another user works in the project's directory with its Python, though both lie in private."""
    script = "import os, sys; print(os.getuid(), os.getgroups(), sys.prefix, os.listdir())"
    ran = Ran(guest, "python", "-c", script, uid=1000)
    assert ran.err == b""
    assert ran.out.decode() == f"1000 [] {project.venv} ['here']\n"


def test_the_root_cannot_be_written(guest, project):
    """Not even root can change the host's files, nor remount them to do so."""
    where = project.root / "here"
    ran = Ran(guest, "sh", "-c", f"mount -o remount,rw / 2>/dev/null; echo gone > '{where}'")
    assert ran.code != 0
    assert where.read_text() == "the project\n"


def test_what_tests_need_is_mounted(guest):
    """Sub groups have a cpuset, home can be written, hugetlb pools and debugfs are there."""
    script = """
        mkdir /sys/fs/cgroup/t && echo 1 > /sys/fs/cgroup/t/cpuset.mems &&
        echo 0 > /sys/fs/cgroup/t/memory.swap.max && rmdir /sys/fs/cgroup/t &&
        touch ~/x /tmp/x /var/tmp/x /run/x /dev/shm/x &&
        cat /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages &&
        test -d /sys/kernel/debug/sched && test -c /dev/kmsg && cat < /dev/fd/0
    """
    assert Ran(guest, "sh", "-ec", script).out == b"0\n"


def test_a_command_ends_at_its_time_out(guest):
    """It is killed, and so is what it started in another session; the guest lives on."""
    ran = Ran(guest, "sh", "-c", "setsid sleep 987 & sleep 987", timeout=1)
    assert (ran.code, ran.timed_out) == (137, True)
    assert Ran(guest, "pgrep", "-f", "sleep 987").code == 1


def test_what_a_command_leaves_behind_is_killed(guest):
    """A background process keeps neither the command's end nor the next command waiting."""
    started = time.monotonic()
    ran = Ran(guest, "sh", "-c", "sleep 654 & echo done")
    assert ran.out == b"done\n"
    assert time.monotonic() - started < 30
    assert Ran(guest, "pgrep", "-f", "sleep 654").code == 1


def test_files_come_back(guest, tmp_path):
    """A file is fetched byte for byte."""
    digest = Ran(guest, "sh", "-c", "head -c 300000 /dev/urandom > /tmp/f; md5sum < /tmp/f")
    guest.fetch("/tmp/f", tmp_path / "f")
    done = subprocess.run(
        ["md5sum"], input=(tmp_path / "f").read_bytes(), capture_output=True, check=True
    )
    assert done.stdout == digest.out


def test_a_panic_ends_the_guest(guest):
    """A panic is told apart, with its trace. It comes last: the guest is gone."""
    with pytest.raises(GuestDiedError, match="sysrq triggered crash") as raised:
        Ran(guest, "sh", "-c", "echo c > /proc/sysrq-trigger")
    assert raised.value.code == 125
    assert "sysrq_handle_crash" in str(raised.value)


def launcher(*argv, **options):
    """Start lab/run."""
    return subprocess.Popen(
        [sys.executable, LAB / "run", *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,
    )


@pytest.mark.usefixtures("kernel")
def test_a_guest_that_hangs_is_given_up():
    """An agent that stops answers nothing: 124 and a trace, and what came before was passed on."""
    stop = ["--timeout", "1", "sh", "-c", "kill -STOP $PPID; sleep 60"]
    with launcher("--", "echo", "before", ":::", *stop) as process:
        out, err = process.communicate(timeout=140)
    assert process.returncode == 124
    assert out == b"before\n"
    assert b"lab: the guest stopped answering\n" in err
    assert b"Kernel panic - not syncing: NMI" in err


def children(pid):
    """Return the processes that a process has started."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_leaves_nothing_behind(tmp_path, signum):
    """Whatever ends the launcher, QEMU and the file server end too, and no file is left."""
    expected = 2 if rootfs.preferred() == "virtiofs" else 1
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    with launcher("--", "true", env=environment) as process:
        pids = wait_for(lambda: children(process.pid), expected)
        watches = [os.pidfd_open(pid) for pid in pids]
        process.send_signal(signum)
        process.communicate(timeout=30)
    for watch in watches:
        assert select.select([watch], [], [], 10)[0], "a child lives on"
        os.close(watch)
    assert process.returncode == (143 if signum == signal.SIGTERM else -signum)
    assert list(tmp_path.iterdir()) == []


def wait_for(listing, count):
    """Return what is listed as soon as there are so many."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if len(found := listing()) == count:
            return found
        os.sched_yield()
    raise AssertionError(f"{found} are not {count}")

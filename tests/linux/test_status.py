from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from movepages.errors import MalformedError, NoSuchProcessError
from movepages.linux.status import parse_status, read_status
from movepages.nodeset import NodeSet

STATUS = Path("status")

# Linux 6.18, shortened to the lines that matter and some that do not.
PROCESS = """\
Name:\tcat
Umask:\t0022
State:\tR (running)
Tgid:\t4367
Ngid:\t0
Pid:\t4367
PPid:\t4344
TracerPid:\t0
Uid:\t1000\t1001\t1002\t1003
Gid:\t100\t101\t102\t103
FDSize:\t256
Groups:\t
NStgid:\t4367\t12
NSpid:\t4367\t12
Kthread:\t0
VmPeak:\t    3060 kB
VmSize:\t    3060 kB
VmRSS:\t    1740 kB
Threads:\t3
CapEff:\t000001fffeffffff
Seccomp:\t2
Cpus_allowed:\t3
Cpus_allowed_list:\t0-1
Mems_allowed:\t00000000,00000005
Mems_allowed_list:\t0,2
voluntary_ctxt_switches:\t0
CapPrm:\t000001ffffffffff
"""


def without(*keys: str) -> str:
    """Return the status without the lines of some keys."""
    lines = PROCESS.splitlines(keepends=True)
    return "".join(line for line in lines if line.partition(":")[0] not in keys)


def test_every_field_is_read():
    """Identity, owner, memory and rights of a process are read with their units."""
    status = parse_status(PROCESS, STATUS)
    assert (status.name, status.state, status.ended) == ("cat", "R", False)
    assert (status.pid, status.tgid, status.ppid, status.threads) == (4367, 4367, 4344, 3)
    assert status.uids == (1000, 1001, 1002, 1003)
    assert status.gids == (100, 101, 102, 103)
    assert status.nspid == (4367, 12)
    assert status.vm_rss_bytes == 1740 * 1024
    assert status.mems_allowed == NodeSet([0, 2])
    assert status.cpus_allowed == (0, 1)
    assert (status.cap_prm, status.cap_eff) == (0x1FFFFFFFFFF, 0x1FFFEFFFFFF)
    assert status.seccomp == 2
    assert not status.kernel_thread


def test_lines_that_a_kernel_may_lack():
    """Without cpusets, seccomp or namespaces the fields are None, or what they were before."""
    status = parse_status(without("Mems_allowed_list", "Seccomp", "NSpid", "Kthread"), STATUS)
    assert status.mems_allowed is None
    assert status.seccomp is None
    assert status.nspid == (4367,)
    assert not status.kernel_thread


@pytest.mark.parametrize("said", ["Kthread:\t1\n", ""])
def test_kernel_thread(said):
    """A kernel thread is known by what newer kernels say, and else by having no memory."""
    text = without("Kthread", "VmPeak", "VmSize", "VmRSS")
    status = parse_status(text.replace("VmPeak", said + "VmPeak") + said, STATUS)
    assert status.kernel_thread
    assert status.vm_rss_bytes is None


def test_zombie_is_no_kernel_thread():
    """A zombie has no memory either, but it was a process."""
    text = without("Kthread", "VmPeak", "VmSize", "VmRSS").replace("R (running)", "Z (zombie)")
    status = parse_status(text, STATUS)
    assert status.ended
    assert not status.kernel_thread


@pytest.mark.parametrize(
    ("printed", "name"),
    [
        (r"a\nb", "a\nb"),
        (r"back\\nslash", r"back\nslash"),
        (" blanks ", " blanks "),
        ("co:lon", "co:lon"),
        ("\udcff", "\udcff"),
    ],
)
def test_names_are_unescaped(printed, name):
    r"""New line and backslash are printed as `\n` and `\\`; all else stands for itself."""
    assert parse_status(PROCESS.replace("cat", printed), STATUS).name == name


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("Pid", "x", 6),
        ("Uid", "1000 1000 x", 9),
        ("CapEff", "xyz", 20),
        ("VmRSS", "1740", 18),
        ("VmRSS", "many kB", 18),
        ("Mems_allowed_list", "2-0", 25),
        ("Cpus_allowed_list", "all", 23),
        ("Threads", "", 19),
    ],
)
def test_malformed_line_is_named(key, value, line):
    """A value that no kernel prints is refused with path, line and key."""
    lines = PROCESS.splitlines()
    lines[line - 1] = f"{key}:\t{value}"
    with pytest.raises(MalformedError) as caught:
        parse_status("\n".join(lines), STATUS)
    assert (caught.value.path, caught.value.line, caught.value.field) == (STATUS, line, key)


@pytest.mark.parametrize("key", ["Name", "State", "Pid", "Uid", "CapEff", "Cpus_allowed_list"])
def test_missing_line_is_named(key):
    """A line that every kernel prints is missed by its name."""
    with pytest.raises(MalformedError, match=f"status: {key}: the line is missing"):
        parse_status(without(key), STATUS)


@pytest.mark.host
def test_own_status():
    """What this process knows of itself is what its status says, also as pid 0."""
    status = read_status(os.getpid())
    assert (status.pid, status.ppid) == (os.getpid(), os.getppid())
    assert status.uids[:3] == os.getresuid()
    assert status.gids[:3] == os.getresgid()
    assert set(status.cpus_allowed) == os.sched_getaffinity(0)
    assert status.nspid[0] == os.getpid()
    assert status.vm_rss_bytes > 1 << 20
    assert read_status(0).pid == os.getpid()


@pytest.mark.host
def test_name_as_the_kernel_escapes_it():
    """A process that calls itself by an odd name is read back under just that name."""
    program = r"open('/proc/self/comm', 'w').write('a\nb\\nc '); print(1, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        assert read_status(process.pid).name == "a\nb\\nc "
        process.communicate(b"\n")


@pytest.mark.host
def test_zombie_and_nobody(zombie, no_pid):
    """A zombie's status can be read; that of a pid without process is a clear error."""
    assert read_status(zombie).ended
    with pytest.raises(NoSuchProcessError, match=f"there is no process {no_pid}"):
        read_status(no_pid)

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from movepages.emulator.paths import (
    AT_FDCWD,
    AttributeFile,
    CounterFile,
    PathView,
    ProcFile,
    SysFile,
    Walked,
)
from movepages.emulator.sysfs import write_tree
from movepages.topology import parse_topology

pytestmark = pytest.mark.host

OWN_STATUS = ProcFile(None, None, "status", of_thread=False)
WAITER = "import sys; print(flush=True); sys.stdin.read()"
POOL = "/sys/devices/system/node/node0/hugepages/hugepages-2048kB"
FREE = AttributeFile(f"{POOL}/free_hugepages")
WEIGHT = "/sys/kernel/mm/mempolicy/weighted_interleave/node0"


@pytest.fixture
def view():
    """Return what this thread sees."""
    return PathView(threading.get_native_id())


@pytest.fixture
def waiter(tmp_path):
    """Start a process that waits in a directory of its own, and return its pid."""
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", WAITER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=tmp_path,
    ) as process:
        assert process.stdout.readline() == b"\n"
        yield process.pid
        process.kill()


@pytest.fixture
def unmounted(tmp_path):
    """Return what this thread sees with a tree of three nodes that is not mounted."""
    write_tree(parse_topology("3"), tmp_path / "tree")
    return PathView(threading.get_native_id(), os.fsencode(tmp_path / "tree"))


def found(view, path, dirfd=AT_FDCWD, *, follow=True):
    """Return which file a path means."""
    absolute = view.absolute(dirfd, path)
    walked = absolute and view.resolve(absolute, follow=follow)
    return walked and view.recognise(walked)


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        (b"/proc/self/status", OWN_STATUS),
        (b"//proc///self//status", OWN_STATUS),
        (b"/proc/./self/../self/status", OWN_STATUS),
        (b"/../proc/self/status", OWN_STATUS),
        (b"/proc/thread-self/status", ProcFile(None, None, "status", of_thread=True)),
        (b"/proc/thread-self/../../status", OWN_STATUS),
        (b"/proc/self/numa_maps", ProcFile(None, None, "numa_maps", of_thread=False)),
        (b"/proc/self/task/12/status", ProcFile(None, 12, "status", of_thread=True)),
        (b"/proc/1/status", ProcFile(1, 1, "status", of_thread=False)),
        (b"/proc/1/task/1/numa_maps", ProcFile(1, 1, "numa_maps", of_thread=True)),
        (b"/proc/self/root/proc/self/status", OWN_STATUS),
        (b"/sys/devices/system/node/node0/meminfo", CounterFile(0, "meminfo")),
        (b"/sys/bus/node/devices/node0/vmstat", CounterFile(0, "vmstat")),
        (b"/sys/devices/system/cpu/cpu0/node0/numastat", CounterFile(0, "numastat")),
        (b"/sys/devices/system/node/node12/numastat", CounterFile(12, "numastat")),
        (POOL.encode() + b"/nr_hugepages", AttributeFile(f"{POOL}/nr_hugepages")),
        (b"/sys/bus/node/devices/node0/hugepages/hugepages-2048kB/free_hugepages", FREE),
        (WEIGHT.encode(), AttributeFile(WEIGHT)),
    ],
)
def test_paths_that_are_ours(view, path, meant):
    """Blanks, dots and the links of the kernel lead to the file that is meant."""
    assert found(view, path) == meant


@pytest.mark.parametrize(
    "path",
    [
        b"",
        b"/",
        b"/proc/status",
        b"/proc/meminfo",
        b"/proc/self/stat",
        b"/proc/self/status.d",
        b"/proc/selfish/status",
        b"/proc/self/task/self/status",
        b"/proc/-1/status",
        b"/proc/self/status/../status",
        b"/proc/no-such/../self/status",
        b"/proc/self/ns/user/status",
        b"/sys/devices/system/node/online",
        b"/sys/devices/system/node/node0/online",
        b"/sys/devices/system/node/node0",
        b"/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages",
        b"/tmp/proc/self/status",
    ],
)
def test_paths_that_are_not_ours(view, path):
    """What is alike but something else, or leads nowhere, is for the kernel to open."""
    assert found(view, path) is None


def test_links_on_the_way_and_at_the_end(view, tmp_path):
    """A link is followed wherever it stands, but the last one only where the program says so."""
    (tmp_path / "there").symlink_to("/proc")
    (tmp_path / "relative").symlink_to("there/self")
    (tmp_path / "status").symlink_to("relative/status")
    base = os.fsencode(tmp_path)
    assert found(view, base + b"/there/self/status") == OWN_STATUS
    assert found(view, base + b"/relative/status", follow=False) == OWN_STATUS
    assert found(view, base + b"/status") == OWN_STATUS
    assert found(view, base + b"/status", follow=False) is None


@pytest.mark.parametrize(("links", "meant"), [(39, OWN_STATUS), (40, None)])
def test_as_many_links_as_the_kernel_follows(view, tmp_path, links, meant):
    """40 links are followed (MAXSYMLINKS), /proc/self among them; with one more all is given up."""
    target = "/proc/self/status"
    for number in range(links):
        (tmp_path / f"link{number}").symlink_to(target)
        target = tmp_path / f"link{number}"
    if meant:
        assert Path(target).read_bytes()
    else:
        with pytest.raises(OSError, match="Too many levels"):
            Path(target).read_bytes()
    assert found(view, os.fsencode(target)) == meant


def test_a_circle_of_links_leads_nowhere(view, tmp_path):
    """Links that lead to one another are given up."""
    (tmp_path / "status").symlink_to("status")
    assert found(view, os.fsencode(tmp_path / "status")) is None


def test_relative_to_a_descriptor(view):
    """A path is relative to the descriptor that the program gives, wherever that leads."""
    for directory, path in [
        ("/proc", b"self/status"),
        ("/proc/self", b"status"),
        ("/", b"proc/self/status"),
        ("/sys", b"../proc/self/status"),
    ]:
        dirfd = os.open(directory, os.O_PATH | os.O_DIRECTORY)
        meant = found(view, path, dirfd)
        os.close(dirfd)
        assert meant in (OWN_STATUS, ProcFile(os.getpid(), os.getpid(), "status", of_thread=False))


def test_descriptors_that_are_no_directories(view):
    """A pipe, a file that is gone and a number that is not open name no path."""
    reading, writing = os.pipe()
    gone = os.memfd_create("gone")
    for dirfd in (reading, gone):
        assert view.absolute(dirfd, b"status") is None
        os.close(dirfd)
    os.close(writing)
    assert view.absolute(reading, b"status") is None
    assert view.absolute(-1, b"status") is None
    assert view.absolute(-1, b"/proc") == b"/proc"


def test_relative_to_the_directory_of_another_process(waiter, tmp_path):
    """The working directory is that of the task that asks, and self is that task."""
    (tmp_path / "p").symlink_to("/proc")
    view = PathView(waiter)
    assert view.absolute(AT_FDCWD, b"p/self/status") == os.fsencode(tmp_path) + b"/p/self/status"
    assert found(view, b"p/self/status") == OWN_STATUS
    assert view.resolve(b"/proc/self/cwd/p", follow=True) == Walked(b"/proc", through_tree=False)


def test_a_task_that_has_ended(waiter):
    """Nothing is relative to the directory of a task that is gone."""
    os.kill(waiter, 9)
    os.waitid(os.P_PID, waiter, os.WEXITED | os.WNOWAIT)
    assert PathView(waiter).absolute(AT_FDCWD, b"status") is None


def test_a_task_with_another_root(root, tmp_path):  # noqa: ARG001 - a condition
    """Links and working directory are those below the task's own root."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/status").symlink_to("/proc/self/status")
    child = os.fork()
    if not child:
        os.chroot(tmp_path)
        os.chdir("/etc")
        os.kill(os.getpid(), 19)
        os._exit(0)
    os.waitpid(child, os.WUNTRACED)
    view = PathView(child)
    absolute = view.absolute(AT_FDCWD, b"status")
    meant = found(view, b"status")
    os.kill(child, 9)
    os.waitpid(child, 0)
    assert absolute == b"/etc/status"
    assert meant == OWN_STATUS


@pytest.mark.parametrize(
    "path",
    [
        b"/sys/devices/system/node",
        b"/sys/devices/system/node/",
        b"/sys/devices/system/node/node2/distance",
        b"/sys/bus/node/devices",
        b"/sys/devices/virtual/memory_tiering",
        b"/sys/kernel/mm/mempolicy/weighted_interleave",
    ],
)
def test_a_tree_that_is_not_mounted(unmounted, path):
    """Files and directories of the tree are found where it stands."""
    assert found(unmounted, path) == SysFile(unmounted.tree + path.rstrip(b"/"))


def test_links_within_a_tree_that_is_not_mounted(unmounted):
    """The tree's own links are followed, back to the real files where they lead there."""
    nodes = unmounted.tree + b"/sys/devices/system/node"
    assert found(unmounted, b"/sys/bus/node/devices/node2/cpumap") == SysFile(
        nodes + b"/node2/cpumap"
    )
    assert found(unmounted, b"/sys/devices/system/node/node0/cpu0/online") == SysFile(
        b"/sys/devices/system/cpu/cpu0/online"
    )
    assert found(unmounted, b"/sys/devices/system/cpu/cpu0/node0/distance") == SysFile(
        nodes + b"/node0/distance"
    )
    assert found(unmounted, b"/sys/devices/system/cpu/cpu0/online") is None
    assert found(unmounted, b"/sys/devices/system/node/node2/meminfo") == CounterFile(2, "meminfo")
    assert found(unmounted, b"/sys/devices/system/nodes") is None


def test_relative_to_a_directory_of_the_tree(unmounted):
    """A descriptor of the tree that the program was given counts as one of /sys."""
    dirfd = os.open(unmounted.tree + b"/sys/devices/system/node", os.O_RDONLY)
    absolute = unmounted.absolute(dirfd, b"node1/distance")
    os.close(dirfd)
    assert absolute == b"/sys/devices/system/node/node1/distance"

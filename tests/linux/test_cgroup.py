from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from movepages.errors import MalformedError, NoSuchProcessError
from movepages.linux.cgroup import read_cpuset
from movepages.linux.status import read_status
from movepages.nodeset import NodeSet

if TYPE_CHECKING:
    from collections.abc import Iterator

V2_MOUNT = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1_MOUNTS = (
    "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n"
    "34 31 0:31 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset\n"
    "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"
)


@pytest.fixture
def v2(put_process, put):
    """Return what lays out a v2 hierarchy with a process in group /a/b, and returns its root."""

    def laid_out(mount: str = V2_MOUNT, group: str = "/a/b") -> object:
        put_process(cgroup=f"0::{group}\n")
        put("sys/fs/cgroup/cpuset.mems.effective", "0-3\n")
        put("sys/fs/cgroup/a/cpuset.mems", "1-2\n")
        put("sys/fs/cgroup/a/cpuset.mems.effective", "1-2\n")
        put("sys/fs/cgroup/a/b/cgroup.procs", "7\n")
        return put("proc/self/mountinfo", mount)

    return laid_out


def test_v2_group_with_a_cpuset_of_its_own(v2, put):
    """What was configured and what holds are both read; v2 always moves pages along."""
    root = v2()
    put("sys/fs/cgroup/a/b/cpuset.mems", "2-5\n")
    put("sys/fs/cgroup/a/b/cpuset.mems.effective", "2\n")
    cpuset = read_cpuset(7, root)
    assert cpuset.path == root / "sys/fs/cgroup/a/b"
    assert cpuset.version == 2
    assert cpuset.mems == NodeSet([2, 3, 4, 5])
    assert cpuset.effective_mems == NodeSet([2])
    assert cpuset.memory_migrate


def test_v2_group_without_the_controller_has_that_of_the_group_above(v2):
    """Where the controller is not enabled, the nearest group above that has it decides."""
    root = v2()
    cpuset = read_cpuset(7, root)
    assert cpuset.path == root / "sys/fs/cgroup/a"
    assert cpuset.effective_mems == NodeSet([1, 2])


def test_v2_topmost_group_is_not_configured(v2):
    """The topmost group has no cpuset.mems file, and every node."""
    cpuset = read_cpuset(7, v2(group="/"))
    assert cpuset.mems == NodeSet()
    assert cpuset.effective_mems == NodeSet([0, 1, 2, 3])


def test_v2_mount_that_shows_a_part_of_the_hierarchy(v2):
    """In a container the mount may start below the top: paths are counted from there."""
    part = V2_MOUNT.replace(" / ", " /docker/1 ", 1)
    assert read_cpuset(7, v2(part, "/docker/1/a")).effective_mems == NodeSet([1, 2])
    assert read_cpuset(7, v2(part, "/docker/2/a")) is None
    assert read_cpuset(7, v2(part, "/docker/11")) is None


def test_group_outside_the_callers_namespace_is_not_seen(v2):
    """A group above the caller's cgroup namespace is printed with `..`, and has no directory."""
    assert read_cpuset(7, v2(group="/../other")) is None


def test_v2_without_the_controller_anywhere(v2):
    """A hierarchy without any cpuset file restricts nobody."""
    root = v2()
    for path in root.glob("sys/fs/cgroup/**/cpuset.*"):
        path.unlink()
    assert read_cpuset(7, root) is None


@pytest.fixture
def v1(put_process, put):
    """Lay out a v1 cpuset hierarchy beside v2 with a process in the group /batch."""
    put_process(cgroup="4:memory:/x\n3:cpuset:/batch\n1:cpu,cpuacct:/\n0::/\n")
    put("sys/fs/cgroup/unified/cgroup.procs", "")
    put("sys/fs/cgroup/cpuset/batch/cpuset.mems", "0,3\n")
    put("sys/fs/cgroup/cpuset/batch/cpuset.memory_migrate", "0\n")
    return put("proc/self/mountinfo", V1_MOUNTS)


def test_v1_group(v1, put):
    """In v1 the kernel moves pages along only if memory_migrate is set."""
    put("sys/fs/cgroup/cpuset/batch/cpuset.effective_mems", "3\n")
    cpuset = read_cpuset(7, v1)
    assert cpuset.path == v1 / "sys/fs/cgroup/cpuset/batch"
    assert (cpuset.version, cpuset.memory_migrate) == (1, False)
    assert (cpuset.mems, cpuset.effective_mems) == (NodeSet([0, 3]), NodeSet([3]))
    put("sys/fs/cgroup/cpuset/batch/cpuset.memory_migrate", "1\n")
    assert read_cpuset(7, v1).memory_migrate


def test_v1_before_effective_mems(v1):
    """Older kernels have no effective_mems: what was configured is what holds."""
    assert read_cpuset(7, v1).effective_mems == NodeSet([0, 3])


def test_v1_that_is_not_mounted(v1, put):
    """A controller of v1 that is mounted nowhere cannot be read."""
    put("proc/self/mountinfo", V2_MOUNT)
    assert read_cpuset(7, v1) is None


def test_kernel_without_cgroups(put_process, put):
    """Without any hierarchy there is no cpuset."""
    put_process(cgroup="")
    assert read_cpuset(7, put("proc/self/mountinfo", V2_MOUNT)) is None


def test_malformed_files_are_named(v2, put):
    """Garbage in the list of nodes, or in the process's list of groups, is named with its place."""
    root = v2()
    put("sys/fs/cgroup/a/cpuset.mems.effective", "zero\n")
    with pytest.raises(MalformedError, match=r"a/cpuset\.mems\.effective, line 1"):
        read_cpuset(7, root)
    put("proc/7/cgroup", "0::/a\nnonsense\n")
    with pytest.raises(MalformedError, match="proc/7/cgroup, line 2"):
        read_cpuset(7, root)


def test_process_that_does_not_exist(v2):
    """A pid without process is a clear error."""
    with pytest.raises(NoSuchProcessError):
        read_cpuset(8, v2())


@pytest.mark.host
def test_own_cpuset_holds():
    """Where this process has a cpuset that it can see, the kernel lets it allocate just there."""
    cpuset = read_cpuset(os.getpid())
    allowed = read_status(0).mems_allowed
    assert cpuset == read_cpuset(0)
    assert cpuset is None or cpuset.effective_mems == allowed
    assert len(allowed) >= 1


@pytest.fixture
def limited() -> Iterator[tuple[Path, int]]:
    """Return a new v2 group that has the cpuset controller, and the pid of a process in it."""
    top = Path("/sys/fs/cgroup")
    (top / "cgroup.subtree_control").write_text("+cpuset", "ascii")
    group = top / "movepages-test"
    group.mkdir()
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        (group / "cgroup.procs").write_text(str(process.pid), "ascii")
        yield group, process.pid
        process.kill()
    group.rmdir()


@pytest.mark.lab
@pytest.mark.needs_nodes(4)
def test_real_group(limited):
    """In a real group, what was written is what was configured, and what holds is told apart."""
    group, pid = limited
    cpuset = read_cpuset(pid)
    assert (cpuset.path, cpuset.version) == (group, 2)
    assert cpuset.mems == NodeSet()
    assert cpuset.effective_mems == NodeSet([0, 1, 2, 3])
    (group / "cpuset.mems").write_text("1,3", "ascii")
    cpuset = read_cpuset(pid)
    assert cpuset.mems == cpuset.effective_mems == NodeSet([1, 3])
    assert read_status(pid).mems_allowed == NodeSet([1, 3])
    assert read_cpuset(0).effective_mems == NodeSet([0, 1, 2, 3])

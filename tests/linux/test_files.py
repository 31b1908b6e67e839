from __future__ import annotations

import os

import pytest

from movepages.errors import MalformedError
from movepages.linux.files import Mount, filesystem_of, read_mounts

# The example of proc_pid_mountinfo(5), and what containers and odd names add to it.
MOUNTINFO = """\
20 1 8:1 / / rw - ext4 /dev/sda1 rw
36 20 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
37 20 0:40 / /dev/shm rw,nosuid shared:2 master:3 - tmpfs tmpfs rw,size=64k
38 36 0:41 / /mnt2/a\\040b\\134c\\011\\012\\043 rw - nfs host:/a\\040b rw
39 20 0:42 / /dev/hugepages rw - hugetlbfs hugetlbfs rw,pagesize=2M
40 37 0:43 / /dev/shm rw - ramfs none rw
"""


def test_mounts_are_read(put):
    """Fields before and after the dash are read whatever optional fields stand in between."""
    mounts = read_mounts(put("proc/self/mountinfo", MOUNTINFO))
    assert len(mounts) == 6
    assert mounts[1] == Mount(
        mount_id=36,
        parent_id=20,
        device="98:0",
        root="/mnt1",
        point="/mnt2",
        options=("rw", "noatime"),
        filesystem="ext3",
        source="/dev/root",
        super_options=("rw", "errors=continue"),
    )
    assert mounts[3].point == "/mnt2/a b\\c\t\n#"
    assert mounts[3].source == "host:/a b"


@pytest.mark.parametrize(
    ("name", "mount_id"),
    [
        ("/", 20),
        ("/bin/x", 20),
        ("/mnt2", 36),
        ("/mnt2/x", 36),
        ("/mnt22/x", 20),
        ("/mnt2/a b\\c\t\n#/x", 38),
        ("/dev/shm/x", 40),
        ("/dev/hugepages/x", 39),
    ],
)
def test_file_system_of_a_path(put, name, mount_id):
    """A path lies on the deepest mount above it, and of two on one point on the later."""
    mounts = read_mounts(put("proc/self/mountinfo", MOUNTINFO))
    assert filesystem_of(name, mounts).mount_id == mount_id


def test_path_that_is_under_no_mount(put):
    """After chroot no mount may be above a path."""
    mounts = read_mounts(put("proc/self/mountinfo", MOUNTINFO.split("\n", 1)[1]))
    assert filesystem_of("/bin/x", mounts) is None


@pytest.mark.parametrize(
    ("line", "field"),
    [
        ("36 20 98:0 /mnt1 /mnt2 rw ext3 /dev/root rw", "line"),
        ("36 20 98:0 /mnt1 /mnt2 - ext3 /dev/root rw", "line"),
        ("36 20 98:0 /mnt1 /mnt2 rw - ext3 /dev/root", "line"),
        ("x 20 98:0 /mnt1 /mnt2 rw - ext3 /dev/root rw", "mount id"),
        ("36 x 98:0 /mnt1 /mnt2 rw - ext3 /dev/root rw", "parent id"),
    ],
)
def test_malformed_line_is_named(put, line, field):
    """A line that no kernel prints is refused with path, line and field."""
    with pytest.raises(MalformedError) as caught:
        read_mounts(put("proc/self/mountinfo", f"20 1 8:1 / / rw - ext4 /dev/sda1 rw\n{line}\n"))
    assert (caught.value.line, caught.value.field) == (2, field)


@pytest.mark.host
def test_own_mounts():
    """/proc is a proc file system, and its device is the one that stat(2) gives."""
    mount = filesystem_of("/proc/self", read_mounts())
    assert mount.filesystem == "proc"
    device = os.stat("/proc").st_dev  # noqa: PTH116 - its device is what is asked for
    assert mount.device == f"{os.major(device)}:{os.minor(device)}"

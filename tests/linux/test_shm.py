from __future__ import annotations

import ctypes
import os
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import pytest

from movepages.errors import MalformedError
from movepages.linux.shm import (
    SysvSegment,
    list_hugetlb_files,
    list_posix_shm,
    list_segments,
    read_sysv_segments,
)

HEADER = (
    "       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid"
    "      atime      dtime      ctime                   rss                  swap\n"
)
SEGMENT = (
    "-559038737         32  1600                  8192  4321  4322      2  1000   100  1000   100"
    " 1763884800          0 1763884799                  4096                     0\n"
)
IPC_CREAT, IPC_RMID = 0o1000, 0


def test_sysv_segments_are_read_by_column(put):
    """A segment has its size, what of it is resident or swapped, its users and owner."""
    root = put("proc/sysvipc/shm", HEADER + SEGMENT)
    assert read_sysv_segments(root) == [
        SysvSegment(
            key=-559038737,
            shmid=32,
            size_bytes=8192,
            rss_bytes=4096,
            swap_bytes=0,
            nattch=2,
            uid=1000,
            gid=100,
        )
    ]


def test_no_sysv_segments(put, tmp_path):
    """No segments, or a kernel without SysV IPC, give none."""
    assert read_sysv_segments(tmp_path) == []
    assert read_sysv_segments(put("proc/sysvipc/shm", HEADER)) == []


@pytest.mark.parametrize(
    ("text", "field"),
    [
        (HEADER + SEGMENT.replace(" 8192", " many"), "size"),
        (HEADER + SEGMENT[:60], "rss"),
        (HEADER.replace(" swap", " wrap") + SEGMENT, "swap"),
        (HEADER.replace("key", "kee") + SEGMENT, "key"),
    ],
)
def test_malformed_segment_is_named(put, text, field):
    """A value that is no number, or a column that is missing, is named with its line."""
    with pytest.raises(MalformedError) as caught:
        read_sysv_segments(put("proc/sysvipc/shm", text))
    assert (caught.value.line, caught.value.field) == (2, field)


def test_posix_files_are_listed(put):
    """Regular files of /dev/shm are listed by path, but none in a directory, and no link."""
    put("dev/shm/b", "x" * 5000)
    put("dev/shm/a", "")
    put("dev/shm/dir/file", "a name of shm_open has no slash")
    root = put("elsewhere", "not shared")
    (root / "dev/shm/link").symlink_to(root / "elsewhere")
    files = list_posix_shm(root)
    assert [(file.path, file.size_bytes) for file in files] == [
        (root / "dev/shm/a", 0),
        (root / "dev/shm/b", 5000),
    ]
    facts = files[1].path.stat()
    assert (files[1].inode, files[1].uid) == (facts.st_ino, os.getuid())
    assert files[1].allocated_bytes == facts.st_blocks * 512


def test_no_posix_files(tmp_path):
    """A machine without /dev/shm has none."""
    assert list_posix_shm(tmp_path) == []


def test_hugetlb_files_are_found_through_the_mounts(put):
    """Files on every hugetlbfs mount are listed; a mount that another hides is not."""
    put("dev/hugepages/qemu/ram", "x")
    put("mnt/huge pages/a", "xy")
    put("hidden/c", "xyz")
    root = put(
        "proc/self/mountinfo",
        "20 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        "39 20 0:42 / /dev/hugepages rw - hugetlbfs hugetlbfs rw,pagesize=2M\n"
        "40 20 0:43 / /mnt/huge\\040pages rw - hugetlbfs none rw,pagesize=1G\n"
        "41 20 0:44 / /hidden rw - hugetlbfs none rw,pagesize=2M\n"
        "42 41 0:45 / /hidden rw - tmpfs none rw\n",
    )
    files = [(file.path, file.size_bytes) for file in list_hugetlb_files(root)]
    assert files == [(root / "dev/hugepages/qemu/ram", 1), (root / "mnt/huge pages/a", 2)]


def test_all_segments_have_names(put):
    """Those of each kind are listed, by the name to call them, with what is there and attached."""
    put("proc/sysvipc/shm", HEADER + SEGMENT)
    put("dev/shm/b", "x" * 5000)
    root = put("proc/self/mountinfo", "20 1 8:1 / / rw - ext4 /dev/sda1 rw\n")
    sysv, posix = list_segments(root)
    assert (sysv.name, sysv.there_bytes, sysv.attached) == ("sysv:32", 4096, 2)
    assert (posix.name, posix.there_bytes) == (str(root / "dev/shm/b"), posix.allocated_bytes)
    assert posix.attached is None


@pytest.mark.host
def test_own_posix_segment_is_listed():
    """A segment of shm_open(3) made here is listed with its size; once unlinked it is not."""
    memory = SharedMemory(create=True, size=3 * 65536)
    try:
        path = Path("/dev/shm", memory.name.lstrip("/"))
        (file,) = [file for file in list_posix_shm() if file.path == path]
    finally:
        memory.close()
        memory.unlink()
    assert file.size_bytes == 3 * 65536
    assert file.uid == os.geteuid()
    assert path not in [file.path for file in list_posix_shm()]


@pytest.mark.host
def test_own_sysv_segment_is_listed():
    """A segment of shmget(2) made here is listed with its size; once removed it is not."""
    libc = ctypes.CDLL(None)
    shmid = libc.shmget(0, ctypes.c_size_t(3 * 65536), IPC_CREAT | 0o600)
    try:
        (segment,) = [each for each in read_sysv_segments() if each.shmid == shmid]
    finally:
        libc.shmctl(shmid, IPC_RMID, None)
    assert (segment.size_bytes, segment.nattch, segment.rss_bytes) == (3 * 65536, 0, 0)
    assert segment.uid == os.geteuid()
    assert shmid not in [each.shmid for each in read_sysv_segments()]

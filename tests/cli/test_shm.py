"""`movepages shm`: real segments, on a machine of four nodes."""

from __future__ import annotations

import ctypes
import errno
import os
import pwd
import re
from pathlib import Path

import pytest

CLI = (Path(__file__).parents[2] / "docs/cli.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^    \$ (movepages shm .*)\n((?:    .*\n|\n(?=    ))*)", CLI, re.MULTILINE)
PAGE = 4096
IPC_PRIVATE, IPC_RMID = 0, 0


@pytest.fixture
def sysv():
    """Return a System V segment of eight pages, all written to, by its name."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.shmat.restype = ctypes.c_void_p
    libc.shmdt.argtypes = [ctypes.c_void_p]
    shmid = libc.shmget(IPC_PRIVATE, ctypes.c_size_t(8 * PAGE), 0o600)
    assert shmid >= 0
    address = libc.shmat(shmid, None, 0)
    ctypes.memset(address, 7, 8 * PAGE)
    libc.shmdt(address)
    yield f"sysv:{shmid}"
    libc.shmctl(shmid, IPC_RMID, None)


@pytest.fixture
def posix():
    """Return a file of four pages in /dev/shm, half of it written to, by its name."""
    path = Path(f"/dev/shm/movepages-test-{os.getpid()}")
    path.write_bytes(b"x" * 2 * PAGE)
    os.truncate(path, 4 * PAGE)
    yield str(path)
    path.unlink()


@pytest.fixture
def plain(sysv, posix):
    """Return what writes an output with the names of the two segments, and their owner, as set."""
    user = pwd.getpwuid(os.geteuid()).pw_name
    wide, width = len(posix), max(len("OWNER"), len(user))

    def written(text):
        for real, name in ((sysv, "sysv:32"), (posix, "/dev/shm/cache"), ("SEGMENT", "SEGMENT")):
            text = text.replace(real.ljust(wide), name.ljust(len("/dev/shm/cache")))
            text = text.replace(real, name)
        text = text.replace("OWNER".ljust(width), "OWNER")
        return text.replace(f"  {user.ljust(width)}  ", "  alice  ")

    return written


def test_named_segments(run, machine, sysv, posix, plain, snapshot):
    """A line for each: size, what is in memory, nodes, its own policy, owner, attaches."""
    machine.own_nodes = (0, 0, 0, 1)
    answer = run("shm", sysv, posix, sysv)
    assert plain(answer.out) == snapshot
    assert (answer.code, answer.err) == (0, "")


def test_all_segments(run, sysv, posix):
    """Without a name all are listed."""
    listed = {line.split()[0] for line in run("shm").out.splitlines()}
    assert {"SEGMENT", sysv, posix} <= listed


def test_a_segment_moves(run, machine, sysv, plain, snapshot):
    """Nodes before and after and the pages by outcome are shown."""
    machine.own_stuck = {2: -errno.EACCES}
    answer = run("shm", sysv, "--to", "1")
    assert plain(answer.out) == snapshot
    assert answer.code == 1


def test_a_dry_run(run, machine, posix, plain, snapshot):
    """What is in memory would move, and what is not is not made."""
    answer = run("shm", posix, "--to", "1", "--dry-run")
    assert plain(answer.out) == snapshot
    assert answer.code == 0
    assert set(machine.own.values()) == {0}
    assert Path(posix).stat().st_blocks * 512 == 2 * PAGE


@pytest.mark.parametrize("name", ["sysv:2147483647", "32", "/dev/shm/absent", "/etc/passwd", ""])
def test_what_is_no_segment(run, sysv, name):
    """A name that no segment has is refused in one line, and no other is moved."""
    answer = run("shm", sysv, name, "--to", "1")
    assert (answer.code, answer.out) == (2, "")
    assert answer.err == (
        f"movepages: there is no segment {name}; movepages shm lists those that there are, and "
        "other files are for movepages file\n"
    )


def test_examples_are_real(run, machine, sysv, posix, plain):
    """The examples of docs/cli.md are what it prints of such segments."""
    for line, shown in EXAMPLES:
        machine.own_nodes = (0, 0, 0, 1)
        machine.own.clear()
        real = line.replace("sysv:32", sysv).replace("/dev/shm/cache", posix)
        answer = run(*real.split()[1:])
        assert [text[4:] for text in shown.rstrip().split("\n")] == plain(
            answer.out
        ).rstrip().split("\n")
    assert len(EXAMPLES) == 2

"""What decides whether the caller may look at a process: of live processes, beside the kernel."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from guestkit.children import become, set_dumpable

from movepages import api
from movepages.abi import Errno
from movepages.errors import CallError, NoSuchProcessError
from movepages.linux.rights import read_standing
from movepages.values import Standing

ALICE, BOB = 1000, 1001

STATUS = """\
Name:\tcat
State:\tR (running)
Tgid:\t{pid}
Pid:\t{pid}
PPid:\t1
Uid:\t{uids}\t0
Gid:\t{gids}\t0
VmSize:\t    3060 kB
Threads:\t1
CapPrm:\t{prm}
CapEff:\t{eff}
Cpus_allowed_list:\t0-1
"""


@pytest.fixture
def tree(tmp_path):
    """Return what writes the status of the caller and of process 7, and the tree that has them."""

    def written(own, other):
        for name, facts in (("self", own), ("7", other)):
            directory = tmp_path / "proc" / name
            directory.mkdir(parents=True)
            directory.joinpath("status").write_text(STATUS.format(pid=7, **facts))
            directory.joinpath("stat").write_text("")
        return tmp_path

    return written


USER = {"uids": "5\t5\t5", "gids": "6\t6\t6", "prm": "0", "eff": "0"}


@pytest.mark.parametrize(
    ("own", "other", "same_user", "covered", "may_trace"),
    [
        ({}, {}, True, True, False),
        ({}, {"uids": "5\t0\t0"}, False, True, False),
        ({"uids": "5\t0\t0"}, {}, True, True, False),  # the caller's real uid counts
        ({}, {"uids": "5\t5\t8"}, False, True, False),
        ({}, {"gids": "6\t6\t8"}, False, True, False),
        ({"gids": "6\t8\t8"}, {}, True, True, False),
        ({}, {"prm": "2000"}, True, False, False),
        ({"prm": "2000"}, {"prm": "2000", "eff": "0"}, True, True, False),
        ({"prm": "1fff"}, {"prm": "3fff"}, True, False, False),
        ({"prm": "80000"}, {}, True, True, False),
        ({"prm": "80000", "eff": "80000"}, {}, True, True, True),
        ({"prm": "7ffff", "eff": "7ffff"}, {}, True, True, False),
    ],
)
def test_what_the_kernel_goes_by(tree, own, other, same_user, covered, may_trace):
    """Real ids of the caller against all of the process's, and permitted capabilities likewise."""
    standing = read_standing(7, tree(USER | own, USER | other))
    assert standing.same_user is same_user
    assert (standing.covered, standing.may_trace) == (covered, may_trace)
    assert standing.own_uid == 5


def living(uid, dumpable):
    """Be a process of a user, that may be looked at or not; say so, and live on."""

    def body():
        become(uid)
        set_dumpable(dumpable)
        yield True
        yield True

    return body


def seen_by(uid, pid):
    """Return what a user's process sees of another, and whether the kernel lets it ask."""

    def body():
        become(uid)
        try:
            api.query_pages(pid, [])
            errno = 0
        except CallError as error:
            errno = error.errno
        yield read_standing(pid), errno

    return body


@pytest.mark.host
@pytest.mark.parametrize(
    ("of", "dumpable", "standing", "errno"),
    [
        (ALICE, 1, Standing(ALICE, (ALICE,) * 3, True, True, True, False), 0),
        (ALICE, 0, Standing(ALICE, (ALICE,) * 3, True, False, True, False), Errno.EPERM),
        (BOB, 1, Standing(ALICE, (BOB,) * 3, False, True, True, False), Errno.EPERM),
    ],
    ids=["own", "not dumpable", "another user's"],
)
@pytest.mark.usefixtures("root")
def test_of_live_processes(fork, of, dumpable, standing, errno):
    """Owner and dumpability are what the kernel itself refuses for."""
    patient = fork(living(of, dumpable))
    patient.step()
    assert fork(seen_by(ALICE, patient.pid)).step() == (standing, errno)


@pytest.mark.host
def test_of_the_caller(root):  # noqa: ARG001 - a condition
    """Root has its own ids and capabilities; whether root's process is dumpable is not told."""
    standing = read_standing(0)
    assert standing.uids == (os.getuid(), os.geteuid(), os.geteuid())
    assert (standing.same_user, standing.covered, standing.dumpable) == (True, True, None)


@pytest.mark.host
def test_nobody():
    """A pid that nobody has is an error."""
    with pytest.raises(NoSuchProcessError):
        read_standing(int(Path("/proc/sys/kernel/pid_max").read_text()))

"""A cpuset (cgroup v2) that allows some of the nodes: what its members and others may move."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from guestkit.pages import said

from movepages import api
from movepages.abi import Mode, MoveFlag
from movepages.errors import OutsideCpusetError
from movepages.linux import syscalls
from movepages.linux.machine import LinuxMachine
from movepages.linux.mempolicy import mask_of
from movepages.linux.syscalls import address_of

pytestmark = [pytest.mark.lab, pytest.mark.needs_nodes(4)]


@pytest.fixture
def limited(fork, cpuset):
    """Forks a child that may use nodes 0 and 1 only."""
    cpuset.allow("0-1")

    def start(body):
        child = fork(body)
        cpuset.add(child.pid)
        return child

    return start


def migrate(old, new):
    """Make the raw migrate_pages for the caller."""
    (old_mask, maxnode), (new_mask, _) = mask_of(old), mask_of(new)
    return said(syscalls.migrate_pages(0, maxnode, address_of(old_mask), address_of(new_mask)))


def test_allowed_nodes_are_in_the_status_file(limited):
    """Row `cpuset mems=0-1: Mems_allowed_list`."""

    def body():
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        yield dict(line.split(":\t") for line in lines)["Mems_allowed_list"]

    child = limited(body)
    assert child.step() == "0-1"
    assert str(LinuxMachine().task(child.pid).mems_allowed) == "0-1"


def test_move_inside_and_outside(memory, limited):
    """A target outside ends the call: what comes before it has moved, the rest is as it was.

    Rows `cpuset 0-1: move -> 1`, `cpuset 0-1: move -> 2`, `cpuset 0-1: move -> [1,0,1,2,1..]`.
    """

    def body():
        pages = memory.private(8).touch()
        yield pages.move(1)
        yield pages.move(2), pages.where()
        yield pages.move_each([1, 0, 1, 2, 1, 1, 1, 1]), pages.where_each()

    child = limited(body)
    assert child.step() == "0 | {1:8}"
    assert child.step() == ("-EACCES | {99:8}", "{1:8}")
    assert child.step() == (
        "-EACCES | [1, 0, 1, 99, 99, 99, 99, 99]",
        "[1, 0, 1, 1, 1, 1, 1, 1]",
    )


def test_migrate_pages(limited):
    """Some of the targets have to be inside.

    Rows `cpuset 0-1: migrate_pages self 0 -> 2`, `cpuset 0-1: migrate_pages self 0->{1,2}`.
    """

    def body():
        yield migrate({0}, {2}), migrate({0}, {1, 2})

    outside, partly = limited(body).step()
    assert outside == "-EINVAL"
    assert partly == "0"


def test_policies(memory, limited):
    """A policy needs a node inside, and is cut to those.

    Rows `cpuset 0-1: mbind BIND{2}`, `cpuset 0-1: mbind BIND{1,2} MOVE`,
    `cpuset 0-1: set_mempolicy BIND{2}`.
    """

    def body():
        pages = memory.private(8).touch()
        mask, maxnode = mask_of({2})
        yield (
            pages.mbind(Mode.BIND, {2}),
            (pages.mbind(Mode.BIND, {1, 2}, MoveFlag.MOVE), pages.where()),
            said(syscalls.set_mempolicy(Mode.BIND, address_of(mask), maxnode)),
        )

    assert limited(body).step() == ("-EINVAL", ("0", "{1:8}"), "-EINVAL")


def test_member_moves_pages_of_a_process_without_limit(memory, limited):
    """Row `cpuset 0-1: move parent's (unlimited) pages -> 2`: the target's cpuset counts.

    The pages are shared by the fork, so each one is refused, but not the call.
    """
    pages = memory.private(4).touch()
    parent = os.getpid()

    def body():
        yield pages.move(2, pid=parent)

    assert limited(body).step() == "0 | {-EACCES:4}"


def test_root_outside_moves_a_member(memory, limited):
    """Row `root outside moves limited pid -> 2`: the target's cpuset binds root too."""
    pages = memory.private(4)

    def body():
        pages.touch()
        yield "written"

    child = limited(body)
    child.step()
    assert pages.move(2, pid=child.pid) == "-EACCES | {99:4}"


def test_error_names_node_and_cpuset(memory, limited):
    """OutsideCpusetError has the node that is outside, and says which nodes are allowed."""
    pages = memory.private(4)

    def body():
        pages.touch()
        yield "written"

    child = limited(body)
    child.step()
    with pytest.raises(OutsideCpusetError) as refused:
        api.move_pages(child.pid, pages.addresses, [1, 1, 3, 1])
    error = refused.value
    assert (error.errno, error.pid, error.node) == (13, child.pid, 3)
    assert f"node 3 lies outside the cpuset of process {child.pid}" in str(error)
    assert "0-1" in str(error)
    assert error.result.counts() == {1: 2, -(2**31): 2}


def test_pages_follow_when_the_cpuset_changes(memory, limited, cpuset):
    """Row `cpuset.mems 0-1 -> 3: pages of member`: the kernel moves them itself."""
    pages = memory.private(4)

    def body():
        pages.touch()
        yield pages.where()
        yield pages.intact()

    child = limited(body)
    assert child.step() == "{0:4}"
    cpuset.allow("3")
    assert pages.where(child.pid) == "{3:4}"
    assert child.step()

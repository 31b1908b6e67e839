"""What a caller without rights may do: uid 1000, beside a test that is root."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from guestkit.children import Child, become, set_dumpable
from guestkit.pages import said

from movepages import api
from movepages.abi import Mode, MoveFlag
from movepages.errors import NotPermittedError
from movepages.linux import syscalls
from movepages.linux.machine import LinuxMachine
from movepages.linux.mempolicy import mask_of
from movepages.linux.syscalls import address_of

pytestmark = [pytest.mark.lab, pytest.mark.needs_nodes(4)]

USER = 1000


@pytest.fixture
def as_user(fork):
    """Runs a function as uid 1000 in a child, and returns what it returns."""

    def run(function):
        def body():
            become(USER)
            yield function()

        return fork(body).step()

    return run


def migrate(pid):
    """Make the raw migrate_pages, from node 0 to 1."""
    (old, maxnode), (new, _) = mask_of({0}), mask_of({1})
    return said(syscalls.migrate_pages(pid, maxnode, address_of(old), address_of(new)))


def test_own_pages(memory, as_user):
    """Rows `uid 1000: own pages`, `uid 1000: MOVE_ALL own`, `uid 1000: mbind MOVE_ALL`."""

    def calls():
        pages = memory.private(8).touch()
        return (
            pages.move(1),
            pages.move(2, MoveFlag.MOVE_ALL),
            pages.mbind(Mode.BIND, {2}, MoveFlag.MOVE_ALL),
            pages.where(),
        )

    assert as_user(calls) == ("0 | {1:8}", "-EPERM | {99:8}", "-EPERM", "{1:8}")


def test_pages_of_root(memory, as_user):
    """A user's calls on a process of root are refused whole.

    Rows `uid 1000: query root's pid`, `uid 1000: move root's pid`, `uid 1000: move pid 1`.
    """
    pages, root = memory.private(64).touch(), os.getpid()

    def calls():
        return pages.query(root), pages.move(1, pid=root), pages.move(1, pid=1)

    assert as_user(calls) == ("-EPERM | {99:64}",) * 3


def test_migrate_pages(as_user):
    """Rows `uid 1000: migrate_pages(root's pid)`, `uid 1000: migrate_pages(self)`.

    The user's child shares its pages with this test, so there may be some that do not migrate.
    """
    root = os.getpid()
    others, own = as_user(lambda: (migrate(root), migrate(0)))
    assert others == "-EPERM"
    assert int(own) >= 0


def test_numa_maps_of_root(as_user):
    """Row `uid 1000: read root's numa_maps`: the file opens, or not, but is not read."""
    path = Path(f"/proc/{os.getpid()}/numa_maps")

    def read():
        with pytest.raises(PermissionError) as refused:
            path.read_text(encoding="utf-8")
        return refused.value.errno

    assert as_user(read) == 13


def test_own_child_that_is_not_dumpable(memory, as_user):
    """Row `uid 1000: query own non-dumpable child`: the same user is not enough."""
    pages = memory.private(8).touch()

    def secretive():
        set_dumpable(0)
        yield "hidden"

    def query():
        child = Child(secretive)
        child.step()
        try:
            return pages.query(child.pid)
        finally:
            child.end()

    assert as_user(query) == "-EPERM | {99:8}"


def test_errors_say_whose_process_it_is(memory, as_user):
    """NotPermittedError tells a missing right from a process of somebody else."""
    pages, root = memory.private(4).touch(), os.getpid()

    def sentences():
        said = []
        for pid, flags in ((root, api.MOVE), (0, api.MOVE_ALL)):
            with pytest.raises(NotPermittedError) as refused:
                api.move_pages(pid, pages.addresses, 1, flags)
            said.append((refused.value.errno, refused.value.pid, str(refused.value)))
        with pytest.raises(NotPermittedError) as refused:
            api.Process(root).mappings()
        return *said, str(refused.value)

    others, shared, mappings = as_user(sentences)
    assert others[:2] == (1, root)
    assert "another user's" in others[2]
    assert shared[:2] == (1, 0)
    assert "CAP_SYS_NICE" in shared[2]
    assert str(root) in mappings


def test_rights_are_known_beforehand(as_user):
    """`conditions` tells that root sees frames and moves shared pages, and that a user does not."""

    def rights():
        conditions = LinuxMachine().conditions()
        return conditions.sees_pfns, conditions.moves_shared

    assert rights() == (True, True)
    assert as_user(rights) == (False, False)

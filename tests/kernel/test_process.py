"""A process as a test or a tool holds it in its hand."""

from __future__ import annotations

import pytest

from movepages.abi import UNWRITTEN
from movepages.errors import ArgumentError, UnsupportedError
from movepages.kernel import SimulatedMachine

PAGE = 4096


@pytest.fixture
def p():
    """Return a process on a machine with real bytes."""
    return SimulatedMachine("2 x 8M", real_bytes=True).spawn()


def test_tags_are_kept_by_page(p):
    """What was poked is peeked, zero where nothing was; the last page included."""
    a = p.mmap(3)
    p.poke(a, [5, 6])
    assert p.peek(a, 3).tolist() == [5, 6, 0]
    p.poke(a + 2 * PAGE, 2**64 - 1)
    assert p.peek(a + 2 * PAGE).tolist() == [2**64 - 1]


def test_bytes_are_kept_across_pages(p):
    """Bytes that begin and end inside pages are read back exactly, neighbours untouched."""
    a = p.mmap(3)
    p.store(a + PAGE - 3, b"abcdefgh")
    assert p.load(a + PAGE - 4, 10) == b"\0abcdefgh\0"
    p.store(a + PAGE, b"X")
    assert p.load(a + PAGE - 3, 8) == b"abcXefgh"
    p.machine.check()


def test_bytes_are_copied_on_write(p):
    """A child's bytes are its own after it writes."""
    a = p.mmap(1)
    p.store(a, b"parent")
    child = p.fork()
    child.store(a + 2, b"XX")
    assert (p.load(a, 6), child.load(a, 6)) == (b"parent", b"paXXnt")
    p.machine.check()


@pytest.mark.parametrize("size", [0, -1])
def test_no_bytes_are_refused(p, size):
    """Reading or writing nothing is an error."""
    a = p.mmap(1)
    with pytest.raises(ArgumentError, match="nothing to access"):
        p.load(a, size)
    with pytest.raises(ArgumentError, match="nothing to access"):
        p.store(a, b"")


def test_bytes_beyond_the_mapping_fault(p):
    """The last byte of a mapping can be read; one more is SIGSEGV."""
    a = p.mmap(1)
    assert p.load(a, PAGE) == bytes(PAGE)
    with pytest.raises(ArgumentError, match="SIGSEGV"):
        p.load(a, PAGE + 1)


def test_bytes_need_a_machine_that_has_them():
    """A machine that keeps a tag a page says how to get bytes."""
    p = SimulatedMachine("2 x 8M").spawn()
    a = p.mmap(1)
    with pytest.raises(UnsupportedError, match="real_bytes=True"):
        p.store(a, b"x")
    with pytest.raises(UnsupportedError, match="poke and peek"):
        p.load(a, 1)


def test_the_truth_about_nodes_and_frames(p):
    """Pages that are not there, or not even mapped, have node and frame -1."""
    a = p.mmap(2)
    p.write(a)
    assert p.nodes(a, 4).tolist() == [0, -1, -1, -1]
    assert p.frames(a, 4).tolist()[1:] == [-1, -1, -1]


def test_capabilities_are_granted_and_dropped(p):
    """A capability by name comes and goes; one that does not exist is a KeyError."""
    user = p.machine.spawn(uid=1000)
    a = user.mmap(1)
    user.write(a)
    assert user.move_pages(0, [a], [1], 4)[0] == -1
    user.grant("SYS_NICE")
    assert user.move_pages(0, [a], [1], 4)[0] == 0
    user.drop("SYS_NICE")
    assert user.move_pages(0, [a], [0], 4)[0] == -1


def test_one_node_for_all_pages(p):
    """A single node stands for every address; statuses start UNWRITTEN."""
    a = p.mmap(3)
    p.write(a, 3)
    assert p.move_pages(0, p.addresses(a, 3), 1, 2)[1].tolist() == [1] * 3
    assert p.move_pages(0, p.addresses(a, 3), 9, 2)[1].tolist() == [UNWRITTEN] * 3


def test_a_call_through_raw_pointers(p):
    """A raw call takes numbers and pointers, and an array may end early."""
    a = p.mmap(20)
    p.write(a, 20)
    pages = p.user_array(p.addresses(a, 20), readable=18)
    status = p.user_array([UNWRITTEN] * 20, "int32")
    ret = p.syscall("move_pages", 0, 20, pages.pointer, 0, status.pointer, 0)
    assert ret == -14
    assert status.data.tolist() == [0] * 16 + [UNWRITTEN] * 4

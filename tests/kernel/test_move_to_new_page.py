"""What a page's backing and holders mean for its move."""

from __future__ import annotations

import errno

import numpy as np
import pytest

from movepages.abi import UNWRITTEN, MoveFlag
from movepages.kernel import LINUX_2_6_18, LINUX_6_12, PATCH_2006, SimulatedMachine
from movepages.kernel.frames import PageFlag
from movepages.kernel.inject import Pin
from movepages.kernel.mappings import Backing

MOVE = int(MoveFlag.MOVE)


def file_page(backing, semantics=LINUX_2_6_18, *, dirty=True):
    """Return a machine, a process, and the address of a file page it has mapped."""
    machine = SimulatedMachine("2 x 8M", semantics=semantics)
    p = machine.spawn()
    a = p.mmap(1, file=machine.file("/f", 1, backing), shared=True)
    if dirty:
        p.poke(a, [7])
    else:
        p.read(a)
    return machine, p, a


@pytest.mark.parametrize("semantics", [LINUX_2_6_18, LINUX_6_12], ids=lambda s: s.name)
@pytest.mark.parametrize("backing", [Backing.SHMEM, Backing.BUFFERS, Backing.NO_METHOD])
def test_file_pages_move_and_stay_in_the_cache(backing, semantics):
    """Dirty pages of these backings move, after writeback where there is no method."""
    machine, p, a = file_page(backing, semantics)
    assert p.move_pages(0, [a], [1], MOVE)[1].tolist() == [1]
    assert p.peek(a).tolist() == [7]
    machine.check()
    q = machine.spawn()
    b = q.mmap(1, file=p.struct.mm.areas[0].file, shared=True)
    assert (q.peek(b).tolist(), q.nodes(b, 1).tolist()) == ([7], [1])
    machine.check()


@pytest.mark.parametrize(
    ("backing", "status"),
    [
        (Backing.WRITE_FAILS, -errno.EIO),
        (Backing.NO_WRITEPAGE, -errno.EINVAL),
        (Backing.REFUSES, -errno.EIO),
    ],
)
def test_pages_that_cannot_be_written_back(backing, status):
    """-EIO or -EINVAL in 2006, a count without status today (decision table, D22)."""
    for semantics, expected in ((PATCH_2006, status), (LINUX_6_12, UNWRITTEN)):
        machine, p, a = file_page(backing, semantics)
        ret, found = p.move_pages(0, [a], [1], MOVE)
        assert (ret, found.tolist()) == (1, [expected])
        assert (p.peek(a).tolist(), p.nodes(a, 1).tolist()) == ([7], [0])
        machine.check()


@pytest.mark.parametrize("backing", [Backing.WRITE_FAILS, Backing.NO_WRITEPAGE])
def test_clean_pages_need_no_writeback(backing):
    """What cannot be written back moves all the same while it is clean."""
    machine, p, a = file_page(backing, dirty=False)
    assert p.move_pages(0, [a], [1], MOVE)[1].tolist() == [1]
    machine.check()


def test_writeback_takes_a_pass():
    """A dirty page without a method is written in one pass and moves, clean, in the next."""
    machine, p, a = file_page(Backing.NO_METHOD)
    passes = []
    machine.memory.on_pass.append(passes.append)
    p.move_pages(0, [a], [1], MOVE)
    assert passes == [0, 1]
    assert not machine.memory.frames.has(p.frames(a, 1), PageFlag.DIRTY).any()


def test_a_page_under_writeback_is_waited_for_by_force():
    """-EAGAIN for three passes, then force waits for the writeback and the page moves."""
    machine, p, a = file_page(Backing.BUFFERS)
    machine.memory.frames.set(p.frames(a, 1), PageFlag.WRITEBACK)
    passes = []
    machine.memory.on_pass.append(passes.append)
    assert p.move_pages(0, [a], [1], MOVE)[1].tolist() == [1]
    assert passes == [0, 1, 2, 3]


@pytest.mark.parametrize("backing", [Backing.BUFFERS, Backing.SHMEM])
def test_a_pinned_file_page_stays(backing):
    """The reference count tells a pin from page cache and buffers."""
    machine, p, a = file_page(backing)
    with machine.inject(Pin(p, a)):
        assert p.move_pages(0, [a], [1], MOVE)[1].tolist() == [-errno.EAGAIN]
        machine.check()
    assert p.move_pages(0, [a], [1], MOVE)[1].tolist() == [1]
    machine.check()


def test_mlocked_pages_by_kernel():
    """-EPERM and ret 1 at the patch, moved from the release on (D3)."""
    for semantics, expected in (
        (PATCH_2006, (1, [-errno.EPERM])),
        (LINUX_2_6_18, (0, [1])),
        (LINUX_6_12, (0, [1])),
    ):
        machine = SimulatedMachine("2 x 8M", semantics=semantics)
        p = machine.spawn()
        a = p.mmap(1)
        p.mlock(a, 1)
        ret, status = p.move_pages(0, [a], [1], MOVE)
        assert (ret, status.tolist()) == expected
        machine.check()


def test_flags_and_state_go_along():
    """Active, referenced and dirty follow the page; the old frame is free and blank."""
    machine, p, a = file_page(Backing.SHMEM)
    memory, old = machine.memory, p.frames(a, 1)
    kept = PageFlag.ACTIVE | PageFlag.REFERENCED | PageFlag.DIRTY | PageFlag.SWAPBACKED
    memory.frames.set(old, kept)
    p.move_pages(0, [a], [1], MOVE)
    new = p.frames(a, 1)
    assert int(memory.frames.flags[new][0]) & kept == kept
    assert memory.frames.free[old].all()
    machine.check()


@pytest.mark.parametrize(("page", "semantics"), [(4096, LINUX_6_12), (65536, LINUX_2_6_18)])
def test_real_bytes_move_intact(page, semantics):
    """Every byte of every page is the same after moves to and fro, at 4 and at 64 KiB."""
    machine = SimulatedMachine("3 x 8M", semantics=semantics, page_size_bytes=page, real_bytes=True)
    p = machine.spawn()
    a = p.mmap(6)
    data = np.random.default_rng(7).integers(0, 256, 6 * page - 100, np.uint8).tobytes()
    p.store(a + 33, data)
    child = p.fork()
    for nodes in ([1] * 6, [0, 1, 2, 0, 1, 2], [2] * 6):
        status = machine.shell.move_pages(p.pid, p.addresses(a, 6), nodes, MoveFlag.MOVE_ALL)[1]
        assert status.tolist() == nodes
        assert p.load(a + 33, len(data)) == child.load(a + 33, len(data)) == data
        machine.check()
    assert p.load(a, 33) == bytes(33)


def test_the_bytes_of_a_thp_move_intact():
    """A huge page is copied whole."""
    machine = SimulatedMachine("2 x 8M", real_bytes=True)
    p = machine.spawn()
    a = p.mmap(512)
    p.madvise(a, 512, "hugepage")
    data = np.random.default_rng(8).integers(0, 256, 2 << 20, np.uint8).tobytes()
    p.store(a, data)
    assert p.move_pages(0, [a], [1], MOVE)[1].tolist() == [1]
    assert p.load(a, 2 << 20) == data
    machine.check()

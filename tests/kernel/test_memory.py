"""Physical memory: pins, splitting, and faults kept out of what the kernel does by itself."""

from __future__ import annotations

import errno

import numpy as np
import pytest

from movepages.kernel import SimulatedMachine
from movepages.kernel.frames import PageFlag
from movepages.kernel.huge_memory import split_folios
from movepages.kernel.inject import BeforePass, NoMemory

MOVE = 2
PAGE = 4096


@pytest.fixture
def machine():
    """Return a machine of two nodes, checked at the end."""
    machine = SimulatedMachine("2 x 16M")
    yield machine
    machine.check()


def thp(machine):
    """Start a process with a THP; return it and the THP's address."""
    p = machine.spawn()
    a = p.mmap(512)
    p.madvise(a, 512, "hugepage")
    p.poke(a, np.arange(1, 513))
    return p, a


def test_pins_add_up(machine):
    """Two pins of a page are two references; it is freed with the last of pins and mappings."""
    p = machine.spawn()
    a = p.mmap(1)
    p.write(a)
    frame = p.frames(a, 1)
    machine.memory.pin(np.repeat(frame, 2))
    assert machine.memory.frames.references[frame].tolist() == [3]
    p.exit()
    machine.check()
    machine.memory.unpin(frame)
    assert not machine.memory.frames.free[frame].any()
    machine.memory.unpin(frame)
    assert machine.memory.frames.free[frame].all()
    assert not machine.memory.pins


def test_a_split_keeps_contents_mappings_and_places(machine):
    """Each page of a THP that is split has its own count, is on the LRU, and is where it was."""
    p, a = thp(machine)
    child = p.fork()
    head = p.frames(a, 1)
    split_folios(machine.memory, head)
    machine.check()
    frames = p.frames(a, 512)
    assert frames.tolist() == (head[0] + np.arange(512)).tolist() == child.frames(a, 512).tolist()
    assert (machine.memory.frames.mapcount[frames] == 2).all()
    assert machine.memory.on_lru(frames).all()
    assert child.peek(a, 512).tolist() == list(range(1, 513))


def test_a_thp_that_loses_a_part_while_isolated_is_split_and_moves(machine):
    """Unmapped in part before the pass, it is split in the pass, and all that is left moves."""
    p, a = thp(machine)
    with machine.inject(BeforePass(0, lambda: p.munmap(a + 256 * PAGE, 1))):
        assert p.move_pages(0, [a], [1], MOVE)[0] == 0
    machine.check()
    assert p.nodes(a, 258).tolist() == [1] * 256 + [-1, 1]
    assert p.peek(a, 256).tolist() == list(range(1, 257))
    rest = p.frames(a, 256)
    assert not machine.memory.frames.has(rest, PageFlag.ISOLATED).any()
    assert (machine.memory.frames.order[rest] == 0).all()


def test_a_pin_on_a_tail_holds_the_whole_thp(machine):
    """A pinned tail pins the whole THP (section 6, trap 6)."""
    p, a = thp(machine)
    tail = p.frames(a + 9 * PAGE, 1)
    machine.memory.pin(machine.memory.frames.head(tail))
    assert p.move_pages(0, [a], [1], MOVE)[0] == 1
    assert p.nodes(a, 1).tolist() == [0]
    machine.memory.unpin(machine.memory.frames.head(tail))
    assert p.move_pages(0, [a], [1], MOVE)[0] == 0


def test_the_kernels_own_work_is_undisturbed(machine):
    """Hotplug neither uses up nor suffers faults that are meant for calls."""
    p = machine.spawn()
    a = p.mmap(2)
    p.write(a, 2)
    p.move_pages(0, p.addresses(a, 2), [1, 1], MOVE)
    seen = []
    machine.memory.on_pass.append(seen.append)
    with machine.inject(NoMemory(1)):
        assert machine.offline(1) == 0
        assert seen == []
        machine.online(1)
        assert p.move_pages(0, p.addresses(a, 2), [1, 1], MOVE)[0] == -errno.ENOMEM
    assert seen == [0]

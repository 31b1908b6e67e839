"""Memory of a calling process with its own protections: what can be read and what written."""

from __future__ import annotations

import numpy as np
import pytest
from live_machine import PAGE

from movepages.emulator import user_memory
from movepages.emulator.user_memory import LiveUserMemory

pytestmark = pytest.mark.host

TOP = (1 << 64) - 8
"""The last word there is."""


@pytest.fixture
def process(live):
    """A process."""
    return live.world.process()


@pytest.fixture
def memory(live, process):
    """Its memory."""
    return LiveUserMemory(live.machine.processes.task(process.pid))


@pytest.mark.parametrize("beyond", ["", "r"])
def test_reading_ends_where_the_process_may_not(memory, process, beyond):
    """Of elements across the border of a page without rights those before it are read."""
    start = process.mmap(2)
    process.write(start, 2)
    process.mprotect(start + PAGE, 1, beyond)
    pointer = start + PAGE - 3 * 8
    for count, there in ((2, 2), (3, 3), (4, 4 if beyond else 3)):
        assert len(memory.read(pointer, np.uint64, count)) == there


def test_element_that_is_cut_is_not_read(memory, process):
    """An element that lies half in memory that may not be read does not count."""
    start = process.mmap(2)
    process.mprotect(start + PAGE, 1, "")
    assert len(memory.read(start + PAGE - 12, np.uint64, 2)) == 1
    assert len(memory.read(start + PAGE - 4, np.uint64, 1)) == 0


def test_large_array_is_read_in_pieces(memory, process, monkeypatch):
    """Elements on both sides of a piece's end come in order, and reading ends at the hole."""
    monkeypatch.setattr(user_memory, "_READ_BYTES", PAGE)
    start = process.mmap(3)
    process.poke(start, [1, 2, 3])
    words = memory.read(start, np.uint64, 4 * PAGE // 8)
    assert len(words) == 3 * PAGE // 8
    assert words[:: PAGE // 8].tolist() == [1, 2, 3]


def test_more_elements_than_there_is_memory_are_not_made_room_for(memory, process):
    """A count of 2**60 reads what is there, and does not ask for an array of that size."""
    start = process.mmap(1)
    process.write(start)
    assert len(memory.read(start, np.uint64, 1 << 60)) == PAGE // 8


@pytest.mark.parametrize("pointer", [0, TOP, 1 << 47])
def test_pointers_to_nothing_read_and_write_nothing(memory, pointer):
    """A null pointer, the end of the address space, and the kernel's half have no element."""
    assert len(memory.read(pointer, np.uint64, 2)) == 0
    assert memory.write(pointer, np.zeros(2, dtype=np.uint64)) == 0
    assert memory.writable(pointer, np.uint64, 2) == 0


def test_writing_ends_where_the_process_may_not(memory, process):
    """A page that may only be read takes nothing, and `writable` had said so."""
    start = process.mmap(2)
    process.write(start, 2)
    process.mprotect(start + PAGE, 1, "r")
    pointer = start + PAGE - 2 * 4
    values = np.array([7, 8, 9], dtype=np.int32)
    assert memory.writable(pointer, np.int32, 3) == 2
    assert memory.write(pointer, values) == 2
    assert memory.read(pointer, np.int32, 3).tolist() == [7, 8, 0]


@pytest.mark.parametrize(("count", "there"), [(511, 511), (512, 512), (513, 512)])
def test_what_can_be_written_ends_with_the_area(memory, process, count, there):
    """A page has room for 512 words: one less, all, one too many."""
    start = process.mmap(1)
    assert memory.writable(start, np.uint64, count) == there


def test_no_element_is_no_access(memory):
    """Nothing is read or written of nothing, even where there is no memory."""
    assert len(memory.read(0, np.uint64, 0)) == 0
    assert memory.write(0, np.empty(0, dtype=np.int32)) == 0
    assert memory.writable(0, np.int32, 0) == 0

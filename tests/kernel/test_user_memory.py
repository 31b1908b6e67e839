"""Arrays of a caller that system calls read and write."""

from __future__ import annotations

import numpy as np
import pytest

from movepages.kernel.user_memory import SimulatedUserMemory


@pytest.fixture
def user():
    """Return user memory with nothing in it."""
    return SimulatedUserMemory()


def test_an_array_is_read_from_its_pointer_and_inside(user):
    """Elements can be read from the start, from the middle, and up to the end."""
    array = user.place(np.arange(5, dtype=np.uint64))
    assert user.read(array.pointer, np.uint64, 5).tolist() == [0, 1, 2, 3, 4]
    assert user.read(array.pointer + 3 * 8, np.uint64, 9).tolist() == [3, 4]
    assert user.read(array.end, np.uint64, 1).tolist() == []


@pytest.mark.parametrize(("readable", "expected"), [(0, 0), (4, 4), (5, 5), (6, 5)])
def test_an_array_ends_where_it_turns_unreadable(user, readable, expected):
    """Reads stop at the first element that faults, and never go past the end."""
    array = user.place(np.arange(5, dtype=np.int32), readable=readable)
    assert len(user.read(array.pointer, np.int32, 5)) == expected


@pytest.mark.parametrize(("writable", "expected"), [(0, 0), (2, 2), (3, 3)])
def test_an_array_ends_where_it_turns_unwritable(user, writable, expected):
    """Writes stop at the first element that faults; what was written before stays."""
    array = user.place(np.zeros(3, dtype=np.int32), writable=writable)
    assert user.write(array.pointer, np.array([7, 8, 9], dtype=np.int32)) == expected
    assert array.data.tolist() == [7, 8, 9][:expected] + [0] * (3 - expected)


@pytest.mark.parametrize("pointer", [0, 1, 1 << 40, (1 << 56) - 8, (1 << 64) - 8])
def test_pointers_to_nothing_fault(user, pointer):
    """NULL and stray pointers read and write nothing."""
    user.place(np.zeros(1, dtype=np.int32))
    assert len(user.read(pointer, np.int32, 1)) == 0
    assert user.write(pointer, np.zeros(1, dtype=np.int32)) == 0


def test_a_misplaced_pointer_faults(user):
    """A pointer between two elements names neither."""
    array = user.place(np.zeros(2, dtype=np.uint64))
    assert len(user.read(array.pointer + 3, np.uint64, 1)) == 0


def test_a_gap_lies_between_arrays(user):
    """Reading on from the end of one array never runs into the next."""
    first = user.place(np.zeros(512, dtype=np.uint64))
    second = user.place(np.ones(1, dtype=np.uint64))
    assert second.pointer > first.end
    assert len(user.read(first.end, np.uint64, 1)) == 0


def test_an_array_that_is_forgotten_faults(user):
    """A pointer is good until its array is forgotten; others stay good."""
    first, second = user.place(np.zeros(1)), user.place(np.ones(1))
    user.forget(first)
    assert len(user.read(first.pointer, np.float64, 1)) == 0
    assert user.read(second.pointer, np.float64, 1).tolist() == [1.0]

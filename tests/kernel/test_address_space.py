"""Address spaces: areas, and batched look-ups over them."""

from __future__ import annotations

import numpy as np
import pytest

from movepages.errors import ArgumentError
from movepages.kernel import SimulatedMachine
from movepages.kernel.address_space import NO_PAGE, NO_VMA, TASK_SIZE

PAGE = 4096


@pytest.fixture
def process():
    """Return a process with an empty address space."""
    return SimulatedMachine("2 x 8M").spawn()


def at(*addresses: int) -> np.ndarray:
    """Return addresses as the look-ups take them."""
    return np.array(addresses, dtype=np.uint64)


def test_find_vma_returns_the_next_area_above(process):
    """As in the kernel an address in a hole finds the area above it, which does not contain it."""
    low, high = process.mmap(2, at=0x10000), process.mmap(1, at=0x20000)
    mm = process.struct.mm
    asked = at(0, low, low + 2 * PAGE - 1, low + 2 * PAGE, high, high + PAGE)
    found = mm.find_vma(asked)
    assert found.tolist() == [0, 0, 0, 1, 1, NO_VMA]
    assert mm.contains(found, asked).tolist() == [False, True, True, False, True, False]


@pytest.mark.parametrize("address", [1 << 47, 0xFFFF_8000_0000_0000, (1 << 64) - 1])
def test_kernel_addresses_have_no_area(process, address):
    """Nothing lies at or above the end of user space."""
    process.mmap(1)
    assert process.struct.mm.find_vma(at(address)).tolist() == [NO_VMA]


def test_an_empty_address_space_has_no_area():
    """Look-ups in an address space without areas find nothing."""
    mm = SimulatedMachine("1").spawn().struct.mm
    found = mm.find_vma(at(0, PAGE))
    assert found.tolist() == [NO_VMA, NO_VMA]
    assert not mm.contains(found, at(0, PAGE)).any()


def test_follow_page_finds_frames_and_nothing_else(process):
    """A touched page has a frame; one that is untouched has none, unaligned or not."""
    a = process.mmap(2)
    process.write(a)
    mm = process.struct.mm
    asked = at(a + 123, a + PAGE)
    frames = mm.follow_page(mm.find_vma(asked), asked)
    assert frames[0] == process.frames(a, 1)[0]
    assert frames[1] == NO_PAGE


def test_splitting_keeps_every_page_where_it_was(process):
    """An area that is cut maps the same frames at the same addresses."""
    a = process.mmap(8)
    process.poke(a, range(1, 9))
    before = process.frames(a, 8).tolist()
    process.struct.mm.split((a // PAGE) + 3)
    assert len(process.struct.mm.areas) == 2
    assert process.frames(a, 8).tolist() == before
    process.machine.check()


def test_gaps_are_found_and_aligned(process):
    """A new mapping takes the first gap that is large enough, aligned where it asks for that."""
    a = process.mmap(4)
    b = process.mmap(4)
    process.munmap(a, 2)
    assert process.mmap(3) == b + 4 * PAGE
    assert process.mmap(2) == a
    assert process.mmap(512) % (512 * PAGE) == 0


def test_the_last_page_of_user_space_can_be_mapped(process):
    """A mapping may end where user space ends, and not one page later."""
    assert process.mmap(1, at=TASK_SIZE - PAGE) == TASK_SIZE - PAGE
    with pytest.raises(ArgumentError, match="end of user space"):
        process.mmap(1, at=TASK_SIZE)
    process.machine.check()

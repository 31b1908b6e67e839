from __future__ import annotations

import errno
import mmap
import os

import numpy as np
import pytest

from movepages.linux import own_memory

pytestmark = pytest.mark.host
PAGE = mmap.PAGESIZE


@pytest.fixture
def file(tmp_path):
    """Return a descriptor of a file of eight pages, of which the first and the last were written.

    Pages of a hole are in no memory until they are read.
    """
    path = tmp_path / "data"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    os.pwrite(descriptor, b"a", 0)
    os.pwrite(descriptor, b"z", 8 * PAGE - 1)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def start(file):
    """Return where the file is mapped."""
    address = own_memory.map_shared(file, 8 * PAGE, 0)
    assert address > 0
    yield address
    assert own_memory.unmap(address, 8 * PAGE) == 0


def resident(start, pages):
    """Return what mincore says of pages."""
    seen = np.zeros(pages, dtype=np.uint8)
    assert own_memory.mincore(start, pages * PAGE, seen) == 0
    return (seen & 1).tolist()


def test_mincore_tells_what_is_in_memory(start):
    """The two pages that were written are in memory, the hole is not."""
    assert resident(start, 8) == [1, 0, 0, 0, 0, 0, 0, 1]


def test_a_part_is_mapped(file):
    """A mapping may begin at any page of the file."""
    last = own_memory.map_shared(file, PAGE, 7 * PAGE)
    assert resident(last, 1) == [1]
    assert own_memory.unmap(last, PAGE) == 0


def test_cached_pages_are_counted(file, monkeypatch):
    """The pages of a part are counted; where the call is not to be had the answer is an errno."""
    counted = own_memory.cached_pages(file, 0, 8 * PAGE)
    if counted != -errno.ENOSYS:  # before Linux 6.5
        assert counted == 2
        assert own_memory.cached_pages(file, PAGE, 6 * PAGE) == 0
        assert own_memory.cached_pages(-1, 0, PAGE) == -errno.EBADF
    monkeypatch.setattr(own_memory, "NUMBERS", {})
    assert own_memory.cached_pages(file, 0, PAGE) == -errno.ENOSYS


def test_touching_brings_pages_in(start):
    """Under MADV_RANDOM a touch brings in the pages touched, and none behind them."""
    assert own_memory.advise(start, 8 * PAGE, own_memory.MADV_RANDOM) == 0
    own_memory.touch(start + 2 * PAGE, 2 * PAGE, PAGE)
    assert resident(start, 8) == [1, 0, 1, 1, 0, 0, 0, 1]


def test_populating_a_file_that_was_cut_fails(file, start):
    """MADV_POPULATE_READ says -EFAULT where a touch would end this process by SIGBUS."""
    os.ftruncate(file, PAGE)
    populate = own_memory.MADV_POPULATE_READ
    assert own_memory.advise(start, PAGE, populate) == 0
    assert own_memory.advise(start + PAGE, PAGE, populate) == -errno.EFAULT


def test_failures_are_negative_errnos(start):
    """Each call returns what the kernel does."""
    nothing = np.zeros(1, dtype=np.uint8)
    assert own_memory.map_shared(-1, PAGE, 0) == -errno.EBADF
    assert own_memory.unmap(start + 1, PAGE) == -errno.EINVAL
    assert own_memory.attach(-1) == -errno.EINVAL
    assert own_memory.detach(start) == -errno.EINVAL
    assert own_memory.advise(start, PAGE, -1) == -errno.EINVAL
    assert own_memory.mincore(1, PAGE, nothing) == -errno.EINVAL

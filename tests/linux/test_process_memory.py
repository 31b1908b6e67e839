from __future__ import annotations

import ctypes
import mmap
import os

import numpy as np
import pytest

from movepages.errors import NoSuchProcessError, NotPermittedError
from movepages.linux.process_memory import (
    read_into,
    read_memory,
    readable,
    writable,
    write_memory,
)

pytestmark = pytest.mark.host

PAGE = mmap.PAGESIZE
NOBODY = 2**22 + 1
SELF = os.getpid()
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
READ, WRITE = 1, 2


@pytest.fixture
def pages():
    """Return the address of eight pages, each filled with its number, and a function to protect."""
    mapped = mmap.mmap(-1, 8 * PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for page in range(8):
        mapped[page * PAGE : (page + 1) * PAGE] = bytes([page]) * PAGE
    view = (ctypes.c_char * len(mapped)).from_buffer(mapped)
    start = ctypes.addressof(view)

    def protect(page, rights):
        assert _libc.mprotect(start + page * PAGE, PAGE, rights) == 0

    yield start, protect
    for page in range(8):
        protect(page, READ | WRITE)
    del view
    mapped.close()


def test_reads_across_pages(pages):
    """Bytes come as they are, from the middle of one page to the middle of another."""
    start, _ = pages
    expected = bytes([0]) * (PAGE - 3) + bytes([1]) * PAGE + bytes([2]) * 5
    assert read_memory(SELF, start + 3, 2 * PAGE + 2) == expected


@pytest.mark.parametrize("hole", range(1, 8))
def test_reading_ends_at_the_first_page_that_cannot_be_read(pages, hole):
    """What lies before a PROT_NONE page is returned to the last byte, what lies behind is not."""
    start, protect = pages
    protect(hole, 0)
    data = read_memory(SELF, start + 7, 8 * PAGE - 7)
    assert len(data) == hole * PAGE - 7
    assert data[-1] == hole - 1


@pytest.mark.parametrize(
    ("size", "expected"), [(PAGE - 1, PAGE - 1), (PAGE, PAGE), (PAGE + 1, PAGE)]
)
def test_reading_up_to_the_edge(pages, size, expected):
    """A read that ends just before, at, or behind the edge gives what can be read."""
    start, protect = pages
    protect(1, 0)
    assert len(read_memory(SELF, start, size)) == expected


@pytest.mark.parametrize("address", [0, 1, PAGE, 2**63, 2**64 - PAGE, 2**64 - 1])
@pytest.mark.parametrize("size", [1, 8, 3 * PAGE])
def test_addresses_without_memory(address, size):
    """Nothing can be read, written or hoped for at addresses that no process has."""
    assert read_memory(SELF, address, size) == b""
    assert write_memory(SELF, address, bytes(size)) == 0
    assert readable(SELF, address, size) == 0
    assert writable(SELF, address, size) == 0


def test_protections_count(pages):
    """A PROT_NONE page is unreadable and a read-only one unwritable, unlike in /proc/PID/mem."""
    start, protect = pages
    protect(0, 0)
    protect(1, READ)
    assert read_memory(SELF, start, 1) == b""
    assert write_memory(SELF, start + PAGE, b"x") == 0
    assert read_memory(SELF, start + PAGE, 1) == b"\x01"


@pytest.mark.parametrize(
    "kind", [bytes, bytearray, memoryview, lambda data: np.frombuffer(data, "i4")]
)
def test_writes_what_it_is_given(pages, kind):
    """Any contiguous buffer is written, read-only ones too."""
    start, _ = pages
    data = bytes(range(64)) * 100
    assert write_memory(SELF, start + 11, kind(data)) == len(data)
    assert read_memory(SELF, start + 11, len(data)) == data


def test_writing_ends_at_the_first_page_that_cannot_be_written(pages):
    """What fits before a read-only page is written, and the count says how much."""
    start, protect = pages
    protect(3, READ)
    assert write_memory(SELF, start + 5, b"x" * (4 * PAGE)) == 3 * PAGE - 5
    assert read_memory(SELF, start + 3 * PAGE - 1, 2) == b"x\x03"


def test_areas_are_probed_without_touching(pages):
    """`readable` and `writable` count up to the first area that forbids it."""
    start, protect = pages
    protect(2, READ)
    protect(5, 0)
    assert readable(SELF, start + 9, 8 * PAGE - 9) == 5 * PAGE - 9
    assert writable(SELF, start + 9, 8 * PAGE - 9) == 2 * PAGE - 9
    assert writable(SELF, start + 9, 2 * PAGE - 9) == 2 * PAGE - 9
    assert writable(SELF, start + 9, 2 * PAGE - 10) == 2 * PAGE - 10


def test_nothing_is_read_or_written():
    """A length of zero is no access, wherever it would be."""
    assert read_memory(SELF, 0, 0) == b""
    assert write_memory(SELF, 0, b"") == 0
    assert read_into(SELF, 0, bytearray()) == 0


def test_reads_into_an_array(pages):
    """A NumPy array is filled in place, which large queries need."""
    start, _ = pages
    array = np.empty(PAGE // 4, np.int32)
    assert read_into(SELF, start + PAGE, array) == PAGE
    assert (array == 0x01010101).all()


def test_more_pages_than_one_call_takes():
    """2,100 pages with a hole near the end: more than the 1,024 pieces of one call."""
    count, hole = 2100, 2098
    mapped = mmap.mmap(-1, count * PAGE)
    view = (ctypes.c_char * len(mapped)).from_buffer(mapped)
    start = ctypes.addressof(view)
    assert _libc.mprotect(start + hole * PAGE, PAGE, 0) == 0
    assert len(read_memory(SELF, start, count * PAGE)) == hole * PAGE
    assert write_memory(SELF, start, bytes(count * PAGE)) == hole * PAGE
    del view
    mapped.close()


def test_another_process(fork, pages):
    """A child's memory is read and written, and ours stays as it is."""
    start, _ = pages
    child = fork()
    assert write_memory(child.pid, start, b"child") == 5
    assert read_memory(child.pid, start, 5) == b"child"
    assert read_memory(SELF, start, 5) == bytes(5)  # page 0 is full of zeros


@pytest.mark.parametrize(
    "access", [lambda: read_memory(NOBODY, PAGE, 8), lambda: write_memory(NOBODY, PAGE, b"x")]
)
def test_a_task_that_is_not_there(access):
    """A pid beyond all pids is NoSuchProcessError."""
    with pytest.raises(NoSuchProcessError):
        access()


def test_somebody_elses_memory(unprivileged):
    """Without rights over a process its memory is NotPermittedError."""

    def access():
        try:
            read_memory(1, PAGE, 8)
        except NotPermittedError as error:
            return str(error)
        return ""

    assert "run as its user or as root" in unprivileged(access)

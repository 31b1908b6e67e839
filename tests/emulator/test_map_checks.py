"""Which calls replace what is mapped: the kernel itself is asked as well."""

from __future__ import annotations

import ctypes
import mmap
import os
import socket
from pathlib import Path

import pytest

from movepages.emulator.map_checks import Mmap, is_valid_mremap, replaces

pytestmark = pytest.mark.emulator

PAGE = mmap.PAGESIZE
FIXED, ANONYMOUS, NOREPLACE = 0x10, 0x20, 0x100000
SHARED, PRIVATE, SHARED_VALIDATE, DROPPABLE = 1, 2, 3, 8
READ, WRITE = 1, 2
MAYMOVE, REMAP_FIXED, DONTUNMAP = 1, 2, 4
FAILED = (1 << 64) - 1

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = libc.mremap.restype = ctypes.c_ulong
size_t, pointer, number = ctypes.c_size_t, ctypes.c_ulong, ctypes.c_int
libc.mmap.argtypes = (pointer, size_t, number, number, number, ctypes.c_long)
libc.mremap.argtypes = (pointer, size_t, size_t, number, pointer)


@pytest.fixture
def place():
    """A page that may be mapped over."""
    return libc.mmap(0, PAGE, READ | WRITE, PRIVATE | ANONYMOUS, -1, 0)


@pytest.fixture
def opened(tmp_path):
    """Descriptors of all sorts, by name."""
    path = tmp_path / "file"
    path.write_bytes(bytes(PAGE))
    reads, writes = os.pipe()
    ours, theirs = socket.socketpair()
    found = {
        "read": os.open(path, os.O_RDONLY),
        "write": os.open(path, os.O_WRONLY),
        "both": os.open(path, os.O_RDWR),
        "path": os.open(path, os.O_PATH),
        "directory": os.open(tmp_path, os.O_RDONLY),
        "pipe": reads,
        "memory": os.memfd_create("memory"),
        "none": 999,
    }
    yield found
    for descriptor in {*found.values(), writes} - {999}:
        os.close(descriptor)
    ours.close()
    theirs.close()


@pytest.mark.parametrize("name", ["read", "write", "both", "path", "directory", "pipe", "none"])
@pytest.mark.parametrize("flags", [0, SHARED, PRIVATE, SHARED_VALIDATE, 4, 15, PRIVATE | NOREPLACE])
@pytest.mark.parametrize("protection", [0, READ, READ | WRITE])
@pytest.mark.parametrize("offset", [0, 1])
def test_kernel_maps_a_file_when_it_is_said_to(opened, place, name, flags, protection, offset):
    """Whatever the flags, the descriptor and the protection, both say the same."""
    call = Mmap(place, PAGE, protection, flags | FIXED, opened[name], offset)
    said = replaces(call, Path("/proc/self"), PAGE)
    assert said == (libc.mmap(*call) == place)


@pytest.mark.parametrize("flags", [0, SHARED, PRIVATE, SHARED_VALIDATE, DROPPABLE, 4])
def test_kernel_maps_memory_when_it_is_said_to(place, flags):
    """Without a file some kinds of mapping are valid, and no descriptor is looked at."""
    call = Mmap(place, PAGE, READ | WRITE, flags | FIXED | ANONYMOUS, 999, 0)
    found = libc.mmap(*call)
    said = replaces(call, Path("/proc/self"), PAGE)
    assert said == (found == place) or (flags == DROPPABLE and said)  # Linux 6.11


def test_descriptor_is_an_int(opened, place):
    """The upper half of its register is not looked at."""
    call = Mmap(place, PAGE, READ, PRIVATE | FIXED, opened["read"] | 7 << 32, 0)
    assert replaces(call, Path("/proc/self"), PAGE)


@pytest.mark.parametrize("flags", range(16))
@pytest.mark.parametrize("new_pages", [1, 2])
def test_kernel_takes_the_flags_that_are_said_to_be_valid(flags, new_pages):
    """mremap(2) of two pages, with room for them elsewhere: both agree on each set of flags."""
    start = libc.mmap(0, 2 * PAGE, READ | WRITE, PRIVATE | ANONYMOUS, -1, 0)
    target = libc.mmap(0, 2 * PAGE, READ | WRITE, PRIVATE | ANONYMOUS, -1, 0)
    found = libc.mremap(start, 2 * PAGE, new_pages * PAGE, flags, target)
    assert is_valid_mremap(2, new_pages, flags) == (found != FAILED)

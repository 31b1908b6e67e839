"""Asking the kernel for single mappings of real processes."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import pytest
from guestkit.memory import PROT_NONE, unmap
from guestkit.pages import PAGE_BYTES

from movepages.abi.procmap import VmaFlag
from movepages.errors import NoSuchProcessError, UnsupportedError
from movepages.linux import procmap
from movepages.linux.maps import read_maps
from movepages.linux.procmap import Vma, VmaSource, query_vma

pytestmark = pytest.mark.host

READ_WRITE = VmaFlag.READABLE | VmaFlag.WRITABLE
OTHER_REQUEST = 0xC06866FF
"""_IOWR('f', 255, 104 bytes): an ioctl that no maps file has, so the kernel says ENOTTY."""


@pytest.fixture(params=["PROCMAP_QUERY", "text"])
def source(request, monkeypatch):
    """The mappings of this process, asked for in both ways."""
    if request.param == "text":
        monkeypatch.setattr(procmap, "PROCMAP_QUERY", OTHER_REQUEST)
    with VmaSource(0) as opened:
        if request.param == "PROCMAP_QUERY" and not opened.queries:
            pytest.skip("this kernel has no PROCMAP_QUERY (Linux 6.11)")
        assert opened.queries == (request.param == "PROCMAP_QUERY")
        yield opened


def open_descriptors():
    """Count the descriptors of this process."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_anonymous_memory(source, memory):
    """Memory between guard pages is a mapping of its own, without a file."""
    pages = memory.private(3)
    found = source.find(pages.start)
    assert (found.start, found.end) == pages.range
    assert found.flags == READ_WRITE
    assert (found.offset, found.device, found.inode, found.name) == (0, (0, 0), 0, "")
    assert found.page_size_bytes == (PAGE_BYTES if source.queries else None)


def test_the_borders_of_a_mapping(source, memory):
    """Its first and its last byte are in it; one below and one above are in its neighbours."""
    pages = memory.private(2)
    low, high = pages.range
    assert source.find(low) == source.find(high - 1)
    assert source.find(low - 1).end == low
    assert source.find(high).start == high


def test_an_address_in_a_hole_finds_the_next_mapping(source, memory):
    """find_vma() goes on to the next one above; `covering` does not."""
    pages = memory.private(3)
    unmap(pages[1:2])
    hole = pages.start + PAGE_BYTES
    assert source.find(hole).start == hole + PAGE_BYTES
    assert source.covering(hole) is None
    assert source.covering(hole - 1).end == hole
    assert source.covering(hole + PAGE_BYTES) == source.find(hole)


def test_above_the_last_mapping_is_none(source):
    """Where nothing follows there is no answer, and no error."""
    assert source.find((1 << 64) - 1) is None
    assert source.covering((1 << 64) - 1) is None


def test_a_mapped_file(source, memory, tmp_path):
    """The mapping knows its file by device, inode, offset and path."""
    path = tmp_path / "two words\n"
    path.write_bytes(bytes(4 * PAGE_BYTES))
    with path.open("r+b") as file:
        pages = memory.shared_file(file.fileno(), 4)
    unmap(pages[:1])
    about = path.stat()
    low, high = pages[1:].range
    assert source.find(low) == Vma(
        low,
        high,
        READ_WRITE | VmaFlag.SHARED,
        PAGE_BYTES,
        (os.major(about.st_dev), os.minor(about.st_dev)),
        about.st_ino,
        str(path),
        PAGE_BYTES if source.queries else None,
    )
    path.unlink()
    assert source.find(low).name == f"{path} (deleted)"


def test_a_name_of_any_byte(source, memory, tmp_path):
    """A path that is no UTF-8 comes back as Python would open it."""
    path = os.path.join(os.fsencode(tmp_path), b"\xff\xe9")  # noqa: PTH118 - pathlib takes no bytes
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    os.ftruncate(descriptor, PAGE_BYTES)
    pages = memory.read_only_file(descriptor, 1)
    os.close(descriptor)
    found = source.find(pages.start)
    assert os.fsencode(found.name) == path
    assert found.flags == VmaFlag.READABLE


@pytest.mark.parametrize(
    ("protection", "flags"),
    [
        (PROT_NONE, VmaFlag(0)),
        (mmap.PROT_READ, VmaFlag.READABLE),
        (mmap.PROT_READ | mmap.PROT_EXEC, VmaFlag.READABLE | VmaFlag.EXECUTABLE),
    ],
)
def test_protections(source, memory, protection, flags):
    """What may be done with the memory is told; nothing, too."""
    pages = memory.private(1, protection)
    assert source.covering(pages.start).flags == flags


def test_shared_anonymous_memory(source, memory):
    """It is shared, and has an inode like a file."""
    found = source.find(memory.shared(1).start)
    assert found.flags == READ_WRITE | VmaFlag.SHARED
    assert found.inode
    assert found.name == "/dev/zero (deleted)"


def test_the_heap_and_the_stack_have_names(source):
    """Names in brackets are those of maps."""
    names = {vma.name for vma in source.above(0)}
    assert {"[stack]", "[heap]"} <= names


def test_going_through_all_of_them_agrees_with_the_text(crowded):
    """Both ways tell the same of 10,000 mappings; vsyscall is no mapping of the process."""
    with VmaSource(crowded.pid) as source:
        found = [(vma.start, vma.end, vma.offset, vma.inode, vma.name) for vma in source.above(0)]
    lines = [line for line in read_maps(crowded.pid) if line.path != "[vsyscall]"]
    assert found == [(line.start, line.end, line.offset, line.inode, line.path) for line in lines]
    assert len(found) > 10_000


def test_going_through_begins_where_it_is_told_to(source, memory):
    """The mapping that the address is in comes first."""
    pages = memory.private(2)
    above = source.above(pages.start + PAGE_BYTES)
    first, second = next(above), next(above)
    assert (first.start, first.end) == pages.range
    assert second.start == first.end


def test_a_kernel_without_the_query_is_unsupported(monkeypatch):
    """A request that the kernel does not know becomes one clear error, its cause kept."""
    monkeypatch.setattr(procmap, "PROCMAP_QUERY", OTHER_REQUEST)
    with (
        Path("/proc/self/maps").open("rb") as maps,
        pytest.raises(UnsupportedError, match="no PROCMAP_QUERY") as caught,
    ):
        query_vma(maps.fileno(), 0)
    assert isinstance(caught.value.__cause__, OSError)


@pytest.mark.parametrize("request_code", [procmap.PROCMAP_QUERY, OTHER_REQUEST])
def test_a_process_that_has_ended(fork, monkeypatch, request_code):
    """Its mappings are gone: that is an error, and no answer."""
    monkeypatch.setattr(procmap, "PROCMAP_QUERY", request_code)
    child = fork()
    with VmaSource(child.pid) as source:
        assert source.find(0) is not None
        child.kill()
        with pytest.raises(NoSuchProcessError, match=str(child.pid)):
            source.find(0)


def test_a_process_that_is_not_there_is_named(no_pid):
    """Opening the maps of nobody is an error with the pid."""
    with pytest.raises(NoSuchProcessError, match=f"no process {no_pid}"):
        VmaSource(no_pid)


def test_another_users_process_is_off_limits(as_stranger):
    """Whose maps may not be read, his mappings may not be asked for."""
    pid = os.getpid()
    assert as_stranger(lambda: VmaSource(pid).find(0)).startswith("NotPermittedError")


@pytest.mark.usefixtures("root")
def test_a_kernel_thread_has_no_mapping(kernel_threads):
    """A task without memory is no missing process."""
    for pid in kernel_threads:
        with VmaSource(pid) as source:
            assert source.find(0) is None


def test_closing_twice_is_no_error():
    """The descriptor is closed once, and nothing is left open."""
    before = open_descriptors()
    source = VmaSource(0)
    source.close()
    source.close()
    assert open_descriptors() == before

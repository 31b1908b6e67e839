from __future__ import annotations

import mmap
import os
import resource
from itertools import pairwise

import pytest

from movepages.errors import MalformedError, NoSuchProcessError
from movepages.linux.mappings import read_mappings
from movepages.values import Mapping

MAPS = """\
00001000-00003000 r-xp 00000000 08:02 17                                 /bin/x
00003000-00008000 rw-p 00000000 00:00 0                                  [heap]
00009000-0000a000 rw-p 00000000 00:00 0
"""
BASE = resource.getpagesize()


def counts(mappings: list[Mapping]) -> list[tuple[int, dict[int, int]]]:
    """Return start and pages by node of each mapping."""
    return [(mapping.start, dict(mapping.pages_by_node)) for mapping in mappings]


def test_the_two_files_are_joined(put_process):
    """A mapping has its bounds and name from maps, policy and counts from numa_maps."""
    root = put_process(
        maps=MAPS,
        numa_maps="1000 default file=/bin/x mapped=2 mapmax=9 N1=2 kernelpagesize_kB=4\n"
        "3000 prefer (many):0-1 heap anon=5 dirty=4 N0=3 N1=2 kernelpagesize_kB=4\n"
        "9000 default\n",
    )
    text, heap, untouched = read_mappings(7, root)
    assert text == Mapping(
        start=0x1000,
        end=0x3000,
        permissions="r-xp",
        device="08:02",
        inode=17,
        path="/bin/x",
        page_size_bytes=4096,
        pages_by_node={1: 2},
        mapped_pages=2,
        most_mapped=9,
    )
    assert (heap.policy, heap.anon_pages, heap.dirty_pages) == ("prefer (many):0-1", 5, 4)
    assert heap.bytes_by_node == {0: 3 * 4096, 1: 2 * 4096}
    assert (untouched.policy, untouched.resident_bytes) == ("default", 0)
    assert untouched.page_size_bytes == BASE


def test_huge_pages_keep_their_size(put_process):
    """The page size of a hugetlb mapping is that of its pool, and its pages are huge ones."""
    root = put_process(
        maps="200000-600000 rw-s 00000000 00:0f 3                       /anon_hugepage (deleted)\n",
        numa_maps="200000 default file=/anon_hugepage\\040(deleted) huge anon=2 dirty=2 N3=2"
        " kernelpagesize_kB=2048\n",
    )
    (mapping,) = read_mappings(7, root)
    assert mapping.hugetlb
    assert mapping.resident_bytes == mapping.size_bytes == 4 << 20


NOWHERE = [(0x1000, {}), (0x3000, {}), (0x9000, {})]
ONE_PAGE = "default anon=1 dirty=1 N0=1 kernelpagesize_kB=4\n"
ONE_PAGE_ON_1 = "bind:1 anon=1 dirty=1 N1=1 kernelpagesize_kB=4\n"
HUGE_PAGE = "default file=/h huge anon=1 dirty=1 N1=1 kernelpagesize_kB=2048\n"


@pytest.mark.parametrize(
    ("numa_maps", "expected"),
    [
        pytest.param("", NOWHERE, id="all made since"),
        pytest.param(f"0 {ONE_PAGE}", NOWHERE, id="below all mappings"),
        pytest.param(f"8000 {ONE_PAGE}", NOWHERE, id="at the end of the heap"),
        pytest.param(f"a000 {ONE_PAGE}", NOWHERE, id="above all mappings"),
        pytest.param(
            f"7000 {ONE_PAGE}",
            [(0x1000, {}), (0x3000, {0: 1}), (0x9000, {})],
            id="the heap's last page",
        ),
        pytest.param(
            f"3000 {ONE_PAGE}4000 {ONE_PAGE_ON_1}5000 default\n6000 {ONE_PAGE}",
            [(0x1000, {}), (0x3000, {0: 2, 1: 1}), (0x9000, {})],
            id="the heap in parts",
        ),
        pytest.param(
            f"3000 default\n4000 {ONE_PAGE_ON_1}",
            [(0x1000, {}), (0x3000, {1: 1}), (0x9000, {})],
            id="the first part without pages",
        ),
        pytest.param(
            f"3000 {ONE_PAGE}4000 {HUGE_PAGE}",
            [(0x1000, {}), (0x3000, {0: 1}), (0x9000, {})],
            id="huge pages that are gone",
        ),
    ],
)
def test_mappings_that_changed_between_the_files(put_process, numa_maps, expected):
    """Lines without a mapping are dropped, parts of one added up, units never mixed."""
    assert counts(read_mappings(7, put_process(maps=MAPS, numa_maps=numa_maps))) == expected


def test_parts_of_a_mapping_add_up_under_the_first_policy(put_process):
    """Of parts, counters are summed, mapmax is the highest, and the first policy holds."""
    root = put_process(
        maps=MAPS,
        numa_maps="3000 bind:0 anon=2 dirty=1 mapmax=3 N0=2 kernelpagesize_kB=4\n"
        "4000 bind:1 anon=1 dirty=1 mapmax=5 N0=1 kernelpagesize_kB=4\n",
    )
    heap = read_mappings(7, root)[1]
    assert (heap.anon_pages, heap.dirty_pages, heap.mapped_pages, heap.most_mapped) == (3, 2, 3, 5)
    assert heap.policy == "bind:0"


def test_kernel_without_numa(put_process):
    """Without numa_maps the mappings are there all the same, without counts."""
    mappings = read_mappings(7, put_process(maps=MAPS))
    assert [mapping.path for mapping in mappings] == ["/bin/x", "[heap]", ""]
    assert all(mapping.pages_by_node == {} for mapping in mappings)


def test_malformed_file_is_named(put_process):
    """The error names which of the two files is wrong, and where."""
    with pytest.raises(MalformedError, match=r"proc/7/numa_maps, line 2: anon"):
        read_mappings(7, put_process(maps=MAPS, numa_maps="1000 default\n3000 default anon=?\n"))


@pytest.mark.host
def test_own_memory_lies_where_it_was_written():
    """Pages that this process wrote are in its mappings, with size, permissions and kind."""
    size = 32 * mmap.PAGESIZE
    before = {mapping.start for mapping in read_mappings(0)}
    with mmap.mmap(-1, size) as memory:
        memory.write(b"x" * size)
        new = [m for m in read_mappings(os.getpid()) if m.start not in before and m.shared]
    (mapping,) = [m for m in new if m.size_bytes == size]
    assert mapping.resident_bytes == size
    assert mapping.permissions == "rw-s"
    assert mapping.kind == "shm"


@pytest.mark.host
def test_ten_thousand_mappings(crowded):
    """A process with 10,000 mappings shows all of them; once it has ended, it is gone."""
    mappings = read_mappings(crowded.pid)
    assert len(mappings) > 10_000
    assert all(a.end <= b.start for a, b in pairwise(mappings))
    crowded.kill()
    crowded.wait()
    with pytest.raises(NoSuchProcessError, match=f"there is no process {crowded.pid}"):
        read_mappings(crowded.pid)


@pytest.mark.host
def test_strangers_are_refused(as_stranger):
    """Another user's mappings are not shown as none: the error says whose they are not."""
    pid = os.getpid()
    assert as_stranger(lambda: read_mappings(pid)).startswith("NotPermittedError: process")

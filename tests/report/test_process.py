from __future__ import annotations

from movepages.report.process import ProcessSnapshot, title
from movepages.topology import parse_topology
from movepages.values import Mapping

SMALL = Mapping(0, 8192, page_size_bytes=4096, pages_by_node={1: 1, 0: 1})
HUGE = Mapping(1 << 21, 1 << 22, page_size_bytes=2 << 20, pages_by_node={1: 1}, hugetlb=True)


def test_pages_count_by_their_size():
    """Base pages and huge pages add up in bytes, by node in rising order."""
    process = ProcessSnapshot(7, "cat", [SMALL, HUGE], [], parse_topology("2"), 4096)
    assert list(process.bytes_by_node.items()) == [(0, 4096), (1, 4096 + (2 << 20))]
    assert process.resident_bytes == 8192 + (2 << 20)


def test_title_is_harmless():
    """A process may be called anything; its title does not reach the terminal as it is."""
    assert title("a\x1b]0;b\x07", 7) == r"a\x1b]0;b\x07 (7)"

from __future__ import annotations

import struct

from movepages.abi import limits


def test_limits_are_those_of_the_kernel():
    """CONFIG_NODES_SHIFT=10 makes 1024 nodes; do_pages_stat() looks up 16 pages at a time."""
    assert limits.MAX_NUMNODES == 1 << 10
    assert limits.QUERY_CHUNK_PAGES == 16


def test_control_entry_has_the_size_of_its_fields():
    """An entry of 2006 (struct page_to_node) is two pointers and two ints, no padding."""
    pointer_bytes = {64: 8, 32: 4}
    for word_bits, entry_bytes in limits.CONTROL_ENTRY_BYTES.items():
        assert entry_bytes == 2 * pointer_bytes[word_bits] + 2 * struct.calcsize("i")

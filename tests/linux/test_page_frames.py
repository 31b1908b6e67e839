"""From frames to nodes: made-up tables, real pages, and machines that tell too little or wrong."""

from __future__ import annotations

import ctypes
import os
import struct

import numpy as np
import pytest
from guestkit.children import set_dumpable
from guestkit.pages import PAGE_BYTES
from hypothesis import given, strategies as st

from movepages.abi import Capability
from movepages.linux import page_frames, pagemap
from movepages.linux.nodes import read_block_nodes
from movepages.linux.page_frames import ABSENT, UNKNOWN, FrameNodes

PRESENT = 1 << 63
BLOCK_SHIFT = 3
TABLE = FrameNodes(np.array([0, 1, UNKNOWN, 0, UNKNOWN], dtype=np.int16), BLOCK_SHIFT, (5, 9))
"""Blocks of 8 frames: 0 and 3 on node 0, 1 on node 1, 2 unknown; frames 5 and 9 are of zeros."""

PR_SET_KEEPCAPS = 8  # include/uapi/linux/prctl.h
CAPABILITY_VERSION_3 = 0x20080522  # include/uapi/linux/capability.h


def slow_node(entry):
    """Find the node of an entry the slow way."""
    frame = entry & (1 << 55) - 1
    if not entry & PRESENT or frame in TABLE.zero_frames:
        return ABSENT
    known = TABLE.node_of_block.tolist()[:-1]
    block = frame >> BLOCK_SHIFT
    return known[block] if block < len(known) else UNKNOWN


def has_blocks():
    """Tell whether this kernel shows its memory blocks."""
    return os.path.exists("/sys/devices/system/memory/block_size_bytes")  # noqa: PTH110 - a fact


@given(
    st.lists(
        st.builds(
            lambda frame, flags, present: frame | flags << 55 | PRESENT * present,
            st.one_of(st.integers(0, 45), st.integers(0, 2**55 - 1)),
            st.integers(0, 127),
            st.booleans(),
        ),
        max_size=40,
    )
)
def test_nodes_of_entries_are_those_of_a_slow_loop(entries):
    """Absent, swapped and zero pages have no node, frames beyond the blocks an unknown one."""
    nodes = TABLE.nodes(np.array(entries, dtype=np.uint64))
    assert nodes.tolist() == [slow_node(entry) for entry in entries]


@pytest.mark.parametrize(
    ("frame", "node"), [(7, 0), (8, 1), (15, 1), (16, UNKNOWN), (24, 0), (31, 0), (32, UNKNOWN)]
)
def test_blocks_begin_and_end_where_they_do(frame, node):
    """The first and the last frame of a block belong to it, those beside it do not."""
    assert TABLE.nodes(np.array([frame | PRESENT], dtype=np.uint64)).tolist() == [node]


@pytest.mark.host
@pytest.mark.usefixtures("root")
def test_the_table_of_this_machine_agrees_with_the_kernel(memory):
    """Pages have the node by their frames that the kernel names; zero pages have none."""
    pages = memory.private(64)
    pages[:32].touch()
    assert not pages[32:48].data.any()
    table = page_frames.read_frame_nodes(PAGE_BYTES)
    with pagemap.open_pagemap(0) as descriptor:
        first = pages.start // PAGE_BYTES
        entries = pagemap.read_entries(descriptor, first, np.empty(64, dtype=np.uint64))
    _, status = pages.call(None, 0, 0)
    assert table.nodes(entries)[:32].tolist() == status[:32].tolist()
    assert table.nodes(entries)[32:].tolist() == [ABSENT] * 32


@pytest.mark.host
@pytest.mark.usefixtures("root")
def test_a_block_under_two_nodes_or_none_tells_nothing(block_root):
    """Only a block under exactly one node has a node; between blocks there is none either."""
    root = block_root({0: [0], 1: [0, 1], 2: [], 5: [1]})
    table = page_frames.read_frame_nodes(PAGE_BYTES, root)
    assert table.node_of_block.tolist() == [0, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, 1, UNKNOWN]
    size_bytes, _ = read_block_nodes(root)
    assert PAGE_BYTES << table.block_shift == size_bytes


@pytest.mark.host
@pytest.mark.usefixtures("root")
def test_a_machine_without_blocks_has_no_table(block_root, tmp_path):
    """Without memory blocks in sysfs, or without any of them, frames lead nowhere."""
    assert page_frames.read_frame_nodes(PAGE_BYTES, block_root({})) is None
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "proc").symlink_to("/proc")
    assert page_frames.read_frame_nodes(PAGE_BYTES, bare) is None


@pytest.mark.host
def test_without_the_right_there_is_no_table(unprivileged):
    """Who sees no frames is told so, without an error."""

    def look():
        return page_frames.sees_frames(PAGE_BYTES), page_frames.read_frame_nodes(PAGE_BYTES)

    assert unprivileged(look) == (False, None)


@pytest.mark.host
def test_who_may_not_look_at_itself_sees_no_frames(unprivileged):
    """The pagemap of a process that is not dumpable is closed to the process itself."""

    def look():
        set_dumpable(0)
        return page_frames.sees_frames(PAGE_BYTES)

    assert unprivileged(look) is False


@pytest.mark.host
@pytest.mark.usefixtures("root")
def test_root_sees_frames():
    """Root on its own machine sees frames, and can tell the zero page."""
    assert page_frames.sees_frames(PAGE_BYTES)
    if has_blocks():
        assert len(page_frames.read_frame_nodes(PAGE_BYTES).zero_frames) >= 1


@pytest.mark.host
@pytest.mark.usefixtures("root")
def test_frames_without_their_flags_are_no_help(fork):
    """CAP_SYS_ADMIN shows frames, but only root may read which of them is the zero page."""

    def body():
        ctypes.CDLL(None).prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)
        os.setresuid(1000, 1000, 1000)
        keep = 1 << Capability.SYS_ADMIN
        header = struct.pack("=Ii", CAPABILITY_VERSION_3, 0)
        sets = struct.pack("=6I", keep, keep, 0, 0, 0, 0)
        assert ctypes.CDLL(None).capset(header, sets) == 0
        set_dumpable(1)
        with pagemap.open_pagemap(0) as descriptor:
            first = id(body) // PAGE_BYTES
            entries = pagemap.read_entries(descriptor, first, np.empty(1, dtype=np.uint64))
        sees = bool(pagemap.frames(entries)[0])
        yield sees, page_frames.sees_frames(PAGE_BYTES), page_frames.read_frame_nodes(PAGE_BYTES)

    assert fork(body).step() == (True, False, None)


@pytest.mark.host
@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("chunk_pages", [3, 7, 64])
@pytest.mark.parametrize("read_on", [0, 2, 1000])
def test_runs_of_equal_node_lie_inside_what_was_wanted(memory, monkeypatch, chunk_pages, read_on):
    """However much is read at a time and between, the runs cover the present pages wanted."""
    monkeypatch.setattr(pagemap, "CHUNK_PAGES", chunk_pages)
    monkeypatch.setattr(page_frames, "_READ_ON_BYTES", read_on * PAGE_BYTES)
    pages = memory.private(40)
    for index in (0, 1, 5, 6, 7, 20, 21, 30, 39):
        pages[index : index + 1].touch()
    wanted = [(0, 6), (6, 8), (12, 21), (29, 40)]
    starts, ends = (
        np.array([pages.start + row[i] * PAGE_BYTES for row in wanted], dtype=np.uint64)
        for i in (0, 1)
    )
    table = page_frames.read_frame_nodes(PAGE_BYTES)
    with pagemap.open_pagemap(0) as descriptor:
        found = page_frames.read_node_runs(descriptor, (starts, ends), table, PAGE_BYTES)
    _, status = pages.call(None, 0, 0)
    by_page = {
        (address - pages.start) // PAGE_BYTES: node
        for start, end, node in zip(*(column.tolist() for column in found), strict=True)
        for address in range(start, end, PAGE_BYTES)
    }
    assert by_page == {i: status[i] for i in (0, 1, 5, 6, 7, 20, 30, 39)}
    assert found[2].dtype == np.int32


@pytest.mark.host
@pytest.mark.usefixtures("root")
def test_nothing_wanted_is_nothing_found():
    """Without intervals there are no runs."""
    nothing = np.empty(0, dtype=np.uint64)
    with pagemap.open_pagemap(0) as descriptor:
        found = page_frames.read_node_runs(descriptor, (nothing, nothing), TABLE, PAGE_BYTES)
    assert [len(column) for column in found] == [0, 0, 0]

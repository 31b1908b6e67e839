"""From page frame numbers to nodes, by the memory blocks of sysfs.

A block linked under two nodes, or under none, tells nothing: its frames are UNKNOWN here. So are
frames beyond the last block, which are device memory.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from movepages.abi.pagemap import PAGEMAP_PFN_MASK, PageFlag
from movepages.errors import NotPermittedError, UnsupportedError
from movepages.linux import intervals, kpageflags, pagemap
from movepages.linux.nodes import read_block_nodes
from movepages.linux.reading import ROOT
from movepages.linux.syscalls import address_of

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

ABSENT, UNKNOWN = -1, -2
_ZERO_PROBE_PAGES = 16  # some architectures have a zero page for each cache colour
_READ_ON_BYTES = 1 << 21  # reading as many absent entries costs less than one more system call


@dataclass(frozen=True, slots=True, eq=False)
class FrameNodes:
    """A table from frame to node: int16 by block, with UNKNOWN as its last entry."""

    node_of_block: NDArray[np.int16]
    block_shift: int
    zero_frames: tuple[int, ...]

    def nodes(self, entries: NDArray[np.uint64]) -> NDArray[np.int16]:
        """Return the node of each pagemap entry, int16[n]; ABSENT also for the zero page."""
        frames = entries & np.uint64(PAGEMAP_PFN_MASK)
        blocks = (frames >> np.uint64(self.block_shift)).view(np.int64)
        nodes: NDArray[np.int16] = self.node_of_block.take(blocks, mode="clip")
        present = pagemap.present(entries)
        if not present.all():
            nodes[~present] = ABSENT
        for frame in self.zero_frames:
            zero = frames == frame
            if zero.any():
                nodes[zero] = ABSENT
        return nodes


def read_frame_nodes(page_size_bytes: int, root: Path = ROOT) -> FrameNodes | None:
    """Return the table, or None where the caller may not see frames or blocks are not listed."""
    zero_frames = read_zero_frames(page_size_bytes, root)
    if zero_frames is None:
        return None
    try:
        block_size_bytes, nodes_of_block = read_block_nodes(root)
    except UnsupportedError:
        return None
    if not nodes_of_block:
        return None
    table = np.full(max(nodes_of_block) + 2, UNKNOWN, dtype=np.int16)
    for block, nodes in nodes_of_block.items():
        if len(nodes) == 1:
            table[block] = nodes[0]
    shift = (block_size_bytes // page_size_bytes).bit_length() - 1
    return FrameNodes(table, shift, zero_frames)


def read_node_runs(
    descriptor: int,
    wanted: tuple[NDArray[np.uint64], NDArray[np.uint64]],
    frame_nodes: FrameNodes,
    page_size_bytes: int,
) -> tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.int32]]:
    """Return intervals of equal node within wanted intervals; a node may be UNKNOWN.

    Raises EOFError when the process has ended.
    """
    starts, ends = [np.empty(0, np.uint64)], [np.empty(0, np.uint64)]
    nodes = [np.empty(0, np.int32)]
    low, high = intervals.join(*wanted, _READ_ON_BYTES)
    for stretch in zip(low.tolist(), high.tolist(), strict=True):
        for first, entries in pagemap.chunks(descriptor, *stretch, page_size_bytes):
            of_page = frame_nodes.nodes(entries)
            edges = np.flatnonzero(of_page[1:] != of_page[:-1]) + 1
            pages = np.concatenate([[0], edges, [len(of_page)]])
            borders = pages.astype(np.uint64) * np.uint64(page_size_bytes) + np.uint64(first)
            starts.append(borders[:-1])
            ends.append(borders[1:])
            nodes.append(of_page[pages[:-1]].astype(np.int32))
    return _within(wanted, (np.concatenate(starts), np.concatenate(ends), np.concatenate(nodes)))


def _within(
    wanted: tuple[NDArray[np.uint64], NDArray[np.uint64]],
    found: tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.int32]],
) -> tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.int32]]:
    """Keep what lies in the wanted intervals: what was read on between them is others'."""
    start, end, node = (column[found[2] != ABSENT] for column in found)
    start, end, owner = intervals.cut(start, end, np.concatenate(wanted))
    inside = intervals.find(*wanted, start) >= 0
    return start[inside], end[inside], node[owner][inside]


def sees_frames(page_size_bytes: int, root: Path = ROOT) -> bool:
    """Tell whether the caller may see page frame numbers, by looking at a page of its own."""
    return read_zero_frames(page_size_bytes, root) is not None


def read_zero_frames(page_size_bytes: int, root: Path = ROOT) -> tuple[int, ...] | None:
    """Return the frames of the zero page; None if frames are hidden, or what they hold is.

    A page of our own is read before it was ever written: the kernel maps the zero page there.
    """
    pages = _ZERO_PROBE_PAGES + 1
    memory = mmap.mmap(-1, pages * page_size_bytes, flags=mmap.MAP_PRIVATE)
    array = np.frombuffer(memory, dtype=np.uint8)
    int(array[::page_size_bytes].sum())  # read faults: all of it is the zero page now
    memory[0] = 1  # and the first page is not any more
    try:
        with pagemap.open_pagemap(0, root) as descriptor:
            entries = pagemap.read_entries(
                descriptor, address_of(array) // page_size_bytes, np.empty(pages, dtype=np.uint64)
            )
    except NotPermittedError:  # a process that is not dumpable may not look at itself
        return None
    frames = pagemap.frames(entries[pagemap.present(entries)])
    if not len(frames) or not frames[0]:
        return None
    candidates = np.unique(frames[1:])
    try:
        flags = kpageflags.read_flags(candidates, root)
    except (PermissionError, FileNotFoundError):  # for root only: CAP_SYS_ADMIN does not open it
        return None
    return tuple(candidates[kpageflags.has(flags, PageFlag.ZERO_PAGE)].tolist())

"""Nodes as the page allocator sees them."""

from __future__ import annotations

import numpy as np

from movepages.kernel.nodes import NodeMemory


def node_of(first: int, end: int, watermark: int = 0) -> tuple[NodeMemory, np.ndarray]:
    """Make a node whose frames are all free, in a machine of 64 frames."""
    free = np.zeros(64, dtype=np.bool_)
    free[first:end] = True
    node = NodeMemory(0, first, end, end - first, watermark, lowest_free=first)
    return node, free


def test_the_lowest_free_frames_are_taken_first():
    """Allocation takes the lowest free frames, freed ones again before higher ones."""
    node, free = node_of(8, 24)
    assert node.take(free, 3).tolist() == [8, 9, 10]
    node.give_back(free, np.array([9]))
    assert node.take(free, 2).tolist() == [9, 11]
    assert node.free_pages == 16 - 4


def test_a_node_gives_no_more_than_it_has():
    """A request for more than is free gets all that is free, and then nothing."""
    node, free = node_of(0, 4)
    assert len(node.take(free, 5)) == 4
    assert len(node.take(free, 1)) == 0
    assert node.free_pages == 0


def test_the_watermark_is_kept_back():
    """Frames below the watermark are not given out: the last one above it is."""
    node, free = node_of(0, 8, watermark=3)
    assert node.available_pages == 5
    assert len(node.take(free, 8)) == 5
    assert node.free_pages == 3


def test_blocks_are_aligned_whole_and_from_the_top():
    """Huge blocks are naturally aligned, come from the top, and skip blocks in use."""
    node, free = node_of(6, 32)
    node.take(free, 1)
    assert node.take_blocks(free, 2, 8).tolist() == [24, 16]
    assert node.take_blocks(free, 2, 8).tolist() == [8]
    assert node.free_pages == 26 - 1 - 24


def test_a_block_with_a_frame_in_use_is_no_block():
    """One frame in use keeps its whole block from being allocated, though enough are free."""
    node, free = node_of(0, 16)
    taken = node.take(free, 1)
    assert node.take_blocks(free, 2, 8).tolist() == [8]
    node.give_back(free, taken)
    assert node.take_blocks(free, 2, 8).tolist() == [0]


def test_memory_that_is_offline_cannot_be_allocated():
    """A node without memory has nothing available, whatever its free list says."""
    node, free = node_of(0, 16)
    node.has_memory = False
    assert node.available_pages == 0
    assert len(node.take(free, 1)) == 0
    assert len(node.take_blocks(free, 1, 8)) == 0

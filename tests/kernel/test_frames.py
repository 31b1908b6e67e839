"""Page frames as a structure of arrays."""

from __future__ import annotations

import numpy as np
import pytest

from movepages.kernel.frames import ZERO_PFN, Frames, PageFlag
from movepages.kernel.nodes import NodeMemory


def frames_of(pages: int = 64, *, real_bytes: bool = False) -> Frames:
    """Make two nodes of so many frames each."""
    nodes = [
        NodeMemory(node, node * pages, (node + 1) * pages, pages, lowest_free=node * pages)
        for node in range(2)
    ]
    return Frames(nodes, {0: (0, 1), 1: (1, 0)}, 4096, real_bytes=real_bytes)


def test_frame_0_is_the_zero_page():
    """The first frame is reserved, held, and never handed out."""
    frames = frames_of()
    assert frames.has(np.array([ZERO_PFN]), PageFlag.RESERVED).all()
    assert frames.allocate(0, 1).tolist() == [1]
    assert frames.nodes[0].free_pages == 62


def test_a_frame_takes_no_more_than_48_bytes():
    """The arrays of a machine without real bytes stay within their budget."""
    assert frames_of().bytes_per_frame <= 48


def test_a_folio_is_its_head():
    """All frames of a folio name its head; frames of their own name themselves."""
    frames = frames_of()
    (head,) = frames.allocate(1, 1, order=3).tolist()
    assert frames.head(np.arange(head, head + 8)).tolist() == [head] * 8
    assert frames.head(np.array([1])).tolist() == [1]
    assert frames.order[head : head + 8].tolist() == [3] * 8


def test_the_last_reference_frees_a_folio():
    """put_page frees with the last reference, not before, and the frame forgets all it was."""
    frames = frames_of()
    pfns = frames.allocate(1, 2)
    frames.references[pfns[0]] += 1
    frames.content[pfns] = 7
    frames.set(pfns, PageFlag.ANON | PageFlag.LRU)
    frames.put(pfns)
    assert frames.free[pfns].tolist() == [False, True]
    assert frames.content[pfns].tolist() == [7, 0]
    assert frames.flags[pfns[1]] == 0
    frames.put(pfns[:1])
    assert frames.nodes[1].free_pages == 64


def test_a_folio_is_freed_with_all_its_frames():
    """A large folio gives back every frame, of order 0 again."""
    frames = frames_of()
    heads = frames.allocate(1, 2, order=3)
    assert frames.nodes[1].free_pages == 48
    frames.put(heads)
    assert frames.nodes[1].free_pages == 64
    assert not frames.order.any()


def test_contents_are_copied_folio_by_folio():
    """Tags, and real bytes where there are any, follow the copy of large folios too."""
    frames = frames_of(real_bytes=True)
    old, new = frames.allocate(0, 1, order=2), frames.allocate(1, 1, order=2)
    source, target = frames.members(old, 2), frames.members(new, 2)
    frames.content[source] = [1, 2, 3, 4]
    frames.data[source, 17] = [5, 6, 7, 8]
    frames.copy(old, new, 2)
    assert frames.content[target].tolist() == [1, 2, 3, 4]
    assert frames.data[target, 17].tolist() == [5, 6, 7, 8]


@pytest.mark.parametrize("node", [2, -1])
def test_a_node_that_does_not_exist_has_no_memory(node):
    """Allocation on a node that is not there yields nothing."""
    assert len(frames_of().allocate(node, 1)) == 0

"""Where mremap(2) has put pages, from what is mapped before and after it."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import numpy as np
import pytest

from movepages.emulator.remaps import Remap, Wanted, read_mapped
from movepages.linux.maps import read_maps

NO_PID = 1 << 30
BEFORE = [(100, 108), (200, 300)]


def mapped(*ranges):
    """Return what is mapped as it is compared."""
    starts, ends = zip(*ranges, strict=True)
    return np.array(starts, dtype=np.uint64), np.array(ends, dtype=np.uint64)


def placed(after, pages=16, target=None, known=None, frames=None, *, leaves=False):
    """Return where pages 100 to 107 have gone."""
    wanted = Wanted(100, 108, pages, target, leaves)
    at = frames or {}

    def frames_of(asked):
        return np.array([at.get(page, 0) for page in asked.tolist()])

    return Remap(1, wanted, mapped(*BEFORE), known).place(mapped(*after), frames_of)


@pytest.mark.parametrize(
    ("after", "place"),
    [
        (BEFORE, None),
        ([(100, 116), (200, 300)], 100),
        ([(50, 66), (200, 300)], 50),
        ([(184, 300)], 184),
        ([(100, 108), (184, 300)], 184),
        ([(100, 108), (40, 60), (200, 300)], 44),
        ([(100, 115), (200, 300)], None),
        ([(50, 65), (200, 300)], None),
        ([(40, 70), (130, 146), (200, 300)], 130),
        ([(130, 146), (150, 180), (200, 300)], 130),
    ],
    ids=[
        "nothing has changed",
        "grown in place",
        "moved down",
        "moved to its neighbour",
        "moved, and the old place is mapped again",
        "at the end of a gap that others have filled",
        "not grown enough",
        "too small to be it",
        "exactly as large, above",
        "exactly as large, below",
    ],
)
def test_place_is_what_is_newly_mapped(after, place):
    """Room that is new and large enough is the place; else there was no move."""
    assert placed(sorted(after)) == place


def test_frame_tells_the_place_for_certain():
    """Where a page frame may be seen, the new place is where the page is, whatever else is new."""
    after = [(10, 60), (130, 146), (200, 300)]
    assert placed(after, known=(103, 77), frames={33: 77}) == 30
    assert placed(after, known=(103, 77), frames={133: 77}) == 130
    assert placed(after, known=(103, 77)) == 130


def test_fixed_place_holds_if_it_is_mapped_and_the_page_has_left():
    """With MREMAP_FIXED the caller chooses; a page that is where it was tells of a failure."""
    after = [(100, 108), (200, 300)]
    assert placed(after, target=210) == 210
    assert placed(after, target=290) is None
    assert placed(after, target=284) == 284
    assert placed(after, target=210, known=(100, 5), frames={100: 5}) is None
    assert placed(after, target=210, known=(100, 5), frames={210: 5}) == 210


def test_area_that_is_left_behind_is_no_sign_of_failure():
    """With MREMAP_DONTUNMAP the old place stays mapped."""
    assert placed([(100, 108), (150, 158), (200, 300)], 8, leaves=True) == 150


@pytest.mark.emulator
def test_what_is_mapped_is_read_in_pages_and_joined():
    """Areas that touch are one; together they are as many pages as maps says."""
    memory = mmap.mmap(-1, 4 * mmap.PAGESIZE)
    shift = mmap.PAGESIZE.bit_length() - 1
    starts, ends = read_mapped(Path("/proc/self"), shift)
    lines = read_maps(os.getpid())
    total = sum(line.end - line.start for line in lines)
    assert int((ends - starts).sum()) << shift == total
    assert (starts[1:] > ends[:-1]).all()
    memory.close()


@pytest.mark.emulator
def test_who_has_ended_has_nothing_mapped():
    """A process that is gone is no process."""
    with pytest.raises(ProcessLookupError):
        read_mapped(Path(f"/proc/{NO_PID}"), 12)

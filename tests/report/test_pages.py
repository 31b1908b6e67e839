from __future__ import annotations

import errno

import numpy as np
import pytest

from movepages.abi import UNWRITTEN
from movepages.report.pages import PageBatch, PageRun, merged, status_meaning

PAGE = 4096


def batch(start, status, *, run=True):
    """Return pages from a page number on, with their statuses."""
    address = np.arange(start, start + len(status), dtype=np.uint64) * PAGE
    return PageBatch(address, np.array(status, dtype=np.int32), run)


def runs(*batches):
    """Return the merged runs as (first page, pages, status)."""
    return [(run.start // PAGE, run.pages, run.status) for run in merged(batches, PAGE)]


def test_equal_neighbours_are_one_run():
    """A run ends where the status changes."""
    assert runs(batch(1, [0, 0, -2, 1, 1, 1])) == [(1, 2, 0), (3, 1, -2), (4, 3, 1)]


def test_runs_cross_batches():
    """A run goes on in the next batch if the page follows and the status is the same."""
    assert runs(batch(1, [0, 0]), batch(3, [0, 1])) == [(1, 3, 0), (4, 1, 1)]


def test_ranges_apart_stay_apart():
    """A gap between batches ends a run."""
    assert runs(batch(1, [0, 0]), batch(4, [0])) == [(1, 2, 0), (4, 1, 0)]


def test_single_pages_stay_apart():
    """Pages that were asked for one by one are not joined."""
    assert runs(batch(1, [0, 0], run=False)) == [(1, 1, 0), (2, 1, 0)]


def test_span():
    """A run of one page is its address, a longer one start and end."""
    assert PageRun(PAGE, 2 * PAGE, 1, 0).span == (PAGE,)
    assert PageRun(PAGE, 3 * PAGE, 2, 0).span == (PAGE, 3 * PAGE)


@pytest.mark.parametrize(
    ("status", "meaning"),
    [
        (0, "page on node 0"),
        (1023, "page on node 1023"),
        (-errno.ENOENT, "page not present"),
        (UNWRITTEN, "page not moved, and the kernel gave no status"),
        (-999, "no status that a page is known to have"),
    ],
)
def test_meaning(status, meaning):
    """Nodes, errnos, our sentinel, and what nobody knows each have a phrase."""
    assert status_meaning(status) == meaning

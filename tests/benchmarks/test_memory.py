"""The memory that is measured on is what it is said to be."""

from __future__ import annotations

import os

import memory
import numpy as np
import pytest
import targets
from harness import LeftOutError

import movepages

PATTERNS = ("block", "runs-8", "random")


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("share", [1, 2, 10])
@pytest.mark.parametrize("pages", [1, 7, 8, 9, 100])
def test_stretches_have_as_many_pages_as_asked_for(pattern, share, pages):
    """Every page is touched once, in rising order, and inside the mapping."""
    touched = [
        page
        for first, last in memory.stretches(pages, share, pattern)
        for page in range(first, last)
    ]
    assert len(touched) == pages
    assert touched == sorted(set(touched))
    assert 0 <= touched[0] <= touched[-1] < pages * share


def test_runs_leave_gaps():
    """Of runs of 8 in a tenth, every eighty pages start with eight."""
    assert list(memory.stretches(20, 10, "runs-8")) == [(0, 8), (80, 88), (160, 164)]


def test_random_pages_are_the_same_each_time():
    """Chance has a seed, so that two runs of a benchmark compare."""
    assert list(memory.stretches(50, 2, "random")) == list(memory.stretches(50, 2, "random"))


@pytest.mark.parametrize("pattern", ["", "all", "Random"])
def test_unknown_pattern(pattern):
    """A pattern that is misspelt is an error, not a default."""
    with pytest.raises(ValueError, match="no pattern"):
        list(memory.stretches(1, 1, pattern))


@pytest.mark.parametrize(("available_kib", "enough"), [(1 << 20, False), ((1 << 20) + 4, True)])
def test_memory_that_is_short(tmp_path, available_kib, enough):
    """4096 bytes need a GiB more than that to be free, or what wants them is left out."""
    meminfo = tmp_path / "meminfo"
    meminfo.write_text(f"MemTotal: 1 kB\nMemAvailable: {available_kib} kB\n")
    if enough:
        targets.require(4096, meminfo)
        return
    with pytest.raises(LeftOutError, match=r"needs 1\.00G"):
        targets.require(4096, meminfo)


@pytest.mark.host
@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_process_holds_what_is_asked_for(pattern):
    """Of a mapping of 200 pages the kernel finds as many resident as there are to be."""
    with targets.held("base", 100, 2, pattern) as target:
        addresses = np.arange(target.start, target.end, memory.PAGE, dtype=np.uint64)
        status = movepages.query_pages(target.pid, addresses).status
    assert len(status) == 200
    assert np.count_nonzero(status >= 0) == 100


@pytest.mark.host
def test_a_process_with_many_mappings():
    """Neighbouring mappings stay apart."""
    with targets.held("mappings", 300) as target:
        found = len(movepages.Process(target.pid).mappings())
    assert 300 <= found < 500


@pytest.mark.host
def test_the_process_ends_with_the_measurement():
    """Nothing is left behind."""
    with targets.held("base", 1) as target:
        os.kill(target.pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(target.pid, 0)


@pytest.mark.host
def test_memory_that_cannot_be_had():
    """A process that gets no memory leaves the benchmark out, and says which."""
    with (
        pytest.raises(LeftOutError, match="holds base 1 1 nonsense"),
        targets.held("base", 1, 1, "nonsense"),
    ):
        pass

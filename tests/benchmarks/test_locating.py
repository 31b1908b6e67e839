"""Locating is measured only where its answer is right, and the pool of huge pages is put back."""

from __future__ import annotations

import locating
import numpy as np
import pytest
from harness import LeftOutError
from memory import HUGE_PAGE, PAGE
from targets import Target

from movepages.values import Placement

START = 1 << 40
SMALL_PER_HUGE = HUGE_PAGE // PAGE


def placement(*runs):
    """Return a placement of runs (page after START, pages, page size, node)."""
    first, pages, size, node = (np.array(column) for column in zip(*runs, strict=True))
    start = START + first * PAGE
    return Placement(start.astype(np.uint64), pages, size, node.astype(np.int32))


def require_same(said, *runs):
    """Hold runs against what was said of the pages from START on."""
    target = Target(1, START, START + len(said) * PAGE)
    status = np.array(said, dtype=np.int32)
    locating._require_same(status, placement(*runs), target, "x")


def test_the_same_answer():
    """Runs say the same as a status for each page; absent pages are in none."""
    require_same([0, 0, -2, 1, -14], (0, 2, PAGE, 0), (3, 1, PAGE, 1))


def test_a_huge_page_stands_for_its_small_ones():
    """One page of 2M answers for all its addresses."""
    require_same([3] * SMALL_PER_HUGE + [-2], (0, 1, HUGE_PAGE, 3))


def test_pages_elsewhere_do_not_matter():
    """What a whole process has besides the memory in question is not compared."""
    require_same([0], (-5, 2, PAGE, 1), (0, 1, PAGE, 0), (9, 1, PAGE, 1))


@pytest.mark.parametrize(
    "run", [(0, 1, PAGE, 0), (0, 2, PAGE, 1), (0, 3, PAGE, 0), (1, 1, PAGE, 0)]
)
def test_another_answer_is_an_error(run):
    """A page too few or too many, or another node, stops the benchmark."""
    with pytest.raises(AssertionError, match="another answer"):
        require_same([0, 0, -2], run)


def test_the_pool_is_put_back(tmp_path):
    """The pool is larger while it is needed, and as it was afterwards, also after an error."""
    pool = tmp_path / "nr_hugepages"
    pool.write_text("3\n")

    def fail():
        assert pool.read_text() == "8"
        raise KeyError

    with pytest.raises(KeyError), locating.huge_page_pool(5, pool):
        fail()
    assert pool.read_text() == "3"


def test_a_pool_that_gets_less(tmp_path, monkeypatch):
    """Where the kernel finds too few huge pages, those found are given back."""
    pool = tmp_path / "nr_hugepages"
    pool.write_text("3\n")
    written = []
    monkeypatch.setattr(type(pool), "write_text", lambda _, text: written.append(text))
    with pytest.raises(LeftOutError, match="0 of 5"), locating.huge_page_pool(5, pool):
        pass
    assert written == ["8", "3"]


def test_no_pool(tmp_path):
    """A kernel without such pages leaves the benchmark out."""
    with (
        pytest.raises(LeftOutError, match="cannot be enlarged"),
        locating.huge_page_pool(1, tmp_path / "x"),
    ):
        pass

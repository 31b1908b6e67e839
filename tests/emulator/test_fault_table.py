"""The last fault of each page, against a plain dictionary."""

from __future__ import annotations

import random

import numpy as np
import pytest

from movepages.emulator.fault_table import CHUNK_PAGES, FaultTable

LAST_PAGE = (1 << 52) - 1


def numbers(*values):
    """Return page numbers."""
    return np.array(values, dtype=np.uint64)


def note(table, pages, tids, cpus):
    """Note faults given as lists."""
    table.note(numbers(*pages), np.array(tids, np.int32), np.array(cpus, np.int32))


def last(table, *pages):
    """Return thread and CPU of each page, None for those without a fault."""
    tids, cpus, known = table.last(numbers(*pages))
    found = zip(tids.tolist(), cpus.tolist(), known.tolist(), strict=True)
    return [(tid, cpu) if there else None for tid, cpu, there in found]


def test_an_empty_table_knows_nothing():
    """No page has a fault, the first and the last one included."""
    assert last(FaultTable(), 0, 1, LAST_PAGE) == [None] * 3
    assert last(FaultTable()) == []
    assert len(FaultTable()) == 0


def test_the_last_of_several_faults_counts():
    """Later calls, and later entries of one call, stand above earlier ones."""
    table = FaultTable()
    note(table, [5, 6, 5], [1, 2, 3], [0, 1, 2])
    assert last(table, 5, 6) == [(3, 2), (2, 1)]
    note(table, [6], [9], [0])
    assert last(table, 6, 5, 7) == [(9, 0), (3, 2), None]


@pytest.mark.parametrize("page", [0, CHUNK_PAGES - 1, CHUNK_PAGES, LAST_PAGE])
def test_pages_at_the_borders_of_chunks(page):
    """A page's neighbours have no fault of its."""
    table = FaultTable()
    note(table, [page], [4], [3])
    beside = [other for other in (page - 1, page + 1) if 0 <= other <= LAST_PAGE]
    assert last(table, page) == [(4, 3)]
    assert last(table, *beside) == [None] * len(beside)


def test_what_is_taken_is_told_once():
    """Taking answers as looking does, and only what was asked for is gone."""
    table = FaultTable()
    note(table, [1, 2, CHUNK_PAGES], [7, 8, 9], [0, 1, 2])
    tids, cpus, known = table.take(numbers(2, 3, CHUNK_PAGES, LAST_PAGE))
    assert (tids[known].tolist(), cpus[known].tolist()) == ([8, 9], [1, 2])
    assert known.tolist() == [True, False, True, False]
    assert last(table, 1, 2, CHUNK_PAGES) == [(7, 0), None, None]


@pytest.mark.parametrize(
    ("first", "end"),
    [
        (0, 0),
        (5, 5),
        (6, 5),
        (0, 1),
        (CHUNK_PAGES - 1, CHUNK_PAGES + 1),
        (CHUNK_PAGES, 2 * CHUNK_PAGES),
        (1, 3 * CHUNK_PAGES - 1),
        (0, 1 << 52),
    ],
)
def test_forgetting_a_range(first, end):
    """Exactly the pages from the first to before the end are forgotten."""
    table = FaultTable()
    pages = list(range(3 * CHUNK_PAGES))
    note(table, pages, [7] * len(pages), [1] * len(pages))
    table.forget(first, end)
    known = table.last(numbers(*pages))[2].tolist()
    assert known == [not first <= page < end for page in pages]


def test_chunks_that_are_forgotten_are_used_again():
    """A program that maps and unmaps for ever does not make the table grow, nor see old faults."""
    table = FaultTable()
    for turn in range(100):
        page = turn * 10 * CHUNK_PAGES
        note(table, [page, page + 1], [turn + 1] * 2, [0, 0])
        assert last(table, page, page + 2) == [(turn + 1, 0), None]
        table.forget(page, page + 5)
    assert len(table) == 0
    assert len(table._tid) <= 4


@pytest.mark.parametrize("seed", range(5))
def test_random_use_agrees_with_a_dictionary(seed):
    """Whatever is noted and forgotten, in whichever order, the answer is that of a plain dict."""
    chance = random.Random(seed)  # noqa: S311 - to be repeated
    table, plain = FaultTable(), {}
    bases = [chance.randrange(1 << 40) for _ in range(5)] + [0]
    for _ in range(60):
        base = chance.choice(bases)
        if chance.random() < 0.3:
            first = base + chance.randrange(5000)
            end = first + chance.choice([1, 100, 5000])
            table.forget(first, end)
            plain = {page: who for page, who in plain.items() if not first <= page < end}
            continue
        pages = [base + chance.randrange(6000) for _ in range(chance.randrange(300))]
        tids = [chance.randrange(1, 1 << 22) for _ in pages]
        cpus = [chance.randrange(512) for _ in pages]
        note(table, pages, tids, cpus)
        plain.update(zip(pages, zip(tids, cpus, strict=True), strict=True))
        asked = [base + chance.randrange(6000) for _ in range(200)]
        assert last(table, *asked) == [plain.get(page) for page in asked]
        assert len(table) == len(plain)

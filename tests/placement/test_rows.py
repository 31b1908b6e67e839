from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st

from movepages.placement.rows import RowIndex, chosen, count, part
from movepages.values import PageRuns

PAGE, HUGE = 4096, 2 << 20

runs = st.lists(st.tuples(st.integers(1, 9), st.sampled_from([PAGE, 65536, HUGE])), max_size=8)


def laid_out(shapes, *, backwards=False):
    """Return runs of (pages, page size), far from each other."""
    starts = [(number + 1) << 30 for number in range(len(shapes))]
    return PageRuns(
        np.array(starts[::-1] if backwards else starts, dtype=np.uint64),
        np.array([pages for pages, _ in shapes], dtype=np.int64),
        np.array([size for _, size in shapes], dtype=np.int64),
    )


@given(runs, st.booleans(), st.data())
def test_rows_are_the_pages_one_by_one(shapes, backwards, data):
    """By slice or by array, addresses, sizes and bytes are those of the list of all pages."""
    all_runs = laid_out(shapes, backwards=backwards)
    index = RowIndex(all_runs)
    addresses = all_runs.addresses()
    sizes = np.repeat(all_runs.page_size_bytes, all_runs.pages)
    low = data.draw(st.integers(0, len(addresses)))
    high = data.draw(st.integers(low, len(addresses)))
    assert index.whole == slice(0, len(addresses))
    for rows in (slice(low, high), np.arange(low, high)):
        assert count(rows) == high - low
        assert index.addresses(rows).tolist() == addresses[low:high].tolist()
        assert index.sizes(rows).tolist() == sizes[low:high].tolist()
        assert index.total_bytes(rows) == sizes[low:high].sum()
    order = np.array(data.draw(st.permutations(range(len(addresses)))), dtype=np.int64)
    assert index.addresses(order).tolist() == addresses[order].tolist()


@given(runs.filter(bool), st.integers(0, 20 * HUGE), st.data())
def test_as_many_pages_as_fit(shapes, limit, data):
    """The pages that fit are no more bytes than asked for, one more would be; one always fits."""
    index = RowIndex(laid_out(shapes))
    low = data.draw(st.integers(0, index.whole.stop - 1))
    for rows in (slice(low, index.whole.stop), np.arange(low, index.whole.stop)):
        fitting = index.fitting(rows, limit)
        assert 1 <= fitting <= count(rows)
        assert fitting == 1 or index.total_bytes(part(rows, 0, fitting)) <= limit
        if fitting < count(rows):
            assert index.total_bytes(part(rows, 0, fitting + 1)) > limit


@pytest.mark.parametrize("rows", [slice(10, 14), np.array([10, 11, 12, 13])])
def test_rows_are_chosen_by_a_mask(rows):
    """A mask over some rows gives the numbers of those that it marks."""
    assert chosen(rows, np.array([True, False, False, True])).tolist() == [10, 13]
    assert list(range(20))[rows if isinstance(rows, slice) else slice(10, 14)][1:3] == [11, 12]
    again = part(rows, 1, 3)
    assert chosen(again, np.array([True, True])).tolist() == [11, 12]

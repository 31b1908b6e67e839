from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from movepages.placement import Options
from movepages.placement.batches import BatchSizer

PAGE = 4096


def settled(seconds_a_page, fixed=0.0, **options):
    """Return the size of a batch after many calls of so much time a page, and one for itself."""
    sizer = BatchSizer(Options(**options), PAGE)
    for _ in range(30):
        sizer.took(sizer.pages, fixed + sizer.pages * seconds_a_page)
    return sizer.pages


@pytest.mark.parametrize(
    ("microseconds_a_page", "pages"),
    [(0.1, 65_536), (0.5, 40_000), (2.0, 10_000), (20.0, 1000), (100.0, 256), (1000.0, 256)],
)
def test_calls_last_as_long_as_they_may(microseconds_a_page, pages):
    """A call takes 20 ms, unless that is more than 65,536 pages or fewer than 256."""
    assert settled(microseconds_a_page * 1e-6) == pytest.approx(pages, rel=0.01)


def test_another_budget():
    """Half the time is half the pages."""
    assert settled(1e-6, latency_s=0.010) == pytest.approx(10_000, rel=0.01)


@given(st.lists(st.floats(0, 10), max_size=20), st.integers(1, 300), st.integers(300, 10**6))
def test_a_batch_is_never_outside_its_limits(times, least, largest):
    """Whatever calls take, the next one is within the limits, and at most four times another."""
    sizer = BatchSizer(Options(least_batch_pages=least, largest_batch_pages=largest), PAGE)
    for seconds in times:
        before = sizer.pages
        sizer.took(before, seconds)
        assert least <= sizer.pages <= largest
        assert sizer.pages <= 4 * before


def test_a_call_with_few_pages_tells_nothing():
    """The last pages of a plan are few and cost a whole call: the next batch is no smaller."""
    sizer = BatchSizer(Options(), PAGE)
    before = sizer.pages
    sizer.took(3, 0.010)
    assert sizer.pages == before


def test_calls_that_stop_early_ask_for_less():
    """After a call that came no further than 5 pages, 10 are asked for, then twice as many ..."""
    sizer = BatchSizer(Options(), PAGE)
    sizer.stopped(5)
    sizes = [sizer.pages]
    for _ in range(3):
        sizer.took(sizer.pages, 1e-3)
        sizes.append(sizer.pages)
    assert sizes == [10, 20, 40, 80]
    sizer.stopped(0)
    assert sizer.pages == 1


def test_a_call_that_is_too_long_for_the_kernel():
    """Half of it is asked for from then on, down to a single page."""
    sizer = BatchSizer(Options(), PAGE)
    sizes = []
    for _ in range(14):
        sizer.shrink()
        sizes.append(sizer.pages)
    assert sizes == [2048, 1024, 512, 256, 128, 64, 32, 16, 8, 4, 2, 1, 1, 1]
    sizer.took(1, 1e-9)
    assert sizer.pages == 1


@pytest.mark.parametrize(("rate", "pages"), [(200 << 20, 5120), (1 << 20, 256), (1 << 40, 65_536)])
def test_under_a_limit_of_rate_calls_are_short(rate, pages):
    """A call moves a tenth of a second's worth, or 256 pages if that is less: the rate is even."""
    assert settled(1e-9, rate_bytes_per_s=float(rate)) == pages

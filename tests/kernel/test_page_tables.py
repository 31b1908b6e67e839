"""The pool of page-table slots, and what its entries mean."""

from __future__ import annotations

import numpy as np
import pytest

from movepages.errors import ArgumentError
from movepages.kernel.page_tables import (
    EMPTY,
    MAX_SLOTS,
    PageTables,
    is_migration,
    is_swap,
    migration_entry,
    swap_entry,
    swap_slot,
)


def test_runs_of_slots_are_empty_and_disjoint():
    """New slots are EMPTY, and no two runs share one."""
    tables = PageTables()
    first, second = tables.allocate(5), tables.allocate(7)
    assert second >= first + 5
    assert (tables.entry[second : second + 7] == EMPTY).all()


def test_slots_that_were_given_back_are_used_again():
    """A hole serves the next run that fits, in whole or in part, and comes back EMPTY."""
    tables = PageTables()
    first = tables.allocate(8)
    tables.allocate(1)
    tables.entry[first] = 3
    tables.free(first, 8)
    assert tables.allocate(3) == first
    assert tables.entry[first] == EMPTY
    assert tables.holes == [(first + 3, 5)]
    assert tables.allocate(5) == first + 3
    assert tables.holes == []


def test_the_last_run_shrinks_the_pool():
    """Slots at the end that are given back are not kept as a hole."""
    tables = PageTables()
    tables.allocate(4)
    last = tables.allocate(6)
    tables.free(last, 6)
    assert tables.used_slots == 4
    assert tables.holes == []


def test_more_slots_than_a_frame_can_name_are_refused():
    """One slot beyond the limit is an error that says so, not a crash."""
    tables = PageTables()
    tables.allocate(1)
    with pytest.raises(ArgumentError, match="page-table slots"):
        tables.allocate(MAX_SLOTS)


def test_entries_tell_swap_from_migration():
    """Frames, EMPTY, swap and migration entries are told apart, at 0 and far up."""
    numbers = np.array([0, 1, (1 << 30) - 2])
    assert is_swap(swap_entry(numbers)).all()
    assert not is_migration(swap_entry(numbers)).any()
    assert is_migration(migration_entry(numbers)).all()
    assert not is_swap(migration_entry(numbers)).any()
    assert swap_slot(swap_entry(numbers)).tolist() == numbers.tolist()
    others = np.array([EMPTY, 0, 1])
    assert not (is_swap(others) | is_migration(others)).any()
    assert np.abs(migration_entry(numbers)).max() <= np.iinfo(np.int32).max

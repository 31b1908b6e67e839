"""Huge pages: transparent ones (THP), and those of the pools (hugetlb)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from guestkit.pages import HUGE_PAGES

pytestmark = [pytest.mark.lab, pytest.mark.needs_nodes(4)]

COUNTERS = (
    "thp_split_page",
    "thp_migration_success",
    "thp_migration_split",
    "pgmigrate_success",
    "pgmigrate_fail",
)


def migrated(before: dict[str, int]) -> dict[str, int]:
    """Return how far the counters of migration went on."""
    return {name: count - before[name] for name, count in counters().items()}


def counters() -> dict[str, int]:
    """Return the counters of migration in /proc/vmstat."""
    lines = Path("/proc/vmstat").read_text(encoding="ascii").splitlines()
    values = dict(line.split() for line in lines)
    return {name: int(values[name]) for name in COUNTERS}


def test_thp_moves_whole_by_its_head(memory):
    """Rows `THP 4x2MiB`, `move THP heads -> 1`: one address moves 2 MiB, without a split."""
    pages = memory.thp(4).touch()
    assert pages.numa_maps() == (
        "default anon=2048 dirty=2048 active=0 N0=2048 kernelpagesize_kB=4"
    )
    before = counters()
    assert pages[::HUGE_PAGES].move(1) == "0 | {1:4}"
    assert migrated(before) == {
        "thp_split_page": 0,
        "thp_migration_success": 4,
        "thp_migration_split": 0,
        "pgmigrate_success": 2048,
        "pgmigrate_fail": 0,
    }
    assert pages.where() == "{1:2048}"
    assert pages.numa_maps() == (
        "default anon=2048 dirty=2048 active=0 N1=2048 kernelpagesize_kB=4"
    )
    assert pages.intact()


def test_thp_named_by_all_its_addresses(memory):
    """Row `move all 2048 4k addrs -> 2`: one -EBUSY for each huge page, though all of it moves."""
    pages = memory.thp(4).touch()
    before = counters()
    assert pages.move(2) == "0 | {-EBUSY:4, 2:2044}"
    assert migrated(before) == {
        "thp_split_page": 0,
        "thp_migration_success": 4,
        "thp_migration_split": 0,
        "pgmigrate_success": 2048,
        "pgmigrate_fail": 0,
    }
    assert pages.where() == "{2:2048}"


def test_thp_moves_whole_by_one_tail(memory):
    """Row `move ONE tail page -> 3`: the neighbours of the page go with it."""
    pages = memory.thp(4).touch()
    pages[::HUGE_PAGES].move(2)
    tail = HUGE_PAGES + 5
    before = counters()
    assert pages[tail : tail + 1].move(3) == "0 | {3:1}"
    assert pages.where() == "{2:1536, 3:512}"
    assert migrated(before) == {
        "thp_split_page": 0,
        "thp_migration_success": 1,
        "thp_migration_split": 0,
        "pgmigrate_success": 512,
        "pgmigrate_fail": 0,
    }


def test_thp_torn_between_two_nodes(memory):
    """Row `THP tails to alternating nodes`: it follows each entry, and ends at the last one's."""
    pages = memory.thp(1).touch()
    pages[:1].move(2)
    assert pages.move(np.resize([0, 3], HUGE_PAGES)) == "0 | {0:256, 3:256}"
    assert pages.where() == "{3:512}"
    assert pages.intact()


def test_hugetlb_page_takes_its_place_in_the_pool_along(pools, memory):
    """Rows `hugetlb pool`, `hugetlb touch`, `move hugetlb -> 1`, `query hugetlb by 4k addr`."""
    for node in range(4):
        pools.set(node, 4)
    assert pools.counts() == str(["4"] * 8)
    pages = memory.hugetlb(4).touch()
    heads = pages[::HUGE_PAGES]
    assert heads.where() == "{0:4}"
    huge = "default file=/anon_hugepage\\040(deleted) huge anon=4 dirty=4"
    assert pages.numa_maps() == f"{huge} N0=4 kernelpagesize_kB=2048"
    assert heads.move(1) == "0 | {1:4}"
    assert pages.numa_maps() == f"{huge} N1=4 kernelpagesize_kB=2048"
    assert pools.counts() == str(["4", "4", "4", "0", "4", "4", "4", "4"])
    assert pages[:600].query() == "0 | {1:600}"
    assert pages.intact()


def test_hugetlb_page_moves_by_a_tail(pools, memory):
    """Row `move hugetlb by tail 4k addr`: since 6.12 any address in it will do."""
    pools.set(0, 4)
    pages = memory.hugetlb(4).touch()
    heads = pages[::HUGE_PAGES]
    heads.move(1)
    assert pages[HUGE_PAGES + 7 : HUGE_PAGES + 8].move(2) == "0 | {2:1}"
    assert heads.where() == "{1:3, 2:1}"


def test_hugetlb_page_moves_to_a_node_with_an_empty_pool(pools, memory):
    """Row `hugetlb -> node with empty pool`: the kernel makes room there."""
    pools.set(0, 4)
    pages = memory.hugetlb(4).touch()
    assert pools.total(3) == 0
    assert pages[::HUGE_PAGES].move(3) == "0 | {3:4}"
    assert pages[::HUGE_PAGES].where() == "{3:4}"
    assert pools.total(3) == 4
    assert pages.intact()

from __future__ import annotations

import pytest

from movepages.errors import MalformedError
from movepages.linux.vmstat import (
    MigrationCounters,
    read_migration_counters,
    read_node_vmstat,
    read_vmstat,
)

# Lines of Linux 6.18's /proc/vmstat, with counts made up so that no two are alike.
VMSTAT = """\
nr_free_pages 947485
pgpromote_success 1
pgpromote_candidate 2
pgpromote_candidate_nrl 3
pgdemote_kswapd 10
pgdemote_direct 200
pgdemote_khugepaged 3000
pgdemote_proactive 40000
numa_pages_migrated 5
pgmigrate_success 600
pgmigrate_fail 7
thp_migration_success 8
thp_migration_fail 9
thp_migration_split 11
"""


def test_counters_by_the_kernels_names(put):
    """Every line of vmstat is a counter under its own name."""
    counters = read_vmstat(put("proc/vmstat", VMSTAT))
    assert len(counters) == 14
    assert counters["nr_free_pages"] == 947485


def test_migration_counters_and_what_came_between(put):
    """Two readings subtract to what was counted in between; demotions add up over their causes."""
    first = read_migration_counters(put("proc/vmstat", VMSTAT))
    later = VMSTAT.replace("pgmigrate_success 600", "pgmigrate_success 664").replace(
        "pgdemote_direct 200", "pgdemote_direct 201"
    )
    second = read_migration_counters(put("proc/vmstat", later))
    assert first.demoted == 43210
    assert second - first == MigrationCounters(pgmigrate_success=64, pgdemote_direct=1)


def test_counters_that_a_kernel_lacks_are_0(put):
    """A kernel without memory tiers has no demotion counters: nothing was demoted."""
    counters = read_migration_counters(put("proc/vmstat", "pgmigrate_success 3\n"))
    assert counters == MigrationCounters(pgmigrate_success=3)


def test_node_vmstat(put):
    """A node's own vmstat is read from its directory."""
    root = put("sys/devices/system/node/node2/vmstat", "nr_free_pages 17\npgdemote_direct 5\n")
    assert read_node_vmstat(2, root) == {"nr_free_pages": 17, "pgdemote_direct": 5}


def test_malformed_line_is_named(put):
    """A count that is no number is refused with path, line and counter."""
    with pytest.raises(MalformedError, match=r"proc/vmstat, line 2: pgmigrate_fail"):
        read_vmstat(put("proc/vmstat", "pgmigrate_success 3\npgmigrate_fail many\n"))


@pytest.mark.host
def test_own_kernel_counts():
    """This kernel has free pages, and no counter of migrations ever runs backwards."""
    first = read_migration_counters()
    assert read_vmstat()["nr_free_pages"] > 0
    since = read_migration_counters() - first
    assert min(since.pgmigrate_success, since.pgmigrate_fail, since.demoted) >= 0

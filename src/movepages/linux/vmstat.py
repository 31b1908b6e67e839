"""/proc/vmstat and nodeN/vmstat: counters of the virtual memory system (mm/vmstat.c)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING

from movepages.linux.reading import ROOT, read_counters

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class MigrationCounters:
    """Migrations since boot, of the whole machine and by any cause.

    One reading less an earlier one is what came between. In base pages, but `thp_*` in huge pages.
    A counter that a kernel does not have stays 0.
    """

    pgmigrate_success: int = 0
    pgmigrate_fail: int = 0
    thp_migration_success: int = 0
    thp_migration_fail: int = 0
    thp_migration_split: int = 0
    numa_pages_migrated: int = 0
    """Moved by automatic NUMA balancing."""
    pgdemote_kswapd: int = 0
    pgdemote_direct: int = 0
    pgdemote_khugepaged: int = 0
    pgdemote_proactive: int = 0
    pgpromote_success: int = 0
    pgpromote_candidate: int = 0

    @property
    def demoted(self) -> int:
        """Base pages moved down a memory tier, whoever asked for it."""
        return (
            self.pgdemote_kswapd
            + self.pgdemote_direct
            + self.pgdemote_khugepaged
            + self.pgdemote_proactive
        )

    def __sub__(self, earlier: MigrationCounters) -> MigrationCounters:
        """Return what was counted since an earlier reading."""
        before = asdict(earlier)
        return MigrationCounters(
            **{name: count - before[name] for name, count in asdict(self).items()}
        )


def read_vmstat(root: Path = ROOT) -> dict[str, int]:
    """Return every counter of /proc/vmstat by its kernel name, mostly in pages.

    Raises MalformedError.
    """
    return read_counters(root / "proc/vmstat")


def read_node_vmstat(node: int, root: Path = ROOT) -> dict[str, int]:
    """Return every counter of a node's vmstat by its kernel name, mostly in pages.

    Raises MalformedError.
    """
    return read_counters(root / f"sys/devices/system/node/node{node}/vmstat")


def read_migration_counters(root: Path = ROOT) -> MigrationCounters:
    """Return the counters of /proc/vmstat that tell of migrations. Raises MalformedError."""
    counters = read_vmstat(root)
    names = (field.name for field in fields(MigrationCounters))
    return MigrationCounters(**{name: counters.get(name, 0) for name in names})

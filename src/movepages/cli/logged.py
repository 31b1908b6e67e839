"""`movepages move --from-log`: from a profiler's log to plans."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from movepages.cli.operation import plan_each, selected
from movepages.nodeset import NodeSet

if TYPE_CHECKING:
    from movepages.cli.selecting import Selectors
    from movepages.machine import Machine
    from movepages.placement.from_log import PageUse
    from movepages.report.moves import MoveSnapshot
    from movepages.values import AccessLog, Plan, TaskInfo


@dataclass(frozen=True, slots=True)
class Logged:
    """What the options said of a log. None where nothing was said."""

    file: str
    min_share: float | None
    min_samples: int | None

    def plans(
        self, machine: Machine, target: str | None, selectors: Selectors
    ) -> tuple[MoveSnapshot, list[Plan]]:
        """Plan for the processes of the log, or for those of them that a target names.

        Raises UsageError, MalformedError, and as `plan_each` does.
        """
        from movepages.placement import select
        from movepages.placement.from_log import MIN_SAMPLES, MIN_SHARE, page_use, plan_of_use

        log = self._read()
        topology, free = machine.topology(), dict(machine.free_bytes())
        selection = selected(machine, selectors)
        min_share = MIN_SHARE if self.min_share is None else self.min_share
        min_samples = MIN_SAMPLES if self.min_samples is None else self.min_samples
        remarks: list[str] = []

        def plan_one(task: TaskInfo) -> tuple[Plan, NodeSet]:
            placement = select.locate(machine, task.pid, selection)
            use = page_use(log.of(task.pid), placement, topology)
            allowed = NodeSet(task.mems_allowed & topology.with_memory)
            plan = plan_of_use(
                use,
                task.id,
                topology,
                allowed,
                free,
                min_share=min_share,
                min_samples=min_samples,
            )
            for node, size_bytes in plan.bytes_by_target.items():
                free[node] -= size_bytes  # no room for the next process
            remarks.append(_found(use, int(use.far(min_share, min_samples).sum())))
            return plan, NodeSet(plan.bytes_by_target)

        processes = target or ",".join(str(pid) for pid in log.pids)
        snapshot, plans = plan_each(machine, processes, (), selection, plan_one)
        return replace(snapshot, remarks=tuple(remarks)), plans

    def _read(self) -> AccessLog:
        from movepages.placement.access_log import read_access_log

        try:
            data = Path(self.file).read_bytes()
        except OSError as error:
            raise click.UsageError(
                f"--from-log: {self.file} cannot be read: {error.strerror}"
            ) from None
        log = read_access_log(data, self.file)
        if not len(log):
            raise click.UsageError(f"--from-log: {self.file} has no accesses")
        return log


def _found(use: PageUse, far_pages: int) -> str:
    """Say what a log tells of a process."""
    from movepages.report.fields import counted

    accesses = f"{int(use.total.sum()):,} accesses to {counted(len(use), 'page')}"
    parts = [f"The log has {accesses}, {far_pages:,} of them mostly used from other nodes"]
    if use.elsewhere:
        parts.append(f"{use.elsewhere:,} more outside the pages meant")
    if use.nowhere:
        parts.append(f"{use.nowhere:,} more from nodes or CPUs that are not there")
    return "; ".join(parts) + "."

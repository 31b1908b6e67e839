"""`movepages follow --watch`: following threads until it is told to stop."""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import click

from movepages.cli.carrying import kept_ledgers, until_interrupted
from movepages.cli.complaint import complain
from movepages.cli.exit_codes import ExitCode
from movepages.errors import NoSuchProcessError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from movepages.cli.carrying import Carrying
    from movepages.errors import CallError
    from movepages.machine import Machine
    from movepages.placement.clock import Clock
    from movepages.placement.habit import Patience
    from movepages.placement.keep_near import Ended, Followed
    from movepages.placement.select import Selection
    from movepages.report.output import Output
    from movepages.values import Ledger, Plan, TaskInfo


@dataclass(frozen=True, slots=True)
class Watch:
    """How to follow, and where to tell of it."""

    machine: Machine
    output: Output
    selection: Selection
    how: Carrying
    patience: Patience
    near_distance: int
    clock: Clock
    as_json: bool

    def run(self, tasks: Sequence[TaskInfo]) -> ExitCode:
        """Follow processes until Ctrl-C, a limit, or their end; return the exit code.

        Raises what ended a move before its time, and click.Abort where Ctrl-C did.
        """
        from movepages.placement.keep_near import Followed, keep_near
        from movepages.report import follow as report

        if not self.as_json:
            for task in tasks:
                with suppress(NoSuchProcessError):  # its end is told as an event
                    memory = _memory(self.machine, task)
                    report.write_watching(task, memory, self.patience, self.output)
        with kept_ledgers(self.how.ledger_file) as ledgers, until_interrupted() as interrupted:
            work = _Work(self, interrupted)
            for event in keep_near(
                self.machine,
                tasks,
                self.selection,
                work.carry_out,
                self.patience,
                near_distance=self.near_distance,
                clock=self.clock,
                stop=work.at_end,
            ):
                self._tell(event)
                if isinstance(event, Followed):
                    work.add(event.ledger)
                    if self.how.ledger_file:
                        ledgers.append(event.ledger)
        if not self.as_json:
            if interrupted() and self.output.terminal:
                self.output.line()  # behind the ^C that the terminal shows
            report.write_account(work.moves, work.sums, self.output)
        return work.verdict()

    def _tell(self, event: Followed | Ended) -> None:
        from movepages.report import follow as report

        if self.as_json:
            from movepages.report.json import write_line

            write_line(self.output, report.followed_json(event, str(self.selection)))
        else:
            report.write_followed(event, self.output)
        self.output.stream.flush()


class _Work:
    """What has been done so far, and what may still be."""

    def __init__(self, watch: Watch, interrupted: Callable[[], bool]) -> None:
        from movepages.placement.objects import Sums

        self.watch, self.interrupted = watch, interrupted
        self.sums, self.moves = Sums(), 0
        self.execute = watch.how.mover()
        self.pages_left = watch.how.max_pages
        self.ends_at = watch.clock.now() + (watch.how.time_limit or float("inf"))
        self.error: CallError | None = None
        self.told: set[tuple[int, str]] = set()

    def at_end(self) -> bool:
        """Tell whether it is time to stop."""
        over = self.watch.clock.now() >= self.ends_at
        return over or self.pages_left == 0 or self.interrupted()

    def carry_out(self, plan: Plan) -> Ledger:
        """Carry out a plan as far as the limits of the whole watch allow."""
        from movepages.report.progress import ProgressBar

        if self.pages_left is not None:
            plan = plan.first(self.pages_left)
            self.pages_left -= plan.page_count
        options = self.watch.how.options()
        if options.time_limit_s is not None:
            left = self.ends_at - self.watch.clock.now()
            options = replace(options, time_limit_s=max(left, 1e-3))
        self._warn(plan)
        with ProgressBar(sys.stderr) as bar:
            return self.execute(
                plan,
                self.watch.machine,
                options,
                clock=self.watch.clock,
                stop=self.interrupted,
                progress=bar.show,
            )

    def add(self, ledger: Ledger) -> None:
        """Add a move to the account."""
        self.moves += 1
        self.sums = self.sums.plus(ledger)
        if not isinstance(ledger.error, NoSuchProcessError):  # that is how following ends, too
            self.error = self.error or ledger.error

    def verdict(self) -> ExitCode:
        """Return the exit code. Raises the error that kept pages from being tried, click.Abort."""
        if self.sums.ended == "interrupted":
            raise click.Abort("the account of what moved is exact")
        if self.error:
            raise self.error
        stayed = self.sums.failures or self.sums.untried_pages
        return ExitCode.NOT_MOVED if stayed else ExitCode.DONE

    def _warn(self, plan: Plan) -> None:
        """Say on standard error what will fight a plan, each thing once for each process."""
        from movepages.placement.conditions import concerns

        for concern in concerns(self.watch.machine, [plan], self.watch.how.options()):
            if (plan.task.pid, concern.name) not in self.told:
                self.told.add((plan.task.pid, concern.name))
                complain(f"warning: {concern}")


def _memory(machine: Machine, task: TaskInfo) -> dict[int, int]:
    """Return how much memory a process has on each node. Raises CallError."""
    found: dict[int, int] = {}
    for mapping in machine.mappings(task.pid):
        for node, size_bytes in mapping.bytes_by_node.items():
            found[node] = found.get(node, 0) + size_bytes
    return found

"""Options that say how pages are moved, and what carries plans out: for all commands that move."""

from __future__ import annotations

import signal
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from movepages.abi import Errno
from movepages.cli.complaint import complain
from movepages.cli.parameters import DURATION, RATE, WORKERS
from movepages.errors import NodeFullError, NoSuchProcessError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import FrameType

    from movepages.machine import Machine
    from movepages.placement import Options
    from movepages.placement.conditions import Concern
    from movepages.values import Ledger, Plan

_OPTIONS = (
    click.option("--shared", is_flag=True, help="Pages that others map, too (CAP_SYS_NICE)."),
    click.option("--spill", is_flag=True, help="Where a node is full, go on with the nearest."),
    click.option("--force", is_flag=True, help="Try although a node has too little free memory."),
    click.option("--dry-run", is_flag=True, help="Show what would be moved, and move nothing."),
    click.option("--verify", is_flag=True, help="Look at the end whether all pages are there."),
    click.option("--limit-rate", type=RATE, metavar="RATE", help="At most so much: 200M/s."),
    click.option("--max-pages", type=click.IntRange(1), metavar="N", help="At most so many pages."),
    click.option("--time-limit", type=DURATION, metavar="TIME", help="At most so long: 30s, 5m."),
    click.option(
        "--parallel",
        type=WORKERS,
        metavar="N|auto",
        help="Calls at a time; auto measures what is faster.",
    ),
)
_LEDGER = click.option(
    "--ledger", "ledger_file", metavar="FILE", help="Write what became of each page."
)


@dataclass(frozen=True, slots=True)
class Carrying:
    """What the options said of how to move."""

    shared: bool
    spill: bool
    force: bool
    dry_run: bool
    verify: bool
    limit_rate: int | None
    max_pages: int | None
    time_limit: float | None
    parallel: tuple[int, int] | None
    ledger_file: str | None

    @classmethod
    def take(cls, options: dict[str, Any]) -> Carrying:
        """Take the options out of a command's options. Raises UsageError."""
        taken = cls(**{name: options.pop(name) for name in cls.__dataclass_fields__})
        if taken.dry_run and taken.ledger_file:
            raise click.UsageError("--dry-run moves nothing, so there is nothing for --ledger")
        return taken

    def options(self) -> Options:
        """Return them as the mover takes them."""
        from movepages.placement import Options

        return Options(
            shared=self.shared,
            spill=self.spill,
            verify=self.verify,
            rate_bytes_per_s=self.limit_rate,
            time_limit_s=self.time_limit,
        )

    def mover(self) -> Callable[..., Ledger]:
        """Return what carries out a plan: `execute`, or what does the same with several workers."""
        from movepages.placement import execute

        if self.parallel is None or self.parallel == (1, 1):
            return execute
        from movepages.placement.crew import Crew
        from movepages.placement.parallel import execute_in_parallel

        return partial(execute_in_parallel, crew=Crew(*self.parallel))

    def limited(self, plans: Sequence[Plan]) -> list[Plan]:
        """Return the plans for no more pages than allowed, all of them together."""
        if self.max_pages is None:
            return list(plans)
        left, limited = self.max_pages, []
        for plan in plans:
            limited.append(plan.first(left))
            left -= limited[-1].page_count
        return limited


def carrying(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command these options; `Carrying.take` takes them from what it is handed."""
    return carrying_without_ledger(_LEDGER(function))


def carrying_without_ledger(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command these options but --ledger, for pages that no later run could name."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def warn(machine: Machine, plans: Sequence[Plan], how: Carrying) -> list[Concern]:
    """Say on standard error what will fight the plans, and return it.

    Raises NodeFullError where something forbids them, unless that is to be overruled.
    """
    from movepages.placement.conditions import concerns

    found = concerns(machine, plans, how.options())
    for concern in found:
        if concern.forbids and not (how.force or how.dry_run):
            raise NodeFullError(Errno.ENOMEM, str(concern), call="move_pages")
    for concern in found:
        complain(f"warning: {concern}")
    return found


def carry_out(machine: Machine, plans: Sequence[Plan], how: Carrying) -> list[Ledger]:
    """Carry plans out one after the other, with a progress bar where a person looks on.

    An interrupt ends the plan in work after its call in flight, and no other is begun: its ledger
    is the last. A process that ends is told in its ledger. Raises NoSuchProcessError where it is
    the only one, and UsageError where the file for the ledgers exists or cannot be made.
    """
    from movepages.placement.account import untouched
    from movepages.placement.again import looked_at_again
    from movepages.report.progress import ProgressBar

    with (
        kept_ledgers(how.ledger_file) as ledgers,
        until_interrupted() as stop,
        ProgressBar(sys.stderr) as bar,
    ):
        execute = how.mover()
        for plan in plans:
            try:
                # the process before may map the same pages
                now = looked_at_again(machine, plan) if ledgers and how.shared else plan
                made = execute(now, machine, how.options(), stop=stop, progress=bar.show)
            except NoSuchProcessError as error:
                if len(plans) == 1:
                    raise
                made = untouched(plan, "error", error)
            ledgers.append(made)
            if stop() or ledgers[-1].ended == "interrupted":
                break
    return ledgers


@contextmanager
def kept_ledgers(name: str | None) -> Iterator[list[Ledger]]:
    """Yield a list for ledgers; what is in it by the end is written to a file, if one is named.

    Raises UsageError where the file exists or cannot be made.
    """
    file = _new_file(name)
    ledgers: list[Ledger] = []
    try:
        yield ledgers
    finally:
        _write(file, ledgers)


@contextmanager
def until_interrupted() -> Iterator[Callable[[], bool]]:
    """Take note of Ctrl-C instead of being torn out of a call; a second one interrupts as always.

    Yields what tells whether it was pressed. Outside the main thread nothing changes.
    """
    pressed = False

    def note(_number: int, _frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    try:
        before = signal.signal(signal.SIGINT, note)
    except ValueError:
        yield lambda: False
        return
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)


def _new_file(name: str | None) -> Path | None:
    """Make an empty file before anything moves. Raises UsageError."""
    if name is None:
        return None
    path = Path(name)
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        raise click.UsageError(f"--ledger: {name} exists; choose another name") from None
    except OSError as error:
        raise click.UsageError(f"--ledger: {name} cannot be made: {error.strerror}") from None
    return path


def _write(file: Path | None, ledgers: Sequence[Ledger]) -> None:
    if file is None:
        return
    if not ledgers:
        file.unlink()
        return
    from movepages.placement.records import ledgers_json

    file.write_bytes(ledgers_json(ledgers))

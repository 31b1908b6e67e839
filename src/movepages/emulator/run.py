"""Runs a program under the emulator: the processes that takes, and how they hang together.

    front  ── supervisor ── program ── its children

The front is the process that the user started. It has no part in the emulation: it passes signals
on to the program, stops and ends as the program does, and ends the tree if the supervisor is
killed. The supervisor answers calls until the last task of the tree is gone, which may be long
after the program: then it stays behind, and the front does not. All adopt orphans, so that none of
the tree escapes, and so that the supervisor is an ancestor of each task, as Yama demands of those
who access its memory.

The program has the terminal, the process group and the descriptors; front and supervisor let go of
all but stderr, so that a pipe closes when the program closes it.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import threading
import traceback
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from movepages.emulator import front, tree
from movepages.emulator.filter import Files, Precision, build_filter, call_numbers, watched_calls
from movepages.emulator.front import BLOCKED
from movepages.emulator.launch import execute, fork_task
from movepages.emulator.supervisor import Supervisor
from movepages.errors import MovePagesError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from movepages.emulator.launch import Launch
    from movepages.emulator.replies import Handler
    from movepages.emulator.supervisor import Tally

_GRACE_SECONDS = 0.2
"""How long children that outlive the program may take to end before they count as daemons."""


class World(Protocol):
    """The machine that the program is to see."""

    @property
    def notice(self) -> str:
        """What the user should know of the machine before the program starts, or ""."""
        ...

    def mounts(self) -> list[tuple[Path, Path]]:
        """Return what is to be mounted where: (source, target)."""
        ...

    def handlers(self) -> Mapping[str, Handler]:
        """Return who answers which call, by the name of the call; asked once it is attached."""
        ...

    def attach(self, pid: int, *, mounted: bool) -> None:
        """Learn which process will be the program, before it starts; threads may start here."""
        ...

    def report(self) -> dict[str, Any]:
        """Return what happened, once all tasks are gone."""
        ...

    def close(self) -> None:
        """Remove what was generated."""
        ...


@dataclass(frozen=True, slots=True)
class Settings:
    """How to run: what to be told of, and what to tell."""

    precision: Precision = Precision.EXACT
    files: Files = Files.ALL
    pin: bool = False
    """Keep supervisor and program on one CPU, where a call costs a fifth."""
    report: Path | None = None
    verbose: bool = False


@dataclass(frozen=True, slots=True)
class Program:
    """What runs under the emulator: `body` is called in a child of the supervisor."""

    name: str
    body: Callable[[], object]

    @classmethod
    def of(cls, command: Sequence[str]) -> Program:
        """Return the program that a command line runs."""
        return cls(command[0], partial(execute, command))


def run(program: Program, make_world: Callable[[], World], settings: Settings) -> int:
    """Run a program, and return its exit code, or minus the signal that killed it.

    Takes this process over: it must have no threads, and its standard input and output are gone
    afterwards. `make_world` is called in the supervisor. Raises MovePagesError if the program could
    not be started, or had to be ended.
    """
    front.fill_standard_streams()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, BLOCKED)
    spared = tree.descendants()
    tree.adopt_orphans()
    links = front.Links.make()
    supervisor = os.fork()
    if not supervisor:
        _supervisor(program, make_world, settings, front.Reports(links), mask)
    try:
        return front.Front(program.name, supervisor, links, spared).wait()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _supervisor(
    program: Program,
    make_world: Callable[[], World],
    settings: Settings,
    reports: front.Reports,
    mask: set[Any],
) -> NoReturn:
    """Be the supervisor; never return into the code of the front."""
    try:
        tree.adopt_orphans()
        _supervise(program, make_world, settings, reports, mask)
        os._exit(0)
    except MovePagesError as error:
        reports.failed(error)
    except BaseException as error:  # noqa: BLE001 - the front tells the user, and ends the tree
        if os.environ.get("MOVEPAGES_DEBUG") == "1":
            traceback.print_exception(error)
        reports.broken(f"{type(error).__name__}: {error}")
    finally:
        os._exit(1)


def _supervise(
    program: Program,
    make_world: Callable[[], World],
    settings: Settings,
    reports: front.Reports,
    mask: set[Any],
) -> None:
    if settings.pin:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    launch = fork_task(program.body, mask)
    front.let_go_of_streams()
    world = _made_quickly(make_world)
    try:
        _serve(launch, program, world, settings, reports)
    finally:
        world.close()


def _made_quickly(make_world: Callable[[], World]) -> World:
    """Make the world, for which the program waits: mostly that is importing NumPy and `kernel/`."""
    # The program has its own environment already. No array here is worth a thread for each CPU.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    gc.disable()
    world = make_world()
    gc.freeze()  # all of it stays, so no collection need look at it
    gc.enable()
    return world


def _serve(
    launch: Launch, program: Program, world: World, settings: Settings, reports: front.Reports
) -> None:
    machine = os.uname().machine
    not_mounted = launch.mount(world.mounts())
    world.attach(launch.pid, mounted=not not_mounted)
    handlers = world.handlers()
    listener = launch.install(
        build_filter(machine, settings.precision, settings.files, _also(handlers, settings.files))
    )
    supervisor = Supervisor(listener, handlers, call_numbers(machine))
    _say_how(world.notice, not_mounted, settings)
    reaper = threading.Thread(target=_reap, args=(launch.pid, reports))
    threading.Thread(target=reports.watch_front, args=(program.name,), daemon=True).start()
    reaper.start()
    launch.start()
    tally = supervisor.serve()
    reaper.join()
    _tell(world, tally, settings)


def _also(handlers: Mapping[str, Handler], files: Files) -> list[str]:
    """Return calls about files beyond opens that are answered, as where nothing is mounted."""
    if files is Files.NONE:
        return []
    usual = watched_calls(Precision.EXACT, Files.ALL)
    return [call for call in handlers if call not in usual]


def _reap(program: int, reports: front.Reports) -> None:
    """Await all children, adopted ones too; report what becomes of the program."""
    reports.started(program)
    ended: int | None = None
    told = False
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
        except ChildProcessError:
            if ended is not None and not told:
                reports.ended(ended, left=False)
            return
        if pid == program and os.WIFSTOPPED(status):
            reports.stopped()
        elif pid == program:
            ended = status
        elif not pid and ended is not None and not told:
            if signal.sigtimedwait({signal.SIGCHLD}, _GRACE_SECONDS) is None:
                reports.ended(ended, left=True)
                told = True
        elif not pid:
            signal.sigwaitinfo({signal.SIGCHLD})


def _say_how(notice: str, not_mounted: str, settings: Settings) -> None:
    if notice:
        front.say(notice)
    if settings.verbose:
        mounted = not_mounted or "/sys shows the emulated nodes"
        pinned = ", on one CPU with the supervisor" if settings.pin else ""
        front.say(f"precision {settings.precision}, files {settings.files}{pinned}; {mounted}")


def _tell(world: World, tally: Tally, settings: Settings) -> None:
    report = {"calls": dict(sorted(tally.served.items())), **world.report()}
    if settings.report:
        settings.report.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    if tally.first_defect is not None:
        if os.environ.get("MOVEPAGES_DEBUG") == "1":
            traceback.print_exception(tally.first_defect)
        front.say(tally.complaint())

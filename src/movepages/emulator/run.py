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

import json
import os
import signal
import threading
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from movepages.emulator import front, tree
from movepages.emulator.filter import Files, Precision, build_filter, call_numbers, watched_calls
from movepages.emulator.front import BLOCKED
from movepages.emulator.launch import execute, fork_task, furnish
from movepages.emulator.supervisor import Supervisor
from movepages.errors import MovePagesError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from movepages.emulator.launch import Launch
    from movepages.emulator.replies import Handler
    from movepages.emulator.supervisor import Tally

_IN_MEMORY, _TEMPORARY = "/dev/shm", "/tmp"  # noqa: S108 - a directory of our own there
_GRACE_SECONDS = 0.2
"""How long children that outlive the program may take to end before they count as daemons."""


class World(Protocol):
    """The machine that the program is to see."""

    @property
    def notice(self) -> str:
        """What the user should know of the machine before the program starts, or ""."""
        ...

    def furnish(self, directory: Path) -> Iterable[tuple[Path, Path]]:
        """Write files below an empty directory; return what to bind where: (source, target).

        Called in what will be the program.
        """
        ...

    def attach(self, pid: int) -> None:
        """Learn which process will be the program, before it starts; threads may start here."""
        ...

    def handlers(self, directory: Path, *, mounted: bool) -> Mapping[str, Handler]:
        """Return who answers which call, by the name of the call.

        The files are below the directory, and bound if they are `mounted`.
        """
        ...

    def report(self) -> dict[str, Any]:
        """Return what happened, once all tasks are gone; where that is asked for."""
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
    directory = _make_directory()
    supervisor = os.fork()
    if not supervisor:
        _supervisor(program, make_world, settings, front.Reports(links), mask, directory)
    try:
        return front.Front(program.name, supervisor, links, spared, directory).wait()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _make_directory() -> Path:
    """Make an empty directory, in memory unless the user names a place."""
    named = os.environ.get("TMPDIR")
    in_memory = os.access(_IN_MEMORY, os.W_OK | os.X_OK)
    place = Path(named or (_IN_MEMORY if in_memory else _TEMPORARY))
    directory = place / f"movepages-{os.getpid()}-{time.monotonic_ns():x}"
    try:
        directory.mkdir(0o700)
    except OSError as error:
        raise UnsupportedError(
            f"{directory} cannot be made ({error.strerror}); set TMPDIR to a directory of yours"
        ) from None
    return directory


def _supervisor(
    program: Program,
    make_world: Callable[[], World],
    settings: Settings,
    reports: front.Reports,
    mask: set[Any],
    directory: Path,
) -> NoReturn:
    """Be the supervisor; never return into the code of the front."""
    try:
        tree.adopt_orphans()
        if settings.pin:
            os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        world = make_world()
        launch = fork_task(program.body, mask, partial(furnish, directory, world.furnish))
        front.let_go_of_streams()
        _serve(launch, program, world, settings, reports, directory)
        front.remove(directory)
        os._exit(0)
    except MovePagesError as error:
        front.remove(directory)
        reports.failed(error)
    except BaseException as error:  # noqa: BLE001 - the front tells the user, and ends the tree
        _show(error)
        reports.broken(f"{type(error).__name__}: {error}")
    finally:
        os._exit(1)


def _serve(
    launch: Launch,
    program: Program,
    world: World,
    settings: Settings,
    reports: front.Reports,
    directory: Path,
) -> None:
    machine = os.uname().machine
    world.attach(launch.pid)
    not_mounted = launch.furnished()
    seen = directory if not_mounted else _hold(launch.pid, directory)
    handlers = world.handlers(seen, mounted=not not_mounted)
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


def _hold(pid: int, directory: Path) -> Path:
    """Return where we find what a task has mounted over a directory; remove the directory."""
    mounted = os.open(f"/proc/{pid}/root{directory.absolute()}", os.O_PATH | os.O_CLOEXEC)
    directory.rmdir()
    return Path(f"/proc/self/fd/{mounted}")


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
    if settings.report:
        report = {"calls": dict(sorted(tally.served.items())), **world.report()}
        settings.report.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    if tally.first_defect is not None:
        _show(tally.first_defect)
        front.say(tally.complaint())


def _show(problem: BaseException) -> None:
    """Show where something was raised, to whoever asks for it."""
    if os.environ.get("MOVEPAGES_DEBUG") == "1":
        import traceback

        traceback.print_exception(problem)

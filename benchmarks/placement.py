"""The mover against its bars: its own time beside the machine's calls, and the calls beside one.

The mover's own time is what `execute` takes less what its calls of the machine take, in the same
run. Calls are compared with the ideal: a single call of move_pages(2) on all pages, as plain as it
can be made. For the record: one call for each page, and 256 pages a call.

Plans that name single pages are looked at as well: their peak of memory beside what was located,
and their time.
"""

from __future__ import annotations

import json
import mmap
import shutil
import subprocess
import sys
import time
import tracemalloc
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from harness import Benchmark, LeftOut, LeftOutError, Measure, Row, Timing, compare, cpu_time
from memory import address_of, touched
from targets import require

from movepages.abi import MoveFlag
from movepages.kernel import SimulatedMachine
from movepages.linux.machine import LinuxMachine
from movepages.placement import (
    execute,
    make_plan,
    plan,
    plan_follow,
    plan_pack,
    plan_spread,
)
from movepages.placement.crew import Crew
from movepages.placement.parallel import execute_in_parallel
from movepages.placement.running import Running
from movepages.placement.select import everything
from movepages.values import Placement

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from movepages.kernel.process import Task
    from movepages.machine import Machine
    from movepages.values import CallResult, Plan

PAGES = 1_000_000
HOST_PAGES = 1 << 18
RECORD_PAGES = 1000
PEER_PAGES = 1 << 16
HUGE_PAGES = 2048
OWN_NS_A_PAGE = 25.0
THP_OWN_MS = 3.0
CALLS_RATIO = 1.01
PINNED_RATIO = 3.0
BYTES_A_PAGE = 64
_PAGE = 4096
_SPARE = 1 << 14
_FAULTED_AT_ONCE = 1 << 20
_ROUNDS = 7
_PEER = Path(__file__).parent / "peers" / "migratepages.py"


def benchmarks(pages: int = PAGES, host_pages: int = HOST_PAGES) -> list[Benchmark]:
    """Return the benchmarks of this group, for plans of so many pages."""
    return [
        Benchmark("mover, own time", lambda: _own(pages)),
        Benchmark("mover, own time, THP", _own_thp),
        Benchmark("mover, calls", lambda: _calls(pages)),
        Benchmark("mover, calls, host", lambda: _host(host_pages)),
        Benchmark("mover, 1 % pinned", lambda: _pinned(pages)),
        Benchmark("mover, memory", lambda: _memory(pages)),
        Benchmark("planning", lambda: _planning(pages)),
        Benchmark("mover, batches for the record", lambda: _record(min(pages, RECORD_PAGES))),
        Benchmark("mover, two workers for the record", lambda: _two_workers(host_pages)),
        Benchmark("mover, migratepages for the record", lambda: _migratepages(PEER_PAGES)),
    ]


@dataclass(slots=True, eq=False)
class _Timed:
    """A machine that adds up what its calls cost, in CPU seconds of the calling thread."""

    machine: Machine
    seconds: float = 0.0
    calls: int = field(default=0)

    def __getattr__(self, name: str) -> Any:
        """Answer everything else as the machine does."""
        return getattr(self.machine, name)

    def move_pages(self, *arguments: Any) -> CallResult:
        """Move pages, and take the time."""
        return self._timed(self.machine.move_pages, *arguments)

    def query_pages(self, *arguments: Any) -> CallResult:
        """Ask for pages, and take the time."""
        return self._timed(self.machine.query_pages, *arguments)

    def _timed(self, call: Callable[..., CallResult], *arguments: Any) -> CallResult:
        self.calls += 1
        began = time.thread_time_ns()
        try:
            return call(*arguments)
        finally:
            self.seconds += (time.thread_time_ns() - began) / 1e9


@dataclass(slots=True, eq=False)
class _Work:
    """A process on two nodes of the model, and plans to move all its pages to and fro."""

    machine: SimulatedMachine
    task: Task
    there: Plan
    back: Plan

    @classmethod
    def on(cls, pages: int, *, huge: bool = False) -> _Work:
        """Make it, with its pages on node 0."""
        size = (pages + _SPARE) * _PAGE >> 20
        machine = SimulatedMachine(f"2 x {size}M")
        task = machine.spawn()
        start = task.mmap(pages)
        if huge:
            task.madvise(start, pages, "hugepage")
        for first in range(0, pages, _FAULTED_AT_ONCE):
            task.write(start + first * _PAGE, min(_FAULTED_AT_ONCE, pages - first))
        located = machine.locate(task.pid)
        who = machine.task(task.pid).id
        there = make_plan(who, located, 1)
        moved = Placement(located.start, located.pages, located.page_size_bytes, 1 - located.node)
        return cls(machine, task, there, make_plan(who, moved, 0))

    def execute(self, machine: Machine) -> None:
        """Move all pages to the other node."""
        execute(self.there, machine)
        self.there, self.back = self.back, self.there

    def one_call(self, machine: Machine, batch: int | None = None) -> None:
        """Move all pages to the other node as plainly as can be, in calls of so many."""
        addresses = self.there.page_runs().addresses()
        node = int(self.there.to_node[0])
        nodes = np.full(len(addresses), node, dtype=np.int32)
        step = batch or len(addresses)
        for first in range(0, len(addresses), step):
            part = slice(first, first + step)
            machine.move_pages(self.task.pid, addresses[part], nodes[part], int(MoveFlag.MOVE))
        self.there, self.back = self.back, self.there


def _own_time(work: _Work) -> Timing:
    """Time the mover's own work: what it takes less what its calls take."""
    samples = []
    for _ in range(_ROUNDS):
        timed = _Timed(work.machine)
        whole = cpu_time(lambda timed=timed: work.execute(timed))()
        samples.append(whole - timed.seconds)
    return Timing.of(samples)


def _own(pages: int) -> Iterator[Row]:
    timing = _own_time(_Work.on(pages))
    name = f"mover, own time, {pages:,} pages"
    yield Row(name, timing, Measure.PER_PAGE, OWN_NS_A_PAGE, pages=pages)


def _own_thp() -> Iterator[Row]:
    timing = _own_time(_Work.on(HUGE_PAGES * 512, huge=True))
    yield Row("mover, own time, 4 GiB of THP", timing, Measure.OWN, THP_OWN_MS)


def _calls(pages: int) -> Iterator[Row]:
    batches, plain = _Work.on(pages), _Work.on(pages)
    timings = compare(
        {
            "execute": lambda: _seconds(batches.machine, batches.execute),
            "one call": lambda: _seconds(plain.machine, plain.one_call),
        }
    )
    name = f"mover, calls, model, {pages:,} pages"
    yield _ratio(name, timings["execute"], timings["one call"])


def _seconds(machine: Machine, work: Callable[[Machine], None]) -> float:
    """Return what the calls that some work makes of a machine take."""
    timed = _Timed(machine)
    work(timed)
    return timed.seconds


def _ratio(name: str, ours: Timing, ideal: Timing) -> Row:
    return Row(name, ours, Measure.RATIO, CALLS_RATIO, "one call", ideal)


def _host(pages: int) -> Iterator[Row | LeftOut]:
    """Compare on this kernel: with one node all pages are where they go, and nothing is copied."""
    require(pages * mmap.PAGESIZE)
    memory = touched(pages)
    first = address_of(memory)
    machine = LinuxMachine()
    located = machine.locate(0, [(first, first + len(memory))])
    node = int(located.node[0])
    in_place = make_plan(machine.task(0).id, located, node, keep_there=True)
    addresses = in_place.page_runs().addresses()
    nodes = np.full(len(addresses), node, dtype=np.int32)

    def ideal(machine: Machine) -> None:
        machine.move_pages(0, addresses, nodes, int(MoveFlag.MOVE))

    def ours(machine: Machine) -> None:
        execute(in_place, machine)

    timings = compare(
        {"execute": lambda: _seconds(machine, ours), "one call": lambda: _seconds(machine, ideal)}
    )
    memory.close()
    name = f"mover, calls, host, {pages:,} pages in place"
    yield _ratio(name, timings["execute"], timings["one call"])


def _two_workers(pages: int) -> Iterator[Row]:
    """Compare two workers with one by the clock on the wall, on this kernel, in place."""
    require(pages * mmap.PAGESIZE)
    memory = touched(pages)
    first = address_of(memory)
    machine = LinuxMachine()
    located = machine.locate(0, [(first, first + len(memory))])
    in_place = make_plan(machine.task(0).id, located, int(located.node[0]), keep_there=True)
    timings = compare(
        {
            "two": lambda: execute_in_parallel(in_place, machine, crew=Crew(2)).seconds,
            "one": lambda: execute(in_place, machine).seconds,
        }
    )
    memory.close()
    name = f"mover, two workers, host, {pages:,} pages in place, wall time"
    yield Row(name, timings["two"], Measure.RATIO, None, "one worker", timings["one"])


def _pinned(pages: int) -> Iterator[Row]:
    chance = np.random.default_rng(2006)
    plain, pinned = _Work.on(pages), _Work.on(pages)
    start = int(pinned.there.start[0])
    frames = pinned.task.frames(start, pages)
    held = chance.choice(pages, pages // 100, replace=False)
    pinned.machine.memory.pin(frames[held])
    ledger = execute(pinned.there, pinned.machine)
    if ledger.moved_pages != pages - len(held):
        raise AssertionError("a page that was not pinned has not moved: its time says nothing")
    execute(pinned.back, pinned.machine)
    timings = compare(
        {
            "pinned": cpu_time(lambda: pinned.execute(pinned.machine)),
            "plain": cpu_time(lambda: plain.execute(plain.machine)),
        }
    )
    name = f"mover, 1 % pinned, model, {pages:,} pages"
    yield Row(name, timings["pinned"], Measure.RATIO, PINNED_RATIO, "none pinned", timings["plain"])


def _memory(pages: int) -> Iterator[Row]:
    """Look at the peak of the tool's memory, on a machine whose calls take none."""
    work = _Work.on(1)
    all_pages = make_plan(
        work.there.task,
        Placement(
            work.there.start,
            np.array([pages]),
            work.there.page_size_bytes,
            work.there.from_node,
        ),
        1,
    )
    machine = _Still(work.machine)
    yield _peak("mover", pages, lambda: execute(all_pages, machine))


def _peak(name: str, pages: int, work: Callable[[], object]) -> Row:
    """Look at the peak of memory of some work."""
    tracemalloc.start()
    work()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    label = f"{name}, memory, {pages:,} pages, bytes a page"
    return Row(label, round(peak / pages), Measure.COUNT, BYTES_A_PAGE)


def _planning(pages: int) -> Iterator[Row]:
    """Look at memory and time of plans that name single pages, of two runs of pages."""
    for name, make in _plans(pages).items():
        yield _peak(name, pages, make)
        timings = compare({name: cpu_time(make)})
        yield Row(f"{name}, plan, {pages:,} pages", timings[name], Measure.PER_PAGE, pages=pages)


def _plans(pages: int) -> dict[str, Callable[[], Plan]]:
    """Return ways to plan for pages that are in two runs, on nodes 2 and 3, to other nodes."""
    machine = SimulatedMachine("4 x 8M")
    task = machine.spawn()
    half = pages // 2
    first = task.mmap(2 * half)
    placement = Placement(
        np.array([first, first + half * _PAGE], np.uint64),
        np.array([half, half]),
        np.array([_PAGE, _PAGE]),
        np.array([2, 3], np.int32),
    )
    located, info, all_pages = _Located(machine, placement), machine.task(task.pid), everything()
    runs_on = Running({0: 0.7, 1: 0.3}, ran=True)
    room = {0: pages * _PAGE, 1: pages * _PAGE}
    return {
        "spread": lambda: plan_spread(located, info, all_pages, [0, 1, 2]),
        "pack": lambda: plan_pack(located, info, all_pages, free=room),
        "follow": lambda: plan_follow(located, info, all_pages, runs_on, free=room),
        "move by turns": lambda: plan(located, info, all_pages, [0, 1]),
    }


@dataclass(slots=True, eq=False)
class _Located:
    """A machine on which it is known where the pages of a process are."""

    machine: Machine
    placement: Placement

    def __getattr__(self, name: str) -> Any:
        """Answer everything else as the machine does."""
        return getattr(self.machine, name)

    def locate(self, pid: int, ranges: Any = None) -> Placement:
        """Answer where they are."""
        del pid, ranges
        return self.placement


@dataclass(slots=True, eq=False)
class _Still:
    """A machine on which every page is at once where it is to go."""

    machine: Machine

    def __getattr__(self, name: str) -> Any:
        """Answer everything else as the machine does."""
        return getattr(self.machine, name)

    def move_pages(self, pid: int, addresses: Any, nodes: Any, flags: int) -> CallResult:
        """Answer that all pages are there."""
        from movepages.values import CallResult

        del pid, addresses, flags
        return CallResult(0, nodes)


def _record(pages: int) -> Iterator[Row]:
    work = _Work.on(pages)
    ways = {
        "execute": lambda: work.execute(work.machine),
        "one page a call": lambda: work.one_call(work.machine, 1),
        "256 pages a call": lambda: work.one_call(work.machine, 256),
    }
    timings = compare({name: cpu_time(way) for name, way in ways.items()})
    for name in list(ways)[1:]:
        label = f"mover, model, {pages:,} pages"
        yield Row(label, timings["execute"], Measure.SPEEDUP, None, name, timings[name])


def _migratepages(pages: int) -> Iterator[Row]:
    """Compare with migratepages on emulated nodes, in wall-clock time: it is another process."""
    if not shutil.which("migratepages"):
        raise LeftOutError("migratepages is not installed: apt-get install numactl")
    emulate = (sys.executable, "-m", "movepages", "emulate", "--topology", "2 x 2G", "--")
    command = (*emulate, sys.executable, str(_PEER), str(pages), str(_ROUNDS))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LeftOutError(f"the emulator does not work here: {done.stderr.strip()}")
    took = {way: Timing.of(samples) for way, samples in json.loads(done.stdout).items()}
    label = f"emulated migrate of {pages:,} pages, wall time"
    peer = took.pop("migratepages")
    for way, timing in took.items():
        yield Row(f"{label}, {way}", timing, Measure.RATIO, None, "migratepages", peer)

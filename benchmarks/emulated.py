"""Programs under the emulator against the same programs without it.

By the clock on the wall, for a program waits while the emulator works: other work on the machine
shows here more than in other benchmarks. A start is measured by CPU time as well, that of all its
processes; Python runs from bytecode there, as what is installed does. Moves go to the node that
pages are on, which natively is all there is to do on a machine with one node; under the emulator
they have to come from another.
"""

from __future__ import annotations

import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from harness import Benchmark, LeftOutError, Measure, Row, Timing, compare
from peer import SOURCE
from targets import require

from movepages.abi import numbers_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

PAGES = 1_000_000
PAGE_BYTES = 4096
RUNS = 3
"""Of the program, natively and emulated in turns; a first query happens once in each."""
PROGRAM = SOURCE.with_name("emulated.c")
EMULATE = (sys.executable, "-m", "movepages", "emulate", "--topology", "4x(16G)", "--")
PINNED = (*EMULATE[:-1], "--pin", "--")
_START_SECONDS = 20.0
IMPORT_NUMPY = (sys.executable, "-c", "import numpy")
NUMBER = numbers_for(platform.machine())["get_mempolicy"]
ONE_NUMA_CALL = (
    *(sys.executable, "-S", "-c"),
    f"import ctypes; ctypes.CDLL(None).syscall({NUMBER}, 0, 0, 0, 0, 0)",
)
"""For the first one the emulator's machine is made, which `true` never waits for."""
_COMPARED = (
    ("query_again", "query, known pages", 1.0),
    ("query_first", "query, pages never asked for", 3.0),
    ("move_all", "move", 1.2),
)


def benchmarks(pages: int = PAGES) -> list[Benchmark]:
    """Return the benchmarks of this group, for as many pages."""
    return [
        Benchmark("emulated calls", lambda: _calls(pages)),
        Benchmark("emulated start-up", _start_up),
    ]


def _calls(pages: int) -> Iterator[Row]:
    require(pages * PAGE_BYTES)
    with tempfile.TemporaryDirectory(prefix="movepages-bench-") as folder:
        program = _build(Path(folder))
        native: list[dict[str, list[float]]] = []
        free: list[dict[str, list[float]]] = []
        pinned: list[dict[str, list[float]]] = []
        for _ in range(RUNS):
            native.append(_samples((str(program), str(pages))))
            free.append(_samples((*EMULATE, str(program), str(pages))))
            pinned.append(_samples((*PINNED, str(program), "16")))
    for name, what, bar in _COMPARED:
        ours, peer = _timing(free, name), _timing(native, name)
        of = f"emulated {what} of {pages:,} pages"
        yield Row(of, ours, Measure.RATIO, bar, "native", peer, pages)
    ours, peer = _timing(pinned, "not_notified"), _timing(native, "not_notified")
    yield Row("emulated, a call not notified", ours, Measure.EXTRA, 0.06, "native", peer)
    policy, query = _timing(pinned, "policy_of_thread"), _timing(pinned, "query_one")
    yield Row("emulated get_mempolicy, pinned", policy, Measure.OWN, 0.020)
    yield Row("emulated query of a page, pinned", query, Measure.OWN, 0.180)


def _start_up() -> Iterator[Row]:
    commands = {
        "true": ("true",),
        "emulated true": (*EMULATE, "true"),
        "numpy": IMPORT_NUMPY,
        "emulated numpy": (*EMULATE, *IMPORT_NUMPY),
        "call": ONE_NUMA_CALL,
        "emulated call": (*EMULATE, *ONE_NUMA_CALL),
    }
    with tempfile.TemporaryDirectory(prefix="movepages-bench-") as folder:
        settings = {**os.environ, "PYTHONPYCACHEPREFIX": folder}
        settings.pop("PYTHONDONTWRITEBYTECODE", None)
        ways = {}
        for name, command in commands.items():
            clocks = _both_clocks(command, settings)
            ways |= {(name, clock): way for clock, way in zip(("wall", "CPU"), clocks, strict=True)}
        took = compare(ways, _START_SECONDS)
    for clock in ("wall", "CPU"):
        ours, peer = took["emulated true", clock], took["true", clock]
        of = f"emulated start-up of true, {clock} time"
        yield Row(of, ours, Measure.EXTRA, 150_000, "native", peer)
        imported = _less(took["emulated numpy", clock], ours.median_s)
        of = f"emulated import of numpy, less start-up, {clock} time"
        yield Row(of, imported, Measure.RATIO, 1.6, "native", took["numpy", clock])
        ours, peer = took["emulated call", clock], took["call", clock]
        of = f"emulated start-up and first NUMA call, {clock} time"
        yield Row(of, ours, Measure.EXTRA, None, "native", peer)


def _build(folder: Path) -> Path:
    """Compile the program. Raises LeftOutError where there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise LeftOutError("there is no C compiler to build the program with: install gcc")
    program = folder / "emulated"
    subprocess.run([compiler, "-O2", "-Wall", "-Wextra", "-o", program, PROGRAM], check=True)
    return program


def _samples(command: Sequence[str]) -> dict[str, list[float]]:
    """Run the program; return its seconds by name. Raises LeftOutError if it cannot run."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LeftOutError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr}")
    lines = (line.split() for line in done.stdout.splitlines())
    return {name: [int(nanoseconds) / 1e9 for nanoseconds in values] for name, *values in lines}


def _timing(runs: list[dict[str, list[float]]], name: str) -> Timing:
    return Timing.of([sample for run in runs for sample in run[name]])


def _less(timing: Timing, seconds: float) -> Timing:
    return Timing(
        timing.median_s - seconds,
        timing.lower_quartile_s - seconds,
        timing.upper_quartile_s - seconds,
        timing.samples,
    )


def _both_clocks(
    command: Sequence[str], settings: Mapping[str, str]
) -> tuple[Callable[[], float], Callable[[], float]]:
    """Return two ways to time the same runs of a command, to be compared in this order.

    The first runs it, for the wall clock; the second tells the CPU time of all its processes.
    """
    cpu_s = 0.0

    def wall() -> float:
        nonlocal cpu_s
        before_s = _of_children()
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, env=settings)
        took_s = time.perf_counter() - start
        cpu_s = _of_children() - before_s
        return took_s

    return wall, lambda: cpu_s


def _of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime

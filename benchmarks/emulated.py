"""Programs under the emulator against the same programs without it.

By the clock on the wall, for a program waits while the emulator works: other work on the machine
shows here more than in other benchmarks. Moves go to the node that pages are on, which natively is
all there is to do on a machine with one node; under the emulator they have to come from another.
"""

from __future__ import annotations

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

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

PAGES = 1_000_000
PAGE_BYTES = 4096
RUNS = 3
"""Of the program, natively and emulated in turns; a first query happens once in each."""
PROGRAM = SOURCE.with_name("emulated.c")
EMULATE = (sys.executable, "-m", "movepages", "emulate", "--topology", "4x(16G)", "--")
PINNED = (*EMULATE[:-1], "--pin", "--")
IMPORT_NUMPY = (sys.executable, "-c", "import numpy")
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
    ways = {
        "true": _wall(["true"]),
        "emulated true": _wall([*EMULATE, "true"]),
        "numpy": _wall(IMPORT_NUMPY),
        "emulated numpy": _wall([*EMULATE, *IMPORT_NUMPY]),
    }
    took = compare(ways)
    of = "emulated start-up of true"
    yield Row(of, took["emulated true"], Measure.EXTRA, 150_000, "native", took["true"])
    start_s = took["emulated true"].median_s
    less = took["emulated numpy"]
    ours = Timing(
        less.median_s - start_s,
        less.lower_quartile_s - start_s,
        less.upper_quartile_s - start_s,
        less.samples,
    )
    of = "emulated import of numpy, less start-up"
    yield Row(of, ours, Measure.RATIO, 1.6, "native", took["numpy"])


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


def _wall(command: Sequence[str]) -> Callable[[], float]:
    """Return a way to time a command by the clock on the wall."""

    def sample() -> float:
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        return time.perf_counter() - start

    return sample

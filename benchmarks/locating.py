"""Locating the pages of another process, against asking for every page of its mapping.

The plain query is one move_pages(2) without nodes over the addresses of all pages of the mapping,
the making of these addresses included: what a careful program does without movepages. Each way of
locating is held against it on memory of one kind and pattern, after both gave the same answer.
"""

from __future__ import annotations

import mmap
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from harness import (
    Benchmark,
    LeftOut,
    LeftOutError,
    Measure,
    Row,
    calls_a_sample,
    compare,
    cpu_time,
)
from memory import HUGE_PAGE
from targets import held, require

import movepages
from movepages.linux.locate import Locator
from movepages.linux.page_frames import sees_frames
from movepages.values import PageRuns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray
    from targets import Target

    from movepages.values import Placement

    Ways = tuple[str, ...]

PAGES = 1_000_000
FRAMES, SCAN, SHORTCUT = ("pfn", "scan"), ("scan",), ("numa_maps", "pfn", "scan")
POOL = Path("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")
THP = Path("/sys/kernel/mm/transparent_hugepage/enabled")


@dataclass(frozen=True, slots=True)
class Case:
    """Memory to locate the pages of, and how many times faster than asking each way is to be.

    `kind`, `share` and `pattern` are those of memory.py; None is a way that has no bar.
    """

    name: str
    kind: str
    share: int
    pattern: str
    bars: Mapping[Ways, float | None]


CASES = (
    Case("all resident", "base", 1, "block", {FRAMES: 4.0, SCAN: None, SHORTCUT: None}),
    Case("half resident in runs of 512", "base", 2, "runs-512", {SCAN: 1.35, FRAMES: None}),
    Case("half resident in one block", "base", 2, "block", {SCAN: None, FRAMES: None}),
    Case("half resident at random", "base", 2, "random", {SCAN: None, FRAMES: None}),
    Case("a tenth resident in runs of 512", "base", 10, "runs-512", {SCAN: 5.0, FRAMES: None}),
    Case("a tenth resident at random", "base", 10, "random", {SCAN: None, FRAMES: None}),
    Case("THP", "thp", 1, "block", {FRAMES: 50.0, SCAN: 50.0}),
    Case("hugetlb", "hugetlb", 1, "block", {FRAMES: 50.0, SCAN: 50.0}),
)


def benchmarks(pages: int = PAGES) -> list[Benchmark]:
    """Return the benchmarks of this group, for memory with that many resident base pages."""
    return [_benchmark(case, pages) for case in CASES]


def _benchmark(case: Case, pages: int) -> Benchmark:
    return Benchmark(f"locate, {case.name}", lambda: _results(case, pages))


def _results(case: Case, pages: int) -> Iterator[Row | LeftOut]:
    if case.kind == "thp" and not (THP.exists() and "[never]" not in THP.read_text()):
        raise LeftOutError(f"there are no transparent huge pages here ({THP})")
    require(pages * mmap.PAGESIZE)
    pool = huge_page_pool(-(-pages * mmap.PAGESIZE // HUGE_PAGE))
    with (
        pool if case.kind == "hugetlb" else nullcontext(),
        held(case.kind, pages, case.share, case.pattern) as target,
    ):
        yield from _compared(case, target)


@contextmanager
def huge_page_pool(pages: int, pool: Path = POOL) -> Iterator[None]:
    """Enlarge the pool of huge pages of 2 MiB, and put it back afterwards. Needs root."""
    try:
        before = int(pool.read_text())
        pool.write_text(str(before + pages))
    except (FileNotFoundError, PermissionError) as error:
        raise LeftOutError(f"the pool of huge pages cannot be enlarged: {error}") from None
    try:
        granted = int(pool.read_text()) - before
        if granted < pages:
            raise LeftOutError(f"memory is too fragmented: {granted} of {pages} huge pages")
        yield
    finally:
        pool.write_text(str(before))


def _compared(case: Case, target: Target) -> Iterator[Row | LeftOut]:
    works: dict[Ways, Callable[[], Placement]] = {}
    for ways in case.bars:
        if "pfn" in ways and not sees_frames(mmap.PAGESIZE):
            reason = "seeing page frame numbers needs CAP_SYS_ADMIN: run as root"
            yield LeftOut(_name(case, ways), reason)
        else:
            works[ways] = _locating(target, ways)
    said = _ask_for_all(target)
    for ways, work in works.items():
        _require_same(said, work(), target, _name(case, ways))
    samples = {ways: cpu_time(work, calls_a_sample(work)) for ways, work in works.items()}
    timings = compare(samples | {(): cpu_time(lambda: _ask_for_all(target))})
    for ways in works:
        ours, plain = timings[ways], timings[()]
        yield Row(_name(case, ways), ours, Measure.SPEEDUP, case.bars[ways], "plain query", plain)


def _name(case: Case, ways: Ways) -> str:
    return f"locate, {case.name}, {'+'.join(ways)}"


def _locating(target: Target, ways: Ways) -> Callable[[], Placement]:
    """Return the work of one way; numa_maps is asked about whole processes only."""

    def query(addresses: NDArray[np.uint64]) -> NDArray[np.int32]:
        return movepages.query_pages(target.pid, addresses).status

    locator = Locator(target.pid, query, mmap.PAGESIZE, ways=ways)
    return lambda: locator.locate(None if "numa_maps" in ways else [(target.start, target.end)])


def _ask_for_all(target: Target) -> NDArray[np.int32]:
    addresses = np.arange(target.start, target.end, mmap.PAGESIZE, dtype=np.uint64)
    return movepages.query_pages(target.pid, addresses).status


def _require_same(said: NDArray[np.int32], placement: Placement, target: Target, name: str) -> None:
    """Raise AssertionError unless a placement says of each page what asking for it said."""
    scale = placement.page_size_bytes // mmap.PAGESIZE
    size = np.full(len(placement), mmap.PAGESIZE)
    addresses = PageRuns(placement.start, placement.pages * scale, size).addresses()
    nodes = np.repeat(placement.node, placement.pages * scale)
    inside = (addresses >= target.start) & (addresses < target.end)
    located = np.full(len(said), -1, dtype=np.int32)
    located[(addresses[inside] - np.uint64(target.start)) // np.uint64(mmap.PAGESIZE)] = nodes[
        inside
    ]
    if not np.array_equal(located, np.maximum(said, -1)):
        raise AssertionError(f"{name}: another answer than that of asking for every page")

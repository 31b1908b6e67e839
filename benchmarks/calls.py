"""The system call from Python against the same call from C, on the same memory of this process.

Queries, and moves of pages to the node they are on already: the whole way through the kernel but
for the copying, so that nothing hides what Python adds. The raw call takes addresses as integers
(movepages.linux.syscalls); the public one takes an array, makes one for the statuses and checks.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from harness import Benchmark, LeftOutError, Measure, Row, calls_a_sample, compare, cpu_time
from memory import address_of, touched
from peer import CPeer, build
from targets import require

import movepages
from movepages.linux import syscalls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    Sample = Callable[[], float]
    Work = Callable[[], object]

PAGES = (1, 512, 4096, 65_536, 1_000_000)
EXTRA_US = {"raw": 2.0, "public": 6.0}
"""How much more than C a call for one page may cost."""


def benchmarks(pages: tuple[int, ...] = PAGES) -> list[Benchmark]:
    """Return the benchmarks of this group, with as many pages to a call."""
    return [Benchmark("calls", lambda: _rows(pages))]


@dataclass(frozen=True, slots=True)
class _Arrays:
    """The arguments of a call; the same memory for Python and C."""

    addresses: NDArray[np.uint64]
    nodes: NDArray[np.int32]
    status: NDArray[np.int32]

    def first(self, count: int) -> _Arrays:
        return _Arrays(self.addresses[:count], self.nodes[:count], self.status[:count])


def _rows(sizes: tuple[int, ...]) -> Iterator[Row]:
    peer = build()
    require(max(sizes) * mmap.PAGESIZE)
    count = max(sizes)
    memory = touched(count)
    first = address_of(memory)
    addresses = np.arange(first, first + count * mmap.PAGESIZE, mmap.PAGESIZE, dtype=np.uint64)
    nodes = movepages.query_pages(0, addresses).status
    if (nodes < 0).any():
        raise LeftOutError("memory just touched is not resident: this machine is short of it")
    arrays = _Arrays(addresses, nodes, np.empty(count, dtype=np.int32))
    for pages in sizes:
        yield from _query(peer, arrays.first(pages))
    for pages in sizes:
        if pages > 1:
            yield from _move_in_place(peer, arrays.first(pages))
    memory.close()


def _query(peer: CPeer, arrays: _Arrays) -> Iterator[Row]:
    pages = syscalls.address_of(arrays.addresses)
    status = syscalls.address_of(arrays.status)
    count = len(arrays.addresses)

    def raw() -> int:
        return syscalls.move_pages(0, count, pages, None, status, 0)

    def public() -> object:
        return movepages.query_pages(0, arrays.addresses)

    def c(calls: int) -> Sample:
        return peer.sample(count, pages, None, status, 0, calls)

    return _compared("query", count, {"raw": raw, "public": public}, c)


def _move_in_place(peer: CPeer, arrays: _Arrays) -> Iterator[Row]:
    pages, nodes, status = (
        syscalls.address_of(each) for each in (arrays.addresses, arrays.nodes, arrays.status)
    )
    count = len(arrays.addresses)

    def raw() -> int:
        return syscalls.move_pages(0, count, pages, nodes, status, movepages.MOVE)

    def public() -> object:
        return movepages.move_pages(0, arrays.addresses, arrays.nodes)

    def c(calls: int) -> Sample:
        return peer.sample(count, pages, nodes, status, movepages.MOVE, calls)

    return _compared("move in place", count, {"raw": raw, "public": public}, c)


def _compared(
    name: str, pages: int, works: dict[str, Work], c: Callable[[int], Sample]
) -> Iterator[Row]:
    """Time our ways and C by turns; one row for each of ours."""
    calls = calls_a_sample(works["raw"])
    timings = compare({way: cpu_time(work, calls) for way, work in works.items()} | {"C": c(calls)})
    many = "1 page" if pages == 1 else f"{pages:,} pages"
    for way in works:
        measure = Measure.EXTRA if pages == 1 else Measure.RATIO
        bar = _bar(pages, way)
        yield Row(f"{name}, {many}, {way}", timings[way], measure, bar, "C", timings["C"])


def _bar(pages: int, way: str) -> float | None:
    if pages == 1:
        return EXTRA_US[way]
    if way == "raw":
        return None
    return 1.10 if pages < 4096 else 1.05

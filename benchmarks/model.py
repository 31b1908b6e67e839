"""The kernel's model against bars of time and size: whole system calls on a simulated machine.

Times are CPU time a page, and what the wall clock said of the same runs beside it. Compared with,
without a bar: the query of the host's own kernel, and the page-at-a-time oracle of the tests.
"""

from __future__ import annotations

import mmap
import sys
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from harness import (
    Benchmark,
    LeftOutError,
    Measure,
    Row,
    Timing,
    both_clocks,
    compare,
    cpu_time,
)
from memory import address_of, touched
from simulated import Call
from targets import require

from movepages.abi import MoveFlag
from movepages.kernel import LINUX_2_6_18, LINUX_6_12
from movepages.linux import syscalls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PAGES = 1_000_000
QUERY_NS, MOVE_NS, HARDER_NS = 30.0, 250.0, 350.0
"""What a page may cost: a query, a move, and a move where something is in the way."""
STOP_MS = 2.0
STOP_PAGES = (10_000, 1_000_000)
STOP_BATCH = 600
"""The first batch of a call that stops: in it is the first page that is pinned."""
ONE_IN, FIRST_PINNED = 100, 500
BYTES_A_FRAME, PEAK_PERCENT = 48, 130
GROWTH = {"query": (1_000_000, 16_000_000, 64_000_000), "move": (1_000_000, 4_000_000, 16_000_000)}
GROWTH_PERCENT = 150
ORACLE_PAGES = 100_000
ORACLE = Path(__file__).resolve().parents[1] / "tests" / "kernel"
BUDGET_S = 1.5
_ARGUMENT_BYTES = 16
_KERNELS = (LINUX_6_12, LINUX_2_6_18)


def benchmarks(pages: int = PAGES) -> list[Benchmark]:
    """Return the benchmarks of this group, for calls of so many pages."""
    return [
        Benchmark("model, query", lambda: _query(pages)),
        Benchmark("model, host kernel", lambda: _host(pages)),
        Benchmark("model, move", lambda: _move(pages)),
        Benchmark("model, 1 % shared", lambda: _shared(pages)),
        Benchmark("model, 1 % pinned", lambda: _pinned(pages)),
        Benchmark("model, stop", lambda: _stop(STOP_PAGES)),
        Benchmark("model, size", lambda: _size(pages)),
        Benchmark("model, oracle", lambda: _oracle(ORACLE_PAGES)),
        Benchmark("model, growth of a query", lambda: _growth("query", GROWTH["query"])),
        Benchmark("model, growth of a move", lambda: _growth("move", GROWTH["move"])),
    ]


def _query(pages: int) -> Iterator[Row]:
    call = Call.on(pages, LINUX_6_12)
    _require(holds=call.query() == 0 and not call.status.any(), what="find all pages on node 0")
    name = f"model, query, {pages:,} pages"
    yield _a_page(name, call, call.query, _nothing, QUERY_NS)
    yield _a_page(f"{name}, in random order", call, call.query, call.shuffle)


def _host(pages: int) -> Iterator[Row]:
    """Hold the model's query against that of the kernel this runs on, of pages of its own."""
    require(pages * mmap.PAGESIZE)
    memory = touched(pages)
    first = address_of(memory)
    addresses = np.arange(first, first + pages * mmap.PAGESIZE, mmap.PAGESIZE, dtype=np.uint64)
    status = np.empty(pages, dtype=np.int32)
    arrays = syscalls.address_of(addresses), syscalls.address_of(status)
    call = Call.on(pages, LINUX_6_12)

    def host() -> int:
        return syscalls.move_pages(0, pages, arrays[0], None, arrays[1], 0)

    timings = compare({"model": cpu_time(call.query), "host": cpu_time(host)}, BUDGET_S)
    memory.close()
    name = f"model, query, {pages:,} pages, and the host's"
    yield Row(name, timings["model"], Measure.RATIO, None, "host kernel", timings["host"])


def _move(pages: int) -> Iterator[Row]:
    for kernel in _KERNELS:
        call = Call.on(pages, kernel)
        name = f"model, move, {kernel.name}, {pages:,} pages"
        yield _moving(name, call, MOVE_NS)
        call.nodes[::2] = 1 - call.nodes[::2]
        call.move()  # from here on every second page is on the other node
        yield _moving(f"{name}, targets by turns", call, HARDER_NS)
        call.nodes[:] = 0
        call.move()
        yield _moving(f"{name}, in random order", call, None, call.shuffle)


def _shared(pages: int) -> Iterator[Row]:
    for kernel in _KERNELS:
        call = Call.on(pages, kernel, shared_every=ONE_IN)
        name = f"model, move, {kernel.name}, {pages:,} pages, 1 % shared"
        stay = len(call.addresses[::ONE_IN])
        yield _moving(f"{name}, MOVE", call, HARDER_NS, stay=stay)
        call.flags = int(MoveFlag.MOVE_ALL)
        call.move()  # all together on one node again
        yield _moving(f"{name}, MOVE_ALL", call, HARDER_NS)


def _pinned(pages: int) -> Iterator[Row]:
    call = Call.on(pages, LINUX_2_6_18)
    call.pin(ONE_IN, FIRST_PINNED)
    name = f"model, move, {LINUX_2_6_18.name}, {pages:,} pages, 1 % pinned"
    yield _moving(name, call, HARDER_NS, stay=len(call.addresses[FIRST_PINNED::ONE_IN]))


def _stop(sizes: tuple[int, ...]) -> Iterator[Row]:
    for pages in sizes:
        call = Call.on(pages, LINUX_6_12)
        call.pin(ONE_IN, FIRST_PINNED)

        def put_back(call: Call = call) -> None:
            call.nodes[:STOP_BATCH] = 0
            call.move(STOP_BATCH)
            call.nodes[:STOP_BATCH] = 1

        put_back()
        _require(holds=call.move() == 1 + pages - STOP_BATCH, what="stop at a pinned page")
        name = f"model, move, {LINUX_6_12.name}, {pages:,} pages, stops at the {FIRST_PINNED}th"
        cpu, wall = _timed(call.move, put_back)
        yield Row(name, cpu, Measure.OWN, STOP_MS, "wall clock", wall)


def _size(pages: int) -> Iterator[Row]:
    memory = Call.on(pages, LINUX_6_12).machine.memory
    frame = memory.frames.bytes_per_frame
    slot = (memory.tables.entry.nbytes + memory.tables.flags.nbytes) / memory.tables.used_slots
    both = "model, size, bytes a frame and a slot of a page table"
    yield Row("model, size, bytes a frame", round(frame), Measure.COUNT, BYTES_A_FRAME)
    yield Row(both, round(frame + slot), Measure.COUNT, BYTES_A_FRAME)
    for kernel in _KERNELS:
        name = f"model, size, {kernel.name}, peak of a"
        call = Call.on(pages, kernel)
        call.turn()
        yield _peak(f"{name} query", call, call.query)
        yield _peak(f"{name} move", call, call.move)
        call = Call.on(pages, kernel, shared_every=ONE_IN)
        call.turn()
        yield _peak(f"{name} move, 1 % shared", call, call.move)


def _oracle(pages: int) -> Iterator[Row]:
    """Hold calls against a page-at-a-time kernel in plain Python, which does them as well."""
    if not ORACLE.is_dir():
        raise LeftOutError("the tests, which have the oracle, are not here")
    sys.path.insert(0, str(ORACLE))
    try:
        import oracle
        from photograph import photograph
    finally:
        sys.path.remove(str(ORACLE))
    call = Call.on(pages, LINUX_6_12)
    world = photograph(call.machine)
    addresses = tuple(call.addresses.tolist())

    def asked() -> oracle.Answer:
        arguments = oracle.Call(
            caller=call.task.pid,
            pid=0,
            nr_pages=pages,
            pages=addresses,
            nodes=nodes,
            status_writable=pages,
            flags=call.flags if nodes else 0,
        )
        return oracle.move_pages("LINUX_6_12", world, arguments)

    def turn() -> None:
        nonlocal nodes
        call.turn()
        nodes = tuple(call.nodes.tolist())

    nodes: tuple[int, ...] | None = None
    for name, work, prepare in (
        ("query", call.query, _nothing),
        ("move", call.move, turn),
    ):
        samples = {"model": both_clocks(work, prepare)[0], "oracle": cpu_time(asked)}
        timings = compare(samples, BUDGET_S)
        _require(holds=list(asked().status.values()) == call.status.tolist(), what="do as it does")
        label = f"model, {name}, {pages:,} pages, and the oracle's"
        yield Row(label, timings["model"], Measure.SPEEDUP, None, "oracle", timings["oracle"])


def _growth(name: str, sizes: tuple[int, ...]) -> Iterator[Row]:
    """Measure ever longer calls: the cost of a page is not to grow with them."""
    first_ns = 0.0
    for pages in sizes:
        node_count = 1 if name == "query" else 2
        require(pages * (BYTES_A_FRAME * node_count + _ARGUMENT_BYTES))
        call = Call.on(pages, LINUX_6_12, node_count=node_count)
        work = call.query if name == "query" else call.move
        label = f"model, {name}, growth, {pages:,} pages"
        row = _a_page(label, call, work, _nothing if name == "query" else call.turn)
        del call, work  # before the next, larger one is made
        yield row
        if pages == sizes[0]:
            first_ns = row.value
            continue
        label = f"{label}: % of the cost a page at {sizes[0]:,}"
        percent = round(row.value / first_ns * 100)
        yield Row(label, percent, Measure.COUNT, GROWTH_PERCENT)


# -- what they share --------------------------------------------------------------------------


def _moving(
    name: str,
    call: Call,
    bar_ns: float | None,
    also: Callable[[], object] = lambda: None,
    stay: int = 0,
) -> Row:
    """Time a call that moves all pages but some to the other node, to and fro.

    Where some stay on node 0, only moves to node 1 are timed: for those back they are there.
    """

    def prepare() -> None:
        if stay:
            call.nodes[:] = 0
            call.move()
        call.turn()
        also()

    prepare()
    call.move()
    _require(holds=call.arrived() == len(call.addresses) - stay, what="move the pages")
    return _a_page(name, call, call.move, prepare, bar_ns)


def _a_page(
    name: str,
    call: Call,
    work: Callable[[], object],
    prepare: Callable[[], object],
    bar_ns: float | None = None,
) -> Row:
    cpu, wall = _timed(work, prepare)
    return Row(name, cpu, Measure.PER_PAGE, bar_ns, "wall clock", wall, len(call.addresses))


def _timed(work: Callable[[], object], prepare: Callable[[], object]) -> tuple[Timing, Timing]:
    cpu, wall = both_clocks(work, prepare)
    timings = compare({"cpu": cpu, "wall": wall}, BUDGET_S)
    return timings["cpu"], timings["wall"]


def _peak(name: str, call: Call, work: Callable[[], object]) -> Row:
    """Hold the memory of the machine's arrays and of a call at its peak against the arrays."""
    memory = call.machine.memory
    tables = memory.tables.entry.nbytes + memory.tables.flags.nbytes
    arrays = len(memory.frames) * memory.frames.bytes_per_frame + tables
    percent = round((arrays + _peak_bytes(work)) / arrays * 100)
    return Row(f"{name}, % of the arrays", percent, Measure.COUNT, PEAK_PERCENT)


def _peak_bytes(work: Callable[[], object]) -> int:
    """Return how much memory some work needs at its peak, beyond what was there before."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def _nothing() -> None:
    """Prepare nothing."""


def _require(*, holds: bool, what: str) -> None:
    """Raise AssertionError unless a call did what it is measured for."""
    if not holds:
        raise AssertionError(f"the model did not {what}: nothing can be said of its speed")

"""Rows about single pages: what an address is, and what may be done with the page there."""

from __future__ import annotations

from errno import EACCES, EBUSY, EFAULT, ENOENT, EPERM

import numpy as np

from decision.bench import MOVE, MOVE_ALL, Bench, Outcome, Row, U
from movepages.kernel.address_space import Prot
from movepages.kernel.mappings import Backing

KERNEL_ADDRESS = 0xFFFF_8000_0000_0000
VSYSCALL = 0xFFFF_FFFF_FF60_0000


def _query(text: str, scenario: object, *statuses: int) -> Row:
    """A query of one page: status as documented, as coded, today; or one for all."""
    documented, coded, modern = statuses if len(statuses) == 3 else statuses * 3
    columns = (Outcome(0, [status]) for status in (documented, coded, modern))
    return Row(f"{text}: query", lambda b: b.query([scenario(b)]), *columns)


def _alone(text: str, scenario: object, modern: int) -> Row:
    """A move of one page in which nothing moves: -ENOENT in 2006 and no status; today a status."""
    nothing = Outcome(-ENOENT, [U])
    return Row(
        f"{text}: alone in move",
        lambda b: b.move([scenario(b)], 1),
        nothing,
        nothing,
        Outcome(0, [modern]),
    )


def _beside(text: str, scenario: object, *statuses: int) -> Row:
    """A move of one page with another that moves, so that statuses are stored."""
    documented, coded, modern = statuses if len(statuses) == 3 else statuses * 3
    columns = (Outcome(0, [status, 1]) for status in (documented, coded, modern))

    def beside(bench: Bench) -> Outcome:
        other = bench.anon()
        return bench.move([scenario(bench), *other], 1)

    return Row(f"{text}: move", beside, *columns)


def _swapped_out(bench: Bench) -> int:
    where = bench.anon()
    bench.machine.memory.drain()
    assert bench.machine.memory.swap.reclaim(0, 1) == 1
    return where[0]


def _swap_bench(bench: Bench) -> Outcome:
    swapping = bench.again(swap_bytes=1 << 20)
    return swapping.query([_swapped_out(swapping)])


def _dontneed(bench: Bench) -> int:
    where = bench.anon()
    bench.process.madvise(where[0], 1, "dontneed")
    return where[0]


def _cached_only(bench: Bench) -> int:
    """In the page cache through another mapping, not mapped here."""
    file = bench.machine.file("f", 1, Backing.BUFFERS)
    bench.process.read(bench.mapped(file)[0])
    return bench.mapped(file)[0]


def _past_eof(bench: Bench) -> int:
    file = bench.machine.file("f", 1, Backing.BUFFERS)
    return bench.process.mmap(2, shared=True, file=file) + bench.machine.page_size_bytes


def _under_migration(bench: Bench) -> int:
    where = bench.anon()
    bench.isolate(where[0])
    bench.machine.memory.rmap.try_to_unmap(np.array([bench.pfn(where[0])]))
    return where[0]


def _prot_none(bench: Bench) -> int:
    where = bench.anon()
    bench.process.mprotect(where[0], 1, Prot.NONE)
    return where[0]


def _device(bench: Bench) -> int:
    return bench.process.mmap(1, device=True)


def _above_all(bench: Bench) -> int:
    bench.anon()
    return (1 << 47) - bench.machine.page_size_bytes


def _shared(bench: Bench, target: int, flags: int) -> Outcome:
    """A private page that fork left shared, on node 0."""
    where = bench.anon()
    child = bench.process.fork()
    found = bench.move(where, target, flags)
    return Outcome(found.ret, found.status, [bench.node(where[0]), bench.node(where[0], child)])


def _shared_beside(bench: Bench, target: int) -> Outcome:
    where = bench.anon()
    bench.process.fork()
    return bench.move([*where, *bench.anon()], [target, 1])


def _memfd_twice(bench: Bench) -> Outcome:
    file = bench.machine.shmem_file(1)
    first, second = (bench.mapped(file)[0] for _ in range(2))
    bench.process.write(first)
    bench.process.read(second)
    return bench.move([first, *bench.anon()], 1)


def _mlocked(bench: Bench) -> Outcome:
    where = bench.anon()
    bench.process.mlock(where[0], 1)
    return bench.move(where, 1)


def _off_lru(bench: Bench) -> Outcome:
    where = bench.anon()
    bench.isolate(where[0])
    return bench.move([*where, *bench.anon()], 1)


ABSENT = "swapped out, MADV_DONTNEED, file page in cache but not mapped, past EOF"
DEVICE = "VM_PFNMAP/VM_IO (vvar)"
ABOVE = "above the last VMA, kernel address, vsyscall"
ON_TARGET = "already on target"
SHARED = "shared (mapcount > 1), elsewhere, MOVE"
NOTHING = Outcome(-ENOENT, [U])

ROWS = (
    _query("query, page mapped", lambda b: b.anon(on=2)[0], 2),
    _query("never-touched anon, query or move", Bench.untouched, -ENOENT),
    _alone("never-touched anon, query or move", Bench.untouched, -ENOENT),
    _beside("never-touched anon, query or move", Bench.untouched, -ENOENT),
    _query("zero page", Bench.zero, -EFAULT, -ENOENT, -EFAULT),
    _alone("zero page", Bench.zero, -EFAULT),
    _beside("zero page", Bench.zero, -EFAULT, -ENOENT, -EFAULT),
    _query("hole below some VMA", Bench.hole, -EFAULT, -ENOENT, -EFAULT),
    _beside("hole below some VMA", Bench.hole, -EFAULT, -ENOENT, -EFAULT),
    _query(f"{ABOVE} (1)", _above_all, -EFAULT),
    _query(f"{ABOVE} (2)", lambda _: KERNEL_ADDRESS, -EFAULT),
    _query(f"{ABOVE} (3)", lambda _: VSYSCALL, -EFAULT),
    _beside(f"{ABOVE} (1)", _above_all, -EFAULT),
    _beside(f"{ABOVE} (2)", lambda _: KERNEL_ADDRESS, -EFAULT),
    Row(f"{ABSENT} (1): query", _swap_bench, *[Outcome(0, [-ENOENT])] * 3),
    _query(f"{ABSENT} (2)", _dontneed, -ENOENT),
    _beside(f"{ABSENT} (2)", _dontneed, -ENOENT),
    _query(f"{ABSENT} (3)", _cached_only, -ENOENT),
    _beside(f"{ABSENT} (3)", _cached_only, -ENOENT),
    _query(f"{ABSENT} (4)", _past_eof, -ENOENT),
    _beside(f"{ABSENT} (4)", _past_eof, -ENOENT),
    _query("page under migration by someone else", _under_migration, -ENOENT),
    _beside("page under migration by someone else", _under_migration, -ENOENT),
    _query("PROT_NONE but touched", _prot_none, 0),
    _beside("PROT_NONE but touched", _prot_none, 1),
    _query("unaligned address", lambda b: b.anon(on=3)[0] + 1234, 3),
    _beside("unaligned address", lambda b: b.anon()[0] + 1234, 1),
    _query(DEVICE, _device, -ENOENT),
    _beside(DEVICE, _device, -ENOENT, -ENOENT, -EFAULT),
    _alone(f"{ON_TARGET}, alone", lambda b: b.anon(on=1)[0], 1),
    _beside(f"{ON_TARGET}, with others that move", lambda b: b.anon(on=1)[0], 1),
    Row(
        f"{SHARED}: alone",
        lambda b: _shared(b, 1, MOVE),
        Outcome(-ENOENT, [U], [0, 0]),
        Outcome(-ENOENT, [U], [0, 0]),
        Outcome(0, [-EACCES], [0, 0]),
    ),
    Row(SHARED, lambda b: _shared_beside(b, 1), *[Outcome(0, [-EACCES, 1])] * 3),
    Row("shared, on target already", lambda b: _shared_beside(b, 0), *[Outcome(0, [0, 1])] * 3),
    Row("shared, MOVE_ALL", lambda b: _shared(b, 1, MOVE_ALL), *[Outcome(0, [1], [1, 1])] * 3),
    Row(
        "memfd page mapped twice in one process, MOVE",
        _memfd_twice,
        Outcome(0, [1, 1]),
        Outcome(0, [-EACCES, 1]),
        Outcome(0, [-EACCES, 1]),
    ),
    Row(
        "mlocked",
        _mlocked,
        Outcome(0, [-EPERM]),
        Outcome(1, [-EPERM]),
        Outcome(0, [1]),
        release=Outcome(0, [1]),
    ),
    Row("private anon on node 0 to 1", lambda b: b.move(b.anon(), 1), *[Outcome(0, [1])] * 3),
    Row("page not on LRU (isolated elsewhere)", _off_lru, *[Outcome(0, [-EBUSY, 1])] * 3),
)

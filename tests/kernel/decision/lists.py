"""Rows about lists: what entries do to one another; duplicates, huge and merged pages."""

from __future__ import annotations

from errno import EACCES, EBUSY, EFAULT, ENOENT

from decision.bench import MOVE, MOVE_ALL, Bench, Outcome, Row
from movepages.kernel.mappings import Backing

HUGE = 512
"""Pages of a THP and of a hugetlb page, at 4 KiB."""


def _same(text: str, scenario: object, outcome: Outcome) -> Row:
    return Row(text, scenario, outcome, outcome, outcome)


def _mixed(bench: Bench) -> Outcome:
    """[touched, untouched, zero, hole, touched]."""
    first, last = bench.anon()[0], bench.anon()[0]
    return bench.move([first, bench.untouched(), bench.zero(), bench.hole(), last], 1)


def _three_times(bench: Bench) -> Outcome:
    return bench.move(bench.anon() * 3, 1)


def _by_turns(bench: Bench) -> Outcome:
    p, q = bench.anon(2)
    return bench.move([p, q, p, q], 1)


def _conflicting(bench: Bench, *nodes: int) -> Outcome:
    """One page on node 0, twice, to two nodes; and where it is then."""
    where = bench.anon()
    found = bench.move(where * 2, nodes)
    return Outcome(found.ret, found.status, [bench.node(where[0])])


def _thp(bench: Bench, topology: str = "4 x 16M") -> tuple[Bench, list[int]]:
    """A bench with a THP on node 0, and the addresses of all its pages."""
    large = bench.again(topology)
    address = large.process.mmap(HUGE)
    large.process.madvise(address, HUGE, "hugepage")
    large.process.write(address, HUGE)
    return large, large.addresses(address, HUGE)


def _thp_first_four(bench: Bench) -> Outcome:
    large, where = _thp(bench)
    return large.move(where[:4], 1)


def _thp_all(bench: Bench) -> Outcome:
    large, where = _thp(bench)
    found = large.move(where, 1)
    order = int(large.machine.memory.frames.order[large.pfn(where[7])])
    return Outcome(found.ret, found.status, besides=[order])  # not split


def _thp_tail(bench: Bench) -> Outcome:
    large, where = _thp(bench)
    found = large.move(where[77:78], 1)
    return Outcome(found.ret, found.status, [large.node(where[0]), large.node(where[-1])])


def _hugetlb(bench: Bench) -> Outcome:
    """A hugetlb page to a node with an empty pool: statuses, and the sizes of the two pools."""
    large = bench.again("2 x 16M")
    large.machine.resize_pool(0, 1)
    address = large.process.mmap(HUGE, huge=True)
    large.process.write(address, HUGE)
    found = large.move(large.addresses(address, 2), 1)
    order = large.machine.thp_order
    totals = [large.machine.memory.pools.pool(node, order).total for node in (0, 1)]
    return Outcome(found.ret, found.status, besides=totals)


def _ksm(bench: Bench, flags: int) -> Outcome:
    """A page that two processes' equal pages were merged into."""
    other = bench.machine.spawn()
    wheres = []
    for task in (bench.process, other):
        where = bench.anon(task=task)
        task.poke(where[0], [77])
        task.madvise(where[0], 1, "mergeable")
        wheres.append(where[0])
    assert bench.machine.merge() == 1
    found = bench.move(wheres[:1], 1, flags)
    nodes = [bench.node(wheres[0]), bench.node(wheres[1], other)]
    return Outcome(found.ret, found.status, nodes)


def _vdso(bench: Bench, flags: int | None) -> Outcome:
    """The kernel's own page, on node 0: query, or move with another page to node 1."""
    where = bench.process.map_vdso()
    if flags is None:
        return bench.query([where])
    return bench.move([where, *bench.anon()], 1, flags)


def _clean(bench: Bench, backing: Backing) -> Outcome:
    """A file page mapped once, by a file system that moves it or does not have to."""
    where = bench.mapped(bench.machine.file("f", 1, backing))
    bench.process.read(where[0])
    return bench.move(where, 1)


def _dirty(bench: Bench, backing: Backing) -> Outcome:
    return bench.move(bench.dirty(backing), 1)


FILES = "tmpfs, ext4 dirty shared, fuse clean file pages mapped once"
THP = "THP [head, +1, +2, +3] to 1"
VDSO = "vDSO page"

ROWS = (
    Row(
        "[touched, untouched, zero, hole, touched] to 1",
        _mixed,
        Outcome(0, [1, -ENOENT, -EFAULT, -EFAULT, 1]),
        Outcome(0, [1, -ENOENT, -ENOENT, -ENOENT, 1]),
        Outcome(0, [1, -ENOENT, -EFAULT, -EFAULT, 1]),
    ),
    Row(
        "duplicate [p p p] to 1",
        _three_times,
        Outcome(0, [1, -EBUSY, -EBUSY]),
        Outcome(0, [1, -EBUSY, -EBUSY]),
        Outcome(0, [1, -EBUSY, 1]),
    ),
    Row(
        "[p q p q] to 1",
        _by_turns,
        Outcome(0, [1, 1, -EBUSY, -EBUSY]),
        Outcome(0, [1, 1, -EBUSY, -EBUSY]),
        Outcome(0, [1, 1, -EBUSY, 1]),
    ),
    Row(
        "conflicting [p->1, p->0], p on 0",
        lambda b: _conflicting(b, 1, 0),
        Outcome(0, [1, 0], [1]),
        Outcome(0, [1, 0], [1]),
        Outcome(0, [1, 0], [0]),
    ),
    Row(
        "conflicting [p->0, p->1], p on 0",
        lambda b: _conflicting(b, 0, 1),
        Outcome(0, [0, 0], [0]),
        Outcome(0, [0, 0], [0]),
        Outcome(0, [0, 1], [1]),
    ),
    Row(THP, _thp_first_four, None, None, Outcome(0, [1, -EBUSY, 1, 1])),
    Row(f"{THP}: all 512", _thp_all, None, None, Outcome(0, [1, -EBUSY, *[1] * 510], besides=[9])),
    Row("THP, one tail address", _thp_tail, None, None, Outcome(0, [1], [1, 1])),
    Row(
        "hugetlb [head, tail] to 1, empty pool there",
        _hugetlb,
        None,
        None,
        Outcome(0, [1, -EBUSY], besides=[0, 1]),
    ),
    Row("KSM page MOVE", lambda b: _ksm(b, MOVE), None, None, Outcome(0, [-EACCES], [0, 0])),
    Row("KSM page MOVE_ALL", lambda b: _ksm(b, MOVE_ALL), None, None, Outcome(0, [1], [1, 1])),
    _same(f"{VDSO}: query", lambda b: _vdso(b, None), Outcome(0, [0])),
    _same(f"{VDSO}: move, elsewhere", lambda b: _vdso(b, MOVE), Outcome(0, [-EACCES, 1])),
    _same(f"{VDSO}: MOVE_ALL", lambda b: _vdso(b, MOVE_ALL), Outcome(0, [-EBUSY, 1])),
    _same(f"{FILES}: tmpfs", lambda b: _dirty(b, Backing.SHMEM), Outcome(0, [1])),
    _same(f"{FILES}: ext4 dirty", lambda b: _dirty(b, Backing.BUFFERS), Outcome(0, [1])),
    _same(f"{FILES}: fuse clean", lambda b: _clean(b, Backing.NO_METHOD), Outcome(0, [1])),
)

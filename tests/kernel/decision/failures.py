"""Rows about pages that do not move: pinned and busy ones, full nodes, files that refuse."""

from __future__ import annotations

from errno import EAGAIN, EBUSY, EFAULT, EINVAL, EIO, ENODEV, ENOENT, ENOMEM

from decision.bench import Bench, Outcome, Row, U
from movepages.kernel.mappings import Backing

NODE_PAGES = 64


def _same(text: str, scenario: object, outcome: Outcome) -> Row:
    return Row(text, scenario, outcome, outcome, outcome)


def _pinned_alone(bench: Bench) -> Outcome:
    where = bench.anon()
    bench.pin(where[0])
    return bench.move_and_look(where, 1)


def _locked_for_good(bench: Bench) -> Outcome:
    """A page whose lock is held until the kernel waits for it, in the fourth pass: it moves."""
    where = bench.anon()
    bench.lock(where[0])
    return bench.move_and_look(where, 1)


def _pinned_first(bench: Bench) -> Outcome:
    where = bench.anon(3)
    bench.pin(where[0])
    return bench.move_and_look(where, 1)


def _pinned_then_hole(bench: Bench) -> Outcome:
    pinned, ok, hole = bench.anon()[0], bench.anon()[0], bench.hole()
    bench.pin(pinned)
    found = bench.move([pinned, hole, ok], 1)
    return Outcome(found.ret, found.status, [bench.node(pinned), bench.node(ok)])


def _pinned_third(bench: Bench) -> Outcome:
    """[ok->1, ok->0, pinned->1, ok->0]; the second and fourth are on node 2."""
    first, second, pinned, last = bench.anon(), bench.anon(on=2), bench.anon(), bench.anon(on=2)
    bench.pin(pinned[0])
    return bench.move_and_look([*first, *second, *pinned, *last], [1, 0, 1, 0])


def _three_pinned(bench: Bench) -> Outcome:
    pinned, there = bench.anon(3), bench.anon(17, on=1)
    for address in pinned:
        bench.pin(address)
    return bench.move([*pinned, *there], 1)


def _pinned_then_offline(bench: Bench) -> Outcome:
    where = bench.anon(2)
    bench.pin(where[0])
    return bench.move_and_look(where, [1, 9])


def _full(bench: Bench) -> Outcome:
    """Four pages to node 1, which has room for two; the next to be asked is node 2."""
    small = bench.again(f"3 x {NODE_PAGES * 4}K")
    where = small.anon(4)
    small.fill(0, leave=0)
    small.fill(1, leave=2)
    return small.move_and_look(where, 1)


def _all_full(bench: Bench) -> Outcome:
    """A page to node 1, on a machine without a free page."""
    small = bench.again(f"2 x {NODE_PAGES * 4}K")
    where = small.anon()
    small.fill(0, leave=0)
    small.fill(1, leave=0)
    return small.move_and_look(where, 1)


def _earlier_batch(bench: Bench) -> Outcome:
    """[ok->2, then three to node 1, which has room for two]."""
    small = bench.again(f"3 x {NODE_PAGES * 4}K")
    where = small.anon(4)
    small.fill(0, leave=0)
    small.fill(1, leave=2)
    return small.move_and_look(where, [2, 1, 1, 1])


def _full_thp(bench: Bench) -> Outcome:
    """A THP to a node that has room for a few pages only: it is split, and the rest stays."""
    large = bench.again("2 x 16M")
    address = large.process.mmap(512)
    large.process.madvise(address, 512, "hugepage")
    large.process.write(address, 512)
    large.fill(1, leave=8)
    found = large.move([address], 1)
    return Outcome(int(found.ret > 0), found.status)


def _full_with_swap(bench: Bench) -> Outcome:
    """Eight pages to node 1, full of pages that reclaim can write to swap; and whether it did."""
    small = bench.again(f"2 x {NODE_PAGES * 4}K", swap_bytes=1 << 20)
    free = small.machine.memory.frames.nodes[1].free_pages
    there = small.anon(free, on=1)
    found = small.move_and_look(small.anon(8), 1)
    gone = small.query(there).status.count(-ENOENT)
    return Outcome(found.ret, found.status, found.nodes, besides=[int(gone >= 8)])


def _dirty(bench: Bench, backing: Backing) -> Outcome:
    return bench.move_and_look(bench.dirty(backing), 1)


def _secret(bench: Bench) -> Outcome:
    """Memory of which no page ever moves."""
    return bench.move_and_look(bench.dirty(Backing.REFUSES), 1)


ROWS = (
    Row(
        "busy/pinned page alone",
        _pinned_alone,
        Outcome(0, [-EBUSY], [0]),
        Outcome(1, [-EAGAIN], [0]),
        Outcome(1, [U], [0]),
    ),
    _same("busy page whose lock is given up", _locked_for_good, Outcome(0, [1], [1])),
    Row(
        "[pinned, ok, ok] to 1",
        _pinned_first,
        Outcome(0, [-EBUSY, 1, 1], [0, 1, 1]),
        Outcome(1, [-EAGAIN, 1, 1], [0, 1, 1]),
        Outcome(1, [U, U, U], [0, 1, 1]),
    ),
    Row(
        "[pinned, hole, ok] to 1",
        _pinned_then_hole,
        Outcome(0, [-EBUSY, -EFAULT, 1], [0, 1]),
        Outcome(1, [-EAGAIN, -ENOENT, 1], [0, 1]),
        Outcome(2, [U, -EFAULT, U], [0, 0]),
    ),
    Row(
        "[ok->1, ok->0, pinned->1, ok->0]",
        _pinned_third,
        Outcome(0, [1, 0, -EBUSY, 0], [1, 0, 0, 0]),
        Outcome(1, [1, 0, -EAGAIN, 0], [1, 0, 0, 0]),
        Outcome(2, [1, 0, U, U], [1, 0, 0, 2]),
    ),
    Row(
        "3 pinned then 17 already on target",
        _three_pinned,
        Outcome(0, [-EBUSY] * 3 + [1] * 17),
        Outcome(3, [-EAGAIN] * 3 + [1] * 17),
        Outcome(19, [U] * 3 + [1] + [U] * 16),
    ),
    _same(
        "[pinned->1, ok->offline node]",
        _pinned_then_offline,
        Outcome(-ENODEV, [U, U], [0, 0]),
    ),
    Row(
        "target full, base pages, no swap",
        _full,
        Outcome(0, [1, 1, -ENOMEM, -ENOMEM], [1, 1, 0, 0]),
        Outcome(0, [1, 1, 2, 2], [1, 1, 2, 2]),
        Outcome(-ENOMEM, [U] * 4, [1, 1, 0, 0]),
    ),
    Row(
        "target full: earlier batches stored",
        _earlier_batch,
        Outcome(0, [2, 1, 1, -ENOMEM], [2, 1, 1, 0]),
        Outcome(0, [2, 1, 1, 2], [2, 1, 1, 2]),
        Outcome(-ENOMEM, [2, U, U, U], [2, 1, 1, 0]),
    ),
    Row(
        "target full, base pages, no swap: machine full",
        _all_full,
        Outcome(0, [-ENOMEM], [0]),
        Outcome(-ENOMEM, [U], [0]),
        Outcome(-ENOMEM, [U], [0]),
    ),
    Row("target full, THPs", _full_thp, None, None, Outcome(1, [U])),
    Row(
        "target full, swap present",
        _full_with_swap,
        None,
        None,
        Outcome(0, [1] * 8, [1] * 8, besides=[1]),
    ),
    _same(
        "dirty file page, no migrate hook, writepage ok",
        lambda b: _dirty(b, Backing.NO_METHOD),
        Outcome(0, [1], [1]),
    ),
    Row(
        "dirty, no writepage",
        lambda b: _dirty(b, Backing.NO_WRITEPAGE),
        Outcome(0, [-EINVAL], [0]),
        Outcome(1, [-EINVAL], [0]),
        Outcome(1, [U], [0]),
    ),
    Row(
        "dirty, writepage error",
        lambda b: _dirty(b, Backing.WRITE_FAILS),
        Outcome(0, [-EIO], [0]),
        Outcome(1, [-EIO], [0]),
        Outcome(1, [U], [0]),
    ),
    Row(
        "memfd_secret page to another node",
        _secret,
        Outcome(0, [-EIO], [0]),  # fail_migrate_page, as of XFS's buffers (D22)
        Outcome(1, [-EIO], [0]),
        Outcome(1, [U], [0]),
    ),
)

"""Rows about arguments, rights and arrays: what is decided before any page is looked at."""

from __future__ import annotations

from errno import E2BIG, EACCES, EFAULT, EINVAL, ENODEV, ENOENT, ENOMEM, EPERM, ESRCH

from decision.bench import MOVE, MOVE_ALL, Bench, Outcome, Row, U
from movepages.kernel.tasks import Cpuset
from movepages.nodeset import NodeSet


def _same(text: str, scenario: object, outcome: Outcome) -> Row:
    """A row in which all kernels agree."""
    return Row(text, scenario, outcome, outcome, outcome)


def _refused(errno: int, elements: int = 1) -> Outcome:
    return Outcome(-errno, [U] * elements)


def _user_on_root(bench: Bench, flags: int, pid: int) -> Outcome:
    """A caller without capabilities, on a process by pid."""
    user = bench.machine.spawn(uid=1000)
    return bench.move(bench.anon(), 1, flags, pid=pid, task=user)


def _kernel_thread_as_user(bench: Bench) -> Outcome:
    return _user_on_root(bench, MOVE, 2)


def _zombie(bench: Bench) -> Outcome:
    child = bench.process.fork()
    child.exit()
    return bench.move(bench.anon(), 1, pid=child.pid)


def _not_dumpable(bench: Bench) -> Outcome:
    caller, target = (bench.machine.spawn(uid=1000) for _ in range(2))
    where = bench.anon(task=target)
    target.set_dumpable(dumpable=False)
    return bench.move(where, 1, pid=target.pid, task=caller)


def _flags_zero(bench: Bench) -> Outcome:
    return bench.move(bench.anon(2), 1, 0)


def _absurd_count(bench: Bench, nr_pages: int) -> Outcome:
    small = bench.again(vmalloc_limit_bytes=1 << 30)
    return small.raw(small.anon(2), [1, 1], nr_pages=nr_pages)


def _offline(bench: Bench) -> Outcome:
    """[1 1 9 2]: node 9 never existed."""
    where = bench.anon(4)
    found = bench.move(where, [1, 1, 9, 2])
    return Outcome(found.ret, found.status, [bench.node(address) for address in where])


def _without_memory(bench: Bench) -> Outcome:
    """Node 1 is online and has none; the next to be asked is node 2."""
    small = bench.again("1x(1cpu,4M) + 1x(1cpu,0) + 1x(1cpu,4M)")
    where = small.anon()
    return small.move(where, 1)


def _outside_cpuset(bench: Bench) -> Outcome:
    inside = bench.machine.spawn(cpuset=Cpuset(NodeSet([0, 1])))
    where = bench.anon(3, task=inside)
    found = bench.move(where, [1, 2, 1], pid=inside.pid)
    return Outcome(found.ret, found.status, [bench.node(a, inside) for a in where])


def _offline_outside_cpuset(bench: Bench) -> Outcome:
    inside = bench.machine.spawn(cpuset=Cpuset(NodeSet([0, 1])))
    return bench.move(bench.anon(task=inside), 9, pid=inside.pid)


def _arrays(bench: Bench, **ends: int) -> Outcome:
    """Four pages on node 0 to node 1, with an array that ends."""
    where = bench.anon(4)
    found = bench.raw(where, [1] * 4, **ends)
    return Outcome(found.ret, found.status, [bench.node(address) for address in where])


def _query_arrays(bench: Bench, **ends: int) -> Outcome:
    """Twenty pages on node 0, in a query."""
    return bench.raw(bench.anon(20), None, **ends)


_NOTHING_MOVED = Outcome(-EFAULT, [U] * 4, [0] * 4)

ROWS = (
    _same(
        "flags with other bits",
        lambda b: b.move(b.anon(), 1, 1),
        _refused(EINVAL),
    ),
    _same("bad flags and bogus pid", lambda b: b.move(b.anon(), 1, 8, pid=9999), _refused(EINVAL)),
    _same("flags 0", _flags_zero, Outcome(0, [1, 1])),
    _same(
        "MOVE_ALL, no CAP_SYS_NICE",
        lambda b: _user_on_root(b, MOVE_ALL, 0),
        _refused(EPERM),
    ),
    _same(
        "MOVE_ALL, no CAP_SYS_NICE: before pid lookup",
        lambda b: _user_on_root(b, MOVE_ALL, 9999),
        _refused(EPERM),
    ),
    _same(
        "MOVE_ALL, no CAP_SYS_NICE: query too",
        lambda b: b.query([0], MOVE_ALL, task=b.machine.spawn(uid=1000)),
        _refused(EPERM),
    ),
    _same("pid unknown or negative: unknown", lambda b: b.move([0], 1, pid=9999), _refused(ESRCH)),
    _same("pid unknown or negative: negative", lambda b: b.move([0], 1, pid=-5), _refused(ESRCH)),
    _same("kernel thread, privileged", lambda b: b.move([0], 1, pid=2), _refused(EINVAL)),
    Row(
        "kernel thread, not privileged",
        _kernel_thread_as_user,
        _refused(EINVAL),
        _refused(EINVAL),
        _refused(EPERM),
    ),
    _same("zombie", _zombie, _refused(EINVAL)),
    _same("other user's process", lambda b: _user_on_root(b, MOVE, 1), _refused(EPERM)),
    Row(
        "same uid, target not dumpable",
        _not_dumpable,
        Outcome(0, [1]),
        Outcome(0, [1]),
        _refused(EPERM),
    ),
    _same("nr_pages 0, nodes NULL", lambda b: b.raw([], None), Outcome(0, [])),
    Row(
        "nr_pages 0, nodes given",
        lambda b: b.raw([], []),
        Outcome(-ENOENT, []),
        Outcome(-ENOENT, []),
        Outcome(0, []),
    ),
    Row(
        "nr_pages absurd: at the limit",
        lambda b: _absurd_count(b, (2**64 - 1) // 24 - 1),
        _refused(E2BIG, 2),
        _refused(E2BIG, 2),
        Outcome(-EFAULT, [1, 1]),
    ),
    Row(
        "nr_pages absurd: below it",
        lambda b: _absurd_count(b, (2**64 - 1) // 24 - 2),
        _refused(ENOMEM, 2),
        _refused(ENOMEM, 2),
        Outcome(-EFAULT, [1, 1]),
    ),
    Row(
        "pages unreadable at k: move",
        lambda b: _arrays(b, readable=2),
        _NOTHING_MOVED,
        _NOTHING_MOVED,
        Outcome(-EFAULT, [1, 1, U, U], [1, 1, 0, 0]),
    ),
    Row(
        "pages unreadable at k: query",
        lambda b: _query_arrays(b, readable=18),
        _refused(EFAULT, 20),
        _refused(EFAULT, 20),
        Outcome(-EFAULT, [0] * 16 + [U] * 4),
    ),
    Row(
        "nodes unreadable at k",
        lambda b: _arrays(b, named=3),
        _NOTHING_MOVED,
        _NOTHING_MOVED,
        Outcome(-EFAULT, [1, 1, 1, U], [1, 1, 1, 0]),
    ),
    Row(
        "status not writable at k",
        lambda b: _arrays(b, writable=2),
        Outcome(-EFAULT, [1, 1, U, U], [1] * 4),
        Outcome(-EFAULT, [1, 1, U, U], [1] * 4),
        Outcome(-EFAULT, [1, 1, U, U], [1] * 4),
    ),
    *(
        _same(f"node negative / >= MAX_NUMNODES: {node}", scenario, _refused(ENODEV))
        for node in (-1, -(2**31), 1024, 2**31 - 1)
        for scenario in [lambda b, n=node: b.move(b.anon(), n)]
    ),
    Row(
        "node offline at index k",
        _offline,
        Outcome(-ENODEV, [U] * 4, [0] * 4),
        Outcome(-ENODEV, [U] * 4, [0] * 4),
        Outcome(-ENODEV, [1, 1, U, U], [1, 1, 0, 0]),
    ),
    Row(
        "node online, no memory",
        _without_memory,
        Outcome(0, [-ENOMEM]),  # allowed; then the text's status: no memory on the target
        Outcome(0, [2]),
        _refused(ENODEV),
    ),
    Row(
        "node outside target's cpuset",
        _outside_cpuset,
        Outcome(-EACCES, [U] * 3, [0] * 3),
        Outcome(-EACCES, [U] * 3, [0] * 3),
        Outcome(-EACCES, [1, U, U], [1, 0, 0]),
    ),
    _same("order offline vs cpuset", _offline_outside_cpuset, _refused(ENODEV)),
)

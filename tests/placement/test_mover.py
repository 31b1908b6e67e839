"""The mover's account, on a machine in memory that behaves as Linux 6.12, and on this one.

The machine in memory is held to rows that were observed on Linux 6.12.117, so that what the mover
does on it means something; the lab's tests repeat the essential cases on that kernel itself.
"""

from __future__ import annotations

import numpy as np
import pytest
from guestkit.memory import unmap
from guestkit.pages import PAGE_BYTES
from hypothesis import given, settings, strategies as st

from movepages.abi import UNWRITTEN, Errno, MoveFlag
from movepages.errors import (
    ArgumentError,
    InvalidCallError,
    NoSuchNodeError,
    NoSuchProcessError,
    OutsideCpusetError,
    call_error,
)
from movepages.linux.machine import LinuxMachine
from movepages.linux.page_calls import unwritten
from movepages.placement import mover
from movepages.values import CallResult

MOVE, MOVE_ALL = MoveFlag.MOVE, MoveFlag.MOVE_ALL
PLENTY = 10**9


class HonestMachine:
    """Pages on nodes, and move_pages(2) as mm/migrate.c of Linux 6.12 has it.

    A page is where `node_of` says, by its address; what is not in there was never touched. `folio`
    gives the first address of the folio that an address belongs to. `room` is free pages by node;
    the nodes in it are those with memory.
    """

    page_size_bytes = PAGE_BYTES

    def __init__(self, node_of, *, room=None, pinned=(), shared=(), zero=(), folio=None):
        """Take the pages, each kind as addresses."""
        self.node_of = dict(node_of)
        self.room = dict(room or dict.fromkeys(range(4), PLENTY))
        self.pinned, self.shared, self.zero = set(pinned), set(shared), set(zero)
        self.folio = folio or {}
        self.allowed = set(self.room)
        self.calls = 0
        self.lives_for = PLENTY
        """Calls until the process ends."""

    def query_pages(self, pid, addresses):
        """Return where pages are."""
        status = unwritten(len(addresses))
        self._count_call(pid, status)
        status[:] = [self._node(address) for address in addresses.tolist()]
        return CallResult(0, status)

    def move_pages(self, pid, addresses, nodes, flags):
        """Move pages: do_pages_move() of mm/migrate.c. A call about nothing costs as much."""
        assert len(addresses)
        status = unwritten(len(addresses))
        self._count_call(pid, status)
        ret = self._walk(addresses.tolist(), nodes.tolist(), flags, status)
        return CallResult(ret, status).check("move_pages", pid=pid)

    def _count_call(self, pid, status):
        self.calls += 1
        if self.calls > self.lives_for:
            result = CallResult(-Errno.ESRCH, status)
            raise call_error(-Errno.ESRCH, "move_pages", pid=pid, result=result)

    def _head(self, address):
        return self.folio.get(address, address)

    def _node(self, address):
        if address in self.zero:
            return -Errno.EFAULT
        return self.node_of.get(self._head(address), -Errno.ENOENT)

    def _walk(self, addresses, nodes, flags, status):
        batch, target = [], None
        for index, (address, node) in enumerate(zip(addresses, nodes, strict=True)):
            error = self._refusal(node)
            if error:
                self._flush(batch, target, addresses, status)
                return error
            if node != target:
                failed = self._flush(batch, target, addresses, status)
                if failed:
                    return failed if failed < 0 else failed + len(addresses) - index
                batch, target = [], node
            said = self._isolate(address, node, flags, [addresses[i] for i in batch])
            if said is None:
                batch.append(index)
                continue
            status[index] = said
            failed = self._flush(batch, target, addresses, status)
            if failed:
                return failed if failed < 0 else failed + len(addresses) - index - 1
            batch = []
        return self._flush(batch, target, addresses, status)

    def _refusal(self, node):
        if node not in self.room:
            return -Errno.ENODEV
        return 0 if node in self.allowed else -Errno.EACCES

    def _isolate(self, address, node, flags, batch):
        where = self._node(address)
        if where < 0 or where == node:
            return where
        if self._head(address) in self.shared and not flags & MOVE_ALL:
            return -Errno.EACCES
        return -Errno.EBUSY if self._head(address) in map(self._head, batch) else None

    def _flush(self, batch, target, addresses, status):
        failed = 0
        for head in (self._head(addresses[index]) for index in batch):
            if head in self.pinned:
                failed += 1
            elif not self.room[target]:
                return -Errno.ENOMEM
            else:
                self.room[target] -= 1
                self.room[self.node_of[head]] += 1
                self.node_of[head] = target
        if batch and not failed:
            status[batch] = target
        return failed


def at(*pages):
    """Return addresses of pages by number."""
    return np.array([page * PAGE_BYTES for page in pages], dtype=np.uint64)


def machine(*nodes, pinned=(), **kinds):
    """Make a machine with page 1 on the first node, 2 on the second ...; None is untouched."""
    node_of = {i * PAGE_BYTES: n for i, n in enumerate(nodes, 1) if n is not None}
    return HonestMachine(node_of, pinned=set(at(*pinned).tolist()), **kinds)


def to(*nodes):
    """Return target nodes."""
    return np.array(nodes, dtype=np.int32)


def raw(on, addresses, nodes):
    """Make the call; return the return value and the statuses, also of an error."""
    try:
        result = on.move_pages(1, addresses, nodes, MOVE)
    except OSError as error:
        result = error.result
    return result.ret, result.status.tolist()


def accounted(report):
    """Tell whether every page has one outcome."""
    return report.asked == report.moved + report.already_there + sum(report.failed.values())


NEVER = UNWRITTEN


@pytest.mark.parametrize(
    ("on", "pages", "targets", "ret", "status"),
    [
        (machine(0, 0, 0), (1, 2, 3), (1, 1, 1), 0, [1, 1, 1]),
        (machine(0, None, 0), (1, 2, 3), (1, 1, 1), 0, [1, -2, 1]),
        (machine(1), (1,), (1,), 0, [1]),
        (machine(0), (1, 1, 1), (1, 1, 1), 0, [1, -16, 1]),
        (machine(0, 0), (1, 2, 1, 2), (1, 1, 1, 1), 0, [1, 1, -16, 1]),
        (machine(0), (1, 1), (1, 0), 0, [1, 0]),
        (machine(0), (1, 1), (0, 1), 0, [0, 1]),
        (machine(0, pinned=[1]), (1,), (1,), 1, [NEVER]),
        (machine(0, 0, 0, pinned=[1]), (1, 2, 3), (1, 1, 1), 1, [NEVER] * 3),
        (machine(0, None, 0, pinned=[1]), (1, 2, 3), (1, 1, 1), 2, [NEVER, -2, NEVER]),
        (machine(0, 0, 0, 0, pinned=[3]), (1, 2, 3, 4), (1, 0, 1, 0), 2, [1, 0, NEVER, NEVER]),
        (
            machine(0, 0, 0, *[1] * 17, pinned=[1, 2, 3]),
            range(1, 21),
            [1] * 20,
            19,
            [NEVER] * 3 + [1] + [NEVER] * 16,
        ),
        (machine(0, 0, 0, 0), (1, 2, 3, 4), (1, 1, 9, 1), -19, [1, 1, NEVER, NEVER]),
        (machine(0, 0, pinned=[1]), (1, 2), (1, 9), -19, [NEVER, NEVER]),
        (machine(0, 0, 0, room={0: 9, 1: 2}), (1, 2, 3), (1, 1, 1), -12, [NEVER] * 3),
    ],
)
def test_the_machine_answers_as_linux_does(on, pages, targets, ret, status):
    """Return values and statuses are those of rows observed on Linux 6.12."""
    assert raw(on, at(*pages), to(*targets)) == (ret, status)


def test_the_machine_moves_what_linux_moves():
    """Pages of a batch that failed have moved all the same, but for the pinned one."""
    on = machine(0, 0, 0, pinned=[1])
    raw(on, at(1, 2, 3), to(1, 1, 1))
    assert on.query_pages(1, at(1, 2, 3)).status.tolist() == [0, 1, 1]


def test_a_folio_is_moved_by_any_of_its_addresses():
    """The second address of a folio in a call is busy, the rest of them is there by then."""
    on = HonestMachine({4096: 0}, folio=dict.fromkeys(at(1, 2, 3, 4).tolist(), 4096))
    assert raw(on, at(1, 2, 3, 4), to(1, 1, 1, 1)) == (0, [1, -16, 1, 1])


@st.composite
def cases(draw):
    """Draw a machine, what to move where, and the size of a batch."""
    count = draw(st.integers(0, 40))
    kinds = draw(
        st.lists(
            st.sampled_from(["plain"] * 5 + ["pinned", "shared", "absent", "zero"]),
            min_size=count,
            max_size=count,
        )
    )
    node = st.integers(0, 3)
    nodes = draw(st.lists(node, min_size=count, max_size=count))
    targets = draw(st.lists(node, min_size=count, max_size=count))
    of_kind = {
        kind: set(at(*(i for i, k in enumerate(kinds, 1) if k == kind)).tolist())
        for kind in ("pinned", "shared", "absent", "zero")
    }
    addresses = at(*range(1, count + 1))
    node_of = {
        address: where
        for address, where in zip(addresses.tolist(), nodes, strict=True)
        if address not in of_kind["absent"]
    }
    order = draw(st.permutations(range(count)))
    on = HonestMachine(
        node_of, pinned=of_kind["pinned"], shared=of_kind["shared"], zero=of_kind["zero"]
    )
    return on, addresses[list(order)], to(*targets)[list(order)], draw(st.integers(1, 16))


def moved_by(on, addresses, targets, flags, batch_pages):
    """Run the mover with batches of some size; return its report, and where pages were before."""
    before = on.query_pages(1, addresses).status
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mover, "BATCH_PAGES", batch_pages)
        return mover.move(on, 1, addresses, targets, flags), before


@settings(max_examples=300)
@given(cases(), st.sampled_from([MOVE, MOVE_ALL]))
def test_the_account_is_the_truth(case, flags):
    """Every movable page is moved, and every page is counted once, for what became of it."""
    on, addresses, targets, batch_pages = case
    report, before = moved_by(on, addresses, targets, flags, batch_pages)
    now = on.query_pages(1, addresses).status
    was_there = before == targets
    there = now == targets
    stuck = {}
    for address, status in zip(addresses[~there].tolist(), now[~there].tolist(), strict=True):
        shared = address in on.shared and not flags & MOVE_ALL
        code = status if status < 0 else -Errno.EACCES if shared else UNWRITTEN
        stuck[code] = stuck.get(code, 0) + 1
        assert status < 0 or shared or address in on.pinned
    assert report.asked == len(addresses)
    assert report.already_there == was_there.sum()
    assert report.moved == (there & ~was_there).sum()
    assert report.failed == stuck
    assert report.bytes_moved == report.moved * PAGE_BYTES
    assert report.error is None
    assert report.complete == bool(there.all())


@given(cases(), st.dictionaries(st.integers(0, 3), st.integers(0, 8), min_size=4, max_size=4))
def test_a_full_node_takes_what_it_can(case, room):
    """However little room there is, the account is the truth."""
    on, addresses, targets, batch_pages = case
    on.room = room
    report, before = moved_by(on, addresses, targets, MOVE_ALL, batch_pages)
    now = on.query_pages(1, addresses).status
    assert accounted(report)
    assert report.moved == ((now == targets) & (before != targets)).sum()
    assert report.already_there == (before == targets).sum()
    assert set(report.failed) <= {-2, -14, -Errno.ENOMEM, UNWRITTEN}
    assert report.error is None


@pytest.mark.parametrize(("room", "moved"), [(0, 0), (1, 1), (9, 9), (10, 10), (11, 10)])
def test_a_full_node_at_its_limit(room, moved):
    """Just so many pages move as there is room for; the others are named by the errno."""
    on = machine(*[0] * 10, room={0: 0, 1: room})
    report, _ = moved_by(on, at(*range(1, 11)), to(*[1] * 10), MOVE, 4)
    assert (report.moved, report.already_there) == (moved, 0)
    assert report.failed == ({-Errno.ENOMEM: 10 - moved} if moved < 10 else {})
    assert report.complete == (moved == 10)


def test_what_was_said_before_a_node_was_full_is_kept():
    """A status that the kernel wrote before it gave up stands: the shared page is named as such."""
    on = machine(0, 0, 0, 0, room={0: 0, 1: 1}, shared=at(2).tolist())
    report, _ = moved_by(on, at(1, 2, 3, 4), to(1, 1, 1, 1), MOVE, 4096)
    assert (report.moved, report.failed) == (1, {-Errno.EACCES: 1, -Errno.ENOMEM: 2})


def test_an_error_without_statuses_is_accounted_for():
    """A machine may fail without saying how far it came: where the pages are is asked."""

    class Terse(HonestMachine):
        def move_pages(self, pid, addresses, nodes, flags):
            super().move_pages(pid, addresses, nodes, flags)
            raise call_error(-Errno.EINVAL, "move_pages")

    report = mover.move(Terse({4096: 0, 8192: 0}, pinned=[4096]), 1, at(1, 2), to(1, 1), MOVE)
    assert isinstance(report.error, InvalidCallError)
    assert (report.moved, report.failed) == (1, {UNWRITTEN: 1})


def test_one_full_node_does_not_keep_pages_from_another():
    """When a node is full the pages for the next one are moved still."""
    on = machine(*[0] * 6, room={0: 0, 1: 1, 2: 9})
    report, _ = moved_by(on, at(1, 2, 3, 4, 5, 6), to(1, 2, 1, 2, 1, 2), MOVE, 4096)
    assert (report.moved, report.failed) == (4, {-Errno.ENOMEM: 2})


@settings(max_examples=200)
@given(cases(), st.integers(0, 30))
def test_a_process_that_ends_meanwhile_is_accounted_for(case, calls):
    """Whenever it ends, the error says so, and nothing counts as moved that was not."""
    on, addresses, targets, batch_pages = case
    before = on.query_pages(1, addresses).status
    on.lives_for = on.calls + 1 + calls
    report, _ = moved_by(on, addresses, targets, MOVE, batch_pages)
    on.lives_for = PLENTY
    now = on.query_pages(1, addresses).status
    assert accounted(report)
    assert report.moved <= ((now == targets) & (before != targets)).sum()
    assert report.already_there <= (before == targets).sum()
    assert all(code < 0 for code in report.failed)
    assert report.error is None or isinstance(report.error, NoSuchProcessError)
    if report.error is not None:
        assert not report.complete


def test_pages_in_place_of_a_process_that_ends_have_not_moved():
    """A process that ends while its pages are looked up: those seen in place were there already."""
    on = machine(1, 1, 1, 1)
    on.lives_for = 2
    report, _ = moved_by(on, at(1, 2, 3, 4), to(1, 1, 1, 1), MOVE, 2)
    assert (report.moved, report.already_there) == (0, 2)
    assert report.failed == {UNWRITTEN: 2}
    assert isinstance(report.error, NoSuchProcessError)


@pytest.mark.parametrize("missing", [9, -1])
def test_a_node_that_does_not_exist_ends_the_work(missing):
    """The error is in the report; what was not tried is counted as unwritten."""
    on = machine(0, 1, 0, None)
    report, _ = moved_by(on, at(1, 2, 3, 4), to(1, 1, missing, 1), MOVE, 4096)
    assert isinstance(report.error, NoSuchNodeError)
    assert accounted(report)
    assert report.already_there == 1
    assert report.moved == (1 if missing > 0 else 0)  # nodes are served in rising order
    assert report.failed[-Errno.ENOENT] == 1
    assert not report.complete


def test_a_node_outside_the_cpuset_ends_the_work():
    """The same holds for a node that the process may not use."""
    on = machine(0, 0)
    on.allowed = {0, 1}
    report, _ = moved_by(on, at(1, 2), to(1, 2), MOVE, 4096)
    assert isinstance(report.error, OutsideCpusetError)
    assert (report.moved, report.failed) == (1, {UNWRITTEN: 1})


def test_several_addresses_of_one_folio_count_one_by_one():
    """The folio moves once, and each address that was given is there in the end."""
    on = HonestMachine({4096: 0}, folio=dict.fromkeys(at(1, 2, 3, 4).tolist(), 4096))
    report = mover.move(on, 1, at(1, 2, 3, 4), to(1, 1, 1, 1), MOVE)
    assert (report.asked, report.moved, report.failed) == (4, 4, {})


@pytest.mark.parametrize(("pinned", "most"), [((), 1), ((1,), 10), ((512,), 10), ((7, 300), 19)])
def test_a_pinned_page_costs_few_calls(pinned, most):
    """Halving finds a pinned page among 512 in as many steps as 512 has bits."""
    on = machine(*[0] * 512, pinned=pinned)
    report = mover.move(on, 1, at(*range(1, 513)), to(*[1] * 512), MOVE)
    assert (report.moved, report.failed.get(UNWRITTEN, 0)) == (512 - len(pinned), len(pinned))
    assert on.calls <= 1 + 2 * most


def test_pages_go_in_batches(monkeypatch):
    """N pages are one batch, N + 1 are two; each is queried once and moved once."""
    monkeypatch.setattr(mover, "BATCH_PAGES", 8)
    for count, calls in ((8, 2), (9, 4), (16, 4), (17, 6)):
        on = machine(*[0] * count)
        assert mover.move(on, 1, at(*range(1, count + 1)), to(*[1] * count), MOVE).complete
        assert on.calls == calls


def test_nothing_to_do_is_complete():
    """No page asked for is no page failed, and no call is made."""
    on = machine()
    report = mover.move(on, 1, at(), to(), MOVE)
    assert (report.asked, report.complete, on.calls) == (0, True, 0)


def test_bytes_are_those_of_the_pages_given():
    """Huge pages count with their own size, and only if they moved."""
    on = machine(0, 0, 1, pinned=[2])
    sizes = np.array([2 << 20, 1 << 30, 4096], dtype=np.int64)
    report = mover.move(on, 1, at(1, 2, 3), to(1, 1, 1), MOVE, page_sizes=sizes)
    assert (report.moved, report.already_there, report.bytes_moved) == (1, 1, 2 << 20)


@pytest.mark.parametrize("targets", [(), (1,), (1, 1, 1)])
def test_arrays_of_different_lengths_are_refused(targets):
    """Each address needs its node; nothing is called before that is clear."""
    on = machine(0, 0)
    with pytest.raises(ArgumentError, match="2 addresses but"):
        mover.move(on, 1, at(1, 2), to(*targets), MOVE)
    assert on.calls == 0


@pytest.mark.host
def test_on_this_machine_pages_in_place_stay(memory):
    """On the real kernel: touched pages are there, untouched, zero and unmapped ones are named."""
    pages = memory.private(40)
    pages[:10].touch()
    assert not pages[20:30].data.any()
    unmap(pages[30:])
    addresses = pages.addresses
    node = int(LinuxMachine().query_pages(0, addresses).status[0])
    report = mover.move(LinuxMachine(), 0, addresses, np.full(40, node, np.int32), MOVE)
    assert (report.asked, report.moved, report.already_there) == (40, 0, 10)
    assert sum(report.failed.values()) == 30
    assert report.failed[-Errno.EFAULT] >= 20
    assert set(report.failed) <= {-Errno.EFAULT, -Errno.ENOENT}
    assert report.error is None
    assert accounted(report)


@pytest.mark.host
def test_on_this_machine_a_missing_node_is_in_the_report(memory):
    """The kernel's refusal stands in the report, with the node that it is about."""
    pages = memory.private(3).touch()
    report = mover.move(LinuxMachine(), 0, pages.addresses, to(1000, 1000, 1000), MOVE)
    assert isinstance(report.error, NoSuchNodeError)
    assert report.error.node == 1000
    assert (report.moved, report.failed) == (0, {UNWRITTEN: 3})


@pytest.mark.host
def test_on_this_machine_nobody_is_in_the_report(memory):
    """A pid that nobody has ends the work before it begins."""
    pages = memory.private(3).touch()
    report = mover.move(LinuxMachine(), -1, pages.addresses, to(0, 0, 0), MOVE)
    assert isinstance(report.error, NoSuchProcessError)
    assert (report.moved, report.already_there, report.failed) == (0, 0, {UNWRITTEN: 3})

"""Pages that a log finds mostly used from other nodes come to the node that uses them most.

The oracle counts in dictionaries, access by access.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, strategies as st

from movepages.errors import ArgumentError
from movepages.kernel import SimulatedMachine
from movepages.nodeset import NodeSet
from movepages.placement import Options, execute
from movepages.placement.from_log import nodes_of, page_use, plan_from_log
from movepages.topology import declared_topology
from movepages.values import NO_NODE, AccessLog, Placement, TaskId

PAGE, HUGE = 4096, 2 << 20
BASE = 0x7F0000000000
PID = 7
TASK = TaskId("boot", PID, 1)
DISTANCES = ([10, 16, 21, 31], [16, 10, 31, 21], [21, 31, 10, 16], [31, 21, 16, 10])
TOPOLOGY = declared_topology([(2, 1 << 30, row) for row in DISTANCES])
ALL = NodeSet(range(4))
FREE = dict.fromkeys(range(4), 1 << 30)


def log_of(*rows, by="node"):
    """Return a log of (address, node, count), of the one process or with the pid in front."""
    rows = [row if len(row) == 4 else (PID, *row) for row in rows]
    pid, address, where, count = zip(*rows, strict=True) if rows else ((), (), (), ())
    where = np.array(where, np.int32)
    unknown = np.full(len(where), NO_NODE, np.int32)
    return AccessLog(
        np.array(pid, np.int32),
        np.array(address, np.uint64),
        *((where, unknown) if by == "node" else (unknown, where)),
        np.array(count, np.int64),
    )


def runs(*facts):
    """Return a placement of (start, pages, page size, node)."""
    start, pages, size, node = zip(*facts, strict=True) if facts else ((), (), (), ())
    return Placement(
        np.array(start, np.uint64),
        np.array(pages, np.int64),
        np.array(size, np.int64),
        np.array(node, np.int32),
    )


EIGHT = runs((BASE, 8, PAGE, 0))
"""Eight pages on node 0."""


def planned(log, placement=EIGHT, *, allowed=ALL, free=FREE, topology=TOPOLOGY, **settings):
    """Return the plan for the one process."""
    return plan_from_log(log, TASK, placement, topology, allowed, free, **settings)


def moves(plan):
    """Return a plan as (address, from, to, reason) for each page."""
    columns = [
        np.repeat(column, plan.pages).tolist()
        for column in (plan.from_node, plan.to_node, plan.reason)
    ]
    addresses = plan.page_runs().addresses().tolist()
    return [
        (address, source, target, plan.reasons[reason])
        for address, source, target, reason in zip(addresses, *columns, strict=True)
    ]


def test_the_example_of_the_documentation():
    """102 of 112 accesses from node 2 are 91%: the page goes there, and the plan says why."""
    plan = planned(log_of((BASE + 5, 2, 100), (BASE + 4000, 2, 2), (BASE, 0, 10)))
    assert moves(plan) == [(BASE, 0, 2, "node 2: 91% of 112 accesses")]


@pytest.mark.parametrize(
    ("share", "own", "off_node", "moved"),
    [(0.6, 40, 60, 1), (0.6, 41, 60, 0), (0.7, 3, 7, 1), (0.7, 4, 9, 0), (1.0, 0, 8, 1)],
)
def test_mostly_off_node(share, own, off_node, moved):
    """Exactly the share of accesses from elsewhere is enough, and one more from home too many."""
    log = log_of((BASE, 0, own), (BASE, 1, off_node))
    assert planned(log, min_share=share).page_count == moved


@pytest.mark.parametrize(("count", "moved", "judged"), [(8, 1, 1), (7, 0, 0)])
def test_too_few_samples(count, moved, judged):
    """Of fewer than eight accesses nothing is made: the page is not even in place."""
    plan = planned(log_of((BASE, 1, count)), min_samples=8)
    assert (plan.page_count, plan.page_count + plan.there_pages) == (moved, judged)


def test_off_node_by_many_and_most_at_home():
    """A page that its own node uses most stays, though most accesses are from elsewhere."""
    plan = planned(log_of((BASE, 0, 40), (BASE, 1, 30), (BASE, 2, 30)))
    assert (plan.page_count, plan.there_pages) == (0, 1)


def test_of_equals_its_own_node_then_the_lowest():
    """A tie with its own node moves nothing; between others the lowest number wins."""
    tied = log_of((BASE, 0, 20), (BASE, 3, 20), (BASE, 1, 20))
    assert planned(tied).page_count == 0
    others = log_of((BASE, 3, 20), (BASE, 1, 20), (BASE, 0, 1))
    assert [move[2] for move in moves(planned(others))] == [1]


def test_addresses_of_a_huge_page_add_up():
    """Four accesses at each end of a huge page are eight of one page, which moves whole."""
    where = runs((BASE, 2, HUGE, 0))
    plan = planned(log_of((BASE + 1, 3, 4), (BASE + HUGE - 1, 3, 4), (BASE + HUGE, 3, 7)), where)
    assert moves(plan) == [(BASE, 0, 3, "node 3: 100% of 8 accesses")]
    assert plan.page_size_bytes.tolist() == [HUGE]


def test_cpus_stand_for_their_nodes():
    """Of two CPUs for each node, 4 and 5 are node 2; one that is not there counts for none."""
    log = log_of((BASE, 4, 5), (BASE, 5, 6), (BASE, 0, 1), (BASE, 99, 1000), by="cpu")
    assert nodes_of(log, TOPOLOGY).tolist() == [2, 2, 0, NO_NODE]
    use = page_use(log, EIGHT, TOPOLOGY)
    assert (use.user.tolist(), use.by_user.tolist(), use.total.tolist()) == ([2], [11], [12])
    assert (use.elsewhere, use.nowhere) == (0, 1000)
    assert [move[2] for move in moves(planned(log))] == [2]


def test_nodes_that_are_not_there():
    """Accesses from a node that is not online are counted apart, and decide nothing."""
    use = page_use(log_of((BASE, 7, 50), (BASE, 1, 9)), EIGHT, TOPOLOGY)
    assert (use.user.tolist(), use.total.tolist(), use.nowhere) == ([1], [9], 50)


def test_addresses_without_a_page():
    """Below, between, and behind the runs no page is present: those accesses are only counted."""
    where = runs((BASE, 1, PAGE, 0), (BASE + 4 * PAGE, 1, PAGE, 0))
    outside = [BASE - 1, BASE + PAGE, BASE + 4 * PAGE - 1, BASE + 5 * PAGE, 0, 2**64 - 1]
    log = log_of(*((address, 1, 3) for address in outside), (BASE + 5 * PAGE - 1, 1, 8))
    use = page_use(log, where, TOPOLOGY)
    assert (use.pages.start.tolist(), use.elsewhere) == ([BASE + 4 * PAGE], 3 * len(outside))
    nothing = page_use(log, runs(), TOPOLOGY)
    assert (len(nothing), nothing.elsewhere) == (0, 3 * len(outside) + 8)


def test_only_rows_of_the_process():
    """What other processes access at the same address is theirs."""
    log = log_of((PID, BASE, 1, 8), (8, BASE, 2, 100), (6, BASE + PAGE, 2, 100))
    assert log.pids == [6, 7, 8]
    assert [move[:3] for move in moves(planned(log))] == [(BASE, 0, 1)]
    assert len(planned(log_of())) == 0


def test_as_far_as_there_is_room():
    """The pages used most find room; the next go to the neighbour; what is left is counted."""
    log = log_of(*((BASE + page * PAGE, 2, 10 + page) for page in range(4)))
    plan = planned(log, free={2: 2 * PAGE, 3: PAGE})
    assert sorted(moves(plan)) == [
        (BASE + PAGE, 0, 3, "node 2: 100% of 11 accesses, nearest with room"),
        (BASE + 2 * PAGE, 0, 2, "node 2: 100% of 12 accesses"),
        (BASE + 3 * PAGE, 0, 2, "node 2: 100% of 13 accesses"),
    ]
    assert (plan.crowded_pages, plan.crowded_bytes) == (1, PAGE)


def test_outside_the_cpuset():
    """Where no memory may come to the user itself, it comes as near as allowed, or stays."""
    log = log_of((BASE, 3, 50))
    assert [move[2] for move in moves(planned(log, allowed=NodeSet([0, 1])))] == [1]
    for allowed in (NodeSet([0]), NodeSet()):
        plan = planned(log, allowed=allowed)
        assert (plan.page_count, plan.there_pages, plan.crowded_pages) == (0, 1, 0)


def test_few_reasons_however_many_pages():
    """Thousands of pages, each with figures of its own, have rounded reasons that hold for them."""
    rng = np.random.default_rng(1)
    counts = rng.integers(1, 10_000, (2000, 2)).tolist()
    rows = [(BASE + p * PAGE, node, counts[p][node]) for p in range(2000) for node in (0, 1)]
    plan = planned(log_of(*rows), runs((BASE, 2000, PAGE, 0)), min_share=0.5)
    assert 1 < len(plan.reasons) <= 64
    for address, _, _, reason in moves(plan):
        own, other = counts[(address - BASE) // PAGE]
        share, count = reason.removeprefix("node 1: ").split("% or more of ")
        assert other / (own + other) >= int(share) / 100
        assert own + other >= int(count.split()[0].replace(",", ""))


def test_all_is_said_of_all_only():
    """999 of 1,000 are not 100%."""
    plan = planned(log_of((BASE, 1, 999), (BASE, 0, 1)))
    assert plan.reasons == ("node 1: 99% of 1,000 accesses",)


@pytest.mark.parametrize("share", [0.0, -0.5, 1.01, float("nan")])
def test_a_share_that_is_none(share):
    """It is refused; all, 1, is a share."""
    with pytest.raises(ArgumentError, match="makes no sense"):
        planned(log_of(), min_share=share)
    planned(log_of(), min_share=1.0)


# -- against dictionaries ---------------------------------------------------------------------

SIZES = st.sampled_from([PAGE, PAGE, HUGE])
PAGES = st.lists(st.tuples(SIZES, st.integers(0, 3), st.booleans()), max_size=8)
ACCESSES = st.lists(
    st.tuples(
        st.sampled_from([6, PID, 8]),
        st.integers(0, 9),
        st.floats(0, 0.999),
        st.integers(0, 5),
        st.integers(0, 30),
    ),
    max_size=60,
)


def laid_out(pages):
    """Return a placement of pages in a row, some with a hole before, and their spans."""
    facts, at = [], BASE
    for size, node, hole in pages:
        at = (at + (HUGE if hole else 0) + size - 1) // size * size
        facts.append((at, 1, size, node))
        at += size
    return runs(*facts), [(start, start + size, node) for start, _, size, node in facts]


@given(PAGES, ACCESSES, st.sampled_from([0.5, 0.6, 1.0]), st.integers(1, 20))
def test_as_counted_in_dictionaries(pages, accesses, min_share, min_samples):
    """Which page goes where is what counting one access after the other says."""
    placement, spans = laid_out(pages)
    rows = []
    for pid, number, part, node, count in accesses:
        start, end = spans[number][:2] if number < len(spans) else (BASE - HUGE, BASE)
        rows.append((pid, start + int(part * (end - start)), node, count))
    counts = defaultdict(Counter)
    for pid, address, node, count in rows:
        for start, end, _ in spans:
            if pid == PID and start <= address < end and node < 4:
                counts[start][node] += count
    expected, there = {}, 0
    for start, _, own in spans:
        uses = counts[start]
        total = uses.total()
        if start not in counts or total < min_samples:
            continue
        user = max(range(4), key=lambda node: (uses[node], node == own, -node))
        off_node = total - uses[own]
        if off_node / total >= min_share and user != own:
            expected[start] = user
        else:
            there += 1
    plan = planned(log_of(*rows), placement, min_share=min_share, min_samples=min_samples)
    assert {address: target for address, _, target, _ in moves(plan)} == expected
    assert (plan.there_pages, plan.crowded_pages) == (there, 0)


# -- on the model -----------------------------------------------------------------------------


@pytest.mark.parametrize("page_size_bytes", [4096, 65536])
def test_carried_out(page_size_bytes):
    """Every page of a process comes to where the log has it used, and nothing is lost."""
    machine = SimulatedMachine("4 x 16M", page_size_bytes=page_size_bytes)
    task = machine.spawn()
    first = task.mmap(40)
    task.poke(first, range(1, 41))
    users = [page % 4 for page in range(40)]
    addresses = task.addresses(first, 40).tolist()
    rows = [(task.pid, address, user, 9) for address, user in zip(addresses, users, strict=True)]
    info = machine.task(task.pid)
    plan = plan_from_log(
        log_of(*rows),
        info.id,
        machine.locate(task.pid),
        machine.topology(),
        ALL,
        machine.free_bytes(),
    )
    ledger = execute(plan, machine, Options(backoff_s=0.0))
    machine.check()
    assert (ledger.moved_pages, ledger.already_there) == (30, 10)
    assert task.nodes(first, 40).tolist() == users
    assert task.peek(first, 40).tolist() == list(range(1, 41))


def test_a_page_used_by_all_alike_moves_nowhere_and_then_stays():
    """What was moved by a log is in place by the same log."""
    log = log_of((BASE, 1, 30), (BASE, 0, 5))
    assert planned(log).page_count == 1
    after = replace(EIGHT, node=np.array([1], np.int32))
    assert (planned(log, after).page_count, planned(log, after).there_pages) == (0, 1)

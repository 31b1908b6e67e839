"""Whatever happens on the machine, and whoever made the plan: the account is the truth.

Random processes of the model, plans of every maker, and disturbances on purpose.
"""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack

import numpy as np
import pytest
from accounting import Clock, accounted, truth
from hypothesis import given, settings, strategies as st

from movepages.abi import UNWRITTEN, Errno
from movepages.kernel import SimulatedMachine
from movepages.kernel.inject import BeforeCall, Busy, LruBusy, NoMemory, Pin, pull_back
from movepages.placement import (
    Options,
    execute,
    in_turn,
    make_plan,
    plan_follow,
    plan_from_log,
    plan_migration,
    plan_pack,
    plan_spread,
    select,
)
from movepages.placement.running import Running
from movepages.values import NO_NODE, AccessLog

NODE_PAGES = 400
ALL = select.everything()


# -- machines ---------------------------------------------------------------------------------


@st.composite
def worlds(draw):
    """Draw a machine, with nodes that are full perhaps, and a process of many kinds of pages."""
    page_size = draw(st.sampled_from([4096, 65536]))
    machine = SimulatedMachine(f"4 x {NODE_PAGES * page_size >> 10}K", page_size_bytes=page_size)
    task = machine.spawn()
    kinds = draw(st.lists(st.sampled_from("aaaasszh"), min_size=1, max_size=6))
    spans = []
    for kind in kinds:
        pages = draw(st.integers(1, 12))
        if kind == "h" and page_size == 65536:
            pages = 32 * draw(st.integers(1, 2))
        first = task.mmap(pages)
        if kind == "h":
            task.madvise(first, pages, "hugepage")
        if kind == "z":
            task.read(first, pages)
        else:
            task.write(first, pages)
        nodes = draw(st.lists(st.integers(0, 3), min_size=1, max_size=3))
        where = task.addresses(first, pages)
        machine.move_pages(task.pid, where, np.resize(np.array(nodes, np.int32), pages), 2)
        spans.append((kind, first, pages))
    if "s" in kinds:
        task.fork()
    for kind, first, pages in spans:
        if kind in "ah":
            task.write(first, pages)  # copies what the child shares
    for node in draw(st.sets(st.integers(0, 3), max_size=2)):
        fill(machine, node, draw(st.integers(0, 4)))
    return machine, task, spans


def fill(machine, node, room):
    """Leave room for so many pages on a node."""
    frames = machine.memory.frames
    taken = frames.allocate(node, max(0, frames.nodes[node].free_pages - room))
    machine.memory.pins.update(taken.tolist())


# -- plans ------------------------------------------------------------------------------------


def some_nodes(chance):
    """Return one node or more, of four."""
    return chance.sample(range(4), chance.randint(1, 4))


def by_turns(machine, info, chance):
    """Plan to deal pages out in turn."""
    located = select.locate(machine, info.pid, ALL)
    pages, nodes = in_turn(located, some_nodes(chance))
    return make_plan(info.id, pages, nodes)


def spread(machine, info, chance):
    """Plan to spread, evenly or by weights."""
    nodes = some_nodes(chance)
    weights = {node: chance.randint(1, 5) for node in nodes}
    return plan_spread(machine, info, ALL, nodes, chance.choice([None, weights]))


def packed(machine, info, chance):
    """Plan to pack, to nodes that are preferred perhaps."""
    return plan_pack(machine, info, ALL, chance.choice([(), some_nodes(chance)]))


def followed(machine, info, chance):
    """Plan to bring pages to where threads run."""
    weights = {node: chance.randint(1, 9) for node in some_nodes(chance)}
    whole = sum(weights.values())
    share = {node: weight / whole for node, weight in weights.items()}
    return plan_follow(machine, info, ALL, Running(share, ran=True))


def logged(machine, info, chance):
    """Plan by a log that names some of the pages, and addresses where none is."""
    located = select.locate(machine, info.pid, ALL)
    addresses = located.page_runs().addresses().tolist()
    rows = [
        (chance.choice([*addresses, 4096]), chance.randint(0, 3), chance.randint(1, 20))
        for _ in range(chance.randint(1, 60))
    ]
    address, node, count = zip(*rows, strict=True)
    log = AccessLog(
        np.full(len(rows), info.pid, np.int32),
        np.array(address, np.uint64),
        np.array(node, np.int32),
        np.full(len(rows), NO_NODE, np.int32),
        np.array(count, np.int64),
    )
    topology = machine.topology()
    allowed = info.mems_allowed & topology.with_memory
    free = machine.free_bytes()
    return plan_from_log(log, info.id, located, topology, allowed, free)


def migrated(machine, info, chance):
    """Plan to migrate from nodes to nodes."""
    return plan_migration(machine, info, ALL, some_nodes(chance), some_nodes(chance))


MAKERS = [by_turns, spread, packed, followed, logged, migrated]


# -- disturbances -----------------------------------------------------------------------------


disturbances = st.lists(
    st.tuples(
        st.sampled_from(
            ["pin", "pin", "lru", "busy", "nomemory", "exit", "unmap", "offline", "back"]
        ),
        st.integers(0, 5),
        st.integers(0, 11),
        st.integers(1, 8),
    ),
    max_size=4,
)


def inject(machine, task, spans, disturbance):
    """Arm a disturbance of a span, a page in it, and a time; return its kind, or nothing."""
    kind, span, page, when = disturbance
    what, first, pages = spans[span % len(spans)]
    address = first + page % pages * machine.page_size_bytes
    present = what != "z"
    faults = {
        "pin": lambda: Pin(task, address),
        "lru": lambda: LruBusy(task, address),
        "busy": lambda: Busy(task, address, passes=when % 3 + 1),
        "nomemory": lambda: NoMemory(when),
        "exit": lambda: BeforeCall(when, lambda: task.struct.mm and task.exit()),
        "unmap": lambda: BeforeCall(when, lambda: task.struct.mm and task.munmap(first, pages)),
        "offline": lambda: BeforeCall(
            when, lambda: 3 in machine.topology().with_memory and machine.offline(3)
        ),
        "back": lambda: BeforeCall(when, lambda: task.struct.mm and pull_back(task, address, 0)),
    }
    if kind in {"pin", "lru", "busy"} and (not present or int(task.frames(address, 1)[0]) < 0):
        return None
    try:
        return kind, machine.inject(faults[kind]())
    except ValueError:  # it is isolated or refused already
        return None


def counting(machine):
    """Let a machine count how often a call begins with an address; return the counts.

    A call may stop before it comes to the others, which are then asked for again by right.
    """
    asked = Counter()
    call = machine.move_pages

    def move_pages(pid, addresses, nodes, flags):
        asked.update(addresses[:1].tolist())
        return call(pid, addresses, nodes, flags)

    machine.move_pages = move_pages
    return asked


def assert_no_room(machine, ledger):
    """Check that there is none on the nodes that pages were to go to, and found none."""
    short = ledger.answer == -Errno.ENOMEM
    sizes = np.repeat(ledger.plan.page_size_bytes, ledger.plan.pages)
    left = set(ledger.page_origins()[ledger.arrived].tolist())
    for node in set(ledger.to[short].tolist()) - left:  # what has left made room, perhaps later
        assert machine.free_bytes()[node] < int(sizes[short & (ledger.to == node)].max())


def torn_off(machine, ledger):
    """Return the bytes by node of parts of huge pages that came where there was no room for all.

    The ledger counts a huge page where its last part is.
    """
    plan, gained = ledger.plan, Counter()
    heads = plan.page_runs().addresses().tolist()
    sizes = np.repeat(plan.page_size_bytes, plan.pages).tolist()
    for head, size, last in zip(heads, sizes, truth(machine, ledger).tolist(), strict=True):
        parts = np.arange(head, head + size, machine.page_size_bytes, dtype=np.uint64)
        for node in machine.query_pages(plan.task.pid, parts).status.tolist():
            if node != last and last >= 0:
                gained[node] += machine.page_size_bytes
                gained[last] -= machine.page_size_bytes
    return gained


@pytest.mark.parametrize("maker", MAKERS)
@settings(max_examples=50)
@given(
    worlds(),
    disturbances,
    st.randoms(use_true_random=False),
    st.booleans(),
    st.booleans(),
    st.integers(1, 40),
    st.integers(1, 5),
    st.booleans(),
)
def test_the_account_is_the_truth(
    maker, world, faults, chance, shared, spill, batch, tries, verify
):
    """Every page is accounted for once, and is where the ledger says; what can move has moved."""
    machine, task, spans = world
    options = Options(
        shared=shared,
        spill=spill,
        verify=verify,
        least_batch_pages=1,
        largest_batch_pages=batch,
        most_tries=tries,
        backoff_s=0.0,
    )
    before = Counter(machine.locate(task.pid).bytes_by_node)
    plan = maker(machine, machine.task(task.pid), chance)
    with ExitStack() as stack:
        armed = [inject(machine, task, spans, fault) for fault in faults]
        for each in filter(None, armed):
            stack.enter_context(each[1])
        kinds = {each[0] for each in armed if each}
        asked = counting(machine)
        ledger = execute(plan, machine, options, clock=Clock())
        machine.check()
        assert accounted(ledger)
        assert max(asked.values(), default=0) <= tries
        assert int(ledger.tries.max(initial=0)) <= tries
    assert sum(plan.bytes_by_node.values()) == plan.present_bytes
    if "exit" in kinds:
        return
    now = truth(machine, ledger)  # what was armed, and has not happened by now, does not any more
    settled = not kinds & {"unmap", "back", "offline"}
    if settled or (verify and ledger.verified):
        heard = ledger.now != UNWRITTEN
        assert (ledger.now[heard] == now[heard]).all()
    if settled:
        assert (now[ledger.arrived] == ledger.to[ledger.arrived]).all()
        gained = Counter(machine.locate(task.pid).bytes_by_node)
        gained.subtract(before)
        gained.subtract(torn_off(machine, ledger))
        said = Counter(ledger.bytes_by_node)
        said.subtract(plan.bytes_by_node)
        assert said == gained
    failed = ledger.failed()
    had_room = -Errno.ENOMEM not in failed and not ledger.spilled_pages
    if not kinds and had_room:
        assert set(failed) <= {-Errno.EACCES}
        assert ledger.complete or not shared or plan.crowded_pages
    elif not kinds:  # a call that a full node ends may use up the tries of others
        assert set(failed) <= {-Errno.EACCES, -Errno.ENOMEM, UNWRITTEN}
        assert_no_room(machine, ledger)
    if kinds <= {"pin"}:
        stuck = failed.get(UNWRITTEN, 0) + failed.get(-Errno.EBUSY, 0)
        assert stuck <= len(faults) or not had_room
        assert not ledger.untried_pages

"""The mover's account is the truth, whatever happens on the machine meanwhile.

The machine is the model, which behaves as Linux 6.12 (tests/conformance) and can be disturbed on
purpose, here case by case, in test_mover_accounts.py at random; tests/lab_tier/test_mover.py
repeats the essential cases on that kernel itself.
"""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack

import numpy as np
import pytest
from accounting import Clock, accounted, truth
from guestkit.memory import unmap
from guestkit.pages import PAGE_BYTES

from movepages.abi import UNWRITTEN, Errno, Mode
from movepages.errors import (
    NoSuchNodeError,
    NoSuchProcessError,
    OutsideCpusetError,
    call_error,
)
from movepages.kernel import LINUX_2_6_18, LINUX_6_12, PATCH_2006, SimulatedMachine
from movepages.kernel.inject import BeforeCall, LruBusy, NoMemory, Pin, pull_back
from movepages.kernel.tasks import Cpuset
from movepages.linux.machine import LinuxMachine
from movepages.nodeset import NodeSet
from movepages.placement import Options, execute, make_plan, plan as plan_for, select
from movepages.values import NO_NODE, CallResult, Placement

PAGE = 4096
QUICK = Options(backoff_s=0.0)


def plan_of(machine, task, addresses, nodes, *, size=None):
    """Plan to move base pages, wherever they are, to one node or each to its own."""
    where = np.array(addresses, dtype=np.uint64)
    count = len(where)
    found = machine.query_pages(task.pid, where).status if count else np.zeros(0, np.int32)
    pages = np.ones(count, np.int64)
    placement = Placement(where, pages, pages * (size or machine.page_size_bytes), found)
    return make_plan(machine.task(task.pid).id, placement, nodes)


def start(pages=8, *, nodes=4, memory="64M", page_size_bytes=PAGE, semantics=LINUX_6_12, **facts):
    """Return a machine, a process with pages on node 0, each with a mark, and their addresses."""
    machine = SimulatedMachine(
        f"{nodes} x {memory}", semantics=semantics, page_size_bytes=page_size_bytes
    )
    task = machine.spawn(**facts)
    first = task.mmap(pages)
    task.poke(first, range(1, pages + 1))
    return machine, task, task.addresses(first, pages)


def moved(machine, task, addresses, nodes, options=QUICK, **settings):
    """Plan, move, and return the ledger; the machine has lost nothing, and no mark is wrong."""
    plan = plan_of(machine, task, addresses, nodes)
    ledger = execute(plan, machine, options, clock=Clock(), **settings)
    machine.check()
    assert accounted(ledger)
    return ledger


# -- pages that do not move -------------------------------------------------------------------


@pytest.mark.parametrize("page_size", [4096, 65536])
def test_pinned_pages_hold_up_nobody(page_size):
    """Of 3000 pages with some pinned all others move, and those are named by their status."""
    machine, task, pages = start(3000, page_size_bytes=page_size, memory="512M")
    pinned = [0, 1, 777, 2048, 2999]
    with ExitStack() as stack:
        for page in pinned:
            stack.enter_context(machine.inject(Pin(task, int(pages[page]))))
        ledger = moved(machine, task, pages, 1)
        assert (ledger.moved_pages, ledger.failed()) == (2995, {UNWRITTEN: 5})
        assert np.flatnonzero(~ledger.arrived).tolist() == pinned
        assert ledger.now[pinned].tolist() == [0] * 5
        assert set(ledger.tries[pinned].tolist()) == {QUICK.most_tries}
        assert task.nodes(int(pages[0]), 3000).tolist() == ledger.now.tolist()
    assert task.peek(int(pages[0]), 3000).tolist() == list(range(1, 3001))


@pytest.mark.parametrize("tries", [1, 2, 5])
def test_no_page_is_asked_for_more_often_than_it_may(tries):
    """The calls are counted, not the ledger: a pinned page comes up so often, all others once."""
    machine, task, pages = start(100)
    plan = plan_of(machine, task, pages, 1)
    asked = Counter()
    call = machine.move_pages

    def counting(pid, addresses, nodes, flags):
        asked.update(addresses.tolist())
        return call(pid, addresses, nodes, flags)

    machine.move_pages = counting
    with machine.inject(Pin(task, int(pages[40]), pages=3)):
        execute(plan, machine, Options(most_tries=tries, backoff_s=0.0), clock=Clock())
    assert [asked[page] for page in pages.tolist()] == [1] * 40 + [tries] * 3 + [1] * 57


def test_pinned_and_shared_pages_by_turns():
    """A shared page ends a batch and a pinned one fails it: still each other page is moved."""
    machine, task, pages = start(60)
    task.fork()
    for page in [p for number, p in enumerate(pages.tolist()) if number % 3]:
        task.write(page)
    with ExitStack() as stack:
        for page in pages[1::6].tolist():
            stack.enter_context(machine.inject(Pin(task, page)))
        ledger = moved(machine, task, pages, 1)
    assert ledger.failed() == {-Errno.EACCES: 20, UNWRITTEN: 10}
    assert ledger.moved_pages == 30
    assert ledger.tries[::3].tolist() == [1] * 20, "shared pages are not asked for again"


@pytest.mark.parametrize(("tries", "moves"), [(1, 0), (2, 1), (5, 1)])
def test_a_page_that_is_busy_for_a_while_is_tried_again(tries, moves):
    """-EBUSY while someone else has it isolated; it moves when that is over, if tries are left."""
    machine, task, pages = start(3)
    held = machine.inject(LruBusy(task, int(pages[1])))
    machine.inject(BeforeCall(4, held.release))  # after one query of the test, one move, one query
    ledger = moved(machine, task, pages, 1, Options(most_tries=tries, backoff_s=0.0))
    held.release()
    assert ledger.moved_pages == 2 + moves
    assert ledger.failed() == ({} if moves else {-Errno.EBUSY: 1})
    assert int(ledger.tries[1]) == 1 + moves


def test_the_mover_waits_longer_each_time():
    """Between the rounds for pages that stay busy it waits, twice as long each time, to 0.1 s."""
    machine, task, pages = start(2)
    clock = Clock()
    plan = plan_of(machine, task, pages, 1)
    with machine.inject(Pin(task, int(pages[0]))):
        options = Options(most_tries=6, backoff_s=0.010)
        assert execute(plan, machine, options, clock=clock).failed() == {UNWRITTEN: 1}
    rounds = [0.010, 0.020, 0.040, 0.080, 0.1]
    assert sum(clock.slept) == pytest.approx(sum(rounds))
    assert clock.slept[:3] == pytest.approx(rounds[:3])


def test_pages_of_every_kind():
    """Untouched pages, zero pages and holes each keep the status of their kind; none is retried."""
    machine, task, pages = start(10)
    first = task.mmap(20)
    task.read(first, 10)
    hole = task.addresses(first + 20 * PAGE, 5)
    asked = [*pages.tolist(), *task.addresses(first, 20).tolist(), *hole.tolist()]
    ledger = moved(machine, task, asked, 2)
    assert ledger.moved_pages == 10
    assert ledger.failed() == {-Errno.EFAULT: 15, -Errno.ENOENT: 10}
    assert set(ledger.tries.tolist()) == {1}


def test_holes_are_not_asked_about():
    """Of a gigabyte in which three pages were touched, three addresses are moved, and no other."""
    machine = SimulatedMachine("2 x 64M")
    task = machine.spawn()
    first = task.mmap((1 << 30) // PAGE)
    touched = [first, first + (1 << 29), first + (1 << 30) - PAGE]
    for address in touched:
        task.write(address)
    asked = []
    call = machine.move_pages

    def noting(pid, addresses, nodes, flags):
        asked.extend(addresses.tolist())
        return call(pid, addresses, nodes, flags)

    machine.move_pages = noting
    made = plan_for(machine, machine.task(task.pid), select.anon(), {1})
    assert execute(made, machine, QUICK, clock=Clock()).complete
    assert asked == touched


def test_memory_under_a_strict_policy_moves():
    """The kernel keeps to the cpuset only: what was bound to node 0 goes to node 1, and stays."""
    machine, task, pages = start(4)
    assert task.mbind(int(pages[0]), 4, Mode.BIND, [0]) == 0
    ledger = moved(machine, task, pages, 1, Options(backoff_s=0.0, verify=True))
    assert ledger.complete
    assert ledger.strayed() == {}


def test_shared_pages_move_when_told_to():
    """-EACCES without the right flag; with it the page moves for both processes."""
    machine, task, pages = start(4)
    child = task.fork()
    assert moved(machine, task, pages, 1).failed() == {-Errno.EACCES: 4}
    assert moved(machine, task, pages, 1, Options(shared=True)).complete
    assert child.nodes(int(pages[0]), 4).tolist() == [1] * 4


def test_addresses_of_one_huge_page_count_one_by_one():
    """The folio moves once, and each address that was given is there: no -EBUSY is left."""
    machine = SimulatedMachine("4 x 64M")
    task = machine.spawn()
    first = task.mmap(1024)
    task.madvise(first, 1024, "hugepage")
    task.write(first, 1024)
    ledger = moved(machine, task, task.addresses(first, 512), 1)
    assert (ledger.moved_pages, ledger.failed()) == (512, {})


@pytest.mark.parametrize("semantics", [LINUX_2_6_18, PATCH_2006, LINUX_6_12], ids=lambda s: s.name)
def test_kernels_that_answer_otherwise(semantics):
    """Page statuses of 2006 lead to the same account: pinned, shared, absent and plain pages."""
    machine, task, pages = start(40, semantics=semantics)
    task.fork()
    for page in pages[:30].tolist():
        task.write(page)
    empty = task.mmap(3)
    asked = [*pages.tolist(), *task.addresses(empty, 3).tolist()]
    with machine.inject(Pin(task, int(pages[7]), pages=2)):
        ledger = moved(machine, task, asked, 1)
    assert ledger.moved_pages == 28
    assert sum(ledger.failed().values()) == 15
    assert ledger.failed()[-Errno.EACCES] == 10
    assert ledger.now[:30].tolist() == [0 if page in {7, 8} else 1 for page in range(30)]


def refusing(machine, refuse):
    """Let a machine refuse calls: `refuse` is told how many pages one has, and says the errno."""
    call = machine.move_pages

    def move_pages(pid, addresses, nodes, flags):
        if errno := refuse(len(addresses)):
            status = np.full(len(addresses), UNWRITTEN, np.int32)
            raise call_error(-errno, "move_pages", pid=pid, result=CallResult(-errno, status))
        return call(pid, addresses, nodes, flags)

    machine.move_pages = move_pages


def test_a_kernel_that_takes_few_pages_a_call():
    """Before 2.6.29 too many are -E2BIG: calls are halved until they are taken."""
    machine, task, pages = start(100)
    asked = []
    refusing(machine, lambda count: asked.append(count) or (Errno.E2BIG if count > 7 else 0))
    assert moved(
        machine, task, pages, 1, Options(least_batch_pages=32, largest_batch_pages=32)
    ).complete
    assert asked[:4] == [32, 16, 8, 4]
    assert set(asked[4:]) == {4}


def test_a_kernel_without_memory_for_the_arrays():
    """In 2.6.18 they come from vmalloc; a call that is too long for it is made shorter."""
    machine = SimulatedMachine("2 x 8M", semantics=LINUX_2_6_18, vmalloc_limit_bytes=PAGE)
    task = machine.spawn()
    first = task.mmap(600)
    task.write(first, 600)
    placement = select.locate(machine, task.pid, select.everything())
    plan = make_plan(machine.task(task.pid).id, placement, 1)
    assert execute(plan, machine, QUICK, clock=Clock()).complete
    machine.check()


def test_nothing_to_move_was_an_error_once():
    """Before 2.6.28 a call of which no page needs to move is -ENOENT, and that is no error."""
    machine, task, pages = start(4)
    refusing(machine, lambda _: Errno.ENOENT)
    ledger = moved(machine, task, pages, 1)
    assert (ledger.error, ledger.ended) == (None, "done")
    assert ledger.failed() == {UNWRITTEN: 4}


@pytest.mark.parametrize("errno", [Errno.EPERM, Errno.EINVAL, Errno.ENOSYS, Errno.EIO])
def test_what_the_kernel_refuses_ends_the_work(errno):
    """The error is in the ledger; what had moved by then has, and the rest is accounted for."""
    machine, task, pages = start(20)
    calls = []
    refusing(machine, lambda count: calls.append(count) or (errno if len(calls) > 2 else 0))
    options = Options(least_batch_pages=5, largest_batch_pages=5)
    ledger = moved(machine, task, pages, 1, options)
    assert (ledger.error.errno, ledger.ended) == (errno, "error")
    assert ledger.moved_pages == 10
    assert (ledger.now[:10] == 1).all()


# -- nodes that have no room, or are not there ------------------------------------------------


def full_node(*, room, pages=10):
    """Return a machine whose node 1 has room for so many pages, a process, and its pages."""
    machine, task, addresses = start(pages)
    memory = machine.memory
    taken = memory.frames.allocate(1, memory.frames.nodes[1].free_pages - room)
    memory.pins.update(taken.tolist())
    return machine, task, addresses


@pytest.mark.parametrize("room", [0, 1, 9, 10, 11])
def test_a_full_node_at_its_limit(room):
    """Just so many pages move as there is room for; the others are named by the errno."""
    machine, task, pages = full_node(room=room)
    ledger = moved(machine, task, pages, 1)
    assert ledger.moved_pages == min(room, 10)
    assert ledger.failed() == ({-Errno.ENOMEM: 10 - room} if room < 10 else {})
    assert ledger.complete == (room >= 10)


def test_one_full_node_does_not_keep_pages_from_another():
    """When a node is full the pages for the next one are moved still."""
    machine, task, pages = full_node(room=1)
    ledger = moved(machine, task, pages, [1, 2] * 5)
    assert (ledger.moved_pages, ledger.failed()) == (6, {-Errno.ENOMEM: 4})


def test_a_single_allocation_that_fails_is_no_full_node():
    """Whichever allocation of a call fails, all pages have moved in the end."""
    for number in (1, 2, 9, 10):
        machine, task, pages = start(10)
        with machine.inject(BeforeCall(1, lambda: None)):
            plan = plan_of(machine, task, pages, 1)
        with machine.inject(NoMemory(number)):
            ledger = execute(plan, machine, QUICK, clock=Clock())
        assert ledger.complete, number
        machine.check()


def test_pages_spill_to_the_nearest_node_with_room():
    """What finds no room goes to the nearest allowed node that has some; the ledger says where."""
    machine, task, pages = full_node(room=4)
    task.attach(Cpuset(NodeSet([1, 2]), migrates=False))
    ledger = moved(machine, task, pages, 1, Options(spill=True))
    assert ledger.complete
    assert Counter(ledger.now.tolist()) == {1: 4, 2: 6}
    assert ledger.spilled_pages == 6
    assert ledger.plan.to_node.tolist() == [1]


def test_pages_that_are_on_the_nearest_node_with_room_stay():
    """A page does not count as moved where it was before; no farther node is tried for it."""
    machine, task, pages = full_node(room=4)
    ledger = moved(machine, task, pages, 1, Options(spill=True))
    assert (ledger.moved_pages, ledger.spilled_pages) == (4, 0)
    assert ledger.failed() == {-Errno.ENOMEM: 6}
    assert machine.locate(task.pid).bytes_by_node == {0: 6 * PAGE, 1: 4 * PAGE}


@pytest.mark.parametrize(("room", "came"), [(0, 0), (1, 1), (511, 511)])
@pytest.mark.parametrize("verify", [False, True])
def test_a_huge_page_of_which_only_parts_find_room(room, came, verify):
    """The kernel divides it and moves parts; it has failed, and counts where its last part is."""
    machine, task, _ = full_node(room=room)
    first = task.mmap(1024)
    task.madvise(first, 1024, "hugepage")
    task.write(first, 1024)
    located = machine.locate(task.pid, [(first, first + 1024 * PAGE)])
    huge = located.page_size_bytes > PAGE
    first = int(located.start[huge][0])
    one = Placement(
        located.start[huge][:1], np.ones(1, np.int64), np.array([512 * PAGE]), np.zeros(1, np.int32)
    )
    made = make_plan(machine.task(task.pid).id, one, 1)
    ledger = execute(made, machine, Options(verify=verify, backoff_s=0.0), clock=Clock())
    assert (ledger.moved_pages, ledger.failed()) == (0, {-Errno.ENOMEM: 1})
    assert ledger.now.tolist() == [0]
    parts = machine.query_pages(task.pid, task.addresses(first, 512)).status
    assert parts.tolist() == [1] * came + [0] * (512 - came)


def test_pages_do_not_spill_out_of_the_cpuset():
    """Where the process may use no other node, what found no room has failed."""
    machine, task, pages = full_node(room=4)
    task.attach(Cpuset(NodeSet([1]), migrates=False))
    ledger = moved(machine, task, pages, 1, Options(spill=True))
    assert (ledger.moved_pages, ledger.failed()) == (4, {-Errno.ENOMEM: 6})


@pytest.mark.parametrize("missing", [9, -1])
def test_a_node_that_does_not_exist_keeps_nobody_from_another(missing):
    """The error is in the ledger; its pages are untried, and those for other nodes have moved."""
    machine, task, pages = start(4)
    ledger = moved(machine, task, pages, [1, 2, missing, 1])
    assert isinstance(ledger.error, NoSuchNodeError)
    assert (ledger.moved_pages, ledger.untried_pages, ledger.failed()) == (3, 1, {})


def test_a_node_that_goes_offline():
    """Between two calls the target goes: what was there is elsewhere, the rest is untried."""
    machine, task, pages = start(20)
    options = Options(least_batch_pages=1, largest_batch_pages=5, backoff_s=0.0, verify=True)
    machine.inject(BeforeCall(4, lambda: machine.offline(3)))  # the first is the test's own query
    ledger = moved(machine, task, pages, 3, options)
    assert isinstance(ledger.error, NoSuchNodeError)
    assert (ledger.moved_pages, ledger.untried_pages) == (10, 10)
    assert 3 not in ledger.now
    assert sum(ledger.strayed().values()) == 10
    assert ledger.now.tolist() == truth(machine, ledger).tolist()


def test_a_node_outside_the_cpuset():
    """The same holds for a node that the process may not use."""
    machine, task, pages = start(2, cpuset=Cpuset(NodeSet([0, 1])))
    ledger = moved(machine, task, pages, [1, 2])
    assert isinstance(ledger.error, OutsideCpusetError)
    assert (ledger.moved_pages, ledger.untried_pages) == (1, 1)


# -- processes that end -----------------------------------------------------------------------


@pytest.mark.parametrize("calls", range(2, 7))
def test_a_process_that_ends_meanwhile(calls):
    """Whenever it ends, the ledger says so, and nothing counts as moved that was not."""
    machine, task, pages = start(20)
    options = Options(least_batch_pages=1, largest_batch_pages=5, backoff_s=0.0)
    machine.inject(BeforeCall(calls, task.exit))
    plan = plan_of(machine, task, pages, 1)
    ledger = execute(plan, machine, options, clock=Clock())
    assert accounted(ledger)
    done = 5 * (calls - 2)
    assert ledger.moved_pages == done
    assert (ledger.error is None) == (done == 20)
    assert ledger.ended == ("done" if done == 20 else "error")
    machine.check()


def test_a_pid_that_is_used_again_is_refused():
    """A plan for a process that has ended moves nothing of another that has its pid."""
    machine, task, pages = start(3)
    plan = plan_of(machine, task, pages, 1)
    machine.task_structs[task.pid].started += 1
    with pytest.raises(NoSuchProcessError):
        execute(plan, machine)
    assert task.nodes(int(pages[0]), 3).tolist() == [0] * 3


def test_a_pid_that_is_used_again_half_way_is_refused():
    """That is noticed between two calls as well, and what is left is untried."""
    machine, task, pages = start(10)
    plan = plan_of(machine, task, pages, 1)
    options = Options(least_batch_pages=1, largest_batch_pages=5)

    def again():
        machine.task_structs[task.pid].started += 1

    ledger = execute(plan, machine, options, progress=lambda _: again(), clock=Clock())
    assert isinstance(ledger.error, NoSuchProcessError)
    assert (ledger.moved_pages, ledger.untried_pages) == (5, 5)
    assert task.nodes(int(pages[0]), 10).tolist() == [1] * 5 + [0] * 5


# -- limits, interrupts, progress -------------------------------------------------------------


def test_nothing_to_do_is_complete():
    """No page asked for is no page failed, and no call is made."""
    machine, task, _ = start(1)
    ledger = moved(machine, task, [], 1, Options(verify=True))
    assert (ledger.asked, ledger.complete, ledger.calls, ledger.ended) == (0, True, 0, "done")


def test_pages_in_place_are_counted_and_left_alone():
    """What is there already is no part of the plan, and costs no call."""
    machine, task, pages = start(5)
    ledger = moved(machine, task, pages, [0, 0, 1, 0, 0])
    assert (ledger.asked, ledger.already_there, ledger.moved_pages) == (5, 4, 1)
    assert ledger.calls == 1


@pytest.mark.parametrize(("pages", "calls"), [(8, 1), (9, 2), (16, 2), (17, 3)])
def test_pages_go_in_batches(pages, calls):
    """N pages are one batch, N + 1 are two."""
    machine, task, addresses = start(pages)
    options = Options(least_batch_pages=8, largest_batch_pages=8)
    assert moved(machine, task, addresses, 1, options).calls == calls


@pytest.mark.parametrize("stop_after", [0, 1, 3])
def test_stopping_ends_after_the_call_in_flight(stop_after):
    """Asked to stop it begins no other call, and the ledger has what was done by then."""
    machine, task, pages = start(20)
    options = Options(least_batch_pages=5, largest_batch_pages=5)
    seen = []
    ledger = moved(
        machine,
        task,
        pages,
        1,
        options,
        stop=lambda: len(seen) >= stop_after,
        progress=seen.append,
    )
    assert (ledger.ended, ledger.calls) == ("interrupted", stop_after)
    assert (ledger.moved_pages, ledger.untried_pages) == (5 * stop_after, 20 - 5 * stop_after)


def test_an_interrupt_in_a_call_leaves_the_account_exact():
    """A KeyboardInterrupt that arrives with the answer of a call: its pages are asked for again."""
    machine, task, pages = start(20)
    options = Options(least_batch_pages=5, largest_batch_pages=5)
    plan = plan_of(machine, task, pages, 1)
    call = machine.move_pages

    def interrupted(*arguments):
        call(*arguments)
        raise KeyboardInterrupt

    machine.move_pages = interrupted
    ledger = execute(plan, machine, options, clock=Clock())
    assert (ledger.ended, ledger.moved_pages, ledger.untried_pages) == ("interrupted", 5, 15)
    assert truth(machine, ledger)[ledger.arrived].tolist() == [1] * 5


@pytest.mark.parametrize(("limit", "calls"), [(0.5, 1), (10.0, 4)])
def test_a_limit_of_time(limit, calls):
    """No call begins after the time is up; the pages that are left are untried."""
    machine, task, pages = start(20)
    plan = plan_of(machine, task, pages, 1)
    options = Options(least_batch_pages=5, largest_batch_pages=5, time_limit_s=limit)
    clock = Clock()
    ledger = execute(plan, machine, options, clock=clock, progress=lambda _: clock.sleep(1))
    assert ledger.calls == calls
    assert ledger.ended == ("done" if calls == 4 else "time limit")
    assert ledger.untried_pages == 20 - 5 * calls


def test_a_limit_of_rate():
    """20 pages at 10 pages a second in batches of 5 take 1.5 seconds before the last call."""
    machine, task, pages = start(20)
    plan = plan_of(machine, task, pages, 1)
    clock = Clock()
    options = Options(least_batch_pages=5, largest_batch_pages=5, rate_bytes_per_s=10.0 * PAGE)
    assert execute(plan, machine, options, clock=clock).complete
    assert clock.time == pytest.approx(101.5)


def test_a_rate_of_less_than_a_page():
    """At half a page a second three pages take the four seconds before the last, and all move."""
    machine, task, pages = start(3)
    plan = plan_of(machine, task, pages, 1)
    clock = Clock()
    options = Options(least_batch_pages=1, rate_bytes_per_s=PAGE / 2)
    assert execute(plan, machine, options, clock=clock).complete
    assert clock.time == pytest.approx(104.0)


def test_progress_is_told_after_each_call():
    """Pages and bytes tried, of all: they grow with each call and end at the total."""
    machine, task, pages = start(12)
    seen = []
    options = Options(least_batch_pages=5, largest_batch_pages=5)
    with machine.inject(Pin(task, int(pages[0]))):
        moved(machine, task, pages, 1, options, progress=seen.append)
    assert [(p.pages, p.size_bytes) for p in seen] == [(n, n * PAGE) for n in (5, 10, 12)]
    assert {(p.total_pages, p.total_bytes) for p in seen} == {(12, 12 * PAGE)}


def test_progress_tells_what_moved_from_what_was_tried():
    """A shared page among twelve has been tried, and is no part of the bytes that moved."""
    machine, task, pages = start(12)
    task.fork()
    own = np.delete(pages, 6)
    for page in own.tolist():
        task.write(page)
    seen = []
    options = Options(least_batch_pages=4, largest_batch_pages=4)
    moved(machine, task, pages, 1, options, progress=seen.append)
    assert [(p.size_bytes, p.moved_bytes) for p in seen] == [
        (4 * PAGE, 4 * PAGE),
        (8 * PAGE, 7 * PAGE),
        (12 * PAGE, 11 * PAGE),
    ]


def test_verify_finds_what_moved_back():
    """NUMA balancing pulls a page back behind the mover: it arrived, and is elsewhere now."""
    machine, task, pages = start(6)
    plan = plan_of(machine, task, pages, 1)
    machine.inject(BeforeCall(2, lambda: pull_back(task, int(pages[2]), 0, pages=2)))
    ledger = execute(plan, machine, Options(verify=True), clock=Clock())
    assert (ledger.moved_pages, ledger.strayed(), ledger.verified) == (6, {0: 2}, True)
    assert ledger.now.tolist() == [1, 1, 0, 0, 1, 1]


def test_huge_pages_count_with_their_own_size():
    """A batch of 1024 base pages holds two huge ones of 2 MiB; the bytes are theirs."""
    machine = SimulatedMachine("2 x 64M")
    task = machine.spawn()
    first = task.mmap(512 * 5)
    task.madvise(first, 512 * 5, "hugepage")
    task.write(first, 512 * 5)
    placement = select.locate(machine, task.pid, select.thp())
    plan = make_plan(machine.task(task.pid).id, placement, 1)
    assert plan.page_count == plan.total_bytes >> 21
    options = Options(least_batch_pages=1024, largest_batch_pages=1024)
    ledger = execute(plan, machine, options, clock=Clock())
    assert ledger.moved_bytes == plan.total_bytes
    assert ledger.calls == -(-plan.page_count // 2)


# -- this machine -----------------------------------------------------------------------------


def own_plan(addresses, nodes):
    """Plan for pages of this process, as on no known node."""
    count = len(addresses)
    pages = np.ones(count, np.int64)
    placement = Placement(addresses, pages, pages * PAGE_BYTES, np.full(count, NO_NODE, np.int32))
    return make_plan(LinuxMachine().task(0).id, placement, nodes)


@pytest.mark.host
def test_on_this_machine_pages_in_place_stay(memory):
    """On the real kernel: touched pages are there, untouched, zero and unmapped ones are named."""
    pages = memory.private(40)
    pages[:10].touch()
    assert not pages[20:30].data.any()
    unmap(pages[30:])
    machine = LinuxMachine()
    node = int(machine.query_pages(0, pages.addresses).status[0])
    ledger = execute(own_plan(pages.addresses, node), machine)
    assert ledger.moved_pages == 10
    assert sum(ledger.failed().values()) == 30
    assert ledger.failed()[-Errno.EFAULT] >= 20
    assert set(ledger.failed()) <= {-Errno.EFAULT, -Errno.ENOENT}
    assert ledger.error is None
    assert accounted(ledger)


@pytest.mark.host
def test_on_this_machine_a_missing_node_is_in_the_ledger(memory):
    """The kernel's refusal stands in the ledger, with the node that it is about."""
    pages = memory.private(3).touch()
    ledger = execute(own_plan(pages.addresses, 1000), LinuxMachine())
    assert isinstance(ledger.error, NoSuchNodeError)
    assert ledger.error.node == 1000
    assert (ledger.moved_pages, ledger.untried_pages) == (0, 3)

"""Several workers leave the account that one leaves, whatever happens meanwhile.

The model bears one call at a time, so a lock stands before it: which worker gets it next is up to
the threads, and everything here holds in any order. That calls may truly overlap is shown on this
machine's kernel, and under the emulator in tests/emulator/programs/test_parallel.py.
"""

from __future__ import annotations

import os
import signal
import threading
from contextlib import ExitStack

import numpy as np
import pytest
from guestkit.pages import PAGE_BYTES
from hypothesis import given, settings, strategies as st

from movepages.abi import UNWRITTEN, Errno
from movepages.errors import NoSuchNodeError, NoSuchProcessError, OutsideCpusetError
from movepages.kernel import SimulatedMachine
from movepages.kernel.inject import BeforeCall, LruBusy, Pin
from movepages.kernel.tasks import Cpuset
from movepages.linux.machine import LinuxMachine
from movepages.nodeset import NodeSet
from movepages.placement import Options, execute, make_plan
from movepages.placement.crew import Crew
from movepages.placement.parallel import execute_in_parallel
from movepages.values import NO_NODE, Placement

PAGE = 4096


class OneAtATime:
    """A machine that is asked by one thread at a time."""

    def __init__(self, machine):
        """Stand before a machine."""
        self._machine, self._lock = machine, threading.Lock()

    def __getattr__(self, name):
        """Answer as the machine does."""
        found = getattr(self._machine, name)
        return self._locked(found) if callable(found) else found

    def _locked(self, call):
        def locked(*arguments):
            with self._lock:
                return call(*arguments)

        return locked


class Clock:
    """A clock that goes forward only when somebody waits."""

    def __init__(self, step=0.0):
        """Let each look at it take so many seconds."""
        self.time, self.step = 0.0, step

    def now(self):
        """Return the time."""
        self.time += self.step
        return self.time

    def sleep(self, seconds):
        """Go forward at once."""
        self.time += seconds


def batches(pages, **others):
    """Return options for calls of at most so many pages, without pauses."""
    return Options(least_batch_pages=1, largest_batch_pages=pages, backoff_s=0.0, **others)


def start(pages, *, room=None):
    """Return a machine of 4 nodes, whose node 1 may have little room, a process, its addresses."""
    machine = SimulatedMachine("4 x 4M")
    task = machine.spawn()
    first = task.mmap(pages)
    task.poke(first, range(1, pages + 1))
    if room is not None:
        memory = machine.memory
        taken = memory.frames.allocate(1, memory.frames.nodes[1].free_pages - room)
        memory.pins.update(taken.tolist())
    return machine, task, task.addresses(first, pages)


def plan_of(machine, task, addresses, nodes):
    """Plan to move pages from node 0, each to its own node."""
    count = len(addresses)
    pages = np.ones(count, np.int64)
    placement = Placement(addresses, pages, pages * PAGE, np.zeros(count, np.int32))
    return make_plan(machine.task(task.pid).id, placement, np.resize(np.int32(nodes), count))


def in_parallel(plan, machine, workers, options, **others):
    """Carry a plan out with so many workers on a machine that bears one call at a time."""
    ledger = execute_in_parallel(plan, OneAtATime(machine), options, crew=Crew(workers), **others)
    machine.check()
    sums = ledger.moved_pages + ledger.untried_pages + sum(ledger.failed().values())
    assert (len(ledger), ledger.asked) == (sums, sums + ledger.already_there)
    assert int(ledger.tries.max(initial=0)) <= options.most_tries
    return ledger


def where(machine, ledger):
    """Return where the pages of a ledger are."""
    pid = ledger.plan.task.pid
    return machine.query_pages(pid, ledger.plan.page_runs().addresses()).status


plans = {
    "pages": st.integers(1, 90),
    "targets": st.sampled_from([(1,), (1, 2), (3, 1, 2), (2, 3)]),
    "batch": st.integers(1, 20),
    "workers": st.integers(2, 4),
}


@settings(max_examples=50)
@given(
    **plans,
    stuck=st.dictionaries(st.integers(0, 89), st.sampled_from([Pin, LruBusy]), max_size=4),
    tries=st.integers(1, 4),
    verify=st.booleans(),
)
def test_pages_that_do_not_move(pages, targets, batch, workers, stuck, tries, verify):
    """Pinned and busy pages stay, and page by page the account is that of one worker."""
    options = batches(batch, most_tries=tries, verify=verify)
    made = []
    for count in (1, workers):
        machine, task, addresses = start(pages)
        plan = plan_of(machine, task, addresses, targets)
        with ExitStack() as stack:
            for page, fault in stuck.items():
                if page < pages:
                    stack.enter_context(machine.inject(fault(task, int(addresses[page]))))
            if count == 1:
                made.append(execute(plan, machine, options))
            else:
                made.append(in_parallel(plan, machine, count, options))
            assert (where(machine, made[-1]) == made[-1].now).all()
        assert task.peek(int(addresses[0]), pages).tolist() == list(range(1, pages + 1))
    one, several = made
    for column in ("to", "now", "tries"):
        assert (getattr(one, column) == getattr(several, column)).all(), column
    assert (one.arrived == several.arrived).all()
    assert set(several.failed()) <= {UNWRITTEN, -Errno.EBUSY}
    assert (several.ended, several.verified) == ("done", verify)


@settings(max_examples=50)
@given(**plans, room=st.integers(0, 30), spill=st.booleans())
def test_a_node_that_one_worker_finds_full(pages, targets, batch, workers, room, spill):
    """As many pages find room as with one worker, and the others fail or spill as they do there."""
    options = batches(batch, spill=spill)
    made = []
    for count in (1, workers):
        machine, task, addresses = start(pages, room=room)
        plan = plan_of(machine, task, addresses, targets)
        if count == 1:
            made.append(execute(plan, machine, options))
        else:
            made.append(in_parallel(plan, machine, count, options))
        heard = made[-1].now != UNWRITTEN
        assert (where(machine, made[-1])[heard] == made[-1].now[heard]).all()
    one, several = made
    assert several.moved_pages == one.moved_pages
    assert several.failed() == one.failed()
    assert several.spilled_pages == one.spilled_pages
    assert several.untried_pages == one.untried_pages == 0


@settings(max_examples=40)
@given(**plans, when=st.integers(1, 20))
def test_a_process_that_ends(pages, targets, batch, workers, when):
    """Before any call of any worker: the work ends, and what has moved until then is known."""
    machine, task, addresses = start(pages)
    plan = plan_of(machine, task, addresses, targets)
    moved = []

    def end():
        if task.struct.mm:
            moved.append(int((task.nodes(int(addresses[0]), pages) > 0).sum()))
            task.exit()

    with machine.inject(BeforeCall(when, end)):
        ledger = in_parallel(plan, machine, workers, batches(batch))
    if moved:
        assert ledger.ended == "error" or ledger.moved_pages == pages
        assert ledger.moved_pages == moved[0]
        assert ledger.error is None or isinstance(ledger.error, NoSuchProcessError)
    else:
        assert ledger.complete


@settings(max_examples=40)
@given(**plans, when=st.integers(0, 12))
def test_stopping(pages, targets, batch, workers, when):
    """All workers end after the call in flight: at most one call more for each, all accounted."""
    machine, task, addresses = start(pages)
    plan = plan_of(machine, task, addresses, targets)
    told = []
    ledger = in_parallel(
        plan,
        machine,
        workers,
        batches(batch),
        stop=lambda: len(told) >= when,
        progress=told.append,
    )
    assert ledger.calls == len(told) <= when + workers
    assert ledger.ended == ("interrupted" if ledger.untried_pages or not when else "done")
    assert ledger.moved_pages + ledger.untried_pages == pages
    now = where(machine, ledger)
    assert (now[ledger.arrived] == ledger.to[ledger.arrived]).all()
    assert not now[ledger.untried].any()


def test_an_interrupt():
    """A KeyboardInterrupt of the thread that waits ends all workers; the account is exact."""
    machine, task, addresses = start(90)
    plan = plan_of(machine, task, addresses, [1])

    def press(progress):
        if progress.pages == 10:
            os.kill(os.getpid(), signal.SIGINT)  # of a process: the thread that waits gets it

    ledger = in_parallel(plan, machine, 3, batches(1, rate_bytes_per_s=100 * PAGE), progress=press)
    assert ledger.ended == "interrupted"
    assert 10 <= ledger.moved_pages < 90
    assert ledger.moved_pages + ledger.untried_pages == 90
    assert ((where(machine, ledger) == 1) == ledger.arrived).all()


def test_a_fault_of_the_caller_is_not_lost():
    """What `progress` raises in a worker comes out where the work was asked for."""
    machine, task, addresses = start(20)
    plan = plan_of(machine, task, addresses, [1])

    def broken(_progress):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        in_parallel(plan, machine, 2, batches(5), progress=broken)
    machine.check()


@pytest.mark.parametrize("workers", [2, 4])
def test_a_limit_of_rate_is_for_all(workers):
    """The last of 60 calls of a page begins 59 tenths of a second later, however many workers."""
    began = {}
    for count in (1, workers):
        machine, task, addresses = start(60)
        plan = plan_of(machine, task, addresses, [1])
        clock = Clock()
        options = batches(10, rate_bytes_per_s=10 * PAGE)
        assert in_parallel(plan, machine, count, options, clock=clock).complete
        began[count] = clock.time
    assert began[workers] == began[1] == pytest.approx(59 * 0.1)


def test_a_limit_of_time():
    """No worker begins a call after that."""
    machine, task, addresses = start(60)
    plan = plan_of(machine, task, addresses, [1])
    options = batches(5, time_limit_s=1.0)
    ledger = in_parallel(plan, machine, 3, options, clock=Clock(step=0.05))
    assert ledger.ended == "time limit"
    assert 0 < ledger.moved_pages < 60
    assert ledger.moved_pages + ledger.untried_pages == 60


def test_progress_is_of_the_whole_plan():
    """It rises call by call from one worker or another, and ends with all pages."""
    machine, task, addresses = start(60)
    plan = plan_of(machine, task, addresses, [1, 2])
    told = []
    assert in_parallel(plan, machine, 3, batches(7), progress=told.append).complete
    pages = [progress.pages for progress in told]
    assert pages == sorted(set(pages))
    last = told[-1]
    assert (last.pages, last.total_pages) == (60, 60)
    assert last.size_bytes == last.total_bytes == last.moved_bytes == 60 * PAGE


def test_all_calls_are_counted():
    """The ledger counts as many calls as the machine has seen."""
    machine, task, addresses = start(90)
    plan = plan_of(machine, task, addresses, [1, 2])
    seen, call = [], machine.move_pages

    def counting(*arguments):
        seen.append(len(arguments[1]))
        return call(*arguments)

    machine.move_pages = counting
    ledger = in_parallel(plan, machine, 4, batches(3))
    assert ledger.calls == len(seen)
    assert (sum(seen), max(seen)) == (90, 3)


@pytest.mark.parametrize("missing", [9, -1])
def test_a_node_that_is_not_there_keeps_nobody_from_another(missing):
    """Its pages are untried, and those for other nodes have moved."""
    machine, task, addresses = start(40)
    plan = plan_of(machine, task, addresses, [1, missing])
    ledger = in_parallel(plan, machine, 3, batches(4))
    assert isinstance(ledger.error, NoSuchNodeError)
    assert (ledger.moved_pages, ledger.untried_pages, ledger.failed()) == (20, 20, {})


def test_a_node_outside_the_cpuset():
    """The error is in the ledger, and the pages for allowed nodes have moved."""
    machine, task, addresses = start(40)
    task.attach(Cpuset(NodeSet([0, 2]), migrates=False))
    ledger = in_parallel(plan_of(machine, task, addresses, [1, 2]), machine, 2, batches(4))
    assert isinstance(ledger.error, OutsideCpusetError)
    assert (ledger.moved_pages, ledger.untried_pages) == (20, 20)


def test_a_process_that_had_ended():
    """As with one worker that is no ledger, but an error."""
    machine, task, addresses = start(4)
    plan = plan_of(machine, task, addresses, [1])
    task.exit()
    with pytest.raises(NoSuchProcessError):
        in_parallel(plan, machine, 2, batches(4))


def test_nothing_to_do():
    """A plan without pages is complete at once."""
    machine, task, addresses = start(4)
    ledger = in_parallel(plan_of(machine, task, addresses[:0], [1]), machine, 2, batches(4))
    assert (ledger.complete, ledger.calls) == (True, 0)


def test_a_crew_that_measures():
    """It works in turns, by the clock, until it has settled; all pages move meanwhile."""
    machine, task, addresses = start(900)
    plan = plan_of(machine, task, addresses, [1, 2])
    crew = Crew(1, 4)
    ledger = execute_in_parallel(
        plan, OneAtATime(machine), batches(4), crew=crew, clock=Clock(step=0.005)
    )
    machine.check()
    assert ledger.complete
    assert crew.settled


@pytest.mark.host
def test_calls_that_overlap_on_this_machine(memory):
    """On the real kernel four workers keep 4,000 pages in place, and each is accounted for once."""
    pages = memory.private(4000).touch()
    machine = LinuxMachine()
    node = int(machine.query_pages(0, pages.addresses).status[0])
    ones = np.ones(4000, np.int64)
    placement = Placement(
        pages.addresses, ones, ones * PAGE_BYTES, np.full(4000, NO_NODE, np.int32)
    )
    plan = make_plan(machine.task(0).id, placement, node)
    ledger = execute_in_parallel(plan, machine, batches(16, verify=True), crew=Crew(4))
    assert (ledger.moved_pages, ledger.complete, ledger.verified) == (4000, True, True)
    assert ledger.calls >= 250
    assert set(ledger.tries.tolist()) == {1}

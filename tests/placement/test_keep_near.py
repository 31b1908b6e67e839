"""Pages follow threads that have moved for good, once; threads that hop take none along.

Time is the test's: while the loop waits, the threads of the model run where a schedule says.
"""

from __future__ import annotations

from itertools import count

import numpy as np
import pytest
from hypothesis import given, strategies as st

from movepages.abi import Errno
from movepages.errors import NotPermittedError
from movepages.kernel import SimulatedMachine
from movepages.kernel.inject import BeforeCall, Pin
from movepages.placement import Options, execute, select
from movepages.placement.account import untouched
from movepages.placement.habit import Patience
from movepages.placement.keep_near import Ended, Followed, keep_near
from movepages.values import TaskInfo

PAGE = 4096
QUICK = Options(backoff_s=0.0)
SMALL = {"least_gain_bytes": PAGE, "pause_s": 5.0}


class Schedule:
    """A clock by which the threads of processes run, each on the CPU that a function of it says."""

    def __init__(self, seconds, *runs):
        """Let (task, function from seconds to a CPU, or None for sleep) run for so many seconds."""
        self.time, self.ends, self.runs = 0.0, seconds, runs

    def now(self):
        """Return the time."""
        return self.time

    def sleep(self, seconds):
        """Let the threads run meanwhile."""
        for task, cpu_at in self.runs:
            cpu = cpu_at(self.time) if task.struct.mm else None
            if cpu is not None:
                task.run(cpu, int(seconds * 1e9))
        self.time += seconds

    def over(self):
        """Tell whether the time is over."""
        return self.time >= self.ends


class Looked:
    """A machine that says when its threads are looked at, before it answers."""

    def __init__(self, machine, before):
        """Call a function before each look."""
        self.machine, self.before = machine, before

    def __getattr__(self, name):
        """Be the machine in all else."""
        return getattr(self.machine, name)

    def threads(self, pid):
        """Tell, and answer."""
        self.before()
        return self.machine.threads(pid)


def machine_with(*processes):
    """Return a model of four nodes with a CPU each, and processes with so many pages on node 0."""
    machine = SimulatedMachine("4 x 8M")
    tasks = []
    for pages in processes:
        task = machine.spawn()
        first = task.mmap(pages)
        task.write(first, pages)
        tasks.append(task)
    return machine, *tasks


def watched(machine, tasks, clock, *, carry_out=None, patience=None, options=QUICK):
    """Follow processes by a clock; return what happened. Nothing is lost."""
    infos = [task if isinstance(task, TaskInfo) else machine.task(task.pid) for task in tasks]
    events = list(
        keep_near(
            machine,
            infos,
            select.everything(),
            carry_out or (lambda plan: execute(plan, machine, options, clock=clock)),
            patience or Patience(**SMALL),
            clock=clock,
            stop=clock.over,
        )
    )
    machine.check()
    return events


def nodes(machine, task):
    """Return on which nodes the pages of a process are."""
    return set(machine.locate(task.pid).bytes_by_node)


def test_one_move_for_one_hop():
    """Threads go to node 2 after ten seconds, for good: one move, some looks later; no other."""
    machine, task = machine_with(20)
    events = watched(machine, [task], Schedule(60, (task, lambda now: 0 if now < 10 else 2)))
    (event,) = events
    assert isinstance(event, Followed)
    assert (event.ledger.moved_pages, event.running.share) == (20, {2: 1.0})
    assert 12 < event.seconds < 15, "three looks of a second each that find it on node 2"
    assert nodes(machine, task) == {2}


def test_a_short_visit_moves_nothing():
    """Two seconds on node 2, out of a minute, are fewer looks than it takes."""
    machine, task = machine_with(20)
    visit = Schedule(60, (task, lambda now: 2 if 10 <= now < 12 else 0))
    assert watched(machine, [task], visit) == []
    assert nodes(machine, task) == {0}


@given(
    st.sampled_from([(0, 1), (1, 0), (0, 3), (2, 1)]),
    st.integers(2, 4),
    st.sampled_from([0.5, 1.0, 7.0]),
)
def test_who_alternates_is_never_moved(pair, samples, every_s):
    """A process that each look finds on the other node has no memory moved, however long."""
    machine, task = machine_with(5)
    looks = count()
    hopping = Looked(machine, lambda: task.run(pair[next(looks) % 2], 10**8))
    patience = Patience(every_s=every_s, samples=samples, pause_s=0.0, least_gain_bytes=0)
    assert watched(hopping, [task], Schedule(20 * every_s), patience=patience) == []
    assert next(looks) >= 20
    assert nodes(machine, task) == {0}


def test_no_ping_pong():
    """Of threads that change nodes every eight seconds the pages follow no oftener than allowed."""
    machine, task = machine_with(5)
    hops = Schedule(100, (task, lambda now: 1 + int(now / 8) % 2))
    patience = Patience(pause_s=30.0, least_gain_bytes=0)
    events = watched(machine, [task], hops, patience=patience)
    ends = [event.seconds for event in events]
    assert len(ends) == 3
    assert min(np.diff(ends)) >= 30.0


def test_threads_on_two_nodes_keep_what_is_there():
    """A thread stays on node 0 and another one on node 1: the pages of node 0 are near enough."""
    machine, task = machine_with(8)
    other = task.thread(cpu=1)
    both = Schedule(20, (task, lambda _: 0), (other, lambda _: 1))
    assert watched(machine, [task], both) == []


@pytest.mark.parametrize(("gain", "moves"), [(20 * PAGE, 1), (20 * PAGE + 1, 0)])
def test_a_move_must_be_worth_it(gain, moves):
    """20 pages from a distance of 20 to one of 10 gain 20 pages, and not a byte more."""
    machine, task = machine_with(20)
    away = Schedule(20, (task, lambda _: 1))
    patience = Patience(pause_s=5.0, least_gain_bytes=gain)
    assert len(watched(machine, [task], away, patience=patience)) == moves


def test_memory_that_is_touched_later():
    """Pages that come to another node afterwards are fetched as well, after the pause."""
    machine, task = machine_with(20)
    first = task.mmap(30)
    calls = count()

    def carry_out(plan):
        ledger = execute(plan, machine, QUICK, clock=clock)
        if not next(calls):
            task.struct.cpu = 0  # first touch is there
            task.write(first, 30)
        return ledger

    clock = Schedule(30, (task, lambda _: 2))
    one, other = watched(machine, [task], clock, carry_out=carry_out)
    assert (one.ledger.moved_pages, other.ledger.moved_pages) == (20, 30)
    assert other.seconds - one.seconds >= SMALL["pause_s"]
    assert nodes(machine, task) == {2}


def test_what_cannot_move_is_not_tried_for_ever():
    """Pinned pages fail once; without a gain beside them there is no second move."""
    machine, task = machine_with(20)
    first = machine.mappings(task.pid)[0].start
    with machine.inject(Pin(task, first, 4)):
        events = watched(machine, [task], Schedule(60, (task, lambda _: 3)))
    (event,) = events
    assert (event.ledger.moved_pages, sum(event.ledger.failed().values())) == (16, 4)


def test_each_process_for_itself():
    """Of three one goes away and one sleeps; only the pages of the first follow."""
    machine, *tasks = machine_with(5, 6, 7)
    cpus = (lambda _: 0, lambda _: 3, lambda _: None)
    events = watched(machine, tasks, Schedule(20, *zip(tasks, cpus, strict=True)))
    assert [event.task.pid for event in events] == [tasks[1].pid]
    assert [nodes(machine, task) for task in tasks] == [{0}, {3}, {0}]


def test_the_end_of_a_process_is_told():
    """One that has ended before, and one that ends later, are told once; the third goes on."""
    machine, *tasks = machine_with(2, 3, 4)
    infos = [machine.task(task.pid) for task in tasks]
    tasks[0].exit()
    until_then = Schedule(
        30, (tasks[1], lambda now: 0 if now < 5 else tasks[1].exit()), (tasks[2], lambda _: 3)
    )
    events = watched(machine, infos, until_then)
    told = [(type(event), event.task.pid) for event in events]
    assert told == [
        (Ended, tasks[0].pid),
        (Followed, tasks[2].pid),
        (Ended, tasks[1].pid),
    ]


def test_it_ends_with_the_last_process():
    """When nobody is left, there is nothing to wait for."""
    machine, task = machine_with(2)
    clock = Schedule(1000, (task, lambda now: 0 if now < 3 else task.exit()))
    (event,) = watched(machine, [task], clock)
    assert isinstance(event, Ended)
    assert clock.time < 5


def test_a_process_that_ends_while_it_is_moved():
    """The account says how far it came, and then that it has ended."""
    machine, task = machine_with(20)
    machine.inject(BeforeCall(1, task.exit))
    followed, ended = watched(machine, [task], Schedule(20, (task, lambda _: 1)))
    assert followed.ledger.moved_pages == 0
    assert followed.ledger.error is not None
    assert isinstance(ended, Ended)


def test_an_error_ends_it_for_this_process():
    """A move that met an error, such as a lost right, is told and not made again."""
    machine, task = machine_with(20)
    refused = NotPermittedError(Errno.EPERM, "not yours", call="move_pages", pid=task.pid)

    def carry_out(plan):
        return untouched(plan, "error", refused)

    events = watched(machine, [task], Schedule(60, (task, lambda _: 1)), carry_out=carry_out)
    assert [event.ledger.error for event in events] == [refused]


def test_memory_that_may_not_be_looked_at():
    """Another user's process is an error, not silence."""
    machine, task = machine_with(2)
    other = machine.as_task(machine.spawn(uid=1000))
    clock = Schedule(20, (task, lambda _: 1))
    events = keep_near(
        other,
        [machine.task(task.pid)],
        select.everything(),
        lambda plan: execute(plan, other, QUICK),
        clock=clock,
        stop=clock.over,
    )
    with pytest.raises(NotPermittedError, match="not yours to look at"):
        list(events)


def test_it_can_be_stopped_at_any_look():
    """Told to stop, it makes no other look, and no move."""
    machine, task = machine_with(20)
    assert watched(machine, [task], Schedule(0, (task, lambda _: 1))) == []
    assert watched(machine, [task], Schedule(1, (task, lambda _: 1))) == []
    assert nodes(machine, task) == {0}


def test_a_slow_move_does_not_heap_up_looks():
    """Looks that were due while a move took ten seconds are left out, not made in a row."""
    machine, task = machine_with(20)
    clock = Schedule(60, (task, lambda now: 1 + int(now / 20) % 2))
    looks = []

    def carry_out(plan):
        ledger = execute(plan, machine, QUICK, clock=clock)
        clock.time += 10.0
        return ledger

    noting = Looked(machine, lambda: looks.append(clock.now()))
    assert len(watched(noting, [task], clock, carry_out=carry_out)) >= 1
    assert min(np.diff(looks)) > 0.9

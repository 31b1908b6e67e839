"""Files and segments are moved window by window, and every page of them is accounted for.

The object is memory of a process of the model, which sees the machine as its own.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

from movepages.abi import UNWRITTEN, Errno
from movepages.kernel import SimulatedMachine
from movepages.kernel.inject import Pin
from movepages.placement import Options
from movepages.placement.objects import ObjectMover, Sums, bytes_by_node, bytes_to_come

PAGE = 4096
QUICK = Options(backoff_s=0.0)


class Memory:
    """Pages of a process, in windows of four; remembers how many are mapped at a time."""

    def __init__(self, task, pages):
        """Map the pages, with their numbers in them."""
        self.task, self.pages = task, pages
        self.start = task.mmap(pages)
        task.poke(self.start, range(1, pages + 1))
        self.holes, self.now_mapped, self.most_mapped = set(), 0, 0

    def windows(self):
        """Go through the windows."""
        for offset in range(0, self.pages * PAGE, 4 * PAGE):
            yield offset, min(offset + 4 * PAGE, self.pages * PAGE)

    @contextmanager
    def mapped(self, offset, end):
        """Tell the addresses of a window: its pages are there, but for those of holes."""
        self.now_mapped += 1
        self.most_mapped = max(self.most_mapped, self.now_mapped)
        yield None if offset in self.holes else (self.start + offset, self.start + end)
        self.now_mapped -= 1


class Clock:
    """A clock that goes on by a step with each look at it."""

    def __init__(self, step):
        """Begin at 0."""
        self.time, self.step = 0.0, step

    def now(self):
        """Return the time."""
        self.time += self.step
        return self.time

    def sleep(self, seconds):
        """Go forward at once."""
        self.time += seconds


@pytest.fixture
def model():
    """Return a model of four nodes, a process, and the machine as it sees it."""
    machine = SimulatedMachine("4 x 32M")
    task = machine.spawn()
    return machine, task, machine.as_task(task)


def nodes_of(machine, memory):
    """Return the node of each page."""
    addresses = memory.task.addresses(memory.start, memory.pages)
    return machine.query_pages(memory.task.pid, addresses).status.tolist()


def test_where_an_object_is(model):
    """Windows are added up; each is let go before the next is mapped."""
    machine, task, seen = model
    memory = Memory(task, 10)
    machine.move_pages(
        task.pid, task.addresses(memory.start, 10), np.array([0, 1] * 5, dtype=np.int32), 2
    )
    assert bytes_by_node(seen, memory) == {0: 5 * PAGE, 1: 5 * PAGE}
    assert (memory.now_mapped, memory.most_mapped) == (0, 1)


def test_nothing_is_nowhere(model):
    """An object without pages is on no node, and to move it is nothing."""
    _, task, seen = model
    memory = Memory(task, 1)
    memory.pages = 0
    assert bytes_by_node(seen, memory) == {}
    sums = ObjectMover(seen, {1}, QUICK).move(memory)
    assert sums == Sums()
    assert sums.complete


@pytest.mark.parametrize("pages", [1, 4, 5, 11])
def test_all_windows_move(model, pages):
    """Every page comes to its node, the bytes are as they were, and the sums say so."""
    machine, task, seen = model
    memory = Memory(task, pages)
    sums = ObjectMover(seen, {2}, QUICK).move(memory)
    machine.check()
    assert nodes_of(machine, memory) == [2] * pages
    assert task.peek(memory.start, pages).tolist() == list(range(1, pages + 1))
    assert (sums.asked, sums.moved_pages, sums.moved_bytes) == (pages, pages, pages * PAGE)
    assert sums.planned == {(0, 2): (pages, pages * PAGE)}
    assert sums.calls == -(-pages // 4)
    assert sums.complete
    again = ObjectMover(seen, {2}, QUICK).move(memory)
    assert (again.asked, again.moved_pages, again.already_there) == (pages, 0, pages)
    assert again.already_there_bytes == pages * PAGE


def test_several_nodes_by_turns(model):
    """Pages go to the nodes by turns, in order of address and node, however those are given."""
    machine, task, seen = model
    memory = Memory(task, 8)
    ObjectMover(seen, [3, 1], QUICK).move(memory)
    assert nodes_of(machine, memory) == [1, 3] * 4


def test_a_plan_moves_nothing(model):
    """A plan counts what would move from where to where."""
    machine, task, seen = model
    memory = Memory(task, 6)
    sums = ObjectMover(seen, {0, 1}, QUICK).plan(memory)
    assert sums.planned == {(0, 1): (3, 3 * PAGE)}
    assert (sums.asked, sums.already_there, sums.untried_pages, sums.calls) == (6, 3, 3, 0)
    assert nodes_of(machine, memory) == [0] * 6


def test_what_stays_is_counted_by_status(model):
    """A pinned page of one window stays, without a word of the kernel's; all others arrive."""
    machine, task, seen = model
    memory = Memory(task, 9)
    with machine.inject(Pin(task, memory.start + 5 * PAGE)):
        sums = ObjectMover(seen, {1}, QUICK).move(memory)
    assert (sums.moved_pages, sums.failed()) == (8, {UNWRITTEN: 1})
    assert not sums.complete


@pytest.mark.parametrize(("most", "moved"), [(3, 3), (4, 4), (5, 5), (12, 12), (13, 12)])
def test_a_limit_of_pages_is_for_all_objects(model, most, moved):
    """It ends in the middle of a window or between two, and no further window is mapped."""
    machine, task, seen = model
    one, other = Memory(task, 6), Memory(task, 6)
    mover = ObjectMover(seen, {1}, QUICK, max_pages=most)
    made = [mover.move(one), mover.move(other)]
    assert sum(sums.moved_pages for sums in made) == moved
    assert all(sums.complete for sums in made)
    assert (nodes_of(machine, one) + nodes_of(machine, other)).count(1) == moved


def test_a_limit_of_time_is_for_all_windows(model):
    """When it is up no window is begun, and the sums say what was not tried and why."""
    _, task, seen = model
    memory = Memory(task, 40)
    mover = ObjectMover(seen, {1}, replace(QUICK, time_limit_s=10.0), clock=Clock(1.0))
    sums = mover.move(memory)
    assert 0 < sums.moved_pages < 40
    assert sums.ended == mover.ended == "time limit"
    assert sums.untried_pages
    assert mover.move(memory) == Sums(ended="time limit")


def test_it_stops_when_told(model):
    """It is asked before each window and each call; then it begins no other window or object."""
    _, task, seen = model
    for answers, moved, untried in ((4, 8, 0), (5, 8, 4)):
        memory = Memory(task, 16)
        asked = iter([False] * answers + [True])
        mover = ObjectMover(seen, {1}, QUICK, stop=lambda asked=asked: next(asked))
        sums = mover.move(memory)
        assert (sums.moved_pages, sums.untried_pages) == (moved, untried)
        assert sums.ended == mover.ended == "interrupted"
        assert mover.move(memory) == Sums(ended="interrupted")


def test_windows_with_nothing_in_them(model):
    """They are passed over, and not looked at."""
    machine, task, seen = model
    memory = Memory(task, 12)
    memory.holes = {4 * PAGE}
    assert bytes_by_node(seen, memory) == {0: 8 * PAGE}
    assert ObjectMover(seen, {1}, QUICK).move(memory).asked == 8
    assert nodes_of(machine, memory) == [1] * 4 + [0] * 4 + [1] * 4


def test_an_error_ends_the_work(model):
    """A right that is lacking stands in the sums, with the pages that nobody tried."""
    machine = model[0]
    other = machine.spawn(uid=1000)
    memory = Memory(other, 8)
    sums = ObjectMover(machine.as_task(other), {1}, replace(QUICK, shared=True)).move(memory)
    assert (sums.ended, sums.untried_pages, sums.error.errno) == ("error", 4, Errno.EPERM)


def test_verified(model):
    """Only if all windows were asked for again is the whole verified."""
    _, task, seen = model
    memory = Memory(task, 8)
    assert ObjectMover(seen, {1}, replace(QUICK, verify=True)).move(memory).verified
    assert not ObjectMover(seen, {2}, QUICK).move(memory).verified


def test_progress_goes_on_over_windows_and_objects(model):
    """It rises up to the whole, which is told from the start."""
    _, task, seen = model
    told = []
    mover = ObjectMover(seen, {1}, QUICK, total_bytes=12 * PAGE, progress=told.append)
    for memory in (Memory(task, 7), Memory(task, 5)):
        mover.move(memory)
    assert [step.pages for step in told] == [4, 7, 11, 12]
    assert [step.size_bytes for step in told] == [pages * PAGE for pages in (4, 7, 11, 12)]
    assert {(step.total_pages, step.total_bytes) for step in told} == {(12, 12 * PAGE)}


def test_more_may_come_than_was_thought(model):
    """The whole is never less than what is done: more pages may have come into memory since."""
    _, task, seen = model
    told = []
    ObjectMover(seen, {1}, QUICK, total_bytes=PAGE, progress=told.append).move(Memory(task, 4))
    assert [(step.pages, step.total_pages, step.total_bytes) for step in told] == [(4, 4, 4 * PAGE)]


@pytest.mark.parametrize(
    ("now", "to", "coming"),
    [
        ({0: 8}, {1}, {1: 8}),
        ({0: 8, 1: 4}, {1}, {1: 8}),
        ({1: 8}, {1}, {}),
        ({0: 8}, {0, 1}, {1: 4}),
        ({0: 9}, {1, 2}, {1: 5, 2: 5}),
        ({}, {1}, {}),
    ],
)
def test_bytes_to_come(now, to, coming):
    """What is on a node already takes no room there; shares are rounded up."""
    assert bytes_to_come(now, to) == coming

"""Faults on purpose: what they do to a call, and that they leave nothing behind."""

from __future__ import annotations

import errno

import numpy as np
import pytest

from movepages.abi import UNWRITTEN, MoveFlag
from movepages.errors import ArgumentError, UnsupportedError
from movepages.kernel import (
    DOCUMENTED_2006,
    LINUX_2_6_18,
    LINUX_6_12,
    PATCH_2006,
    SimulatedMachine,
)
from movepages.kernel.crash import StaleMemoryError
from movepages.kernel.inject import (
    AfterDrain,
    BeforeCall,
    BeforePass,
    Busy,
    InBatch,
    LruBusy,
    NoMemory,
    Pin,
    StaleMarker,
    pull_back,
)

PAGE = 4096
MOVE = int(MoveFlag.MOVE)
OLD = (DOCUMENTED_2006, PATCH_2006, LINUX_2_6_18)


def start(semantics=LINUX_6_12, pages=3):
    """Return a machine, a process, and the addresses of pages it has touched on node 0."""
    machine = SimulatedMachine("3 x 8M", semantics=semantics)
    p = machine.spawn()
    a = p.mmap(pages)
    p.poke(a, range(1, pages + 1))
    return machine, p, p.addresses(a, pages)


def test_a_pinned_page_stays_until_it_is_released():
    """[pinned, ok, ok] on 6.12: 1 and no status, the others moved (decision table); then all do."""
    machine, p, pages = start()
    with machine.inject(Pin(p, int(pages[0]))):
        machine.check()
        ret, status = p.move_pages(0, pages, [1] * 3, MOVE)
        assert (ret, status.tolist()) == (1, [UNWRITTEN] * 3)
        assert p.nodes(int(pages[0]), 3).tolist() == [0, 1, 1]
        machine.check()
    machine.check()
    ret, status = p.move_pages(0, pages, [1] * 3, MOVE)
    assert (ret, status.tolist()) == (0, [1] * 3)
    assert p.peek(int(pages[0]), 3).tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("semantics", "ret", "status"),
    [
        (DOCUMENTED_2006, 0, -errno.EBUSY),
        (PATCH_2006, 1, -errno.EAGAIN),
        (LINUX_2_6_18, 1, -errno.EAGAIN),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_a_pinned_page_in_2006(semantics, ret, status):
    """[pinned, ok, ok]: -EBUSY by the text, 1 and -EAGAIN by the code (D4, D5)."""
    machine, p, pages = start(semantics)
    with machine.inject(Pin(p, int(pages[0]))):
        assert p.move_pages(0, pages, [1] * 3, MOVE)[0] == ret
        assert p.move_pages(0, pages[:1], [1], MOVE)[1].tolist() == [status]
        machine.check()
    machine.check()


def test_a_pin_outlives_the_mapping():
    """A pinned page that its process unmaps is freed with the pin, not before."""
    machine, p, pages = start()
    frame = p.frames(int(pages[0]), 1)
    with machine.inject(Pin(p, int(pages[0]))):
        p.exit()
        machine.check()
        assert not machine.memory.frames.free[frame].any()
    assert machine.memory.frames.free[frame].all()
    machine.check()


def test_a_busy_page_moves_when_it_is_free_again():
    """A page that is locked for three passes moves in the fourth, within one call."""
    machine, p, pages = start()
    seen = []
    machine.memory.on_pass.append(seen.append)
    with machine.inject(Busy(p, int(pages[0]), passes=2)):
        assert p.move_pages(0, pages[:1], [1], MOVE)[1].tolist() == [1]
    assert seen == [0, 1, 2]
    machine.memory.on_pass.clear()
    machine.check()


def test_the_kernel_waits_for_a_lock_from_the_fourth_pass_on():
    """However long a page is locked, force (pass > 2) waits for it and moves it."""
    machine, p, pages = start(LINUX_2_6_18)
    with machine.inject(Busy(p, int(pages[0]), passes=100)):
        assert p.move_pages(0, pages[:1], [1], MOVE)[1].tolist() == [1]
    machine.check()


@pytest.mark.parametrize("semantics", [*OLD, LINUX_6_12], ids=lambda s: s.name)
def test_a_page_that_someone_else_isolated_is_busy(semantics):
    """A page that is not on an LRU list is -EBUSY in every kernel; afterwards it moves."""
    machine, p, pages = start(semantics)
    with machine.inject(LruBusy(p, int(pages[1]))):
        machine.check()
        assert p.move_pages(0, pages, [1] * 3, MOVE)[1].tolist() == [1, -errno.EBUSY, 1]
    machine.check()
    assert p.move_pages(0, pages, [1] * 3, MOVE)[1].tolist() == [1, 1, 1]


@pytest.mark.parametrize("semantics", OLD, ids=lambda s: s.name)
def test_a_page_faulted_after_the_drain_is_busy_in_2006(semantics):
    """What enters a batch after migrate_prep cannot be isolated: -EBUSY, as its comment implies."""
    machine, p, pages = start(semantics)
    late = p.mmap(1)
    with machine.inject(AfterDrain(lambda: p.write(late))):
        asked = [*pages.tolist(), late]
        assert p.move_pages(0, asked, [1] * 4, MOVE)[1].tolist() == [1, 1, 1, -errno.EBUSY]
    machine.check()
    assert p.move_pages(0, [late], [1], MOVE)[1].tolist() == [1]


def test_a_page_faulted_after_the_drain_moves_today():
    """6.12 disables the batches for the whole call, so that a late page is on the LRU at once."""
    machine, p, pages = start()
    late = p.mmap(1)
    with machine.inject(AfterDrain(lambda: p.write(late))):
        assert p.move_pages(0, [*pages.tolist(), late], [1] * 4, MOVE)[1].tolist() == [1] * 4
    machine.check()


def test_a_page_that_keeps_coming_back_to_a_batch():
    """A page that waits in a batch after each drain is -EBUSY in 2006, and no matter today."""
    for semantics, expected in ((LINUX_2_6_18, -errno.EBUSY), (LINUX_6_12, 1)):
        machine, p, pages = start(semantics)
        with machine.inject(InBatch(p, int(pages[0]))):
            assert p.move_pages(0, pages, [1] * 3, MOVE)[1].tolist() == [expected, 1, 1]
            machine.check()
        machine.check()


@pytest.mark.parametrize("allocation", [1, 3])
def test_an_allocation_fails_in_the_next_call_only(allocation):
    """The n-th allocation of one call fails: -ENOMEM, and what came before moved; once only."""
    machine, p, pages = start()
    with machine.inject(NoMemory(allocation)):
        ret, status = p.move_pages(0, pages, [1] * 3, MOVE)
        assert (ret, status.tolist()) == (-errno.ENOMEM, [UNWRITTEN] * 3)
        moved = allocation - 1
        assert p.nodes(int(pages[0]), 3).tolist() == [1] * moved + [0] * (3 - moved)
        machine.check()
        assert p.move_pages(0, pages, [1] * 3, MOVE)[0] == 0
    assert machine.memory.refuses_allocation is None
    machine.check()


def test_an_allocation_that_never_comes():
    """More allocations than the call makes: nothing fails."""
    machine, p, pages = start()
    with machine.inject(NoMemory(4)):
        assert p.move_pages(0, pages, [1] * 3, MOVE)[0] == 0
    machine.check()


def test_no_memory_for_one_page_in_the_text_of_2006():
    """By the text -ENOMEM is the status of that page, and the next ones move (D6)."""
    machine, p, pages = start(DOCUMENTED_2006)
    with machine.inject(NoMemory(2)):
        ret, status = p.move_pages(0, pages, [1] * 3, MOVE)
    assert (ret, status.tolist()) == (0, [1, -errno.ENOMEM, 1])
    machine.check()


@pytest.mark.parametrize("semantics", [*OLD, LINUX_6_12], ids=lambda s: s.name)
def test_a_process_that_exits_during_the_call(semantics):
    """Pages freed while they are isolated count as moved (D16), and nothing is lost."""
    machine, p, pages = start(semantics)
    free = sum(machine.free_bytes().values())
    with machine.inject(BeforePass(0, p.exit)):
        assert machine.shell.move_pages(p.pid, pages, [1] * 3, MOVE)[0] == 0
    machine.check()
    assert sum(machine.free_bytes().values()) == free + 3 * PAGE


def test_the_cpuset_of_a_process_that_exits_is_known_to_the_end():
    """A list longer than one window goes on by the cpuset that the target had (task_nodes)."""
    machine, p, pages = start(pages=1500)
    nodes = np.arange(1500) // 4 % 2
    with machine.inject(BeforePass(0, p.exit)):
        ret, _ = machine.shell.move_pages(p.pid, pages, nodes, MOVE)
    assert ret == 0
    machine.check()


@pytest.mark.parametrize("semantics", [*OLD, LINUX_6_12], ids=lambda s: s.name)
def test_pages_unmapped_during_the_call(semantics):
    """A page that is unmapped before its pass is gone; the others move."""
    machine, p, pages = start(semantics)
    with machine.inject(BeforePass(0, lambda: p.munmap(int(pages[1]), 1))):
        p.move_pages(0, pages, [1] * 3, MOVE)
    assert p.nodes(int(pages[0]), 1).tolist() == [1]
    assert p.nodes(int(pages[2]), 1).tolist() == [1]
    machine.check()


def test_the_target_goes_offline_during_the_call():
    """A node that loses its memory before the pass has none to give: -ENOMEM on 6.12."""
    machine, p, pages = start()
    with machine.inject(BeforePass(0, lambda: machine.offline(1))):
        assert p.move_pages(0, pages, [1] * 3, MOVE)[0] == -errno.ENOMEM
    assert p.nodes(int(pages[0]), 3).tolist() == [0] * 3
    machine.check()


def test_pages_are_pulled_back_between_calls():
    """NUMA balancing before the second call: what was moved is where it came from."""
    machine, p, pages = start()
    back = BeforeCall(2, lambda: pull_back(p, int(pages[0]), node=0, pages=2))
    with machine.inject(back):
        assert p.move_pages(0, pages, [1] * 3, MOVE)[1].tolist() == [1, 1, 1]
        assert p.move_pages(0, pages, None, 0)[1].tolist() == [0, 0, 1]
        assert p.move_pages(0, pages, None, 0)[1].tolist() == [0, 0, 1]
    assert p.peek(int(pages[0]), 3).tolist() == [1, 2, 3]
    machine.check()


def test_pulling_back_leaves_pages_alone_that_it_may_not_move():
    """Shared and isolated pages, and pages of a full target, stay where they are."""
    machine, p, pages = start()
    p.move_pages(0, pages, [1] * 3, MOVE)
    child = p.fork()
    pull_back(p, int(pages[0]), node=0, pages=3)
    assert p.nodes(int(pages[0]), 3).tolist() == [1] * 3
    child.exit()
    with machine.inject(LruBusy(p, int(pages[0]))):
        pull_back(p, int(pages[0]), node=0, pages=3)
        assert p.nodes(int(pages[0]), 3).tolist() == [1, 0, 0]
        machine.check()
    machine.offline(2)
    pull_back(p, int(pages[0]), node=2, pages=3)
    assert p.nodes(int(pages[0]), 3).tolist() == [1, 0, 0]
    machine.check()


def test_stale_kernel_memory_has_a_name():
    """A query whose uninitialised array has the end marker raises where 2006 leaked (D13)."""
    machine, p, pages = start(PATCH_2006)
    with machine.inject(StaleMarker(3)):
        assert p.move_pages(0, pages, None, 0)[1].tolist() == [0] * 3
    with machine.inject(StaleMarker(2)), pytest.raises(StaleMemoryError, match="entry 2"):
        p.move_pages(0, pages, None, 0)
    assert p.move_pages(0, pages, None, 0)[1].tolist() == [0] * 3


@pytest.mark.parametrize("semantics", [DOCUMENTED_2006, LINUX_6_12], ids=lambda s: s.name)
def test_kernels_that_do_not_leak_cannot_be_made_to(semantics):
    """What is undefined in 2006 is as today in its text: there is nothing to inject."""
    machine, _, _ = start(semantics)
    with pytest.raises(UnsupportedError, match="initialises"):
        machine.inject(StaleMarker(0))


def test_releasing_twice_is_releasing_once():
    """A handle may be released by hand inside its block."""
    machine, p, pages = start()
    with machine.inject(Pin(p, int(pages[0]))) as pin:
        pin.release()
        assert p.move_pages(0, pages, [1] * 3, MOVE)[0] == 0
    machine.check()


def test_nothing_stays_armed():
    """After their blocks no fault is left in any list, fired or not."""
    machine, p, pages = start()
    first = int(pages[0])
    for fault in (
        Pin(p, first),
        Busy(p, first),
        LruBusy(p, first),
        InBatch(p, first),
        NoMemory(),
        BeforePass(9, p.exit),
        BeforeCall(9, p.exit),
        AfterDrain(lambda: None),
    ):
        machine.inject(fault).release()
    memory = machine.memory
    assert not memory.on_pass
    assert not memory.on_drain
    assert not memory.pins
    assert not machine.before_call
    assert memory.refuses_allocation is None
    machine.check()


def test_faults_that_make_no_sense_are_refused():
    """Untouched pages, zero pages and counts below one are refused when a fault is armed."""
    machine, p, _ = start()
    a = p.mmap(2)
    p.read(a)
    for fault in (Pin(p, a), Pin(p, a + PAGE), Pin(p, a, 0), LruBusy(p, a + PAGE)):
        with pytest.raises(ArgumentError, match="present"):
            machine.inject(fault)
    p.write(a)
    with pytest.raises(ArgumentError, match="at least one"):
        machine.inject(Busy(p, a, passes=0))
    with pytest.raises(ArgumentError, match="from 1"):
        machine.inject(NoMemory(0))
    vdso = p.map_vdso()
    with pytest.raises(ArgumentError, match="not on the LRU"):
        machine.inject(LruBusy(p, vdso))
    with machine.inject(NoMemory()), pytest.raises(ArgumentError, match="one failing"):
        machine.inject(NoMemory())
    machine.check()

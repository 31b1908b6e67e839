"""The machine that a program sees: what it declares, whom it serves, what it counts."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from live_machine import PAGE, LiveMachine

from movepages.abi import CALLS, Mode
from movepages.emulator.filter import Precision
from movepages.emulator.machine import EmulatedMachine
from movepages.errors import TopologyError
from movepages.kernel import DOCUMENTED_2006, LINUX_6_12
from movepages.topology import parse_topology

pytestmark = pytest.mark.host

NOBODY_HAS_THIS_PID = 1 << 30
MAP_CHANGES = {"munmap", "mmap", "madvise", "mremap", "brk", "shmdt"}


def machine(topology="2x(0cpu,1M)", precision=Precision.EXACT):
    """Declare a machine that runs nothing."""
    return EmulatedMachine(parse_topology(topology), LINUX_6_12, precision)


def test_each_cpu_of_the_host_has_a_node():
    """Every CPU that a task may run on belongs to a declared node; others belong to the first."""
    declared = machine("1x(0cpu,1M) + 1x(1cpu,1M)")
    nodes = {cpu: declared.node_of_cpu(cpu) for cpu in os.sched_getaffinity(0)}
    assert set(nodes.values()) == {1}
    assert declared.node_of_cpu(100_000) == 0


def test_declared_cpus_that_are_not_there_are_said_to_be_left_out():
    """The machine has as many CPUs as the host, and a notice tells which were dropped."""
    declared = machine("1x(10000cpu,1M)")
    assert len(declared.topology.node(0).cpus) == len(os.sched_getaffinity(0))
    assert "left out" in declared.notice
    assert machine().notice == ""


@pytest.mark.parametrize(
    ("precision", "map_changes"), [(Precision.LAZY, set()), (Precision.EXACT, MAP_CHANGES)]
)
def test_calls_are_served_by_precision(precision, map_changes):
    """NUMA calls and getcpu always; changes of the map if it is to be told of them."""
    assert set(machine(precision=precision).handlers()) == {*CALLS, "getcpu"} | map_changes


def test_no_program_crashes_the_emulated_kernel():
    """Where the kernel of 2006 would have crashed, a live program gets an answer instead."""
    assert not EmulatedMachine(
        parse_topology("2"), DOCUMENTED_2006, Precision.EXACT
    ).semantics.crashes


def test_node_numbers_beyond_a_byte_are_refused():
    """More nodes than can be kept are an error when the machine is declared."""
    with pytest.raises(TopologyError, match="numbered 0 to 127"):
        machine("129x(0cpu,1M)")


def test_report_counts_what_was_moved_and_where_it_is(live: LiveMachine):
    """Pages moved, pages by node, losses, descriptors and memory are in the report."""
    process = live.world.process()
    start = process.mmap(4)
    process.write(start, 4)
    live.put(process.pid, start, [3] * 4)
    live.put(process.pid, start, [2] * 4)
    report = live.machine.report()
    assert report["pages_moved"] in {4, 8}
    assert (report["pages_by_node"][2], report["pages_by_node"][3]) == (4, 0)
    assert report["losses"] == {}
    assert report["descriptors"] == len(list(Path("/proc/self/fd").iterdir()))
    assert report["peak_memory_bytes"] > 1 << 20


def test_pages_of_who_has_ended_are_released(live: LiveMachine):
    """The memory of a process is free again when it has gone, and not before."""
    process = live.world.process()
    start = process.mmap(4)
    process.write(start, 4)
    live.put(process.pid, start, [3] * 4)
    live.machine.reclaim()
    assert live.used()[3] == 4
    process.exit()
    live.machine.reclaim()
    assert live.used()[3] == 0


def test_full_node_is_freed_by_those_who_have_ended(emulate):
    """An allocation that finds a node full first takes back what nobody has any more."""
    live = emulate("1x(0cpu,64K) + 1x(0cpu,32K)")
    one, other = live.world.process(), live.world.process()
    starts = [process.mmap(16) for process in (one, other)]
    for process, start in zip((one, other), starts, strict=True):
        process.write(start, 8)
        live.put(process.pid, start, [1] * 8 if process is one else [0] * 8)
    one.exit()
    live.put(other.pid, starts[1], [1] * 8)
    assert live.used() == [0, 8]


def test_children_inherit_before_pages_move(live: LiveMachine):
    """Whoever was forked before a move, and not seen yet, keeps where its pages were."""
    process = live.world.process()
    start = process.mmap(2)
    process.write(start, 2)
    live.put(process.pid, start, [1, 1])
    child = process.fork()
    process.write(start)
    live.put(process.pid, start, [3])
    assert live.where(child.pid, start, 2) == [1, 1]
    assert live.where(process.pid, start, 2) == [3, 1]


def test_move_of_nobody_finds_nobody_to_inherit(live: LiveMachine):
    """A pid that nobody has is no error before the call itself has looked at it."""
    task = live.machine.processes.task(os.getpid())
    live.machine.before_move(task, NOBODY_HAS_THIS_PID)
    live.machine.before_move(task, -1)


def test_task_without_memory_has_nothing_to_forget(live: LiveMachine):
    """Calls for a kernel thread change nothing."""
    thread = live.machine.processes.task(2)
    live.machine.forget_range(thread, 0, 10, policies=True)
    live.machine.before_policy_change(thread)
    assert live.used() == [0] * 4


def test_frames_are_those_of_the_kernel(live: LiveMachine):
    """A touched page has a frame that nothing else has, an absent one has 0."""
    process = live.world.process()
    start = process.mmap(3)
    process.write(start, 2)
    mm = live.machine.processes.task(process.pid).mm
    frames = live.machine.frames_of(mm, np.arange(3) + start // PAGE).tolist()
    assert 0 not in frames[:2]
    assert frames[0] != frames[1]
    assert frames[2] == 0


def test_policy_belongs_to_shared_memory_or_to_the_area(live: LiveMachine):
    """Of a file in memory the policy is the file's, by page of the file; else the process's."""
    file = live.world.shmem(4)
    process = live.world.process()
    shared, private = process.mmap(4, shared=True, file=file), process.mmap(4)
    mm, space = live.machine.processes.task(process.pid).mm, live.space(process.pid)
    area = space.area_at(shared // PAGE)
    assert live.machine.policed(mm, area, shared // PAGE + 3) == (area.file, 3)
    area = space.area_at(private // PAGE)
    assert live.machine.policed(mm, area, private // PAGE) == (mm.anonymous, private // PAGE)


def test_lazy_machine_answers_the_same_calls(emulate):
    """Without being told of changes of the map, policies and moves of what stays hold as well."""
    live = emulate(precision=Precision.LAZY)
    process = live.world.process()
    start = process.mmap(4)
    assert live.set_mempolicy(process.pid, Mode.BIND, [2]) == 0
    process.write(start, 4)
    live.put(process.pid, start, [1])
    assert live.where(process.pid, start, 4) == [1, 2, 2, 2]

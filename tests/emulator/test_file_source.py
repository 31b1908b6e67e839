"""What faked files say of live processes: policies and pages by node, and who is meant."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from live_machine import PAGE

from movepages.abi import Mode
from movepages.emulator.file_source import LiveFileSource

pytestmark = pytest.mark.host

KTHREADD = 2
NOBODY_HAS_THIS_PID = 1 << 30


@pytest.fixture
def source(live):
    """The source of the files of a machine."""
    return LiveFileSource(live.machine)


@pytest.fixture
def process(live):
    """A process."""
    return live.world.process()


def described(source, process, start):
    """Return what the faked numa_maps says of the mapping that begins at an address."""
    text = source.numa_maps(process.pid, Path(f"/proc/{process.pid}/numa_maps").read_bytes())
    line = next(line for line in text.splitlines() if line.startswith(b"%x " % start))
    return line.decode().split()[1:]


def test_pages_are_counted_by_their_emulated_node(live, source, process):
    """A mapping of five pages on two nodes has both counts, whatever the host's nodes are."""
    start = process.mmap(8)
    process.write(start, 5)
    live.put(process.pid, start, [3, 1, 3, 3, 1])
    words = described(source, process, start)
    assert words[0] == "default"
    assert [word for word in words if word.startswith("N")] == ["N1=2", "N3=3"]


def test_what_is_left_of_a_huge_page_is_counted_by_page(live, source, process):
    """Of a huge page mapped in part the mapped pages count, wherever the folio is."""
    start = process.mmap(512)
    process.madvise(start, 512, "hugepage")
    process.write(start, 512)
    process.munmap(start + 500 * PAGE, 12)
    live.put(process.pid, start, [2])
    words = described(source, process, start)
    assert [word for word in words if word.startswith("N")] == ["N2=500"]


def test_policy_is_the_areas_or_else_the_tasks(live, source, process):
    """A mapping without a policy of its own is shown with the task's, as show_numa_map does."""
    own, plain = process.mmap(2), process.mmap(2)
    assert live.set_mempolicy(process.pid, Mode.BIND, [1, 2]) == 0
    assert live.mbind(process.pid, own, 2, Mode.INTERLEAVE, [0, 3]) == 0
    assert described(source, process, own)[0] == "interleave:0,3"
    assert described(source, process, plain)[0] == "bind:1-2"


def test_policy_of_shared_memory_is_shown_for_all_who_map_it(live, source):
    """The policy of a file in memory is the file's, whoever set it."""
    file = live.world.shmem(2)
    one, other = live.world.process(), live.world.process()
    mine, theirs = one.mmap(2, shared=True, file=file), other.mmap(2, shared=True, file=file)
    assert live.mbind(one.pid, mine, 2, Mode.PREFERRED, [3]) == 0
    assert described(source, other, theirs)[0] == "prefer:3"


def test_huge_page_counts_as_its_base_pages(live, source, process):
    """A transparent huge page is 512 pages of numa_maps."""
    start = process.mmap(512)
    process.madvise(start, 512, "hugepage")
    process.write(start)
    live.put(process.pid, start, [2])
    assert "N2=512" in described(source, process, start)


def test_task_without_memory_has_the_text_that_it_has(source):
    """Nothing is said about a kernel thread."""
    assert source.numa_maps(KTHREADD, b"") == b""


def test_task_that_is_gone_is_no_task(source):
    """Its file cannot be made."""
    with pytest.raises(ProcessLookupError):
        source.numa_maps(NOBODY_HAS_THIS_PID, b"")


def test_nodes_are_those_that_are_declared(emulate):
    """All nodes with memory are allowed, and none of the host's; what is used is counted."""
    live = emulate("2x(0cpu,1M) + 1x(0cpu,0) + 1x(0cpu,1M)")
    source, process = LiveFileSource(live.machine), live.world.process()
    assert source.mems_allowed(process.pid) == live.machine.topology.with_memory
    start = process.mmap(3)
    process.write(start, 3)
    live.put(process.pid, start, [3, 3, 3])
    assert source.used_pages(3) == 3
    assert live.machine.capacity.free(3) == (1 << 20) // PAGE - 3


def test_numbers_mean_what_the_reader_means(source):
    """In our own pid namespace a number is the process that has it."""
    assert source.pid_of(os.getpid(), KTHREADD) == KTHREADD

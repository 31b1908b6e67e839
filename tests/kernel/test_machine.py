"""The machine itself: what it is built of, and the life of its processes."""

from __future__ import annotations

import pytest

from movepages.abi import MAX_NUMNODES
from movepages.errors import ArgumentError, TopologyError
from movepages.kernel import (
    DOCUMENTED_2006,
    LINUX_2_6_18,
    LINUX_6_12,
    PATCH_2006,
    SimulatedMachine,
)
from movepages.kernel.mappings import Backing
from movepages.kernel.page_tables import MAX_FRAMES
from movepages.nodeset import NodeSet
from movepages.topology import Node, Topology

ALL = [DOCUMENTED_2006, PATCH_2006, LINUX_2_6_18, LINUX_6_12]


def topology(*nodes: Node) -> Topology:
    """Make a machine of nodes as they are."""
    return Topology(nodes, NodeSet(node.id for node in nodes))


@pytest.mark.parametrize(
    ("machine", "problem"),
    [
        ("", "group of nodes"),
        ("0", "at least one node"),
        ("2x(1cpu,0)", "no node has memory"),
        ("2x(0cpu,64M)", "no node has a CPU"),
        ("two nodes", "group of nodes"),
        ("2 x 64Q", "64Q"),
        ("1x(1cpu,100)", "not a page"),
        ("1x(1cpu,8192P)", "more than a page table"),
        (topology(Node(0, (0,), 1 << 20, distances={})), "distance"),
        (topology(Node(0, (0,), 1 << 20, distances={0: 0})), "smallest"),
        (topology(Node(0, (0,), -4096, distances={0: 10})), "not a page"),
        (topology(Node(MAX_NUMNODES, (0,), 1 << 20, distances={MAX_NUMNODES: 10})), "numbered"),
    ],
)
def test_topologies_that_make_no_sense_are_refused(machine, problem):
    """A machine that cannot be is refused when it is built, with the reason."""
    with pytest.raises(TopologyError, match=problem):
        SimulatedMachine(machine)


@pytest.mark.parametrize(
    ("how", "problem"),
    [
        ({"page_size_bytes": 0}, "power of two"),
        ({"page_size_bytes": 4095}, "power of two"),
        ({"page_size_bytes": -4096}, "power of two"),
        ({"page_size_bytes": 1 << 21}, "power of two"),
        ({"swap_bytes": -1}, "0 or more"),
        ({"swap_bytes": (MAX_FRAMES + 1) * 4096}, "more than a page table"),
        ({"watermark_pages": -1}, "0 or more"),
        ({"vmalloc_limit_bytes": -1}, "0 or more"),
        ({"semantics": "6.12"}, "not one of the kernels"),
        ({"without": frozenset({"fork"})}, "no calls"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(how, problem):
    """Page sizes, sizes of swap, kernels and calls that do not exist are refused."""
    with pytest.raises(ArgumentError, match=problem):
        SimulatedMachine("2 x 8M", **how)


@pytest.mark.parametrize("wrong", [4, None, ["64M"]])
def test_a_machine_is_a_text_or_a_topology(wrong):
    """Anything else is refused by name."""
    with pytest.raises(ArgumentError, match="not a topology"):
        SimulatedMachine(wrong)


@pytest.mark.parametrize("page", [512, 4096, 16384, 65536, 1 << 20])
@pytest.mark.parametrize("semantics", ALL, ids=lambda s: s.name)
def test_pages_of_all_sizes_work(page, semantics):
    """A move works at any page size, and everything adds up."""
    machine = SimulatedMachine("2 x 8M", page_size_bytes=page, semantics=semantics)
    p = machine.spawn()
    a = p.mmap(3)
    p.poke(a, [1, 2, 3])
    assert p.move_pages(0, p.addresses(a, 3), [1] * 3, 2)[1].tolist() == [1] * 3
    assert p.peek(a, 3).tolist() == [1, 2, 3]
    machine.check()


def test_memory_is_counted_to_the_page():
    """A machine has as many pages as declared, less the zero page."""
    machine = SimulatedMachine("1x(1cpu,64K) + 1x(0cpu,128K)")
    assert machine.free_bytes() == {0: 60 << 10, 1: 128 << 10}
    machine.check()


def test_the_watermark_is_kept_back():
    """Memory below the watermark is not given out, to faults or to moves."""
    machine = SimulatedMachine("2 x 64K", watermark_pages=4)
    p = machine.spawn(cpu=0)
    a = p.mmap(11)
    p.write(a, 11)
    assert (p.nodes(a, 11) == 0).all()
    b = p.mmap(1)
    p.write(b)
    assert p.nodes(b, 1).tolist() == [1]
    machine.check()


def test_a_process_ends_and_leaves_a_zombie():
    """A child stays a zombie until its parent waits; its memory goes at once."""
    machine = SimulatedMachine("2 x 8M")
    free = machine.free_bytes()
    p = machine.spawn()
    a = p.mmap(4)
    p.write(a, 4)
    child = p.fork()
    child.write(a, 4)
    child.exit()
    assert child.pid in machine.task_structs
    machine.check()
    p.wait()
    assert child.pid not in machine.task_structs
    p.exit()
    assert p.pid not in machine.task_structs
    assert machine.free_bytes() == free
    machine.check()
    for ended in (
        p.exit,
        p.fork,
        p.thread,
        lambda: p.mmap(1),
        lambda: p.move_pages(0, [a], None, 0),
    ):
        with pytest.raises(ArgumentError, match="has ended"):
            ended()


def test_threads_share_memory_until_the_last_is_gone():
    """Memory goes with the last thread, in whatever order they end."""
    machine = SimulatedMachine("2 x 8M")
    p = machine.spawn()
    thread = p.thread(cpu=1)
    a = p.mmap(1)
    thread.poke(a, [3])
    assert p.peek(a).tolist() == [3]
    p.exit()
    assert thread.peek(a).tolist() == [3]
    thread.exit()
    machine.check()
    assert machine.free_bytes()[1] == 8 << 20


@pytest.mark.parametrize("cpu", [-1, 2])
def test_cpus_that_do_not_exist_are_refused(cpu):
    """A task runs on a CPU of the machine."""
    with pytest.raises(ArgumentError, match="no CPU"):
        SimulatedMachine("2 x 8M").spawn(cpu=cpu)


@pytest.mark.parametrize("pages", [0, -1, 1 << 40])
def test_files_of_absurd_sizes_are_refused(pages):
    """A file has at least one page, and no more than can be mapped."""
    machine = SimulatedMachine("2 x 8M")
    for make in (machine.shmem_file, machine.hugetlb_file, lambda n: machine.file("/f", n)):
        with pytest.raises(ArgumentError, match="file of"):
            make(pages)


@pytest.mark.parametrize("semantics", ALL, ids=lambda s: s.name)
def test_nothing_is_left_of_a_full_life(semantics):
    """Processes with all kinds of memory end, and every frame but cached files' is free."""
    machine = SimulatedMachine("2 x 32M", semantics=semantics)
    free = sum(machine.free_bytes().values())
    file = machine.file("/f", 4)
    p = machine.spawn()
    for backing in (Backing.SHMEM, Backing.BUFFERS):
        p.write(p.mmap(2, file=machine.file("/g", 2, backing), shared=True), 2)
    private = p.mmap(4, file=file)
    p.write(private, 4)
    p.write(p.mmap(2, shared=True), 2)
    machine.resize_pool(0, 1)
    p.write(p.mmap(512, huge=True))
    machine.check()
    p.fork().write(private, 2)
    for task in list(machine.task_structs.values()):
        if task.mm and task.pid > 2:
            machine.memory.lru.drain_all()
            type(p)(machine, task).exit()
            machine.check()
    for cached in machine.memory.mappings.files():
        machine.evict(cached)
    machine.resize_pool(0, 0)
    machine.check()
    assert sum(machine.free_bytes().values()) == free


def test_the_vdso_is_shared_by_all_and_stays():
    """Query [node], move elsewhere [-EACCES], MOVE_ALL [-EBUSY] (decision table)."""
    machine = SimulatedMachine("2 x 8M")
    p = machine.spawn()
    v = p.map_vdso()
    assert p.move_pages(0, [v], None, 0)[1].tolist() == [0]
    assert p.move_pages(0, [v], [0], 2)[1].tolist() == [0]
    assert p.move_pages(0, [v], [1], 2)[1].tolist() == [-13]
    assert p.move_pages(0, [v], [1], 4)[1].tolist() == [-16]
    machine.check()
    p.exit()
    machine.check()


@pytest.mark.parametrize(
    ("semantics", "moved"), [(LINUX_6_12, -14), (LINUX_2_6_18, -2)], ids=lambda v: str(v)[:9]
)
def test_device_memory_has_no_page(semantics, moved):
    """vvar: query -ENOENT everywhere; move -EFAULT today, -ENOENT in 2006 (decision table)."""
    machine = SimulatedMachine("2 x 8M", semantics=semantics)
    p = machine.spawn()
    d, a = p.mmap(1, device=True), p.mmap(1)
    p.write(a)
    assert p.move_pages(0, [d, a], None, 0)[1].tolist() == [-2, 0]
    assert p.move_pages(0, [d, a], [1, 1], 2)[1].tolist() == [moved, 1]
    machine.check()

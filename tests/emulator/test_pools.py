"""Pools of huge pages by node: counters, live processes, and what a program sees and sets."""

from __future__ import annotations

import json
import platform
import random
import subprocess
import sys

import numpy as np
import pytest
from live_machine import PAGE

from movepages.abi import UNWRITTEN, Mode, MoveFlag, numbers_for
from movepages.emulator.capacity import Capacity
from movepages.emulator.overlay import MAX_NODES
from movepages.emulator.pools import Hstates
from movepages.kernel import SimulatedMachine
from movepages.nodeset import NodeSet
from movepages.topology import HugePool, Node, Topology, parse_topology

HUGE = 512
ORDER = 9
SIZE_BYTES = 2 << 20
HUGE_BYTES = HUGE * PAGE


# -- counters ---------------------------------------------------------------------------------


@pytest.fixture
def reclaimed():
    """Collects how often memory was looked for."""
    return []


@pytest.fixture
def pools(reclaimed):
    """Empty pools of 2 MiB pages on three nodes of 10 MiB, and one without memory."""
    topology = parse_topology("3 x 10M + 1 x 0")
    capacity = Capacity(topology, PAGE, lambda: reclaimed.append(True))
    return Hstates(topology, PAGE, [SIZE_BYTES], capacity)


@pytest.fixture
def size(pools):
    """The pools of 2 MiB pages."""
    return pools[ORDER]


def pages(**counts):
    """Return pages by node, such as n1=3 for three huge pages on node 1."""
    array = np.zeros(MAX_NODES, dtype=np.int64)
    for node, count in counts.items():
        array[int(node[1:])] = count * HUGE
    return array


def pool(size, node):
    """Return what the three files of a pool say."""
    return int(size.total[node]), size.free(node), int(size.surplus[node])


def free_memory(pools):
    """Return the free pages of each node, in huge pages."""
    return [pools.room(0).free(node) // HUGE for node in range(4)]


@pytest.mark.parametrize(("asked", "got"), [(0, 0), (4, 4), (5, 5), (6, 5), (10**30, 5)])
def test_pool_grows_as_far_as_its_node_has_memory(pools, size, asked, got):
    """A node of five huge pages gives four, five, and no sixth; they are no longer its memory."""
    size.resize(1, asked)
    assert pool(size, 1) == (got, got, 0)
    assert free_memory(pools) == [5, 5 - got, 5, 0]


def test_node_without_memory_has_no_pool(size):
    """Nothing can be had there."""
    size.resize(3, 1)
    assert pool(size, 3) == (0, 0, 0)


def test_pool_shrinks_by_its_free_pages(pools, size):
    """They are ordinary memory again; those in use stay, and are surplus (set_max_huge_pages)."""
    size.resize(0, 4)
    assert size.take(0, 3, ORDER) == 3
    size.resize(0, 3)
    assert pool(size, 0) == (3, 0, 0)
    size.resize(0, 1)
    assert pool(size, 0) == (3, 0, 2)
    assert free_memory(pools)[0] == 2


def test_surplus_pages_stay_when_the_pool_grows_again(pools, size):
    """Surplus ones are taken in before new ones are made."""
    size.resize(0, 3)
    size.take(0, 3, ORDER)
    size.resize(0, 0)
    size.resize(0, 2)
    assert pool(size, 0) == (3, 0, 1)
    size.resize(0, 5)
    assert pool(size, 0) == (5, 2, 0)
    assert free_memory(pools)[0] == 0


def test_pages_that_come_back_leave_as_long_as_there_is_surplus(pools, size):
    """Of three pages in use two too many, the first two to be freed go to ordinary memory."""
    size.resize(0, 3)
    size.take(0, 3, ORDER)
    size.resize(0, 1)
    size.release(pages(n0=2))
    assert pool(size, 0) == (1, 0, 0)
    size.release(pages(n0=1))
    assert pool(size, 0) == (1, 1, 0)
    assert free_memory(pools)[0] == 4


@pytest.mark.parametrize(("wanted", "found"), [(1, 1), (2, 2), (3, 2)])
def test_pool_gives_its_free_pages(size, reclaimed, wanted, found):
    """All that are free and no more; before it is short, it looks for what has come back."""
    size.resize(2, 2)
    assert size.take(2, wanted, ORDER) == found
    assert pool(size, 2) == (2, 2 - found, 0)
    assert len(reclaimed) == (wanted > 2)


def test_pages_that_are_there_though_none_was_free_are_surplus(pools, size):
    """What the host has given is counted: free pages first, then beyond, and leaves as it came."""
    size.resize(0, 1)
    size.charge(pages(n0=3, n3=1))
    assert (pool(size, 0), pool(size, 3)) == ((3, 0, 2), (1, 0, 1))
    assert free_memory(pools) == [2, 5, 5, 0]
    size.release(pages(n0=3, n3=1))
    assert (pool(size, 0), pool(size, 3)) == ((1, 1, 0), (0, 0, 0))
    assert free_memory(pools) == [4, 5, 5, 0]


def test_move_into_a_pool_leaves_a_free_page_behind(pools, size):
    """Neither pool changes its size."""
    size.resize(0, 2)
    size.resize(1, 2)
    size.take(0, 1, ORDER)
    assert size.take_for_migration(1, 1) == (1, 0)
    size.moved(np.array([0]), np.array([1]), np.array([True]))
    assert (pool(size, 0), pool(size, 1)) == ((2, 2, 0), (2, 1, 0))
    assert free_memory(pools) == [3, 3, 5, 0]


def test_move_beyond_a_pool_takes_the_place_along(pools, size):
    """The target's pool grows by the page, the source's shrinks by it; surplus stays surplus."""
    size.resize(0, 3)
    size.take(0, 3, ORDER)
    size.resize(0, 2)
    size.resize(1, 1)
    assert size.take_for_migration(1, 3) == (1, 2)
    size.moved(np.array([0, 0]), np.array([1, 1]), np.array([False, False]))
    assert (pool(size, 0), pool(size, 1)) == ((1, 0, 0), (3, 0, 1))
    assert free_memory(pools) == [4, 2, 5, 0]


def test_move_is_made_only_of_memory_that_there_is(size):
    """A node of five huge pages has room for five."""
    assert size.take_for_migration(2, 6) == (0, 5)


def test_declared_pools_are_there_at_first():
    """A machine's own pools hold memory, of which some pages are in use by nobody we know."""
    node = Node(0, memory_bytes=40 << 20, huge_pools=(HugePool(SIZE_BYTES, 8, 5, 1),))
    topology = Topology((node,), NodeSet([0]))
    capacity = Capacity(topology, PAGE, lambda: None)
    pools = Hstates(topology, PAGE, [1 << 30], capacity)
    assert pool(pools[ORDER], 0) == (8, 5, 1)
    assert [each.order for each in pools] == [ORDER, 18]
    assert capacity.free(0) == 12 * HUGE
    assert (pools.held()[0], pools.used()[0], pools.grown()[0]) == (8 * HUGE, 0, 0)
    pools[ORDER].take(0, 1, ORDER)
    assert pools.used()[0] == HUGE
    pools[ORDER].resize(0, 9)
    assert pool(pools[ORDER], 0) == (9, 5, 0)
    assert pools.grown()[0] == HUGE


@pytest.mark.parametrize("seed", range(5))
def test_counters_are_those_of_the_model(seed):
    """Random sizes, touches, moves and releases leave the pools that kernel/hugetlb.py has."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    model = SimulatedMachine("4 x 64M").memory
    topology = parse_topology("4 x 64M")
    ours = Hstates(topology, PAGE, [SIZE_BYTES], Capacity(topology, PAGE, lambda: None))[ORDER]
    held = []
    for _ in range(200):
        node, other = chance.randrange(4), chance.randrange(4)
        match chance.choice(["resize", "take", "release", "move"]):
            case "resize":
                in_use = sum(model.frames.node[held] == node)
                total = int(in_use) + chance.randrange(3)
                model.pools.resize(node, ORDER, total)
                ours.resize(node, total)
            case "take":
                found = model.pools.take(node, 2, ORDER)
                assert ours.take(node, 2, ORDER) == len(found)
                held += found.tolist()
            case "release" if held:
                head = np.array([held.pop(chance.randrange(len(held)))])
                ours.release(pages(**{f"n{model.frames.node[head[0]]}": 1}))
                model.frames.references[head] = 0
                model.pools.give_back(head)
            case "move" if held:
                at = chance.randrange(len(held))
                old = np.array([held[at]])
                new = model.pools.take_for_migration(other, 1, ORDER)
                source = int(model.frames.node[old[0]])
                pooled, made = ours.take_for_migration(other, 1)
                assert len(new) == pooled + made
                ours.moved(np.array([source]), np.array([other]), np.array([pooled == 1]))
                model.pools.moved(old, new)
                model.frames.references[old] = 0
                model.pools.give_back(old)
                held[at] = int(new[0])
        for number in range(4):
            theirs = model.pools.pool(number, ORDER)
            assert pool(ours, number) == (theirs.total, len(theirs.free), 0)


# -- live processes ---------------------------------------------------------------------------


@pytest.fixture
def process(huge_pages, live):  # noqa: ARG001 - what it maps
    """A process on the first CPU, which belongs to node 0."""
    return live.world.process()


@pytest.fixture
def set_pools(live):
    """Return a function that sets the sizes of the pools of four nodes."""

    def sized(*huge_pages):
        for node, count in enumerate(huge_pages):
            live.machine.pools[ORDER].resize(node, count)

    return sized


def file_of(node, name):
    """Return the path of a file of a node's pool."""
    pool = f"node{node}/hugepages/hugepages-{SIZE_BYTES >> 10}kB"
    return f"/sys/devices/system/node/{pool}/{name}_hugepages"


def all_pools(live):
    """Return what the files of all nodes' pools say."""
    return [
        tuple(
            int(live.machine.attributes.text(file_of(node, name)))
            for name in ("nr", "free", "surplus")
        )
        for node in range(4)
    ]


def mapped(process, huge_pages, **options):
    """Map huge pages; return their addresses."""
    start = process.mmap(huge_pages * HUGE, huge=True, **options)
    return [start + number * HUGE_BYTES for number in range(huge_pages)]


def touch(process, addresses):
    """Write to the first page of each."""
    for address in addresses:
        process.write(address)


@pytest.mark.emulator
def test_touch_takes_of_the_nearest_pool_that_has_a_page(live, process, set_pools):
    """Node 0, where it runs, has one; the next of the zone list two; beyond these it is surplus."""
    set_pools(1, 2, 0, 0)
    addresses = mapped(process, 4)
    touch(process, addresses)
    assert live.move(process.pid, addresses, None, MoveFlag(0)) == (0, [0, 1, 1, 0])
    assert all_pools(live) == [(2, 0, 1), (2, 0, 0), (0, 0, 0), (0, 0, 0)]


@pytest.mark.emulator
def test_free_pages_follow_what_is_touched_and_unmapped(live, process, set_pools):
    """A pool tells of a page that nobody has asked about, and has it back after munmap."""
    set_pools(2, 0, 0, 0)
    addresses = mapped(process, 2)
    live.where(process.pid, addresses[0])  # so that the process is known
    touch(process, addresses)
    assert all_pools(live)[0] == (2, 0, 0)
    live.lets_through("munmap", process.pid, addresses[0], HUGE_BYTES)
    process.munmap(addresses[0], HUGE)
    assert all_pools(live)[0] == (2, 1, 0)
    process.exit()
    assert all_pools(live)[0] == (2, 2, 0)


@pytest.mark.emulator
def test_pages_come_of_the_pool_as_it_was_when_they_were_touched(live, process, tmp_path):
    """What was touched before a size is written is surplus, what is touched after it is not."""
    addresses = mapped(process, 2)
    live.where(process.pid, addresses[0])
    touch(process, addresses[:1])
    file = tmp_path / "nr_hugepages"
    file.touch()
    live.machine.attributes.open_to_write(file_of(0, "nr"), file)
    assert pool(live.machine.pools[ORDER], 0) == (1, 0, 1)
    file.write_text("2", encoding="ascii")
    touch(process, addresses[1:])
    assert all_pools(live)[0] == (2, 0, 0)


@pytest.mark.emulator
def test_policy_of_the_area_decides_and_interleaving_begins_at_its_first_page(
    live, process, set_pools
):
    """Huge pages are interleaved by their place in the mapping, wherever that lies."""
    set_pools(0, 2, 0, 2)
    process.mmap(HUGE)
    addresses = mapped(process, 4)
    assert live.mbind(process.pid, addresses[0], 4 * HUGE, Mode.INTERLEAVE, [1, 3]) == 0
    touch(process, addresses[::-1])
    assert live.move(process.pid, addresses, None, MoveFlag(0)) == (0, [1, 3, 1, 3])
    assert [free for _, free, _ in all_pools(live)] == [0, 0, 0, 0]


@pytest.mark.emulator
def test_bound_pages_move_between_pools(live, process, set_pools):
    """Mbind with MPOL_MF_MOVE takes a free page of the target, and then the place along."""
    set_pools(2, 0, 1, 0)
    addresses = mapped(process, 2)
    touch(process, addresses)
    flags = MoveFlag.MOVE
    assert live.mbind(process.pid, addresses[0], 2 * HUGE, Mode.BIND, [2], flags) == 0
    assert live.move(process.pid, addresses, None, MoveFlag(0)) == (0, [2, 2])
    assert all_pools(live) == [(1, 1, 0), (0, 0, 0), (2, 0, 0), (0, 0, 0)]


@pytest.mark.emulator
def test_page_without_room_stays(emulate, huge_pages):  # noqa: ARG001 - what it maps
    """A node with neither a free huge page nor memory for one gives -ENOMEM, and keeps its pool."""
    live = emulate("1x(1cpu,64M) + 1x(0cpu,1M)")
    live.machine.pools[ORDER].resize(0, 1)
    process = live.world.process()
    addresses = mapped(process, 1)
    touch(process, addresses)
    assert live.move(process.pid, addresses, [1]) == (-12, [UNWRITTEN])
    assert live.where(process.pid, addresses[0]) == [0]
    assert pool(live.machine.pools[ORDER], 0) == (1, 0, 0)


@pytest.mark.emulator
def test_copy_after_a_fork_takes_a_page_of_its_own(live, process, set_pools):
    """A private huge page is one while parent and child share it, and two after a write."""
    set_pools(3, 0, 0, 0)
    addresses = mapped(process, 1)
    touch(process, addresses)
    live.put(process.pid, addresses[0], [2])
    child = process.fork()
    child.read(addresses[0])
    assert live.where(child.pid, addresses[0]) == [2]
    assert all_pools(live) == [(2, 2, 0), (0, 0, 0), (1, 0, 0), (0, 0, 0)]
    touch(child, addresses)
    assert (live.where(child.pid, addresses[0]), live.where(process.pid, addresses[0])) == (
        [0],
        [2],
    )
    assert all_pools(live)[0] == (2, 1, 0)


@pytest.mark.emulator
def test_shared_page_is_one_for_all_who_map_it(live, process, set_pools):
    """It counts once, and moves for both."""
    set_pools(1, 1, 0, 0)
    addresses = mapped(process, 1, shared=True)
    touch(process, addresses)
    child = process.fork()
    touch(child, addresses)
    assert live.where(child.pid, addresses[0]) == live.where(process.pid, addresses[0]) == [0]
    assert all_pools(live)[0] == (1, 0, 0)
    live.put(process.pid, addresses[0], [1], MoveFlag.MOVE_ALL)
    assert live.where(child.pid, addresses[0]) == [1]
    assert all_pools(live)[:2] == [(1, 1, 0), (1, 0, 0)]


@pytest.mark.emulator
def test_report_counts_pages_in_use_and_not_what_a_pool_holds(live, process, set_pools):
    """Of a pool of three huge pages one that a program has is 512 pages of the report."""
    set_pools(0, 0, 0, 3)
    addresses = mapped(process, 1)
    assert live.mbind(process.pid, addresses[0], HUGE, Mode.BIND, [3]) == 0
    touch(process, addresses)
    assert live.where(process.pid, addresses[0]) == [3]
    assert live.machine.report()["pages_by_node"][3] == HUGE


@pytest.mark.emulator
def test_transparent_huge_pages_are_of_no_pool(live, process, set_pools):
    """They are as large, and take memory."""
    set_pools(1, 1, 0, 0)
    start = process.mmap(HUGE)
    process.madvise(start, HUGE, "hugepage")
    process.write(start)
    live.put(process.pid, start, [1])
    assert all_pools(live)[:2] == [(1, 1, 0), (1, 1, 0)]


# -- a program that sets them -----------------------------------------------------------------

PROGRAM = f"""
import json, subprocess
nodes = "/sys/devices/system/node/node%d/"
pool = nodes + "hugepages/hugepages-{SIZE_BYTES >> 10}kB/"
weight = "/sys/kernel/mm/mempolicy/weighted_interleave/node%d"

def said(path):
    return open(path).read().rstrip("\\n")

def files(node):
    return [said(pool % node + name + "_hugepages") for name in ("nr", "free", "surplus")]

def meminfo(node):
    lines = (line.split()[2:4] for line in open(nodes % node + "meminfo"))
    return dict(lines)

answers = [files(1), meminfo(1)["MemFree:"]]
for text in ("12", "3\\n", "many", "-1", "9" * 30, "99999", "4"):
    subprocess.run(["dd", "conv=notrunc", "status=none", "of=" + pool % 1 + "nr_hugepages"],
                   input=text.encode(), check=True)
    answers.append(files(1))
now = meminfo(1)
answers += [now["MemFree:"], now["AnonPages:"], now["HugePages_Total:"], now["HugePages_Free:"]]
for text in ("7", "256", "0"):
    subprocess.run(["sh", "-c", "echo " + text + " > " + weight % 1], check=True)
    answers.append([said(weight % 0), said(weight % 1)])
print(json.dumps(answers))
"""

CHILD = f"""
import mmap, os
pool = "/sys/devices/system/node/node1/hugepages/hugepages-{SIZE_BYTES >> 10}kB/%s_hugepages"
bind, bit_of_node_1 = 2, (2).to_bytes(8, "little")

def free():
    return int(open(pool % "free").read())

with open(pool % "nr", "w") as size:
    size.write("4")
import ctypes
syscall = ctypes.CDLL(None)["syscall"]
assert syscall({numbers_for(platform.machine())["set_mempolicy"]}, bind, bit_of_node_1, 65) == 0
said, says = os.pipe()
waits, goes_on = os.pipe()
if not os.fork():
    os.close(goes_on)
    memory = mmap.mmap(-1, 2 * {SIZE_BYTES}, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40000)
    memory[0] = memory[{SIZE_BYTES}] = 1
    os.write(says, b"touched")
    os.read(waits, 1)
    os._exit(0)
os.read(said, 7)
answers = [free()]
os.close(goes_on)
os.wait()
print(*answers, free())
"""


def emulated(*command, options=()):
    """Run a program; its CPUs belong to node 0, and node 1 has 64 MiB. Return what it says."""
    topology = ("--topology", "1x(1cpu,512M) + 1x(0cpu,64M)")
    done = subprocess.run(
        [sys.executable, "-m", "movepages", "emulate", *topology, *options, "--", *command],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.emulator
def test_program_sets_what_root_may_set(root):  # noqa: ARG001 - a condition
    """Sizes and weights are read back as the kernel would have taken them, or left them."""
    size = ["4", "4", "0"]
    assert json.loads(emulated(sys.executable, "-S", "-c", PROGRAM)) == [
        ["0", "0", "0"],
        str(64 << 10),
        ["12", "12", "0"],
        *[["3", "3", "0"]] * 4,
        ["32", "32", "0"],
        size,
        str(56 << 10),
        "0",
        "4",
        "4",
        ["1", "7"],
        ["1", "7"],
        ["1", "1"],
    ]


@pytest.mark.emulator
@pytest.mark.parametrize("precision", ["lazy", "exact", "faults"])
def test_free_pages_are_those_that_no_child_has(huge_pages, precision):  # noqa: ARG001 - mapped
    """A child that makes no NUMA call has two pages of four by the policy that it inherited."""
    program = (sys.executable, "-S", "-c", CHILD)
    assert emulated(*program, options=("--precision", precision)) == "2 4\n"


@pytest.mark.emulator
def test_our_own_tool_shows_the_pools(root):  # noqa: ARG001 - a condition
    """`movepages nodes` sees a size that a shell has set, and the memory that it took."""
    directory = f"/sys/devices/system/node/node1/hugepages/hugepages-{SIZE_BYTES >> 10}kB"
    shell = f"echo 5 > {directory}/nr_hugepages; {sys.executable} -m movepages nodes --json"
    nodes = json.loads(emulated("sh", "-c", shell))["nodes"]
    assert nodes[1]["free_bytes"] >> 20 == 54
    assert [pool["total"] for pool in nodes[1]["huge_pools"] if pool["total"]] == [5]

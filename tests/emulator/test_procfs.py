from __future__ import annotations

import mmap
from pathlib import Path

import pytest

from movepages.emulator.procfs import NodePool, edit_node_file, edit_numa_maps, edit_status
from movepages.linux.numa_maps import parse_numa_maps
from movepages.linux.status import parse_status
from movepages.nodeset import NodeSet

PAGE_KIB = mmap.PAGESIZE >> 10
PATH = Path("a file")

# As Linux prints them: 1024 bits (NODES_SHIFT=10), 64 bits (NODES_SHIFT=6), 4 bits (NODES_SHIFT=2).
MASK_1024 = b"00000000," * 31 + b"00000001"


def status_with(mask, nodes=b"0"):
    """Return the lines around the two that are edited."""
    return (
        b"Cpus_allowed_list:\t0-1\nMems_allowed:\t%s\nMems_allowed_list:\t%s\n"
        b"voluntary_ctxt_switches:\t7\n" % (mask, nodes)
    )


@pytest.mark.parametrize(
    ("mask", "nodes", "possible", "edited"),
    [
        (MASK_1024, "0-3", 4, b"00000000," * 31 + b"0000000f"),
        (MASK_1024, "1023", 1024, b"80000000" + b",00000000" * 31),
        (b"00000000,00000001", "0,33", 34, b"00000002,00000001"),
        (b"00000000,00000001", "63", 64, b"80000000,00000000"),
        (b"00000000,00000001", "64", 65, b"00000000,00000001,00000000,00000000"),
        (b"1", "0-3", 4, b"f"),
        (b"1", "4", 5, b"10"),
    ],
)
def test_nodes_a_task_may_use(mask, nodes, possible, edited):
    """Mask and list tell the same nodes; the mask is as wide as it was, or as the machine needs."""
    text = edit_status(status_with(mask), NodeSet.parse(nodes), possible)
    assert text == status_with(edited, nodes.encode())


def test_a_name_is_not_taken_for_a_line():
    """A task that is called like the lines that are edited keeps its name, for they are escaped."""
    text = b"Name:\tMems_allowed:\\n\n" + status_with(b"1")
    assert edit_status(text, NodeSet([1]), 2) == text.replace(b"\t1\n", b"\t2\n").replace(
        b"list:\t0\n", b"list:\t1\n"
    )


def test_a_kernel_without_cpusets():
    """A status without the lines stays as it is."""
    text = b"Name:\tcat\nCpus_allowed:\t3\n"
    assert edit_status(text, NodeSet([0, 1]), 2) == text


@pytest.mark.host
def test_status_of_a_live_process():
    """The reader of the real file reads the nodes from the edited one, and all else as it was."""
    text = Path("/proc/self/status").read_bytes()
    edited = edit_status(text, NodeSet([0, 2]), 4)
    assert parse_status(edited.decode(), PATH).mems_allowed == {0, 2}
    real = parse_status(text.decode(), PATH).mems_allowed
    assert edit_status(edited, real, 4) == text


def edited_maps(line, pages, policy="default"):
    """Return a line of numa_maps with other pages."""
    return edit_numa_maps(line + b"\n", lambda _: policy, lambda _: pages).removesuffix(b"\n")


@pytest.mark.parametrize(
    ("line", "pages", "edited"),
    [
        (b"7f00 default", {1: 5}, b"7f00 bind:1"),
        (b"7f00 default stack", {1: 5}, b"7f00 bind:1 stack"),
        (
            b"7f00 interleave:0-1 anon=4 dirty=4 N0=4 kernelpagesize_kB=4",
            {3: 1, 1: 3, 2: 0},
            b"7f00 bind:1 anon=4 dirty=4 N1=3 N3=1 kernelpagesize_kB=4",
        ),
        (
            b"7f00 prefer (many):0-1 heap anon=2 dirty=1 active=0 N0=2 kernelpagesize_kB=4",
            {1: 2},
            b"7f00 bind:1 heap anon=2 dirty=1 active=0 N1=2 kernelpagesize_kB=4",
        ),
        (
            b"7f00 weighted interleave=static:0 file=/a\\040b mapped=9 mapmax=3 N0=9",
            {0: 8, 1: 1},
            b"7f00 bind:1 file=/a\\040b mapped=9 mapmax=3 N0=8 N1=1",
        ),
        (
            b"7f00 default anon=2 dirty=3 mapped=5 mapmax=2 swapcache=1 active=3 writeback=1 N0=5",
            {1: 5},
            b"7f00 bind:1 anon=2 dirty=3 mapped=5 mapmax=2 swapcache=1 active=3 writeback=1 N1=5",
        ),
        (
            b"7f00 default file=/x\\040(deleted) huge anon=2 dirty=2 N0=2 kernelpagesize_kB=2048",
            {1: 2},
            b"7f00 bind:1 file=/x\\040(deleted) huge anon=2 dirty=2 N1=2 kernelpagesize_kB=2048",
        ),
        (
            b"7f00 default anon=1024 dirty=1024 active=512 N0=1024 kernelpagesize_kB=4",
            {0: 512, 1: 512},
            b"7f00 bind:1 anon=1024 dirty=1024 active=512 N0=512 N1=512 kernelpagesize_kB=4",
        ),
        (
            b"7f00 default file=/prefer mapped=1 N0=1",
            {1: 1},
            b"7f00 bind:1 file=/prefer mapped=1 N1=1",
        ),
    ],
)
def test_policy_and_pages_of_a_mapping(line, pages, edited):
    """Policy and nodes are replaced, by rising node; a line without pages gets none."""
    assert edited_maps(line, pages, "bind:1") == edited


@pytest.mark.parametrize(
    ("line", "pages", "edited"),
    [
        # By show_numa_map: mapped= unless it is anon= or dirty=, active= if it is less.
        (b"10 default anon=4 dirty=2 N0=4", {1: 5}, b"10 default anon=4 dirty=2 mapped=5 N1=5"),
        (b"10 default anon=4 mapped=5 N0=5", {1: 4}, b"10 default anon=4 N1=4"),
        (b"10 default anon=4 dirty=4 active=3 N0=4", {1: 3}, b"10 default anon=3 dirty=3 N1=3"),
        (b"10 default mapped=4 active=3 N0=4", {1: 3}, b"10 default mapped=3 N1=3"),
        (b"10 default stack anon=1 N0=1 kernelpagesize_kB=4", {}, b"10 default stack"),
    ],
)
def test_pages_that_have_come_or_gone_since(line, pages, edited):
    """Where the pages are no longer as many as the kernel found, the line agrees with itself."""
    assert edited_maps(line, pages) == edited


def test_an_empty_file_stays_empty():
    """A kernel thread has no mappings."""
    assert edit_numa_maps(b"", lambda _: "default", lambda _: {}) == b""


@pytest.mark.host
def test_numa_maps_of_a_live_process():
    """What the file says already changes nothing, byte by byte; other nodes come back as told."""
    text = Path("/proc/self/numa_maps").read_bytes()
    lines = {line.start: line for line in parse_numa_maps(text.decode(), PATH)}

    def same(start):
        return lines[start].pages_by_node

    def split(start):
        pages = sum(lines[start].pages_by_node.values())
        return {1: pages // 2, 2: pages - pages // 2}

    assert edit_numa_maps(text, lambda start: lines[start].policy, same) == text
    edited = edit_numa_maps(text, lambda _: "prefer (many):1-2", split)
    for line in parse_numa_maps(edited.decode(), PATH):
        real = lines[line.start]
        assert line == real._replace(
            policy="prefer (many):1-2",
            pages_by_node={node: pages for node, pages in split(line.start).items() if pages},
        )


MEMINFO = b"""Node 0 MemTotal:         476968 kB
Node 0 MemFree:          450576 kB
Node 0 MemUsed:           26392 kB
Node 0 Active:                0 kB
Node 0 Active(anon):          0 kB
Node 0 FilePages:           224 kB
Node 0 AnonPages:           116 kB
Node 0 HugePages_Free:      0
"""


def test_meminfo_of_a_node_in_use():
    """Pages in use leave free memory and are anonymous; columns stay where they were."""
    edited = edit_node_file("meminfo", MEMINFO, 100)
    used = 100 * PAGE_KIB
    assert edited == (
        b"Node 0 MemTotal:         476968 kB\n"
        b"Node 0 MemFree:        %8d kB\n"
        b"Node 0 MemUsed:        %8d kB\n"
        b"Node 0 Active:         %8d kB\n"
        b"Node 0 Active(anon):   %8d kB\n"
        b"Node 0 FilePages:           224 kB\n"
        b"Node 0 AnonPages:      %8d kB\n"
        b"Node 0 HugePages_Free:      0\n"
    ) % (450576 - used, 26392 + used, used, used, 116 + used)


def test_no_node_has_less_than_nothing_free():
    """More pages in use than there is memory leave none free."""
    assert b"Node 0 MemFree:               0 kB\n" in edit_node_file("meminfo", MEMINFO, 1 << 20)


def test_pool_of_a_node_holds_memory_that_is_not_free():
    """What it has grown by is used, and is nobody's anonymous memory; its own lines tell of it."""
    edited = edit_node_file("meminfo", MEMINFO, 0, NodePool(5, 3, 1, 200))
    used = 200 * PAGE_KIB
    assert b"Node 0 MemFree:        %8d kB\n" % (450576 - used) in edited
    assert b"Node 0 MemUsed:        %8d kB\n" % (26392 + used) in edited
    assert b"Node 0 AnonPages:           116 kB\n" in edited
    assert b"Node 0 HugePages_Free:      3\n" in edited
    vmstat = b"nr_free_pages 1000\nnuma_hit 0\nnr_anon_pages 3\n"
    assert edit_node_file("vmstat", vmstat, 0, NodePool(5, 3, 1, -200)) == (
        b"nr_free_pages 1200\nnuma_hit 0\nnr_anon_pages 3\n"
    )


def test_counters_of_a_node_in_use():
    """Pages in use were allocated by CPUs of the node, and are no longer free."""
    numastat = b"numa_hit 0\nnuma_miss 0\nlocal_node 0\nother_node 0\n"
    assert edit_node_file("numastat", numastat, 7) == (
        b"numa_hit 7\nnuma_miss 0\nlocal_node 7\nother_node 0\n"
    )
    vmstat = b"nr_free_pages 1000\nnuma_hit 0\nnr_anon_pages 3\nnr_dirty 5\n"
    assert edit_node_file("vmstat", vmstat, 7) == (
        b"nr_free_pages 993\nnuma_hit 7\nnr_anon_pages 10\nnr_dirty 5\n"
    )


@pytest.mark.host
@pytest.mark.parametrize("name", ["meminfo", "numastat", "vmstat"])
def test_a_file_of_this_kernel_without_use(name):
    """With no page in use the real file stays as it is, byte by byte."""
    text = Path(f"/sys/devices/system/node/node0/{name}").read_bytes()
    assert edit_node_file(name, text, 0) == text
    assert edit_node_file(name, text, 1) != text

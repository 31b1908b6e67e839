from __future__ import annotations

import os
import re
import runpy
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from movepages.emulator.host_cpus import place_cpus, read_host_cpus
from movepages.emulator.sysfs import (
    WHOLE,
    as_booted,
    grouped,
    read_huge_page_sizes,
    write_tree,
)
from movepages.linux import nodes
from movepages.nodeset import NodeSet
from movepages.topology import Access, HugePool, Tier, parse_topology

CAPTURED = Path(__file__).parents[1] / "topologies"
MACHINES = sorted(path.stem for path in CAPTURED.glob("*.txt"))
capture = runpy.run_path(str(CAPTURED / "capture.py"))
SYS_NODES = "sys/devices/system/node"
SHOWN = (SYS_NODES, "sys/devices/virtual/memory_tiering", "sys/kernel/mm/mempolicy")
# What a Topology does not tell: counters, and zones of a node (has_normal_memory).
UNTOLD = re.compile(r".*/(meminfo|numastat|has_normal_memory|__auto_type)")
TOLD_OF_MEMINFO = re.compile(r"Node \d+ (MemTotal|MemFree|MemUsed|HugePages_\w+):.*")


@pytest.fixture
def captured(tmp_path):
    """Return what unfolds a captured machine and returns its root."""

    def unfolded(name):
        root = tmp_path / name
        capture["unfold"]((CAPTURED / f"{name}.txt").read_text(encoding="utf-8"), root)
        return root

    return unfolded


def entries(root):
    """Return the files and links below a root that a captured machine has, with their contents."""
    found = {
        head: content
        for name in SHOWN
        for entry in capture["fold"].__globals__["_entries"](root / name, root)
        for head, _, content in [entry.removeprefix("== ").partition("\n")]
        if "/memory{" not in head and not UNTOLD.fullmatch(head)
    }
    assert found
    return found


@pytest.mark.parametrize("name", MACHINES)
def test_a_captured_machine_comes_back(captured, tmp_path, name):
    """The reader of the real files reads from the tree the machine that it was written for."""
    machine = captured(name)
    topology = nodes.read_topology(machine)
    write_tree(topology, tmp_path / "made", machine / "sys")
    assert nodes.read_topology(tmp_path / "made") == topology


@pytest.mark.parametrize("name", MACHINES)
def test_files_are_those_of_the_kernel(captured, tmp_path, name):
    """The tree has each file and link of a captured machine, byte by byte, and no other."""
    machine = captured(name)
    write_tree(nodes.read_topology(machine), tmp_path / "made", machine / "sys")
    assert entries(tmp_path / "made") == entries(machine)


@pytest.mark.parametrize("name", MACHINES)
def test_meminfo_has_the_lines_of_the_kernel(captured, tmp_path, name):
    """Lines that a machine determines are the captured ones; others have their key and place."""
    machine = captured(name)
    write_tree(nodes.read_topology(machine), tmp_path / "made", machine / "sys")
    for path in (machine / SYS_NODES).glob("node*/meminfo"):
        made = (tmp_path / "made" / path.relative_to(machine)).read_text(encoding="ascii")
        lines = made.splitlines()
        for line in path.read_text(encoding="ascii").splitlines():
            if TOLD_OF_MEMINFO.fullmatch(line):
                assert line in lines
            else:
                blank = re.sub(r" \d+ kB$", lambda match: f"{'0 kB':>{len(match[0])}}", line)
                assert blank in lines


def test_numastat_has_the_lines_of_the_kernel(captured, tmp_path):
    """The counters of a node have the kernel's names in its order, and none has counted yet."""
    machine = captured("two-sockets")
    write_tree(nodes.read_topology(machine), tmp_path / "made", machine / "sys")
    theirs = (machine / SYS_NODES / "node1/numastat").read_text(encoding="ascii")
    made = (tmp_path / "made" / SYS_NODES / "node1/numastat").read_text(encoding="ascii")
    assert made == re.sub(r"\d+$", "0", theirs, flags=re.MULTILINE)


@pytest.mark.host
def test_files_of_a_node_are_those_of_this_kernel(tmp_path):
    """For this machine, masks and names of counters are what the running kernel prints."""
    write_tree(nodes.read_topology(), tmp_path)
    for node in nodes.read_online():
        ours, theirs = tmp_path / SYS_NODES / f"node{node}", Path("/") / SYS_NODES / f"node{node}"
        for name in ("cpumap", "cpulist", "distance"):
            assert (ours / name).read_bytes() == (theirs / name).read_bytes()
        for name in ("vmstat", "numastat"):
            keys = [
                [line.split()[0] for line in (place / name).read_text().splitlines()]
                for place in (ours, theirs)
            ]
            assert keys[0] == keys[1]


def test_a_declared_machine_comes_back(tmp_path):
    """Everything that a topology can say survives: gaps, accesses, pools, tiers and weights."""
    declared = as_booted(parse_topology("2x(2cpu,1G) + 1x(0cpu,4G)"))
    cxl = replace(
        declared.node(2),
        accesses=(Access(0, NodeSet([0]), 250, 300, 40_000, 20_000), Access(1, NodeSet([0]))),
        huge_pools=(HugePool(2 << 20, 8, 4, 1), HugePool(1 << 30, 1, 0, 0)),
        weight=3,
    )
    declared = replace(
        declared,
        nodes=(*declared.nodes[:2], cxl),
        possible=NodeSet(range(6)),
        tiers=(Tier(4, NodeSet([0, 1])), Tier(54, NodeSet([2]))),
    )
    write_tree(declared, tmp_path, tmp_path / "no-sys")
    assert nodes.read_topology(tmp_path) == declared


def test_a_machine_of_64_nodes(tmp_path):
    """Many nodes make one tree; the last has its distances to all of them."""
    declared = parse_topology("64")
    write_tree(declared, tmp_path, tmp_path / "no-sys")
    assert nodes.read_topology(tmp_path) == declared


def test_no_memory_block_and_no_trigger_is_shown(tmp_path):
    """Nothing in the tree tells of real page frames, and nothing is for root to write only."""
    write_tree(parse_topology("2"), tmp_path, tmp_path / "no-sys")
    for path in tmp_path.rglob("*"):
        assert not re.fullmatch(r"memory\d+", path.name)
        if not path.is_symlink():
            assert path.stat().st_mode & 0o444 == 0o444


def test_modes_do_not_follow_the_umask(tmp_path):
    """A program of another user can look at the tree, whatever umask it was written with."""
    before = os.umask(0o077)
    try:
        write_tree(as_booted(parse_topology("1")), tmp_path, tmp_path / "no-sys")
    finally:
        os.umask(before)
    place = tmp_path / SYS_NODES
    assert place.stat().st_mode & 0o777 == 0o755
    assert (place / "online").stat().st_mode & 0o777 == 0o444
    weight = tmp_path / "sys/kernel/mm/mempolicy/weighted_interleave/node0"
    assert weight.stat().st_mode & 0o777 == (0o444 if os.geteuid() else 0o644)


def test_only_what_the_host_has_is_mounted(captured, tmp_path):
    """Targets that do not exist are left out, for nothing can be mounted there."""
    host = captured("two-sockets") / "sys"
    mounts = write_tree(parse_topology("2"), tmp_path / "made", host)
    assert mounts == [
        (tmp_path / "made/sys" / name, host / name) for name in WHOLE if (host / name).is_dir()
    ]
    assert (tmp_path / "made" / SYS_NODES, host / "devices/system/node") in mounts


def test_a_cpu_on_another_node_has_its_directory_replaced(tmp_path):
    """The directory of such a CPU has the right link, and all else mounted from the real one."""
    host = tmp_path / "sys"
    for cpu in (0, 1):
        place = host / f"devices/system/cpu/cpu{cpu}"
        (place / "topology").mkdir(parents=True)
        (place / "online").write_text("1\n", encoding="ascii")
        (place / "node0").symlink_to("../../node/node0")
        (place / "subsystem").symlink_to("../../../../bus/cpu")
    mounts = write_tree(parse_topology("2"), tmp_path / "made", host)
    ours = tmp_path / "made/sys/devices/system/cpu/cpu1"
    theirs = host / "devices/system/cpu/cpu1"
    assert mounts == [
        (theirs / "online", ours / "online"),
        (theirs / "topology", ours / "topology"),
        (ours, theirs),
    ]
    assert (ours / "node1").readlink() == Path("../../node/node1")
    assert (ours / "subsystem").readlink() == Path("../../../../bus/cpu")
    assert not (ours / "node0").is_symlink()


@pytest.mark.host
def test_programs_see_the_tree_where_it_is_mounted(root, tmp_path):  # noqa: ARG001 - a condition
    """With the mounts in the order given, sysfs shows the declared nodes, by each of its ways."""
    placed = place_cpus(parse_topology("3"), read_host_cpus())
    mounts = write_tree(as_booted(placed.topology), tmp_path)
    last = max(placed.topology.with_cpus)
    cpu = placed.topology.node(last).cpus[0]
    script = [
        *(f"mount --rbind '{source}' '{target}'" for source, target in mounts),
        "cat /sys/devices/system/node/online",
        "cat /sys/bus/node/devices/node2/distance",
        f"cat /sys/devices/system/cpu/cpu{cpu}/node{last}/cpulist",
        f"ls -d /sys/devices/system/cpu/cpu{cpu}/node*",
        f"cat /sys/devices/system/node/node{last}/cpu{cpu}/topology/core_id > /dev/null",
        "cat /sys/bus/memory_tiering/devices/memory_tier4/nodelist || echo 0-2",
    ]
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-ec", "\n".join(script)],
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split("\n") == [
        "0-2",
        "20 20 10",
        str(NodeSet(placed.topology.node(last).cpus)),
        f"/sys/devices/system/cpu/cpu{cpu}/node{last}",
        "0-2",
        "",
    ]


@pytest.mark.host
def test_settings_are_for_root_only(unprivileged):
    """A tree that an ordinary user writes has no file that he may change, as the real one."""

    def writable():
        with tempfile.TemporaryDirectory() as place:
            write_tree(as_booted(parse_topology("2")), Path(place), Path(place) / "no-sys")
            files = [path for path in Path(place).rglob("*") if path.is_file()]
            assert files
            return [str(path) for path in files if os.access(path, os.W_OK)]

    assert unprivileged(writable) == []


@pytest.mark.parametrize(
    ("bits", "digits", "text"),
    [
        (0x3, 1, "3"),
        (0x3, 8, "00000003"),
        (0x3, 9, "0,00000003"),
        (1 << 40, 16, "00000100,00000000"),
        (1 << 32, 1, "1,00000000"),
    ],
)
def test_masks_are_printed_in_groups(bits, digits, text):
    """A mask has the digits asked for, eight to a group, as %*pb prints it (lib/vsprintf.c)."""
    assert grouped(bits, digits) == text


def test_what_a_kernel_adds():
    """A booted machine has all memory in the tier of DRAM, and each node the weight 1."""
    booted = as_booted(parse_topology("2x(1cpu,64M) + 1x(1cpu,0)"))
    assert booted.tiers == (Tier(4, NodeSet([0, 1])),)
    assert [node.weight for node in booted] == [1, 1, 1]
    assert as_booted(booted) == booted


def test_each_node_has_a_pool_of_each_size_of_huge_pages():
    """What the machine declares stays; pools of sizes that the host has besides are empty."""
    pool = HugePool(2 << 20, 8, 4, 1)
    declared = parse_topology("2")
    declared = replace(
        declared, nodes=(replace(declared.node(0), huge_pools=(pool,)), declared.node(1))
    )
    booted = as_booted(declared, [1 << 30, 2 << 20])
    empty = HugePool(1 << 30, 0, 0, 0)
    assert booted.node(0).huge_pools == (pool, empty)
    assert booted.node(1).huge_pools == (HugePool(2 << 20, 0, 0, 0), empty)


def test_sizes_of_huge_pages_are_those_of_the_host(tmp_path):
    """They are read from the names of the host's pools; a kernel without hugetlbfs has none."""
    assert read_huge_page_sizes(tmp_path) == ()
    for name in ("hugepages-2048kB", "hugepages-1048576kB", "other"):
        (tmp_path / "kernel/mm/hugepages" / name).mkdir(parents=True)
    assert read_huge_page_sizes(tmp_path) == (2 << 20, 1 << 30)

"""What /sys would say of a declared machine: a tree of files, and where to mount it.

Each file is as the kernel writes it (drivers/base/node.c, mm/memory-tiers.c, mm/mempolicy.c), and
`linux.nodes` reads the declared machine back from the tree. Left out: links to memory blocks, for
the real blocks are on the real nodes; triggers that only root may write; power management.

Counters (meminfo, numastat, vmstat) are those of a machine on which the program uses nothing yet;
`emulator.procfs` adds what it uses. What root may set is what it was at first; what has become of
it is told by `emulator.attributes`.
"""

from __future__ import annotations

import mmap
import os
import re
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

from movepages.emulator.host_cpus import HOST, read_host_cpus
from movepages.nodeset import NodeSet
from movepages.topology import HugePool, Tier

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from movepages.topology import Access, MemorySideCache, Node, Topology

NODES = "devices/system/node"
CPUS = "devices/system/cpu"
TIERS = "devices/virtual/memory_tiering"
WEIGHTS = "kernel/mm/mempolicy/weighted_interleave"
HUGE_PAGES = "kernel/mm/hugepages"
NODE_BUS = "bus/node/devices"
TIER_BUS = "bus/memory_tiering/devices"
WHOLE = (NODES, TIERS, WEIGHTS, NODE_BUS, TIER_BUS)
"""Directories of /sys that the generated tree replaces as a whole."""

DRAM_TIER = 4
"""Of ordinary memory: MEMTIER_ADISTANCE_DRAM >> MEMTIER_CHUNK_BITS in linux/memory-tiers.h."""
DEFAULT_WEIGHT = 1
"""Of a node that nobody weighed: get_il_weight() in mm/mempolicy.c."""

_PAGE_BYTES = mmap.PAGESIZE
_DIRECTORY, _READABLE = 0o755, 0o444
_NODE_LINK = re.compile(r"node[0-9]+")
_POOL_NAME = re.compile(r"hugepages-([0-9]+)kB")

_MEMINFO_KIB = (
    *("MemTotal", "MemFree", "MemUsed", "SwapCached", "Active", "Inactive", "Active(anon)"),
    *("Inactive(anon)", "Active(file)", "Inactive(file)", "Unevictable", "Mlocked", "Dirty"),
    *("Writeback", "FilePages", "Mapped", "AnonPages", "Shmem", "KernelStack", "PageTables"),
    *("SecPageTables", "NFS_Unstable", "Bounce", "WritebackTmp", "KReclaimable", "Slab"),
    *("SReclaimable", "SUnreclaim", "AnonHugePages", "ShmemHugePages", "ShmemPmdMapped"),
    *("FileHugePages", "FilePmdMapped"),
)
_NUMASTAT = (
    *("numa_hit", "numa_miss", "numa_foreign"),
    *("interleave_hit", "local_node", "other_node"),
)
# Where the host has no file to take the names from: what programs are known to look at.
_VMSTAT = ("nr_free_pages", "numa_hit", "numa_local", "nr_active_anon", "nr_anon_pages")


def write_tree(topology: Topology, directory: Path, host: Path = HOST) -> list[tuple[Path, Path]]:
    """Write the tree of a machine below DIRECTORY/sys; return what to bind where, in this order.

    CPUs should be the host's (`place_cpus`). A target that the host lacks is left out; bind with
    MS_REC, for the directory of a CPU holds mounts of its own. `linux.nodes` takes `directory` as
    its root.
    """
    tree = directory / "sys"
    _write_lists(topology, tree / NODES)
    cpu_digits = _cpu_digits(topology, host)
    vmstat = _vmstat_names(host)
    targets = _targets(topology)
    for node in topology:
        place = tree / NODES / f"node{node.id}"
        _write_node(node, topology, place, cpu_digits)
        _write_counters(node, place, vmstat)
        _write_accesses(node, place, targets)
        _link(tree / NODE_BUS / place.name, f"../../../{NODES}/{place.name}")
    _write_tiers(topology.tiers, tree)
    _write_weights(topology, tree / WEIGHTS)
    mounts = _write_cpus(topology, tree / CPUS, host / CPUS)
    whole = [(tree / name, host / name) for name in WHOLE if (host / name).is_dir()]
    return mounts + whole


def as_booted(topology: Topology, huge_page_sizes: Iterable[int] = ()) -> Topology:
    """Return a machine with what a kernel adds to a declared one that does not say.

    That is one tier of all nodes with memory, and for each node a weight of 1 and an empty pool of
    each size of huge pages, in bytes.
    """
    nodes = tuple(
        replace(
            node,
            weight=DEFAULT_WEIGHT if node.weight is None else node.weight,
            huge_pools=_with_empty_pools(node.huge_pools, huge_page_sizes),
        )
        for node in topology
    )
    tiers = topology.tiers or (Tier(DRAM_TIER, topology.with_memory),)
    return replace(topology, nodes=nodes, tiers=tiers)


def read_huge_page_sizes(host: Path = HOST) -> tuple[int, ...]:
    """Return the sizes of huge pages that the host knows, in bytes, rising."""
    names = (_POOL_NAME.fullmatch(path.name) for path in (host / HUGE_PAGES).glob("*"))
    return tuple(sorted(int(name[1]) << 10 for name in names if name))


def pool_name(page_size_bytes: int) -> str:
    """Return the name of the directory of a pool."""
    return f"hugepages-{page_size_bytes >> 10}kB"


def _with_empty_pools(pools: tuple[HugePool, ...], sizes: Iterable[int]) -> tuple[HugePool, ...]:
    by_size = {size: HugePool(size, 0, 0, 0) for size in sizes}
    by_size |= {pool.page_size_bytes: pool for pool in pools}
    return tuple(by_size[size] for size in sorted(by_size))


def _write_lists(topology: Topology, place: Path) -> None:
    lists = {
        "online": topology.online,
        "possible": topology.possible,
        "has_cpu": topology.with_cpus,
        "has_memory": topology.with_memory,
        "has_normal_memory": topology.with_memory,
        "has_generic_initiator": NodeSet(),
    }
    for name, nodes in lists.items():
        _write(place / name, nodes)


def _write_node(node: Node, topology: Topology, place: Path, cpu_digits: int) -> None:
    _write(place / "cpulist", NodeSet(node.cpus))
    _write(place / "cpumap", cpu_mask(node.cpus, cpu_digits))
    _write(place / "distance", " ".join(str(node.distances[to]) for to in topology.online))
    for cpu in node.cpus:
        _link(place / f"cpu{cpu}", f"../../cpu/cpu{cpu}")
    _link(place / "subsystem", "../../../../bus/node")
    for pool in node.huge_pools:
        _write_huge_pool(pool, place / "hugepages" / pool_name(pool.page_size_bytes))
    for cache in node.side_caches:
        _write_side_cache(cache, place / f"memory_side_cache/index{cache.level}")


def _write_huge_pool(pool: HugePool, place: Path) -> None:
    _write(place / "nr_hugepages", pool.total, _setting_mode())
    _write(place / "free_hugepages", pool.free)
    _write(place / "surplus_hugepages", pool.surplus)


def _write_side_cache(cache: MemorySideCache, place: Path) -> None:
    _write(place / "size", cache.size_bytes)
    _write(place / "line_size", cache.line_size_bytes)
    _write(place / "indexing", cache.indexing)
    _write(place / "write_policy", cache.write_policy)


def _write_counters(node: Node, place: Path, vmstat: Iterable[str]) -> None:
    _write(place / "meminfo", _meminfo(node))
    _write(place / "numastat", "\n".join(f"{name} 0" for name in _NUMASTAT))
    free = {"nr_free_pages": node.free_bytes // _PAGE_BYTES}
    _write(place / "vmstat", "\n".join(f"{name} {free.get(name, 0)}" for name in vmstat))


def _meminfo(node: Node) -> str:
    """Return a node's meminfo without the last newline. Source: node_read_meminfo()."""
    total, free = node.memory_bytes >> 10, node.free_bytes >> 10
    known = {"MemTotal": total, "MemFree": free, "MemUsed": total - free}
    lines = [f"Node {node.id} {f'{name}:':<16}{known.get(name, 0):8} kB" for name in _MEMINFO_KIB]
    pool = min(node.huge_pools, key=lambda pool: pool.page_size_bytes, default=None)
    pages = (pool.total, pool.free, pool.surplus) if pool else (0, 0, 0)
    lines += [
        f"Node {node.id} {f'HugePages_{name}:':<16}{count:6}"
        for name, count in zip(("Total", "Free", "Surp"), pages, strict=True)
    ]
    return "\n".join(lines)


def _targets(topology: Topology) -> Mapping[tuple[int, int], list[int]]:
    """Return the nodes whose best initiator is a node, by its id and the access class."""
    targets: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
    for node in topology:
        for access in node.accesses:
            for initiator in access.initiators:
                targets[initiator, access.access_class].append(node.id)
    return targets


def _write_accesses(node: Node, place: Path, targets: Mapping[tuple[int, int], list[int]]) -> None:
    for access in node.accesses:
        directory = place / f"access{access.access_class}"
        for initiator in access.initiators:
            _link(directory / f"initiators/node{initiator}", f"../../../node{initiator}")
        for target in targets.get((node.id, access.access_class), ()):
            _link(directory / f"targets/node{target}", f"../../../node{target}")
        for name, value in _performance(access).items():
            if value:
                _write(directory / "initiators" / name, value)
        _directory(directory / "initiators")


def _performance(access: Access) -> dict[str, int]:
    return {
        "read_latency": access.read_latency_ns,
        "write_latency": access.write_latency_ns,
        "read_bandwidth": access.read_bandwidth_mib_per_s,
        "write_bandwidth": access.write_bandwidth_mib_per_s,
    }


def _write_tiers(tiers: Iterable[Tier], tree: Path) -> None:
    _directory(tree / TIERS)
    _directory(tree / TIER_BUS)
    for tier in tiers:
        name = f"memory_tier{tier.id}"
        _write(tree / TIERS / name / "nodelist", tier.nodes)
        _link(tree / TIER_BUS / name, f"../../../{TIERS}/{name}")


def _write_weights(topology: Topology, place: Path) -> None:
    """Write the weights of all possible nodes, as far as the machine has weights."""
    _directory(place)
    weights = {node.id: node.weight for node in topology if node.weight is not None}
    if weights:
        weights = dict.fromkeys(topology.possible - topology.online, DEFAULT_WEIGHT) | weights
    for node, weight in weights.items():
        _write(place / f"node{node}", weight, _setting_mode())


def _write_cpus(topology: Topology, place: Path, host: Path) -> list[tuple[Path, Path]]:
    """Write the directories of CPUs that are on another node here than on the host.

    Such a directory has a link to its node, and a mount point for each other entry of the real one.
    """
    mounts: list[tuple[Path, Path]] = []
    for node in topology:
        for cpu in node.cpus:
            ours, theirs = place / f"cpu{cpu}", host / f"cpu{cpu}"
            _link(ours / f"node{node.id}", f"../../node/node{node.id}")
            if theirs.is_dir() and _node_links(theirs) != [f"node{node.id}"]:
                mounts += _mount_points(ours, theirs)
                mounts.append((ours, theirs))
    return mounts


def _node_links(cpu: Path) -> list[str]:
    return [entry.name for entry in cpu.iterdir() if _NODE_LINK.fullmatch(entry.name)]


def _mount_points(ours: Path, theirs: Path) -> list[tuple[Path, Path]]:
    mounts = []
    for entry in sorted(theirs.iterdir()):
        place = ours / entry.name
        if _NODE_LINK.fullmatch(entry.name):
            continue
        if entry.is_symlink():
            _link(place, entry.readlink())
            continue
        if entry.is_dir():
            _directory(place)
        else:
            _write(place, "")
        mounts.append((entry, place))
    return mounts


def cpu_mask(cpus: Iterable[int], digits: int) -> str:
    """Return CPUs as %*pb prints them: that many hexadecimal digits, in groups of eight."""
    return grouped(sum(1 << cpu for cpu in cpus), digits)


def grouped(bits: int, digits: int) -> str:
    """Return a bit mask as the kernel prints it (bitmap_string in lib/vsprintf.c)."""
    text = f"{bits:0{digits}x}"
    head = len(text) % 8
    groups = [text[at : at + 8] for at in range(head, len(text), 8)]
    return ",".join([text[:head], *groups] if head else groups)


def _cpu_digits(topology: Topology, host: Path) -> int:
    """Return the digits of a mask of all CPUs that are possible (nr_cpu_ids)."""
    possible = host / CPUS / "possible"
    last = possible.read_text("ascii").split("-")[-1].split(",")[-1] if possible.exists() else "0"
    cpus = [int(last), *read_host_cpus(host), *(cpu for node in topology for cpu in node.cpus)]
    return max(cpus) // 4 + 1


def _vmstat_names(host: Path) -> Iterable[str]:
    """Return the names of a node's counters in the kernel that runs."""
    for path in sorted((host / NODES).glob("node*/vmstat")):
        return [line.split()[0] for line in path.read_text("ascii").splitlines()]
    return _VMSTAT


def _setting_mode() -> int:
    """Return the mode of what root may change; the tree belongs to who writes it, often no root."""
    return 0o444 if os.geteuid() else 0o644


def _directory(path: Path) -> None:
    try:
        path.mkdir()
    except FileExistsError:
        return
    except FileNotFoundError:
        _directory(path.parent)
        path.mkdir()
    path.chmod(_DIRECTORY)  # whatever the umask says, the program may look


def _link(path: Path, target: str | Path) -> None:
    try:
        path.symlink_to(target)
    except FileNotFoundError:
        _directory(path.parent)
        path.symlink_to(target)


def _write(path: Path, value: object, mode: int = _READABLE) -> None:
    """Write a file of one line or more, in few system calls: a program waits for the tree."""
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    except FileNotFoundError:
        _directory(path.parent)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        os.write(file, f"{value}\n".encode("ascii"))
        os.fchmod(file, mode)
    finally:
        os.close(file)

"""/sys/devices/system/node: the machine's nodes (drivers/base/node.c), and what sysfs adds to them.

Node ids may have gaps, a node may lack CPUs or memory, and a node may go while it is read: then
the reading starts again. `online` and `has_memory` differ for a node whose memory was taken away.
"""

from __future__ import annotations

import os
from errno import ENODEV, ENOENT
from typing import TYPE_CHECKING

from movepages.errors import MalformedError, UnsupportedError
from movepages.linux.reading import (
    ROOT,
    parse_list,
    parse_number,
    read_counters,
    read_number,
    read_optional,
    read_optional_number,
    read_text,
)
from movepages.nodeset import NodeSet
from movepages.topology import Access, HugePool, MemorySideCache, Node, Tier, Topology

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_NODES = "sys/devices/system/node"
_MEMORY_BLOCKS = "sys/devices/system/memory"
_TIERS = "sys/devices/virtual/memory_tiering"
_WEIGHTS = "sys/kernel/mm/mempolicy/weighted_interleave"
_ATTEMPTS = 4


def read_topology(root: Path = ROOT) -> Topology:
    """Return the machine's online nodes, with everything that sysfs says of them, and its tiers.

    Raises UnsupportedError where the kernel has no NUMA, MalformedError.
    """
    for _ in range(_ATTEMPTS):
        online = read_online(root)
        has_memory = read_has_memory(root)
        try:
            nodes = tuple(_read_node(node, online, node in has_memory, root) for node in online)
        except (OSError, MalformedError) as error:
            _require_change(online, root, error)
            continue
        if read_online(root) == online:
            return Topology(nodes, _read_list("possible", root), _read_tiers(root))
    raise UnsupportedError("nodes came and went while they were read; try again in a moment")


def read_online(root: Path = ROOT) -> NodeSet:
    """Return the nodes that are online. One file. Raises UnsupportedError, MalformedError."""
    return _read_list("online", root)


def read_has_memory(root: Path = ROOT) -> NodeSet:
    """Return the nodes that pages can be on (N_MEMORY): the only valid targets. One file.

    Raises UnsupportedError, MalformedError.
    """
    return _read_list("has_memory", root)


def read_has_cpu(root: Path = ROOT) -> NodeSet:
    """Return the nodes that have CPUs. One file. Raises UnsupportedError, MalformedError."""
    return _read_list("has_cpu", root)


def read_free_bytes(root: Path = ROOT) -> dict[int, int]:
    """Return free memory in bytes by online node; a node that goes meanwhile is left out.

    Raises UnsupportedError, MalformedError.
    """
    free: dict[int, int] = {}
    online = read_online(root)
    for node in online:
        try:
            free[node] = read_meminfo(node, root)["MemFree"]
        except OSError as error:
            _require_change(online, root, error)
    return free


def read_meminfo(node: int, root: Path = ROOT) -> dict[str, int]:
    """Return a node's memory by kind, such as `MemFree`, in bytes; `HugePages_*` are counts.

    Raises MalformedError, FileNotFoundError if there is no such node.
    """
    path = _node_directory(node, root) / "meminfo"
    values: dict[str, int] = {}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        words = line.split()  # Node 0 MemTotal: 4024524 kB
        if len(words) < 4 or not words[2].endswith(":"):
            raise MalformedError(path, number, "line", f"{line!r} is not like `Node 0 Key: 1 kB`")
        key = words[2][:-1]
        unit_bytes = 1024 if words[4:] == ["kB"] else 1
        values[key] = parse_number(words[3], path, number, key) * unit_bytes
    for key in ("MemTotal", "MemFree"):
        if key not in values:
            raise MalformedError(path, 0, key, "the line is missing")
    return values


def read_numastat(node: int, root: Path = ROOT) -> dict[str, int]:
    """Return a node's allocation counters since boot, such as `numa_miss`, in pages.

    Raises MalformedError, FileNotFoundError if there is no such node.
    """
    return read_counters(_node_directory(node, root) / "numastat")


def read_block_nodes(root: Path = ROOT) -> tuple[int, dict[int, tuple[int, ...]]]:
    """Return the size of a memory block in bytes, and the nodes that each block is linked under.

    Block K holds the page frames from K * size on. A block under two nodes, or under none, does not
    tell where its pages are. Raises UnsupportedError where the kernel has no memory blocks,
    MalformedError.
    """
    directory = root / _MEMORY_BLOCKS
    path = directory / "block_size_bytes"
    size_text = read_optional(path)
    if size_text is None:
        raise UnsupportedError(f"this kernel does not show its memory blocks ({directory})")
    blocks: dict[int, tuple[int, ...]] = dict.fromkeys(_numbered(directory, "memory"), ())
    for node in read_online(root):
        for block in _numbered(_node_directory(node, root), "memory"):
            blocks[block] = (*blocks.get(block, ()), node)
    return parse_number(size_text, path, 0, "value", 16), blocks


def _read_node(node: int, online: NodeSet, has_memory: bool, root: Path) -> Node:  # noqa: FBT001 - a fact, not a switch
    directory = _node_directory(node, root)
    meminfo = read_meminfo(node, root)
    cpulist = directory / "cpulist"
    return Node(
        id=node,
        cpus=parse_list(read_text(cpulist), cpulist),
        memory_bytes=meminfo["MemTotal"],
        free_bytes=meminfo["MemFree"],
        has_memory=has_memory,
        distances=_read_distances(directory / "distance", online),
        accesses=tuple(_read_accesses(directory)),
        huge_pools=tuple(_read_huge_pools(directory / "hugepages")),
        side_caches=tuple(_read_side_caches(directory / "memory_side_cache")),
        weight=read_optional_number(root / _WEIGHTS / f"node{node}"),
    )


def _read_distances(path: Path, online: NodeSet) -> dict[int, int]:
    """Return the distance to each online node: the file has no ids, only one number for each."""
    words = read_text(path).split()
    if len(words) != len(online):
        problem = f"{len(words)} distances for the {len(online)} online nodes {online}"
        raise MalformedError(path, 1, "distance", problem)
    return {
        node: parse_number(word, path, 1, f"distance to node {node}")
        for node, word in zip(online, words, strict=True)
    }


def _read_accesses(directory: Path) -> Iterator[Access]:
    """Go through accessN (Documentation/admin-guide/mm/numaperf.rst), there with HMAT or CXL."""
    for access_class in _numbered(directory, "access"):
        initiators = directory / f"access{access_class}" / "initiators"
        yield Access(
            access_class=access_class,
            initiators=NodeSet(_numbered(initiators, "node")),
            read_latency_ns=read_optional_number(initiators / "read_latency") or 0,
            write_latency_ns=read_optional_number(initiators / "write_latency") or 0,
            read_bandwidth_mib_per_s=read_optional_number(initiators / "read_bandwidth") or 0,
            write_bandwidth_mib_per_s=read_optional_number(initiators / "write_bandwidth") or 0,
        )


def _read_huge_pools(directory: Path) -> Iterator[HugePool]:
    for kib in _numbered(directory, "hugepages-", "kB"):
        pool = directory / f"hugepages-{kib}kB"
        yield HugePool(
            page_size_bytes=kib * 1024,
            total=read_number(pool / "nr_hugepages"),
            free=read_number(pool / "free_hugepages"),
            surplus=read_number(pool / "surplus_hugepages"),
        )


def _read_side_caches(directory: Path) -> Iterator[MemorySideCache]:
    """Go through indexN (Documentation/admin-guide/mm/numaperf.rst), there with HMAT."""
    for level in _numbered(directory, "index"):
        cache = directory / f"index{level}"
        yield MemorySideCache(
            level=level,
            size_bytes=read_number(cache / "size"),
            line_size_bytes=read_number(cache / "line_size"),
            indexing=read_number(cache / "indexing"),
            write_policy=read_number(cache / "write_policy"),
        )


def _read_tiers(root: Path) -> tuple[Tier, ...]:
    tiers = []
    for tier in _numbered(root / _TIERS, "memory_tier"):
        path = root / _TIERS / f"memory_tier{tier}" / "nodelist"
        if nodes := parse_list(read_optional(path) or "", path):
            tiers.append(Tier(tier, NodeSet(nodes)))
    return tuple(tiers)


def _read_list(name: str, root: Path) -> NodeSet:
    path = root / _NODES / name
    text = read_optional(path)
    if text is None:
        raise UnsupportedError(
            f"this machine does not show its nodes ({path}); mount sysfs on /sys, "
            "or boot a kernel that is built with CONFIG_NUMA"
        )
    return NodeSet(parse_list(text, path, 1, name))


def _node_directory(node: int, root: Path) -> Path:
    return root / _NODES / f"node{node}"


def _numbered(directory: Path, prefix: str, suffix: str = "") -> list[int]:
    """Return the numbers N, rising, of the entries PREFIX N SUFFIX; none without the directory."""
    try:
        with os.scandir(directory) as entries:
            names = [entry.name for entry in entries if entry.name.startswith(prefix)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    numbers = (name.removeprefix(prefix).removesuffix(suffix) for name in names)
    return sorted(int(number) for number in numbers if number.isdecimal())


def _require_change(online: NodeSet, root: Path, error: OSError | MalformedError) -> None:
    """Go on if other nodes are online by now, for then that explains the error; else raise it.

    The kernel takes a node off the list first (try_offline_node in mm/memory_hotplug.c), so one
    that is still on it and has no files is a contradiction.
    """
    if read_online(root) != online:
        return
    if isinstance(error, OSError) and error.errno in {ENOENT, ENODEV}:
        problem = "it is missing, though its node is online"
        raise MalformedError(error.filename, 0, "file", problem) from error
    raise error

"""What the kernel says of a process and of a node, edited to what it says on the machine shown.

Each function takes a file's whole text and returns it; what is not about nodes stays as it was.
"""

from __future__ import annotations

import mmap
import re
from typing import TYPE_CHECKING, NamedTuple

from movepages.emulator.sysfs import grouped

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from movepages.nodeset import NodeSet

_PAGE_KIB = mmap.PAGESIZE >> 10
_MEMS_ALLOWED = re.compile(rb"\nMems_allowed:\t([0-9a-f,]+)\nMems_allowed_list:\t[^\n]*")
_SECOND_WORD = {b"prefer": b"(many)", b"weighted": b"interleave"}
_NODE_COUNT = re.compile(rb"N[0-9]+=[0-9]+")
_COUNT = re.compile(rb"(?!file=)(\w+)=([0-9]+)")
_FIRST_COUNTS = (b"anon", b"dirty")

_NUMBER = re.compile(
    rb"^(Node [0-9]+ )?(?P<key>[\w()]+)(:?) +(?P<count>[0-9]+)( kB)?$", re.MULTILINE
)
_BY_USE: Mapping[str, Mapping[bytes, int]] = {
    "meminfo": {
        b"MemFree": -_PAGE_KIB,
        b"MemUsed": _PAGE_KIB,
        b"Active": _PAGE_KIB,
        b"Active(anon)": _PAGE_KIB,
        b"AnonPages": _PAGE_KIB,
    },
    "numastat": {b"numa_hit": 1, b"local_node": 1},
    "vmstat": {
        b"nr_free_pages": -1,
        b"nr_zone_active_anon": 1,
        b"numa_hit": 1,
        b"numa_local": 1,
        b"nr_active_anon": 1,
        b"nr_anon_pages": 1,
    },
}
"""What one page more in use adds to the numbers of a node's file."""
_BY_POOLS = (b"MemFree", b"MemUsed", b"nr_free_pages")
"""What a page that a pool of huge pages holds counts for as well."""


_HUGE_PAGES = (b"HugePages_Total", b"HugePages_Free", b"HugePages_Surp")


class NodePool(NamedTuple):
    """The pool of a node, in huge pages of the smallest size."""

    total: int
    free: int
    surplus: int
    grown_pages: int
    """Ordinary pages that pools of all sizes hold now, beyond what they held at first."""


def edit_status(text: bytes, mems_allowed: NodeSet, possible: int) -> bytes:
    """Return a status file with other Mems_allowed and Mems_allowed_list lines.

    The mask keeps the width that it had, which is that of a nodemask_t (MAX_NUMNODES bits, whatever
    is possible: libnuma takes it for the size of masks); it is widened, to a power of two, where
    there are more than that many `possible` nodes. A kernel without cpusets has no such lines.
    """

    def edited(match: re.Match[bytes]) -> bytes:
        bits = len(match[1].replace(b",", b"")) * 4
        while bits < possible:
            bits *= 2
        mask = grouped(mems_allowed.bits, bits // 4)
        return f"\nMems_allowed:\t{mask}\nMems_allowed_list:\t{mems_allowed}".encode()

    return _MEMS_ALLOWED.sub(edited, text, count=1)


def edit_numa_maps(
    text: bytes,
    policy_of: Callable[[int], str],
    counts_of: Callable[[int], Mapping[int, int]],
) -> bytes:
    """Return a numa_maps file with other policies and other pages by node.

    Both functions are given the start of a mapping. `policy_of` returns the kernel's wording
    (mpol_to_str), such as `bind:0-1`. `counts_of` returns pages of the size that the kernel counts
    in: huge ones in a mapping of hugetlbfs, else small ones, those of a THP one by one; the zero
    page does not count. It is asked only where the kernel found pages. Their sum should be what it
    found; should it differ, for the process runs on, `anon`, `dirty`, `mapped` and `active` are
    said of the new sum, by the rules of show_numa_map in fs/proc/task_mmu.c.
    """
    lines = text.split(b"\n")
    return b"\n".join(_edit_mapping(line, policy_of, counts_of) if line else line for line in lines)


def _edit_mapping(
    line: bytes,
    policy_of: Callable[[int], str],
    counts_of: Callable[[int], Mapping[int, int]],
) -> bytes:
    words = line.split(b" ")  # the kernel escapes blanks in names
    address = words[0]
    start = int(address, 16)
    second = _SECOND_WORD.get(words[1])
    two = second is not None and len(words) > 2 and words[2].startswith(second)
    words = words[3 if two else 2 :]
    if any(_NODE_COUNT.fullmatch(word) for word in words):
        words = _edit_counts(words, counts_of(start))
    return b" ".join([address, policy_of(start).encode(), *words])


def _edit_counts(words: list[bytes], nodes: Mapping[int, int]) -> list[bytes]:
    """Return the words behind the policy with other pages by node."""
    matches = [_COUNT.fullmatch(word) for word in words]
    names = [word for word, match in zip(words, matches, strict=True) if not match]
    counts = {match[1]: int(match[2]) for match in matches if match}
    pages = sum(nodes.values())
    if not pages:
        return names
    first = {key: min(counts[key], pages) for key in _FIRST_COUNTS if key in counts}
    if pages not in first.values():
        first[b"mapped"] = pages
    by_node = {b"N%d" % node: nodes[node] for node in sorted(nodes) if nodes[node]}
    size = {key: counts.pop(key) for key in (b"kernelpagesize_kB",) if key in counts}
    between = {
        key: count
        for key, count in counts.items()
        if key not in first and key != b"mapped" and not _is_node(key)
    }
    if between.get(b"active", 0) >= pages:
        del between[b"active"]
    every = first | between | by_node | size
    return names + [b"%s=%d" % entry for entry in every.items()]


def _is_node(key: bytes) -> bool:
    return key[:1] == b"N" and key[1:].isdigit()


def edit_node_file(name: str, text: bytes, used_pages: int, pool: NodePool | None = None) -> bytes:
    """Return a node's `meminfo`, `numastat` or `vmstat` as it is with that many pages more in use.

    All of them count as anonymous memory that was allocated by CPUs of the node itself. Free memory
    does not fall below 0. A pool of None is as the file says. Raises KeyError for another file.
    """
    changes = _BY_USE[name]
    huge_pages = dict(zip(_HUGE_PAGES, pool, strict=False)) if pool else {}
    grown_pages = pool.grown_pages if pool else 0

    def edited(match: re.Match[bytes]) -> bytes:
        key = match["key"]
        if key in huge_pages:
            return b"%s%-16s%6d" % (match[1], key + b":", huge_pages[key])
        if key not in changes:
            return match[0]
        pages = used_pages + (grown_pages if key in _BY_POOLS else 0)
        count = max(0, int(match["count"]) + changes[key] * pages)
        if name == "meminfo":
            return b"%s%-16s%8d kB" % (match[1], key + b":", count)
        return b"%s %d" % (key, count)

    return _NUMBER.sub(edited, text)

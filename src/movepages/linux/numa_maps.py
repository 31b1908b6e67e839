"""/proc/PID/numa_maps: memory policy of each mapping, and its pages by node.

Source: show_numa_map in fs/proc/task_mmu.c, mpol_to_str in mm/mempolicy.c; numa(7). What the kernel
leaves out, because it follows from the rest, is filled in here: `mapped` and `active` are the sum
over the nodes unless the line says otherwise.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from movepages.abi import MAX_NUMNODES
from movepages.errors import MalformedError
from movepages.linux.reading import ROOT, process_directory, read_process_text, unescape

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_SECOND_WORD = {"prefer": "(many)", "weighted": "interleave"}
_ESCAPED = "\n\t ="
_NODES = {f"N{node}": node for node in range(MAX_NUMNODES)}
_LATER_FIELD = re.compile(r"(?!N[0-9])[A-Za-z_]\w*", re.ASCII)
_UNSAID = -1


class NumaMapsLine(NamedTuple):
    """A line of numa_maps. Counts are in pages of `page_size_kib`; a line without pages has 0.

    `policy` is the kernel's wording, such as `bind:0-1` or `prefer (many)=static:0-1`. `name` is a
    file's path, `heap`, `stack` or empty. (A tuple for the reason that MapsLine is one.)
    """

    start: int
    policy: str
    name: str
    huge: bool
    pages_by_node: Mapping[int, int]
    page_size_kib: int = 0
    anon: int = 0
    dirty: int = 0
    mapped: int = 0
    mapmax: int = 1
    swapcache: int = 0
    active: int = 0
    writeback: int = 0


_COUNTS = {
    "kernelpagesize_kB": 0,
    "anon": 0,
    "dirty": 0,
    "mapped": _UNSAID,
    "mapmax": 1,
    "swapcache": 0,
    "active": _UNSAID,
    "writeback": 0,
}
"""What the counters are where a line has none of them, in the order of NumaMapsLine."""


def read_numa_maps(pid: int, root: Path = ROOT) -> list[NumaMapsLine]:
    """Return policy and pages by node of each mapping, in rising order; a kernel thread has none.

    Raises NoSuchProcessError, NotPermittedError, MalformedError, UnsupportedError where the kernel
    is built without CONFIG_NUMA.
    """
    path = process_directory(pid, root) / "numa_maps"
    return parse_numa_maps(read_process_text(pid, "numa_maps", root), path)


def read_hugetlb_sizes(pid: int, root: Path = ROOT) -> dict[int, int]:
    """Return the page size, in bytes, of each hugetlb mapping that has pages, by where it starts.

    Only the lines of these are parsed. A kernel without CONFIG_NUMA tells none. Raises
    NoSuchProcessError, NotPermittedError, MalformedError.
    """
    path = process_directory(pid, root) / "numa_maps"
    if not path.exists():
        return {}
    lines = enumerate(read_process_text(pid, "numa_maps", root).split("\n"), 1)
    parsed = [_parse_line(line, path, number) for number, line in lines if " huge" in line]
    return {
        line.start: line.page_size_kib * 1024 for line in parsed if line.huge and line.page_size_kib
    }


def parse_numa_maps(text: str, path: Path) -> list[NumaMapsLine]:
    """Return the lines of a numa_maps file. Raises MalformedError; `path` is for its message."""
    lines = text.split("\n")  # not splitlines(): a name may hold what that takes for a line's end
    if lines.pop():
        raise MalformedError(path, len(lines) + 1, "line", "the file is cut short")
    parsed: list[NumaMapsLine] = []
    for number, line in enumerate(lines, 1):
        newest = _parse_line(line, path, number)
        while parsed and parsed[-1].start >= newest.start:  # grown together since: see maps
            parsed.pop()
        parsed.append(newest)
    return parsed


def _parse_line(line: str, path: Path, number: int) -> NumaMapsLine:
    try:
        address, policy, *words = line.split(" ")
        start = int(address, 16)
    except ValueError:
        raise MalformedError(path, number, "start", f"{line!r} has no address or policy") from None
    if words and policy in _SECOND_WORD and words[0].startswith(_SECOND_WORD[policy]):
        policy = f"{policy} {words.pop(0)}"
    if not words:
        return NumaMapsLine(start, policy, "", False, {})  # noqa: FBT003 - a field, not a switch
    return _parse_fields(start, policy, words, path, number)


def _parse_fields(
    start: int, policy: str, words: list[str], path: Path, number: int
) -> NumaMapsLine:
    name, huge = "", False
    counts = _COUNTS.copy()
    pages: dict[int, int] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if value.isdecimal() and key in counts:
            counts[key] = int(value)
        elif value.isdecimal() and key in _NODES:
            pages[_NODES[key]] = int(value)
        elif key == "file":
            name = unescape(value, _ESCAPED)
        elif word in {"heap", "stack"}:
            name = word
        elif word == "huge":
            huge = True
        elif not equals or key in counts or not _LATER_FIELD.fullmatch(key):
            raise MalformedError(path, number, key, f"{word!r} is not a field with its count")
    present = sum(pages.values())
    if counts["mapped"] == _UNSAID:
        counts["mapped"] = present
    if counts["active"] == _UNSAID:
        counts["active"] = present
    return NumaMapsLine(start, policy, name, huge, pages, *counts.values())

"""The mappings of a process with policy and pages by node: maps and numa_maps, joined.

numa_maps has no end addresses, so each of its lines belongs to the mapping of maps that it starts
in. The two are read one after the other while the process runs, and may differ: of a mapping made
in between, nothing is known yet; where a mapping was split in between, its parts' pages are added
up; where two were merged, the first has the pages of both.
"""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING

from movepages.linux.maps import MapsLine, parse_maps
from movepages.linux.numa_maps import NumaMapsLine, parse_numa_maps
from movepages.linux.reading import ROOT, process_directory, read_process_texts
from movepages.values import Mapping

if TYPE_CHECKING:
    from pathlib import Path


def read_mappings(pid: int, root: Path = ROOT) -> list[Mapping]:
    """Return the mappings of a process in rising order; a kernel thread has none.

    Without numa_maps (a kernel without CONFIG_NUMA) they have no policy and no pages. Raises
    NoSuchProcessError, NotPermittedError, MalformedError.
    """
    directory = process_directory(pid, root)
    maps_path, numa_maps_path = directory / "maps", directory / "numa_maps"
    if not numa_maps_path.exists():
        (maps,) = read_process_texts(pid, ("maps",), root)
        return join(parse_maps(maps, maps_path), [])
    maps, numa_maps = read_process_texts(pid, ("maps", "numa_maps"), root)
    return join(parse_maps(maps, maps_path), parse_numa_maps(numa_maps, numa_maps_path))


def join(maps: list[MapsLine], numa_maps: list[NumaMapsLine]) -> list[Mapping]:
    """Return a Mapping for each line of maps, with what numa_maps says of its address range."""
    base_page_size = resource.getpagesize()
    mappings: list[Mapping] = []
    lines = iter(numa_maps)
    line = next(lines, None)
    for where in maps:
        while line and line.start < where.start:  # unmapped since
            line = next(lines, None)
        pages = None
        while line and line.start < where.end:
            pages = _sum(pages, line) if pages else line
            line = next(lines, None)
        mappings.append(_mapping(where, pages, base_page_size))
    return mappings


def _mapping(where: MapsLine, pages: NumaMapsLine | None, base_page_size: int) -> Mapping:
    if pages is None:
        return Mapping(*where, page_size_bytes=base_page_size)
    return Mapping(
        *where,
        pages.policy,
        pages.page_size_kib * 1024 or base_page_size,
        pages.pages_by_node,
        pages.anon,
        pages.dirty,
        pages.mapped,
        pages.mapmax,
        pages.huge,
    )


def _sum(first: NumaMapsLine, second: NumaMapsLine) -> NumaMapsLine:
    """Return the counts of both parts of a mapping, under the policy of the first."""
    if not second.pages_by_node:
        return first
    if not first.pages_by_node:
        return second._replace(policy=first.policy)
    if first.page_size_kib != second.page_size_kib:  # not parts of one mapping, but made since
        return first
    nodes = first.pages_by_node.keys() | second.pages_by_node.keys()
    return first._replace(
        pages_by_node={
            node: first.pages_by_node.get(node, 0) + second.pages_by_node.get(node, 0)
            for node in sorted(nodes)
        },
        anon=first.anon + second.anon,
        dirty=first.dirty + second.dirty,
        mapped=first.mapped + second.mapped,
        mapmax=max(first.mapmax, second.mapmax),
    )

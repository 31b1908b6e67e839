"""Locating pages on four nodes: every way finds the same, and says which way it was."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from guestkit.children import become
from guestkit.pages import HUGE_PAGES, PAGE_BYTES

from movepages import api
from movepages.linux.locate import ALL_WAYS, Locator
from movepages.linux.machine import LinuxMachine

pytestmark = [pytest.mark.lab, pytest.mark.needs_nodes(4)]

WAYS = (ALL_WAYS, ("numa_maps", "scan"), ("pfn", "scan"), ("scan",), ("query",))


def zoo(memory):
    """Map memory of every kind, on known nodes; return its pages by name, and where they are."""
    spread = memory.private(64).touch()
    spread.move(np.arange(64) % 4)
    thp = memory.thp(2).touch()
    thp[::HUGE_PAGES].move([1, 2])
    hugetlb = memory.hugetlb(2).touch()
    hugetlb[::HUGE_PAGES].move([3, 0])
    shared = memory.shared(16).touch()
    shared.move(3)
    mixed = memory.private(24)
    mixed[:8].touch()
    mixed[:8].move(2)
    assert not mixed[8:16].data.any()  # the zero page; the last third stays untouched
    huge_zero = memory.thp(1)
    assert not huge_zero.data[:, 0].any()
    return {
        "spread": (spread.range, {0: 16, 1: 16, 2: 16, 3: 16}),
        "thp": (thp.range, {1: HUGE_PAGES, 2: HUGE_PAGES}),
        "hugetlb": (hugetlb.range, {0: HUGE_PAGES, 3: HUGE_PAGES}),
        "shared": (shared.range, {3: 16}),
        "mixed": (mixed.range, {2: 8}),
        "huge_zero": (huge_zero.range, {}),
    }


@pytest.fixture
def process(pools, memory, fork):
    """A child that has memory of every kind: its pid, and the kinds."""
    pools.set(0, 2)

    def body():
        yield zoo(memory)

    child = fork(body)
    return child.pid, child.step()


def locator(pid, ways):
    """Return a locator that may use some ways only."""
    return Locator(
        pid,
        lambda addresses: LinuxMachine().query_pages(pid, addresses).status,
        PAGE_BYTES,
        ways=ways,
    )


def base_pages(placement):
    """Return the address and the node of every base page, huge ones taken apart."""
    per_page = np.repeat(placement.page_size_bytes // PAGE_BYTES, placement.pages)
    first = np.repeat(placement.page_runs().addresses(), per_page)
    begins = np.repeat(np.cumsum(per_page) - per_page, per_page)
    offset = (np.arange(len(first)) - begins).astype(np.uint64)
    return first + offset * np.uint64(PAGE_BYTES), np.repeat(placement.page_nodes(), per_page)


def pages_by_node(placement):
    """Count base pages by node."""
    return {node: size // PAGE_BYTES for node, size in placement.bytes_by_node.items()}


def test_every_way_finds_the_same_pages_on_the_same_nodes(process):
    """All ways agree page by page over the whole process, files and libraries included."""
    pid, _ = process
    found = {ways: base_pages(locator(pid, ways).locate()) for ways in WAYS}
    addresses, nodes = found["query",]
    assert len(addresses) > 4 * HUGE_PAGES
    for ways in WAYS:
        assert np.array_equal(found[ways][0], addresses), ways
        assert np.array_equal(found[ways][1], nodes), ways


def test_every_kind_is_found_where_it_was_put(process):
    """Each kind of memory is on the nodes it was moved to; what has no node is not there."""
    pid, kinds = process
    for ways in WAYS:
        for name, (where, expected) in kinds.items():
            placement = locator(pid, ways).locate([where])
            assert pages_by_node(placement) == expected, (name, ways)


def test_result_says_which_way_was_used(process):
    """Root's way is `pfn`, and numa_maps answers for mappings on one node; scan needs neither."""
    pid, kinds = process
    spread = [kinds["spread"][0]]
    assert locator(pid, ALL_WAYS).locate().way.split("+")[:2] == ["numa_maps", "pfn"]
    assert locator(pid, ALL_WAYS).locate(spread).way == "pfn"
    assert locator(pid, ("scan",)).locate(spread).way == "scan"
    assert locator(pid, ("query",)).locate(spread).way == "query"


def test_bytes_by_node_are_those_of_numa_maps(process):
    """The sums over the whole process are what numa_maps counts, huge pages included."""
    pid, _ = process
    counted = Counter()
    for mapping in api.Process(pid).mappings():
        counted.update(mapping.bytes_by_node)
    assert api.Process(pid).locate().bytes_by_node == dict(counted)


def test_mapping_on_several_nodes(process):
    """numa_maps counts a mapping's pages on each of four nodes, and locate says which is where."""
    pid, kinds = process
    start, end = kinds["spread"][0]
    mapping = next(m for m in api.Process(pid).mappings() if m.start == start)
    assert (mapping.end, mapping.pages_by_node) == (end, {0: 16, 1: 16, 2: 16, 3: 16})
    placement = api.Process(pid).locate((start, end))
    assert placement.page_nodes().tolist() == [0, 1, 2, 3] * 16


def test_huge_pages_are_one_page_each(process):
    """A run of huge pages counts them by their own size, one address each."""
    pid, kinds = process
    for name, nodes in (("thp", [1, 2]), ("hugetlb", [3, 0])):
        placement = api.Process(pid).locate(kinds[name][0])
        assert placement.page_size_bytes.tolist() == [HUGE_PAGES * PAGE_BYTES] * 2
        assert placement.page_nodes().tolist() == nodes


def test_user_without_rights_scans(pools, memory, fork):
    """Uid 1000 may not see frames: it finds by scan what root finds by frames, page by page."""
    pools.set(0, 2)

    def looked_at():
        become(1000)
        yield zoo(memory)

    animal = fork(looked_at)
    kinds = animal.step()

    def looker():
        become(1000)
        yield api.Process(animal.pid).locate()
        yield [api.Process(animal.pid).locate(where) for where, _ in kinds.values()]

    user = fork(looker)
    whole = user.step()
    for of_user, of_root in zip(
        base_pages(whole), base_pages(api.Process(animal.pid).locate()), strict=True
    ):
        assert np.array_equal(of_user, of_root)
    assert whole.way == "numa_maps+scan"
    of_kinds = user.step()
    assert [pages_by_node(of_kind) for of_kind in of_kinds] == [
        expected for _, expected in kinds.values()
    ]
    assert {of_kind.way for of_kind in of_kinds if len(of_kind)} == {"scan"}


def test_present_counts_each_folio_once(process):
    """`present` gives one page for each folio, and leaves out what has no page of its own."""
    pid, kinds = process
    present = {
        name: LinuxMachine().present(pid, [where]).pages.sum() for name, (where, _) in kinds.items()
    }
    assert present == {
        "spread": 64,
        "thp": 2,
        "hugetlb": 2,
        "shared": 16,
        "mixed": 8,
        "huge_zero": 0,
    }

"""Allocation along lists of nodes, against one that goes page by page."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, strategies as st

from movepages.kernel.mpol_alloc import Preference, allocate_by
from movepages.kernel.ports import LATER, NONE


class Nodes:
    """Nodes with so many free pages each; a page is named by its node and a number."""

    def __init__(self, free):
        """Begin with so many free pages by node."""
        self.free = Counter(free)
        self.made = 0

    def take(self, node, count):
        """Take up to so many pages."""
        count = min(count, self.free[node])
        self.free[node] -= count
        self.made += count
        return np.arange(self.made - count, self.made) * 10 + node

    def give_back(self, pages):
        """Free pages."""
        self.free.update((pages % 10).tolist())

    def reclaim(self, node, pages):
        """Find nothing to reclaim."""
        del node, pages
        return 0


def page_by_page(lists, which, free, sources=None):
    """Return the node of each page as the kernel decides, one after the other; NONE ends it.

    With `sources`, a page that moved leaves its node one page richer.
    """
    free, nodes = Counter(free), []
    for page, own in enumerate(which):
        node = next((node for node in lists[own] if free[node]), NONE)
        nodes.append(node)
        if node == NONE:
            break
        free[node] -= 1
        if sources is not None:
            free[sources[page]] += 1
    return nodes


LISTS = st.lists(st.permutations([0, 1, 2]).map(tuple), min_size=1, max_size=3)
FREE = st.fixed_dictionaries({node: st.integers(0, 6) for node in range(3)})


@given(lists=LISTS, free=FREE, data=st.data())
def test_a_fault_takes_what_the_kernel_would(lists, free, data):
    """Pages of one fault come from the nodes that they would come from one after the other."""
    which = data.draw(st.lists(st.integers(0, len(lists) - 1), max_size=24))
    nodes = Nodes(free)
    wants = Preference(tuple(lists), np.array(which, dtype=np.int64))
    heads = allocate_by(wants, nodes.take, nodes.give_back, nodes.reclaim)
    expected = page_by_page(lists, which, free)
    served = heads[heads >= 0]
    assert [*(served % 10), *[NONE] * (NONE in heads)] == expected
    assert (heads[len(expected) :] == LATER).all()
    assert sum(nodes.free.values()) + len(served) == sum(free.values())


@given(lists=LISTS, free=FREE, data=st.data())
def test_a_migration_takes_what_the_kernel_would(lists, free, data):
    """Asked again for what came LATER, pages go where they would if each moved before the next."""
    count = data.draw(st.integers(1, 24))
    which = data.draw(st.lists(st.integers(0, len(lists) - 1), min_size=count, max_size=count))
    sources = data.draw(st.lists(st.integers(0, 2), min_size=count, max_size=count))
    nodes, done, found = Nodes(free), 0, []
    while done < count and NONE not in found:
        wants = Preference(tuple(lists), np.array(which[done:], dtype=np.int64))
        left = np.array(sources[done:], dtype=np.int64)
        heads = allocate_by(wants, nodes.take, nodes.give_back, nodes.reclaim, left)
        decided = heads[: np.argmax(heads == LATER) if LATER in heads else len(heads)]
        assert len(decided), "the first page is always decided"
        found += np.where(decided >= 0, decided % 10, NONE).tolist()
        nodes.free.update(sources[done : done + int((decided >= 0).sum())])
        done += len(decided)
    assert found == page_by_page(lists, which, free, sources)


def test_reclaim_comes_when_a_whole_list_is_empty():
    """Other nodes are tried first; then room is made on the first node that can give some."""
    nodes, asked = Nodes({0: 1, 1: 1}), []

    def reclaim(node, pages):
        asked.append((node, pages))
        nodes.free[node] += 2 if node == 1 and len(asked) < 3 else 0
        return 2 if node == 1 and len(asked) < 3 else 0

    heads = allocate_by(Preference.same((0, 1), 6), nodes.take, nodes.give_back, reclaim)
    assert [page % 10 if page >= 0 else page for page in heads] == [0, 1, 1, 1, NONE, LATER]
    assert asked == [(0, 4), (1, 4), (0, 2), (1, 2)]


def test_no_page_wants_none():
    """An empty batch takes nothing."""
    nodes = Nodes({0: 1})
    heads = allocate_by(Preference.same((0,), 0), nodes.take, nodes.give_back, nodes.reclaim)
    assert not len(heads)

"""Nodes of pages in sparse arrays, against a dictionary with an entry for each page."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from movepages.emulator.overlay import (
    CHUNK_PAGES,
    EXCLUSIVE,
    GROUPED,
    INHERITED,
    ISOLATED,
    MAX_NODES,
    NOT_PLACED,
    SPLIT,
    Overlay,
    runs,
)

FLAGS = (EXCLUSIVE, ISOLATED, INHERITED)
EDGE = CHUNK_PAGES
HIGH = (1 << 35) - 1
"""The last page of user space."""
NUMBERS = (0, 1, 2, EDGE - 2, EDGE - 1, EDGE, EDGE + 1, 3 * EDGE - 1, 3 * EDGE, HIGH - 1, HIGH)
ALL = np.array(NUMBERS)
PAGES = st.lists(st.sampled_from(NUMBERS), unique=True, max_size=len(NUMBERS))
NODES = st.sampled_from([0, 1, 3, MAX_NODES - 1])
SHIFTS = st.sampled_from([1 << 36, (1 << 36) + 1])


def pages(*numbers):
    """Return page numbers as the overlay takes them."""
    return np.array(numbers, dtype=np.int64)


class Compared(RuleBasedStateMachine):
    """An overlay beside a dictionary: page -> [node, frame, order, flags]."""

    @initialize()
    def begin(self):
        """Begin with nothing."""
        self.overlay, self.model = Overlay(), {}

    def entry(self, page):
        """Return what the model has of a page."""
        return self.model.setdefault(page, [NOT_PLACED, 0, 0, 0])

    def placed(self):
        """Return the pages that have a node."""
        return sorted(page for page, entry in self.model.items() if entry[0] != NOT_PLACED)

    def split(self, page):
        """Let 512 pages have what the head of a folio has, and a frame each."""
        node, frame, _, flags = self.model[page]
        for number in range(512):
            kept = self.entry(page + number)[3] & ISOLATED
            own = frame + number if frame else 0
            self.model[page + number] = [node, own, 0, flags & ~ISOLATED | kept]

    @rule(chosen=PAGES, node=NODES)
    def set_nodes(self, chosen, node):
        """Say where pages are."""
        self.overlay.set_nodes(pages(*chosen), np.full(len(chosen), node))
        for page in chosen:
            self.entry(page)[0] = node

    @rule(
        chosen=PAGES,
        frame=st.integers(0, 1 << 40),
        order=st.sampled_from([0, 9]),
        alone=st.booleans(),
    )
    def observe(self, chosen, frame, order, alone):
        """Note frames, each its own, orders and who maps them."""
        count = len(chosen)
        orders = [0 if page % 512 else order for page in chosen]
        self.overlay.observe(
            pages(*chosen), frame + np.arange(count), np.array(orders), np.full(count, alone)
        )
        for number, page in enumerate(chosen):
            entry = self.entry(page)
            entry[1:] = frame + number, orders[number], entry[3] & ~EXCLUSIVE | alone * EXCLUSIVE

    @rule(chosen=PAGES, flag=st.sampled_from(FLAGS), on=st.booleans())
    def mark(self, chosen, flag, on):
        """Set or clear a flag."""
        (self.overlay.mark if on else self.overlay.unmark)(pages(*chosen), flag)
        for page in chosen:
            entry = self.entry(page)
            entry[3] = entry[3] | flag if on else entry[3] & ~flag

    @rule(ends=st.lists(st.sampled_from((*NUMBERS, HIGH + 1)), min_size=2, max_size=2))
    def forget(self, ends):
        """Forget a range: what is counted here, folios by their size, is told by node."""
        start, end = min(ends), max(ends)
        for page in [page for page in self.model if self.model[page][2]]:
            if any(page < edge < page + 512 <= (page | EDGE - 1) + 1 for edge in (start, end)):
                self.split(page)
        gone = {page: self.model.pop(page) for page in list(self.model) if start <= page < end}
        assert self.overlay.forget(start, end).tolist() == counted(gone.values(), INHERITED)

    @rule(ends=st.lists(st.sampled_from((*NUMBERS, HIGH + 1)), min_size=2, max_size=2), by=SHIFTS)
    def move(self, ends, by):
        """Take a range along: what would not be aligned any more goes in single pages."""
        start, end = min(ends), max(ends)
        self.forget([start + by, end + by])
        for page in [page for page in self.model if self.model[page][2]]:
            cut = any(page < edge < page + 512 <= (page | EDGE - 1) + 1 for edge in (start, end))
            placed = self.model[page][0] != NOT_PLACED
            if cut or (start <= page < end and placed and by % 512):
                self.split(page)
        self.overlay.move(start, end, start + by)
        for page in [page for page in self.model if start <= page < end]:
            node, frame, order, flags = self.model.pop(page)
            if node != NOT_PLACED:
                self.model[page + by] = [node, frame, order, flags & ~ISOLATED]

    @rule(chosen=PAGES)
    def replace(self, chosen):
        """Take pages that have a node for new ones."""
        chosen = [page for page in chosen if page in self.placed()]
        before = counted([self.model[page] for page in chosen], INHERITED)
        assert self.overlay.replace(pages(*chosen)).tolist() == before
        for page in chosen:
            self.model[page][3] &= ~INHERITED

    @rule()
    def fork(self):
        """Go on as the child: nothing is mapped by it alone, nor counted for it."""
        parent, self.overlay = self.overlay, self.overlay.copy()
        assert not parent.has(ALL, EXCLUSIVE).any()
        for entry in self.model.values():
            entry[3] &= ~EXCLUSIVE
        for page in self.placed():
            self.model[page][3] |= INHERITED
        parent.forget(0, HIGH + 1)  # the child does not notice

    @invariant()
    def agrees(self):
        """Both say the same of every page."""
        expected = [self.model.get(page, [NOT_PLACED, 0, 0, 0]) for page in NUMBERS]
        overlay = self.overlay
        assert overlay.nodes(ALL).tolist() == [entry[0] for entry in expected]
        assert overlay.frames(ALL).tolist() == [entry[1] for entry in expected]
        assert overlay.orders(ALL).tolist() == [entry[2] for entry in expected]
        for flag in FLAGS:
            assert overlay.has(ALL, flag).tolist() == [bool(entry[3] & flag) for entry in expected]
        assert overlay.placed().tolist() == self.placed()


def counted(entries, without):
    """Count the pages of folios by node, but those that have a flag."""
    counts = [0] * MAX_NODES
    for node, _, order, flags in entries:
        if node != NOT_PLACED and not flags & without:
            counts[node] += 1 << order
    return counts


TestOverlayIsADictionaryOfPages = Compared.TestCase
TestOverlayIsADictionaryOfPages.__doc__ = (
    "After any changes the overlay says what a dictionary says."
)
TestOverlayIsADictionaryOfPages.settings = settings(
    max_examples=25, stateful_step_count=25, deadline=None
)


def test_pages_in_any_order_keep_their_own_value():
    """Falling, mixed and single pages, in and across chunks, are written and read in place."""
    for numbers in ([5], [9, 8, 7], [3 * EDGE, 0, EDGE, 1], [EDGE - 1, EDGE], [4, 6, 7]):
        overlay, chosen = Overlay(), pages(*numbers)
        nodes = np.arange(len(numbers), dtype=np.int8)
        overlay.set_nodes(chosen, nodes)
        assert overlay.nodes(chosen).tolist() == nodes.tolist()
        assert overlay.placed().tolist() == sorted(numbers)


def test_what_is_left_of_a_folio_is_marked():
    """Its pages are grouped and are to be looked at anew, in a child and elsewhere too."""
    overlay = Overlay()
    head = pages(512)
    overlay.set_nodes(head, np.array([3]))
    overlay.observe(head, pages(9 << 9), np.array([9]), np.array([True]))
    overlay.forget(512, 514)
    left = pages(514, 1023)
    assert overlay.has(left, GROUPED).all()
    assert not overlay.unchanged(left, overlay.frames(left), np.array([True, True])).any()
    overlay.mark(left[1:], SPLIT)
    child = Overlay()
    child.adopt(overlay, left)
    assert child.has(left, GROUPED).all()
    assert child.has(left, SPLIT).tolist() == [False, True]
    overlay.move(512, 1024, 4096)
    there = left - 512 + 4096
    assert overlay.has(there, GROUPED).all()
    assert overlay.has(there, SPLIT).tolist() == [False, True]


def test_child_takes_over_what_was_seen_since():
    """Adopted pages have node, frame and order of the parent's, and are counted there alone."""
    parent, child = Overlay(), Overlay()
    chosen = pages(3, EDGE + 3)
    parent.set_nodes(chosen, np.array([1, 2]))
    parent.observe(chosen, np.array([70, 80]), np.array([0, 9]), np.array([True, True]))
    child.adopt(parent, chosen)
    assert child.nodes(chosen).tolist() == [1, 2]
    assert child.frames(chosen).tolist() == [70, 80]
    assert child.orders(chosen).tolist() == [0, 9]
    assert not child.has(chosen, EXCLUSIVE).any()
    assert not child.forget(0, 2 * EDGE).any()
    assert parent.forget(0, 2 * EDGE)[[1, 2]].tolist() == [1, 512]


@pytest.mark.parametrize(("start", "end"), [(0, 0), (5, 5), (EDGE, EDGE)])
def test_empty_range_forgets_nothing(start, end):
    """A range without pages leaves all there is, also at the border of a chunk."""
    overlay = Overlay()
    overlay.set_nodes(pages(0, 5, EDGE), np.array([1, 1, 1]))
    assert not overlay.forget(start, end).any()
    assert overlay.placed().tolist() == [0, 5, EDGE]


@given(st.lists(st.integers(-3, 3), max_size=12))
def test_runs_name_each_value_once_with_all_its_places(keys):
    """Runs of an array put together again are the array, and their values rise."""
    array = np.array(keys, dtype=np.int64)
    found = list(runs(array))
    rebuilt = np.full(len(keys), 99)
    for value, part in found:
        assert (rebuilt[part] == 99).all()
        rebuilt[part] = value
    assert rebuilt.tolist() == keys
    assert [value for value, _ in found] == sorted(set(keys))

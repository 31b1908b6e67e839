"""The model's benchmarks measure what they say."""

from __future__ import annotations

import harness
import model
import numpy as np
import pytest
import run
import targets
from harness import LeftOutError
from simulated import Call

from movepages.abi import Errno, MoveFlag
from movepages.kernel import LINUX_2_6_18, LINUX_6_12

PAGES = 1000


@pytest.fixture
def quick(monkeypatch):
    """Take few samples, of small calls: what they say does not matter here."""
    monkeypatch.setattr(harness, "FEWEST_ROUNDS", 2)
    monkeypatch.setattr(harness, "MOST_ROUNDS", 2)
    monkeypatch.setattr(harness, "SAMPLE_SECONDS", 0.0)
    monkeypatch.setattr(targets, "SPARE_BYTES", 0)
    monkeypatch.setattr(model, "STOP_PAGES", (PAGES,))
    monkeypatch.setattr(model, "ORACLE_PAGES", PAGES)
    monkeypatch.setattr(model, "GROWTH", {"query": (10, 20), "move": (10, 20)})


@pytest.mark.host
@pytest.mark.usefixtures("quick")
def test_every_bar_is_looked_at():
    """Each benchmark runs, tiny; the bars are those of a page, a call, a frame and a peak."""
    rows, left_out = run.measure(model.benchmarks(PAGES))
    assert left_out == []
    bars = {row.name.removeprefix("model, "): row.bar for row in rows}
    assert bars["query, 1,000 pages"] == 30
    assert bars["query, 1,000 pages, in random order"] is None
    assert bars["query, 1,000 pages, and the host's"] is None
    for kernel in ("Linux 6.12", "Linux 2.6.18"):
        assert bars[f"move, {kernel}, 1,000 pages"] == 250
        assert bars[f"move, {kernel}, 1,000 pages, targets by turns"] == 350
        assert bars[f"move, {kernel}, 1,000 pages, in random order"] is None
        assert bars[f"move, {kernel}, 1,000 pages, 1 % shared, MOVE"] == 350
        assert bars[f"move, {kernel}, 1,000 pages, 1 % shared, MOVE_ALL"] == 350
        assert bars[f"size, {kernel}, peak of a query, % of the arrays"] == 130
        assert bars[f"size, {kernel}, peak of a move, % of the arrays"] == 130
        assert bars[f"size, {kernel}, peak of a move, 1 % shared, % of the arrays"] == 130
    assert bars["move, Linux 2.6.18, 1,000 pages, 1 % pinned"] == 350
    assert bars["move, Linux 6.12, 1,000 pages, stops at the 500th"] == 2
    assert bars["size, bytes a frame"] == 48
    assert bars["size, bytes a frame and a slot of a page table"] == 48
    assert bars["move, growth, 20 pages: % of the cost a page at 10"] == 150
    assert bars["query, growth, 20 pages: % of the cost a page at 10"] == 150
    assert bars["move, 1,000 pages, and the oracle's"] is None
    assert len(rows) == len(bars) == 31


def test_without_the_oracle(monkeypatch, tmp_path):
    """Where the tests are not, that is said."""
    monkeypatch.setattr(model, "ORACLE", tmp_path / "nowhere")
    with pytest.raises(LeftOutError, match="are not here"):
        next(model._oracle(PAGES))


def test_a_call_that_does_something_else_is_not_timed():
    """A row is refused when the pages do not move: here one is pinned that should not be."""
    call = Call.on(PAGES, LINUX_2_6_18)
    call.pin(PAGES, 0)
    with pytest.raises(AssertionError, match="did not move the pages"):
        model._moving("x", call, 250.0)


@pytest.mark.parametrize("kernel", [LINUX_6_12, LINUX_2_6_18])
def test_pages_move_to_and_fro(kernel):
    """A call moves all pages to the other node, in whatever order they are named."""
    call = Call.on(PAGES, kernel)
    for node in (1, 0, 1):
        call.turn()
        call.shuffle()
        assert call.move() == 0
        assert call.status.tolist() == [node] * PAGES
        assert call.arrived() == PAGES
    assert call.query() == 0
    assert (call.status == 1).all()


def test_shuffling_keeps_all_pages():
    """The pages are the same, in another order."""
    call = Call.on(PAGES, LINUX_6_12)
    before = call.addresses.copy()
    call.shuffle()
    assert (call.addresses != before).any()
    assert np.sort(call.addresses).tolist() == before.tolist()


def test_one_page_in_so_many_is_shared():
    """Pages shared with a child stay where they are unless all mappings are to be moved."""
    call = Call.on(PAGES, LINUX_6_12, shared_every=100)
    call.turn()
    assert call.move() == 0
    assert np.flatnonzero(call.status == -Errno.EACCES).tolist() == list(range(0, PAGES, 100))
    assert call.arrived() == PAGES - 10
    call.flags = int(MoveFlag.MOVE_ALL)
    assert call.move() == 0
    assert call.arrived() == PAGES


def test_pinned_pages_stay():
    """Pages that somebody holds do not move."""
    call = Call.on(PAGES, LINUX_2_6_18)
    call.pin(100, 500)
    call.turn()
    assert call.move() == 5
    assert np.flatnonzero(call.status == -Errno.EAGAIN).tolist() == [500, 600, 700, 800, 900]


def test_part_of_a_call():
    """A call on the first pages leaves the others alone."""
    call = Call.on(PAGES, LINUX_6_12)
    call.turn()
    assert call.move(10) == 0
    assert call.query() == 0
    assert call.status.tolist() == [1] * 10 + [0] * (PAGES - 10)


def test_peak_of_some_work():
    """What is there at once counts; what was there before does not."""
    before = bytearray(1 << 20)
    peak = model._peak_bytes(lambda: bytearray(1 << 20) and bytearray(1 << 18))
    assert 1 << 20 <= peak < (1 << 20) + (1 << 18)
    assert len(before) == 1 << 20

"""The mover's benchmarks measure what they say."""

from __future__ import annotations

import harness
import numpy as np
import placement
import pytest
import run
import targets

from movepages.kernel import SimulatedMachine

PAGES = 1000


@pytest.fixture
def quick(monkeypatch):
    """Take few samples, of small plans: what they say does not matter here."""
    monkeypatch.setattr(harness, "FEWEST_ROUNDS", 2)
    monkeypatch.setattr(harness, "MOST_ROUNDS", 2)
    monkeypatch.setattr(harness, "SAMPLE_SECONDS", 0.0)
    monkeypatch.setattr(targets, "SPARE_BYTES", 0)
    monkeypatch.setattr(placement, "RECORD_PAGES", 10)
    monkeypatch.setattr(placement, "HUGE_PAGES", 4)


@pytest.mark.host
@pytest.mark.usefixtures("quick")
def test_every_bar_is_looked_at():
    """Each benchmark runs, tiny; the bars are those of a page, a call, and a pinned page."""
    here = [each for each in placement.benchmarks(PAGES, PAGES) if "migratepages" not in each.name]
    rows, left_out = run.measure(here)
    assert left_out == []
    bars = {row.name.removeprefix("mover, "): row.bar for row in rows}
    for plan in ("spread", "pack", "follow", "move by turns"):
        assert bars.pop(f"{plan}, memory, 1,000 pages, bytes a page") == 64
        assert bars.pop(f"{plan}, plan, 1,000 pages") is None
    assert bars["own time, 1,000 pages"] == 25
    assert bars["own time, 4 GiB of THP"] == 3
    assert bars["calls, model, 1,000 pages"] == 1.01
    assert bars["calls, host, 1,000 pages in place"] == 1.01
    assert bars["1 % pinned, model, 1,000 pages"] == 3
    assert bars["memory, 1,000 pages, bytes a page"] == 64
    assert len(rows) == 17, "three more are for the record"


@pytest.mark.parametrize("name", placement._plans(PAGES))
def test_plans_name_single_pages(name):
    """Every plan that is measured moves half of the pages or more, out of as many as were found."""
    plan = placement._plans(PAGES)[name]()
    assert plan.present_bytes == PAGES * 4096
    assert 2 * plan.page_count >= PAGES


@pytest.mark.emulator
def test_the_peer_is_measured_beside_us(monkeypatch):
    """On emulated nodes the mover and the command are each compared with migratepages."""
    monkeypatch.setattr(placement, "_ROUNDS", 1)
    rows = list(placement._migratepages(16))
    assert [(row.name.split(", ")[-1], row.peer_name) for row in rows] == [
        ("mover", "migratepages"),
        ("movepages", "migratepages"),
    ]


def test_both_ways_move_all_pages_to_and_fro():
    """Whether by the mover or plainly, every run moves every page to the other node."""
    work = placement._Work.on(100)
    for way in (work.execute, work.one_call, lambda machine: work.one_call(machine, 7)) * 2:
        before = work.machine.locate(work.task.pid).page_nodes()
        way(work.machine)
        after = work.machine.locate(work.task.pid).page_nodes()
        assert (before + after == 1).all()


def test_calls_are_taken_out_of_the_movers_own_time():
    """A timed machine answers as the one it stands for, and counts its calls."""
    machine = SimulatedMachine("2 x 8M")
    task = machine.spawn()
    first = task.mmap(3)
    task.write(first, 3)
    timed = placement._Timed(machine)
    where = task.addresses(first, 3)
    assert timed.query_pages(task.pid, where).status.tolist() == [0, 0, 0]
    assert timed.move_pages(task.pid, where, np.ones(3, np.int32), 2).ret == 0
    assert timed.calls == 2
    assert timed.seconds > 0
    assert timed.page_size_bytes == 4096

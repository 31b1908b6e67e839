"""The benchmarks run, tiny, from end to end."""

from __future__ import annotations

import json
import shutil

import calls
import harness
import locating
import peer
import pytest
import run
import show
from harness import Benchmark, LeftOut, LeftOutError, Measure, Row


@pytest.fixture
def quick(monkeypatch):
    """Take few and short samples: what they say does not matter here."""
    monkeypatch.setattr(harness, "FEWEST_ROUNDS", 2)
    monkeypatch.setattr(harness, "MOST_ROUNDS", 2)
    monkeypatch.setattr(harness, "SAMPLE_SECONDS", 0.0)
    monkeypatch.setattr(harness, "SAMPLE_SECONDS", 0.0)


def test_unknown_name(capsys):
    """A name that no benchmark has is wrong usage, answered with those there are."""
    assert run.main(["--only", "nonsense"]) == 2
    assert "start-up" in capsys.readouterr().err


def test_what_cannot_run_is_kept_apart():
    """A benchmark that is left out half-way keeps its rows; the next one runs all the same."""
    row = Row("measured", 1, Measure.COUNT)

    def half():
        yield row
        yield LeftOut("a part", "of no use")
        raise LeftOutError("no memory")

    rows, left_out = run.measure([Benchmark("half", half), Benchmark("whole", lambda: [row])])
    assert rows == [row, row]
    assert left_out == [LeftOut("a part", "of no use"), LeftOut("half", "no memory")]


def test_without_a_compiler(monkeypatch):
    """Where there is no C compiler, that is said."""
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(LeftOutError, match="C compiler"):
        peer.build()


@pytest.mark.host
@pytest.mark.usefixtures("quick")
def test_calls():
    """Query and move are held against C at each size, or left out for want of a compiler."""
    rows, left_out = run.measure(calls.benchmarks((1, 600)))
    if not shutil.which("cc"):
        assert [each.reason for each in left_out] == [
            "there is no C compiler to compare with: install gcc"
        ]
        return
    bars = {row.name: row.bar for row in rows}
    assert bars == {
        "query, 1 page, raw": 2.0,
        "query, 1 page, public": 6.0,
        "query, 600 pages, raw": None,
        "query, 600 pages, public": 1.10,
        "move in place, 600 pages, raw": None,
        "move in place, 600 pages, public": 1.10,
    }
    assert left_out == []


@pytest.mark.host
@pytest.mark.usefixtures("quick")
def test_locating():
    """Every pattern is located, and every way gives the answer of the plain query."""
    chosen = [each for each in locating.benchmarks(2048) if "hugetlb" not in each.name]
    rows, left_out = run.measure(chosen)
    names = [row.name for row in rows] + [each.name for each in left_out]
    assert len(rows) >= len(chosen) - 1  # the ways by frames need root, and THP may be off
    assert [
        each.name for each in chosen if not any(name.startswith(each.name) for name in names)
    ] == []


@pytest.mark.host
@pytest.mark.usefixtures("quick")
def test_show(capsys, monkeypatch):
    """The command line is timed, and reads numa_maps once and smaps never; --json says so."""
    monkeypatch.setattr(show, "benchmarks", lambda: _show(mappings=20, large_bytes=1 << 20))
    assert run.main(["--json", "--only", "show"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    assert len(rows) == 6
    assert rows["show of 1M, reads of numa_maps"]["value"] == 1
    assert rows["show of 1M, reads of smaps"]["value"] == 0
    assert all(row["value"] > 0 for row in rows.values() if row["measure"] == "own_ms")


_show = show.benchmarks

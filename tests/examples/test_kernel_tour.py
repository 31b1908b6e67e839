"""The tour of the kernel: that it runs, fits a terminal, and says what the specification says.

What it should say of a page is typed from the decision table; the rows are those of `decision`.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from decision import ROWS
from decision.bench import SEMANTICS

from movepages import kernel
from movepages.abi import PAGE_STATUSES, UNWRITTEN, status_name

TOUR = Path(__file__).parents[2] / "examples" / "kernel_tour.py"
ROW = {row.text: row for row in ROWS}
ROW_OF_KIND = {
    "touched": "private anon on node 0 to 1",
    "on that node already": "already on target, with others that move: move",
    "never touched": "never-touched anon, query or move: move",
    "an address with no mapping": "hole below some VMA: move",
    "only read: the zero page": "zero page: move",
    "mlocked": "mlocked",
    "mapped by two processes": "shared (mapcount > 1), elsewhere, MOVE",
    "the same, with MOVE_ALL": "shared, MOVE_ALL",
}
"""Each kind of page in the tour, and the row whose first status is what becomes of it."""
TARGET = {1: 3}
"""The table moves pages to node 1, the tour to node 3."""


@pytest.fixture(scope="module")
def said():
    """What the tour prints."""
    done = subprocess.run([sys.executable, TOUR], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout


def cells_of(said, title):
    """Return the table under a line that begins so: cells by the first one of each line."""
    lines = said.split(f"\n{title}")[1].split("\n\n")[1].splitlines()
    rows = [re.split(r"(?<=\S)  +|(?<=2\.6\.18) ", line.strip()) for line in lines]
    return {row[0]: row[1:] for row in rows}


def test_it_fits_a_terminal(said):
    """No line is longer than 80 columns, and none ends in blanks."""
    assert max(map(len, said.splitlines())) <= 80
    assert [line for line in said.splitlines() if line != line.rstrip()] == []


def test_it_is_short():
    """It can be read in one go."""
    assert len(TOUR.read_text(encoding="utf-8").splitlines()) <= 120


def test_pages_go_where_they_are_sent(said):
    """First touch decides where a page is, and each call moves the pages that it names."""
    nodes = [0] * 16 + [2] * 16
    pictures = ["".join(map(str, nodes))]
    nodes[::4] = [3] * 8
    pictures.append("".join(map(str, nodes)))
    nodes[:8] = [1] * 8
    pictures.append("".join(map(str, nodes)))
    assert re.findall(r"\b[0-3]{32}\b", said) == pictures
    assert said.count("returned 0") == 2
    assert "contents intact" in said


@pytest.mark.parametrize("kind", ROW_OF_KIND)
@pytest.mark.parametrize("semantics", SEMANTICS)
def test_pages_of_every_kind(said, kind, semantics):
    """Each kind of page gets the status that the decision table has, in all four kernels."""
    (status, *_) = ROW[ROW_OF_KIND[kind]].expected(semantics).status
    shown = cells_of(said, "One call for pages of every kind")[kind]
    assert shown[SEMANTICS.index(semantics)] == status_name(TARGET.get(status, status))


def test_kernels_stand_in_the_order_of_the_package(said):
    """The columns are the four kernels by name."""
    names = [
        getattr(kernel, semantics).name.removeprefix("the patch's ") for semantics in SEMANTICS
    ]
    positions = [said.index(name, said.index("One call")) for name in names]
    assert positions == sorted(positions)


def test_statuses_are_explained(said):
    """Each errno in the table has its meaning below it."""
    errnos = set(re.findall(r"\bE[A-Z]{3,}\b", said.split("One call for three")[0]))
    explained = {status.name: status.meaning for status in PAGE_STATUSES.values()}
    assert errnos
    for name in errnos:
        assert re.search(rf"^  {name} +{explained[name]}$", said, re.MULTILINE)


@pytest.mark.parametrize("semantics", SEMANTICS)
@pytest.mark.parametrize(
    ("title", "row"),
    [
        ("One call for three pages to node 1", "[pinned, ok, ok] to 1"),
        ("One call for three pages, the last", "node offline at index k"),
    ],
)
def test_what_calls_return(said, title, row, semantics):
    """Return value, statuses and places of the first three pages are those of the table."""
    expected = ROW[row].expected(semantics)
    name = getattr(kernel, semantics).name.removeprefix("the patch's ")
    returned = str(expected.ret) if expected.ret >= 0 else status_name(expected.ret)
    statuses = [
        "not written" if code == UNWRITTEN else status_name(code) for code in expected.status[:3]
    ]
    places = "".join(map(str, expected.nodes[:3]))
    assert cells_of(said, title)[name] == [returned, *statuses, places]

"""What `make demo` shows: that it is true, fits a screen, and is what the README says.

What should become of a page is typed from the decision table; the rows are those of `decision`.
"""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from decision import ROWS

from movepages.abi import status_name
from movepages.nodeset import NodeSet
from movepages.topology import Node, Topology

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "examples" / "demo.py"
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMAND = "$ movepages emulate --nodes 4 -- python examples/move_process.py\n"

ROW = {row.text: row for row in ROWS}
ROW_OF_KIND = {
    "touched": "private anon on node 0 to 1",
    "on node 3 already": "already on target, with others that move: move",
    "never touched": "never-touched anon, query or move: move",
    "only read: the zero page": "zero page: move",
    "no mapping there": "hole below some VMA: move",
    "shared by two processes": "shared (mapcount > 1), elsewhere, MOVE",
    "the same, with MOVE_ALL": "shared, MOVE_ALL",
}
"""Each kind of page in the demo, and the row whose first status is what becomes of it."""
TARGET = {1: 3}
"""The table moves pages to node 1, the demo to node 3."""
SEMANTICS = ("LINUX_6_12", "PATCH_2006", "DOCUMENTED_2006")
NO_SUCH_NODE = "node offline at index k"
NO_CALL = "touched, to node 4"


@pytest.fixture(scope="module")
def said():
    """What the demo prints, for whoever runs the tests, be it root or not."""
    done = subprocess.run([sys.executable, DEMO], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout


def pictures(text):
    """Return the rows of 32 digits."""
    return re.findall(r" ([0-3+]{32})\b", text)


def statuses(text):
    """Return the statuses of each kind of page."""
    rows = re.findall(r"^  (\S.{23}) ((?:(?:node \d|E[A-Z]{5})[ ]+)+)", text, re.MULTILINE)
    return {kind.strip(): re.findall(r"node \d|E[A-Z]{5}", cells) for kind, cells in rows}


@pytest.mark.emulator
def test_it_is_the_picture_in_the_readme(said):
    """The README shows just what a person sees, whatever the machine."""
    assert said.startswith(COMMAND)
    assert f"```console\n{said}```\n" in README


@pytest.mark.emulator
def test_it_fits_a_screen(said):
    """With its command and a prompt below it, it fits 80 columns and 25 lines."""
    assert max(map(len, said.splitlines())) <= 80
    assert len(said.splitlines()) + 2 <= 25


@pytest.mark.emulator
def test_pages_are_where_they_were_moved(said):
    """Memory is on one node, a part on each, on another, and single pages on a third."""
    single = [3] * 32
    single[::4] = [1] * 8
    assert pictures(said) == [
        "0" * 32,
        "0" * 8 + "1" * 8 + "2" * 8 + "3" * 8,
        "3" * 32,
        "".join(map(str, single)),
        "0" * 32,
    ]
    counts = [int(text.replace(",", "")) for text in re.findall(r"([\d,]+) pages moved", said)]
    assert counts == [4096 * 3 // 4, 4096 * 3 // 4, 32 // 4, 4096]


@pytest.mark.emulator
def test_data_is_intact(said):
    """The process that was moved has found no error in its memory."""
    assert "while it was moved: 0 errors.\n" in said


@pytest.mark.emulator
@pytest.mark.parametrize("kind", ROW_OF_KIND)
def test_pages_of_every_kind(said, kind):
    """Each kind of page gets the status that the decision table has, in all three semantics."""
    expected = [ROW[ROW_OF_KIND[kind]].expected(kernel).status[0] for kernel in SEMANTICS]
    assert statuses(said)[kind] == [status_name(TARGET.get(code, code)) for code in expected]


@pytest.mark.emulator
def test_a_node_that_there_is_not(said):
    """A call that names one is refused, in all three semantics."""
    expected = [ROW[NO_SUCH_NODE].expected(kernel).ret for kernel in SEMANTICS]
    assert statuses(said)[NO_CALL] == [status_name(ret) for ret in expected]
    assert set(statuses(said)) == {*ROW_OF_KIND, NO_CALL}


@pytest.mark.emulator
def test_real_nodes_look_the_same(said):
    """Told to take the nodes of the machine, it shows the same; here these are emulated ones."""
    command = [sys.executable, "-m", "movepages", "emulate", "--nodes", "4", "--"]
    done = subprocess.run(
        [*command, sys.executable, DEMO, "--real"], capture_output=True, text=True, check=True
    )
    assert pictures(done.stdout) == pictures(said)
    first = {kind: cells[:1] for kind, cells in statuses(said).items()}
    if "CAP_SYS_NICE" in done.stdout:  # an ordinary user, who is not made root here
        first["the same, with MOVE_ALL"] = ["EPERM"]
    assert statuses(done.stdout) == first


def test_one_node(capsys):
    """On a machine with one node, to move a process says what it needs, and how to get it."""
    machine = Topology((Node(0), Node(1, has_memory=False)), NodeSet([0, 1]))
    script = str(DEMO.with_name("move_process.py"))
    assert runpy.run_path(script)["main"](machine) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "movepages emulate --nodes 4" in said.err

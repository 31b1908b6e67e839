from __future__ import annotations

import io
import json
from collections import Counter
from dataclasses import replace

import pytest

from movepages.cli import main
from movepages.kernel import SimulatedMachine
from movepages.report.output import Output

PID = "1234"
HEAP = 0x7F12A4000000
PAGE = 4096


def test_pipe(run, snapshot):
    """It ends with the pages by outcome; what was in its share is there already."""
    answer = run("spread", PID, "--to", "0,1")
    assert answer.out == snapshot
    assert answer.code == 0


def test_a_dry_run(run, machine, snapshot):
    """It shows how many pages would go from where to where, and why; nothing moves."""
    machine.mems_allowed |= {2}
    machine.pages[HEAP] = 2
    assert run("spread", PID, "--to", "0,1", "--dry-run").out == snapshot
    assert Counter(machine.pages.values()) == {0: 7, 2: 1}


def test_weights(run, machine):
    """Weights are those of the nodes in rising order, however --to is written."""
    assert run("spread", PID, "--to", "1,0", "--weights", "1,3").code == 0
    assert Counter(machine.pages.values()) == {0: 2, 1: 6}


def test_kernel_weights(run, machine):
    """`kernel` means the weights that the kernel interleaves by: 5, 5 and 1 here."""
    machine.mems_allowed |= {2}
    machine.pages = {HEAP + page * PAGE: 0 for page in range(22)}
    assert run("spread", PID, "--to", "0-2", "--weights", "kernel").code == 0
    assert Counter(machine.pages.values()) == {0: 10, 1: 10, 2: 2}


def test_a_kernel_without_weights(run, machine):
    """It is said that this kernel has none, and what to give instead."""
    nodes = tuple(replace(node, weight=None) for node in machine.nodes)
    machine.nodes = replace(machine.nodes, nodes=nodes)
    answer = run("spread", PID, "--to", "0,1", "--weights", "kernel")
    assert (answer.code, answer.out) == (2, "")
    assert "this kernel has no weights of nodes" in answer.err


@pytest.mark.parametrize(("asked", "moved"), [([f"{HEAP:x}+16K"], 2), (["--stack"], 0), ([], 4)])
def test_only_what_is_selected(run, machine, asked, moved):
    """Ranges and kinds leave the other pages where they are; without any, all memory is meant."""
    assert run("spread", PID, "--to", "0,1", *asked).code == 0
    assert Counter(machine.pages.values())[1] == moved


def test_it_is_undone(run, machine, tmp_path):
    """Its ledger puts the pages back."""
    file = str(tmp_path / "spread.json")
    assert run("spread", PID, "--to", "0,1", "--ledger", file).code == 0
    assert run("move", "--undo", file).code == 0
    assert set(machine.pages.values()) == {0}


def test_each_process_is_spread_for_itself():
    """Of a process and its child each has its pages on both nodes, as many."""
    machine = SimulatedMachine("2 x 16M")
    parent = machine.spawn()
    child = parent.fork()
    for task, pages in ((parent, 8), (child, 6)):
        task.write(task.mmap(pages), pages)
    quiet = Output(io.StringIO())
    code = main(["spread", f"tree:{parent.pid}", "--to", "0-1"], machine=machine, output=quiet)
    assert code == 0
    machine.check()
    for task, pages in ((parent, 4), (child, 3)):
        assert machine.locate(task.pid).bytes_by_node == {0: pages * PAGE, 1: pages * PAGE}


def test_json(run):
    """JSON says as much as that of `move`."""
    said = json.loads(run("spread", PID, "--to", "0,1", "--json").out)
    assert (said["asked"], said["moved"], said["already_there"]) == (8, 4, 4)
    assert (said["to"], said["selection"]) == ([0, 1], "everything")
    assert said["plan"] == [
        {
            "pid": 1234,
            "from_node": 0,
            "to_node": 1,
            "pages": 4,
            "size_bytes": 4 * PAGE,
            "reason": "beyond the share of its node",
        }
    ]

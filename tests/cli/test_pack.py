from __future__ import annotations

import io
import json
from dataclasses import replace

import numpy as np
import pytest

from movepages.cli import main
from movepages.kernel import SimulatedMachine
from movepages.report.output import Output

PID = "1234"
HEAP = 0x7F12A4000000
PAGE = 4096


@pytest.fixture
def scattered(machine):
    """Return the machine with three of the eight pages on node 1."""
    machine.pages |= {HEAP + page * PAGE: 1 for page in (1, 4, 6)}
    return machine


def let_free(machine, free_bytes):
    """Let nodes have so much free memory, by number."""
    nodes = tuple(
        replace(node, free_bytes=free_bytes.get(node.id, node.free_bytes)) for node in machine.nodes
    )
    machine.nodes = replace(machine.nodes, nodes=nodes)


def test_pipe(run, scattered, snapshot):
    """It ends with the pages by outcome; all are on the node that had most."""
    assert run("pack", PID).out == snapshot
    assert set(scattered.pages.values()) == {0}


@pytest.mark.usefixtures("scattered")
def test_a_dry_run(run, snapshot):
    """It shows what would go where."""
    assert run("pack", PID, "--prefer", "1", "--dry-run").out == snapshot


def test_nothing_to_pack(run, machine, snapshot):
    """Where all is on one node it is said that nothing is to be moved."""
    answer = run("pack", PID)
    assert (answer.code, answer.out) == (0, snapshot)
    assert set(machine.pages.values()) == {0}


def test_preferred_nodes(run, scattered):
    """--prefer goes before what need not move."""
    assert run("pack", PID, "--prefer", "1").code == 0
    assert set(scattered.pages.values()) == {1}


@pytest.mark.parametrize(("free_pages", "node"), [(3, 0), (2, 1)])
def test_free_memory_decides(run, scattered, free_pages, node):
    """Node 0 takes the three pages of node 1 if it has room for three; else node 1 takes five."""
    let_free(scattered, {0: free_pages * PAGE, 1: 5 * PAGE})
    assert run("pack", PID).code == 0
    assert set(scattered.pages.values()) == {node}


def test_only_what_is_selected(run, scattered):
    """A range is packed for itself: of its three pages two are on node 1."""
    assert run("pack", PID, f"{HEAP + 4 * PAGE:x}+12K").code == 0
    assert [node for _, node in sorted(scattered.pages.items())] == [0, 1, 0, 0, 1, 1, 1, 0]


def test_processes_do_not_get_the_same_room():
    """Node 0 has room for either, not for both: the second is packed on node 1."""
    machine = SimulatedMachine("2 x 1M")
    tasks = [machine.spawn(), machine.spawn()]
    for task, pages in zip(tasks, (30, 130), strict=True):
        first = task.mmap(50 + pages)
        task.write(first, 50 + pages)
        machine.move_pages(task.pid, task.addresses(first, pages), np.full(pages, 1, np.int32), 2)
    assert 130 <= machine.free_bytes()[0] // PAGE < 160
    line = ["pack", ",".join(str(task.pid) for task in tasks), "--prefer", "0"]
    assert main(line, machine=machine, output=Output(io.StringIO())) == 0
    machine.check()
    nodes = [machine.locate(task.pid).bytes_by_node for task in tasks]
    assert nodes == [{0: 80 * PAGE}, {1: 180 * PAGE}]


def test_json(run, scattered):
    """JSON says as much as that of `move`, and to which nodes pages come."""
    said = json.loads(run("pack", PID, "--json").out)
    assert (said["to"], said["asked"], said["moved"], said["already_there"]) == ([0], 8, 3, 5)
    said = json.loads(run("pack", PID, "--json").out)
    assert (said["to"], said["asked"], said["moved"], said["already_there"]) == ([], 8, 0, 8)
    assert set(scattered.pages.values()) == {0}

from __future__ import annotations

import json

import pytest

from movepages.cli import main
from movepages.cli.parameters import Span
from movepages.cli.query import BATCH_PAGES, query_batches
from movepages.kernel import SimulatedMachine
from movepages.values import NO_NODE

PID = "1234"
HEAP = 0x7F12A4000000
PAGE = 4096


def test_pipe(run, machine, snapshot):
    """Pages of a range that follow each other with the same status share a line."""
    machine.pages[HEAP + 2 * PAGE] = 1
    del machine.pages[HEAP + 5 * PAGE]
    assert run("query", PID, f"{HEAP:x}-{HEAP + 10 * PAGE:x}").out == snapshot


def test_terminal(run_on_terminal, snapshot):
    """On a terminal it is the same table."""
    assert run_on_terminal("query", PID, f"{HEAP:x}", "ffffffff81000000").out == snapshot


def test_addresses_have_a_line_each(run):
    """Single addresses stay apart, in the order given, even where they follow each other."""
    lines = run("query", PID, f"{HEAP + PAGE:x}", f"{HEAP:x}", f"{HEAP + PAGE:x}").out.splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [
        [f"{HEAP + PAGE:x}", "1"],
        [f"{HEAP:x}", "1"],
        [f"{HEAP + PAGE:x}", "1"],
    ]


def test_unaligned_address_stands_for_its_page(run):
    """The page that contains the address is shown, and said to be shown."""
    lines = run("query", PID, f"{HEAP + PAGE + 1:x}").out.splitlines()
    assert lines[0] == f"Not on page boundaries: {HEAP + PAGE + 1:x}; shown is {HEAP + PAGE:x}"
    assert lines[3].split()[0] == f"{HEAP + PAGE:x}"


def test_unaligned_range_is_widened(run):
    """A range covers every page that it touches; of more than one such argument it says so."""
    first = f"{HEAP + 1:x}-{HEAP + PAGE + 1:x}"
    answer = run("query", PID, first, f"{HEAP + 1:x}")
    assert answer.out.startswith(
        f"Not on page boundaries: {first}; shown is {HEAP:x}-{HEAP + 2 * PAGE:x}, "
        "and so on for 1 more\n"
    )


def test_json_lists_every_page(run):
    """JSON has every page of a range with its status as the kernel gave it, and what it means."""
    answer = json.loads(run("query", PID, f"{HEAP + 6 * PAGE:x}+12K", "0x10", "--json").out)
    assert answer["pages"] == [
        {
            "address": hex(HEAP + page * PAGE),
            "status": 0,
            "name": "node 0",
            "meaning": "page on node 0",
        }
        for page in (6, 7)
    ] + [
        {
            "address": hex(HEAP + 8 * PAGE),
            "status": -2,
            "name": "ENOENT",
            "meaning": "page not present",
        },
        {
            "address": "0x0",
            "status": -14,
            "name": "EFAULT",
            "meaning": "no movable page here",
        },
    ]
    assert answer["unaligned"] == [{"asked": "0x10", "address": "0x0"}]


@pytest.mark.parametrize(
    ("pages", "batches"), [(BATCH_PAGES, [BATCH_PAGES]), (BATCH_PAGES + 1, [BATCH_PAGES, 1])]
)
def test_long_ranges_are_asked_for_in_parts(machine, pages, batches):
    """A range is asked for 65,536 pages at a time, so that its length costs no memory."""
    span = Span("", HEAP, HEAP + pages * PAGE)
    asked = [batch.address for batch in query_batches(machine, 1234, [span])]
    assert [len(addresses) for addresses in asked] == batches
    assert int(asked[-1][-1]) == HEAP + (pages - 1) * PAGE


def test_runs_go_on_from_part_to_part(run):
    """A run that is longer than a part is still one line."""
    lines = run("query", PID, f"{HEAP + 8 * PAGE:x}+1G").out.splitlines()
    assert [line.split()[1:3] for line in lines[1:]] == [["262,144", "ENOENT"]]


def test_asking_touches_nothing(capsys):
    """Of half a mapping that was never used, the other half, and free memory, are as before."""
    machine = SimulatedMachine("2 x 16M")
    task = machine.spawn()
    first = task.mmap(8)
    task.write(first, 4)
    free = machine.free_bytes()
    for _ in range(2):
        assert main(["query", str(task.pid), f"{first:x}+32K"], machine=machine) == 0
        words = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
        assert [(pages, status) for _, pages, status, *_ in words] == [
            ("4", "node"),
            ("4", "ENOENT"),
        ]
    assert machine.free_bytes() == free
    assert task.nodes(first, 8).tolist() == [0] * 4 + [NO_NODE] * 4


def test_refusal_comes_before_any_output(run, machine):
    """What forbids to ask is said before anything is printed."""
    machine.refusal = 1
    answer = run("query", PID, f"{HEAP:x}", "--json")
    assert (answer.code, answer.out) == (4, "")
    assert answer.err.startswith("movepages: move_pages: not permitted")


def test_the_highest_page(run):
    """The last page of the 64-bit address space can be asked for; the kernel says what it is."""
    lines = run("query", PID, "ffffffffffffffff").out.splitlines()
    assert lines[-1].split()[:3] == ["fffffffffffff000", "1", "EFAULT"]

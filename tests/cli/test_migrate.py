from __future__ import annotations

import errno
import json

import pytest

from movepages.abi import MoveFlag
from movepages.placement.records import read_ledgers

PID = "1234"
HEAP = 0x7F12A4000000
PAGE = 4096


def test_the_mover_accounts(run, machine, snapshot):
    """By default it ends as `move` does, with the pages by outcome, and what stayed by reason."""
    machine.stuck = {HEAP + PAGE: -errno.EACCES}
    answer = run("migrate", PID, "--from", "0", "--to", "1")
    assert answer.out == snapshot
    assert answer.code == 1


def test_only_what_is_selected_and_as_many(run, machine, tmp_path):
    """It takes the options of `move`: which pages, how many, a ledger, and that undoes it."""
    file = tmp_path / "migrated.json"
    selected = (f"--select=within({HEAP:x}, {HEAP + 4 * PAGE:x})", "--max-pages", "3")
    line = ("migrate", PID, "--from", "0", "--to", "1", *selected, "--ledger", str(file))
    assert run(*line).code == 0
    assert [node for _, node in sorted(machine.pages.items())] == [1, 1, 1, 0, 0, 0, 0, 0]
    assert read_ledgers(file.read_bytes())[0].moved_pages == 3
    assert run("move", "--undo", str(file)).code == 0
    assert set(machine.pages.values()) == {0}


def test_a_dry_run_moves_nothing(run, machine):
    """It shows the plan, and no page has moved."""
    answer = run("migrate", PID, "--from", "0", "--to", "1", "--dry-run", "--json")
    (planned,) = json.loads(answer.out)["plan"]
    assert (planned["from_node"], planned["to_node"], planned["pages"]) == (0, 1, 8)
    assert set(machine.pages.values()) == {0}


def test_the_mover_stays_in_the_cpuset(run, machine):
    """move_pages(2) cannot leave it, whatever rights the caller has."""
    machine.moves_shared = True
    assert run("migrate", PID, "--from", "0", "--to", "2").code == 4
    assert set(machine.pages.values()) == {0}


@pytest.mark.parametrize(
    ("options", "flag"), [([], MoveFlag.MOVE), (["--shared"], MoveFlag.MOVE_ALL)]
)
def test_root_leaves_shared_pages_too(run, machine, options, flag):
    """Who may move shared pages has to say so, unlike with migratepages."""
    machine.moves_shared = True
    assert run("migrate", PID, "--from", "0", "--to", "1", *options).code == 0
    assert machine.flags == flag


# -- with --kernel ----------------------------------------------------------------------------


def test_pipe(run, snapshot):
    """Memory on each node is shown before and after."""
    assert run("migrate", PID, "--from", "0", "--to", "1", "--kernel").out == snapshot


def test_pages_that_stay(run, machine):
    """The kernel's count of pages that stayed is said, and where to learn more; it ends with 1."""
    machine.stuck = {HEAP: 0, HEAP + PAGE: 0}
    answer = run("migrate", PID, "--from", "0", "--to", "1", "--kernel")
    assert answer.code == 1
    assert "Not moved: 2 pages (a huge page counts as one)" in answer.out


def test_json(run, machine):
    """JSON has the kernel's count, and bytes by node before and after."""
    machine.mapped = machine.mapped[:2]
    answer = run("migrate", PID, "--from", "0,1", "--to", "1", "--kernel", "--json")
    assert answer.code == 0
    assert json.loads(answer.out) == {
        "pid": 1234,
        "command": "python3",
        "from": [0, 1],
        "to": [1],
        "not_moved": 0,
        "bytes_by_node_before": {"0": 150 * PAGE, "1": 2 << 20},
        "bytes_by_node_after": {"1": 150 * PAGE + (2 << 20)},
    }


def test_caller_with_the_right_may_leave_the_cpuset(run, machine):
    """With CAP_SYS_NICE migrate_pages(2) takes nodes outside the target's cpuset."""
    machine.moves_shared = True
    assert run("migrate", PID, "--from", "0", "--to", "2", "--kernel").code == 0
    assert set(machine.pages.values()) == {2}

from __future__ import annotations

import json

PID = "1234"
HEAP = 0x7F12A4000000
PAGE = 4096


def test_pipe(run, snapshot):
    """Memory on each node is shown before and after."""
    assert run("migrate", PID, "--from", "0", "--to", "1").out == snapshot


def test_pages_that_stay(run, machine):
    """The kernel's count of pages that stayed is said, and where to learn more; it ends with 1."""
    machine.stuck = {HEAP: 0, HEAP + PAGE: 0}
    answer = run("migrate", PID, "--from", "0", "--to", "1")
    assert answer.code == 1
    assert "Not moved: 2 pages (a huge page counts as one)" in answer.out


def test_json(run, machine):
    """JSON has the kernel's count, and bytes by node before and after."""
    machine.mapped = machine.mapped[:2]
    answer = run("migrate", PID, "--from", "0,1", "--to", "1", "--json")
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
    assert run("migrate", PID, "--from", "0", "--to", "2").code == 0
    assert set(machine.pages.values()) == {2}

from __future__ import annotations

import errno
import json

import pytest

from movepages.abi import MoveFlag

PID = "1234"
HEAP = 0x7F12A4000000
PAGE = 4096
ALL = f"{HEAP:x}+32K"


def test_pipe(run, machine, snapshot):
    """It ends with the pages by outcome, each failing status in a phrase, then what to do."""
    machine.pages[HEAP] = 1
    machine.stuck = {HEAP + 2 * PAGE: -errno.EACCES, HEAP + 3 * PAGE: -errno.EBUSY}
    answer = run("move", PID, "--to", "1", f"{HEAP:x}+64K", f"{HEAP + 9 * PAGE:x}")
    assert answer.out == snapshot
    assert (answer.code, answer.err) == (1, "")


def test_terminal(run_on_terminal, machine, snapshot):
    """On a terminal of 80 columns the same fits."""
    machine.stuck = {HEAP: -errno.EACCES}
    assert run_on_terminal("move", PID, "--to", "1", "--all-mappings").out == snapshot


def test_every_page_moves(run, machine):
    """Pages of a range go where they were asked to go; the count has them all."""
    answer = run("move", PID, "--to", "1", ALL)
    assert answer.code == 0
    assert set(machine.pages.values()) == {1}
    assert "moved              8  32K" in answer.out


def test_nodes_take_turns(run, machine):
    """Several nodes get the pages in turn, in order of address."""
    machine.mems_allowed |= {2}
    assert run("move", PID, "--to", "0-2", ALL).code == 0
    assert [node for _, node in sorted(machine.pages.items())] == [0, 1, 2, 0, 1, 2, 0, 1]


@pytest.mark.parametrize(
    ("options", "flag"), [([], MoveFlag.MOVE), (["--shared"], MoveFlag.MOVE_ALL)]
)
def test_shared_pages_move_only_when_asked(run, machine, options, flag):
    """--shared is MPOL_MF_MOVE_ALL; without it pages that others map are left alone."""
    run("move", PID, "--to", "1", "--all-mappings", *options)
    assert machine.flags == flag


def test_address_without_a_page_is_a_failure(run):
    """An address was named, so that nothing is there is told with the kernel's status."""
    answer = run("move", PID, "--to", "1", f"{HEAP:x}", f"{HEAP + 8 * PAGE:x}", "1000", "--json")
    assert answer.code == 1
    report = json.loads(answer.out)
    assert (report["asked"], report["moved"]) == (3, 1)
    assert report["failed"] == {"ENOENT": 1, "EFAULT": 1}


def test_range_without_pages_is_no_failure(run):
    """A range moves what is there; that nothing is there is said, and is no error."""
    answer = run("move", PID, "--to", "1", f"{HEAP + 8 * PAGE:x}+4K")
    assert answer.code == 0
    assert "Nothing is present in the 4K of addresses given" in answer.out


def test_addresses_may_overlap(run):
    """A page that is named twice is moved and counted once."""
    arguments = [ALL, f"{HEAP + PAGE:x}+8K", f"{HEAP + PAGE + 5:x}", f"{HEAP + 7 * PAGE:x}+8K"]
    report = json.loads(run("move", PID, "--to", "1", *arguments, "--json").out)
    assert (report["asked"], report["moved"], report["failed"]) == (8, 8, {})


def test_json(run, machine):
    """JSON has the counts, what failed by the name of its status, and the bytes that moved."""
    machine.pages[HEAP] = 1
    machine.stuck = {HEAP + PAGE: -errno.EBUSY}
    answer = run("move", PID, "--to", "1", "--all-mappings", "--json")
    assert answer.code == 1
    assert json.loads(answer.out) == {
        "pid": 1234,
        "command": "python3",
        "to": [1],
        "present_bytes": 8 * PAGE,
        "asked": 8,
        "moved": 6,
        "already_there": 1,
        "failed": {"EBUSY": 1},
        "bytes_moved": 6 * PAGE,
        "error": None,
    }


def test_refusal_of_the_call(run, machine):
    """Where the kernel refuses the call, no table of zeros hides it."""
    machine.refusal = errno.EPERM
    answer = run("move", PID, "--to", "1", "--all-mappings", "--shared")
    assert (answer.code, answer.out) == (4, "")
    assert answer.err.startswith("movepages: move_pages: not permitted")


def test_refusal_of_the_call_in_json(run, machine):
    """JSON is complete even then: it has the error, and all pages as not moved."""
    machine.refusal = errno.ESRCH
    answer = run("move", PID, "--to", "1", "--all-mappings", "--json")
    report = json.loads(answer.out)
    assert answer.code == 3
    assert report["failed"] == {"UNWRITTEN": 8}
    assert report["error"].startswith("move_pages: there is no such process")

from __future__ import annotations

import errno
import json
import os
import signal
from dataclasses import replace

import pytest

from movepages.abi import MoveFlag
from movepages.cli.carrying import until_interrupted
from movepages.placement.records import read_ledgers

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
    assert answer.code == 1


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
    said = json.loads(answer.out)
    sums = {
        "present_bytes": 8 * PAGE,
        "asked": 8,
        "moved": 6,
        "already_there": 1,
        "not_tried": 0,
        "failed": {"EBUSY": 1},
        "bytes_moved": 6 * PAGE,
        "error": None,
    }
    assert {name: said[name] for name in sums} == sums
    (process,) = said["processes"]
    assert {name: process[name] for name in sums} == sums
    assert (process["pid"], process["command"], process["ended"]) == (1234, "python3", "done")
    assert (said["to"], said["selection"], said["dry_run"]) == ([1], "everything", False)


def test_refusal_of_the_call(run, machine):
    """Where the kernel refuses the call, no table of zeros hides it."""
    machine.refusal = errno.EPERM
    answer = run("move", PID, "--to", "1", "--all-mappings", "--shared")
    assert (answer.code, answer.out) == (4, "")
    assert answer.err.splitlines()[-1].startswith("movepages: move_pages: not permitted")


def test_refusal_of_the_call_in_json(run, machine):
    """JSON is complete even then: it has the error, and all pages as not tried."""
    machine.refusal = errno.ESRCH
    answer = run("move", PID, "--to", "1", "--all-mappings", "--json")
    report = json.loads(answer.out)
    assert answer.code == 3
    assert (report["failed"], report["not_tried"]) == ({}, 8)
    assert report["error"].startswith("move_pages: there is no such process")


# -- which processes, which pages -------------------------------------------------------------


def test_processes_by_name(run, machine):
    """A name stands for the processes that have it; one that nobody has is told."""
    answer = run("move", "name:python3,name:nobody", "--to", "1", "--all-mappings")
    assert answer.code == 1, "one of the targets is not there"
    assert "name:nobody: it is not there, has ended, or is not yours to look at" in answer.out
    assert set(machine.pages.values()) == {1}


def test_no_process_at_all(run):
    """Where no target names a process, there is nothing to do: 3."""
    answer = run("move", "name:nobody,name:none", "--to", "1", "--all-mappings")
    assert (answer.code, answer.out) == (3, "")
    assert "there is no process name:nobody, name:none" in answer.err


@pytest.mark.parametrize(
    ("options", "selection"),
    [
        ("--all-mappings", "everything"),
        ("--heap --stack", "heap | stack"),
        ("--file *.so* --anon --writable", "(anon | file('*.so*')) & writable"),
        ("--on 0,1 --policy bind", "on_node('0-1') & policy('bind')"),
        ("--larger-than 1M --thp", "thp & larger_than(1M)"),
        ("--select heap|stack --shm", "shm & (heap | stack)"),
        (f"{HEAP:x}+4K --anon", f"anon & within({HEAP:#x}, {HEAP + PAGE:#x})"),
        ("--all-mappings --on 1", "on_node(1)"),
    ],
)
def test_options_that_select(run, options, selection):
    """Kinds add up, the others narrow; what is meant is said in the words of --select."""
    answer = run("move", PID, "--to", "1", *options.split(), "--json", "--dry-run")
    assert answer.code == 0
    assert json.loads(answer.out)["selection"] == selection


def test_a_single_address_that_is_not_selected_stays(run, machine):
    """An address that another option leaves out is not moved, and is no failure."""
    answer = run("move", PID, "--to", "1", f"{HEAP:x}", "--on", "1", "--json")
    assert answer.code == 0
    assert json.loads(answer.out)["asked"] == 0
    assert set(machine.pages.values()) == {0}


# -- how --------------------------------------------------------------------------------------


def test_a_dry_run_moves_nothing(run, machine):
    """It shows the plan with counts and bytes, and no page has moved."""
    answer = run("move", PID, "--to", "0-1", ALL, "--dry-run")
    assert answer.code == 0
    assert "   0   1      4   16K  within(" in answer.out
    assert "4 pages (16K) would be moved, 4 pages (16K) are already there" in answer.out
    assert set(machine.pages.values()) == {0}


def test_so_many_pages(run, machine):
    """--max-pages takes the first of the plan."""
    run("move", PID, "--to", "1", ALL, "--max-pages", "3")
    assert [node for _, node in sorted(machine.pages.items())] == [1, 1, 1, 0, 0, 0, 0, 0]


def crowd(machine, node):
    """Let a node have no free memory."""
    nodes = tuple(
        replace(each, free_bytes=0) if each.id == node else each for each in machine.nodes
    )
    machine.nodes = replace(machine.nodes, nodes=nodes)


def test_a_target_without_room_is_refused(run, machine):
    """Nothing moves to a node that has too little free memory, and it is said what helps."""
    crowd(machine, 1)
    answer = run("move", PID, "--to", "1", ALL)
    assert (answer.code, answer.out) == (1, "")
    assert "node 1 has 0 of free memory, and 32K are to come there" in answer.err
    assert "--spill" in answer.err
    assert "--force" in answer.err
    assert set(machine.pages.values()) == {0}


@pytest.mark.parametrize("option", ["--force", "--spill", "--dry-run"])
def test_a_target_without_room_can_be_overruled(run, machine, option):
    """With --force or --spill it is a warning; a dry run only tells."""
    crowd(machine, 1)
    answer = run("move", PID, "--to", "1", ALL, option)
    assert answer.code == 0
    assert "movepages: warning: node 1 has 0 of free memory" in answer.err


def test_what_will_fight_it_is_told_before(run):
    """A policy that puts later pages elsewhere is a warning on standard error, and in the JSON."""
    answer = run("move", PID, "--to", "1", "--all-mappings", "--json")
    assert answer.err.startswith("movepages: warning: process 1234 has memory under the policy")
    assert [warning["name"] for warning in json.loads(answer.out)["warnings"]] == ["policy"]


def test_undo_puts_pages_back(run, machine, tmp_path):
    """What --ledger wrote, --undo plays back: each page is on its old node again."""
    machine.pages[HEAP + 3 * PAGE] = 1
    before = dict(machine.pages)
    file = str(tmp_path / "moved.json")
    assert run("move", PID, "--to", "1", ALL, "--ledger", file).code == 0
    assert set(machine.pages.values()) == {1}
    answer = run("move", "--undo", file)
    assert answer.code == 0
    assert "moved              7  28K" in answer.out
    assert machine.pages == before


def test_an_undo_of_another_process_is_refused(run, machine, tmp_path):
    """The process of the ledger has ended, and its pid is another's: nothing moves."""
    file = tmp_path / "moved.json"
    run("move", PID, "--to", "1", ALL, "--ledger", str(file))
    file.write_text(file.read_text().replace('"start_ticks": 1', '"start_ticks": 2'))
    answer = run("move", "--undo", str(file))
    assert (answer.code, answer.out) == (3, "")
    assert "process 1234 (python3) is not the one in" in answer.err
    assert set(machine.pages.values()) == {1}


def test_a_ledger_is_not_overwritten(run, machine, tmp_path):
    """A file that exists is left as it is, and nothing moves."""
    file = tmp_path / "moved.json"
    file.write_text("mine")
    answer = run("move", PID, "--to", "1", ALL, "--ledger", str(file))
    assert (answer.code, file.read_text()) == (2, "mine")
    assert "exists; choose another name" in answer.err
    assert set(machine.pages.values()) == {0}


def test_an_interrupt_ends_with_an_exact_account(run, machine, monkeypatch, tmp_path):
    """Ctrl-C in a call: the account is printed and written, and the exit code is 130."""
    call = machine.move_pages

    def interrupted(*arguments):
        result = call(*arguments)
        os.kill(os.getpid(), signal.SIGINT)
        return result

    monkeypatch.setattr(machine, "move_pages", interrupted)
    file = tmp_path / "moved.json"
    before = signal.getsignal(signal.SIGINT)
    machine.mems_allowed |= {2}
    answer = run("move", PID, "--to", "0-2", ALL, "--ledger", str(file), "--json")
    assert signal.getsignal(signal.SIGINT) is before
    assert answer.code == 130
    assert answer.err.splitlines()[-1].startswith("movepages: interrupted; the account")
    said = json.loads(answer.out)
    assert (said["moved"], said["already_there"], said["not_tried"]) == (3, 3, 2)
    assert read_ledgers(file.read_bytes())[0].moved_pages == 3


def test_two_interrupts_leave_at_once():
    """The first is noted; whoever presses Ctrl-C again is not made to wait."""
    with until_interrupted() as stop:
        assert not stop()
        os.kill(os.getpid(), signal.SIGINT)
        assert stop()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("", "Missing argument 'TARGET'"),
        ("1234 --heap", "Missing option '--to'"),
        ("1234 --to 1 --all-mappings --heap", "give addresses or ranges, or else"),
        ("name: --to 1 --heap", "'name:' names no process"),
        ("1234,x --to 1 --heap", "'1234,x' is not a pid"),
        ("user:nosuchuser --to 1 --heap", "there is no user 'nosuchuser'"),
        ("1234 --to 1 --on 9 --heap", "node 9 in '9' does not exist"),
        ("1234 --to 1 --policy binding", "'binding' is not a memory policy"),
        ("1234 --to 1 --larger-than 4X", "'4X' is not a size"),
        ("1234 --to 1 --select heep", "'heep' selects nothing"),
        ("1234 --to 1 --file=", "an empty pattern matches no file"),
        ("1234 --to 1 --heap --limit-rate 0", "'0' is nothing; give more than 0"),
        ("1234 --to 1 --heap --limit-rate 4095", "'4095' is less than a page a second"),
        ("1234 --to 1 --heap --limit-rate fast", "'fast' is not a size"),
        ("1234 --to 1 --heap --max-pages 0", "0 is not in the range x>=1"),
        ("1234 --to 1 --heap --time-limit soon", "'soon' is not a duration"),
        ("1234 --to 1 --heap --time-limit 0s", "'0s' is nothing"),
        ("1234 --to 1 --heap --dry-run --ledger f", "--dry-run moves nothing"),
        ("1234 --to 1 --heap --ledger /no/such/folder/f", "cannot be made: No such file"),
        ("--undo /no/such/file", "cannot be read: No such file"),
        ("1234 --undo f", "--undo takes pages and nodes from its file"),
        ("--undo f --to 1", "--undo takes pages and nodes from its file"),
        ("--undo f --heap", "--undo takes pages and nodes from its file"),
    ],
)
def test_bad_options(run, machine, line, told):
    """Each is told in one line with exit code 2, and nothing moves."""
    answer = run("move", *line.split())
    assert (answer.code, answer.out) == (2, "")
    last = answer.err.splitlines()[-1]
    assert last.startswith("movepages: ")
    assert told in last
    assert set(machine.pages.values()) == {0}


def test_a_broken_ledger_is_refused(run, tmp_path):
    """A file that is no ledger is named, with what is wrong."""
    file = tmp_path / "broken.json"
    file.write_text('{"format": "movepages ledger 1"}')
    answer = run("move", "--undo", str(file))
    assert (answer.code, answer.out) == (5, "")
    assert f"{file}: JSON: Object missing required field" in answer.err

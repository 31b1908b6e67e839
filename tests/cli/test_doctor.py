"""`movepages doctor`: what a person sees of a process, of the machine, and of what stops a move."""

from __future__ import annotations

import errno
import json
from dataclasses import replace

import pytest

from movepages.nodeset import NodeSet

PID = "1234"


def test_pipe(run, snapshot):
    """The verdict comes first, then each check, with what to do where there is something."""
    answer = run("doctor", PID)
    assert answer.out == snapshot
    assert (answer.code, answer.err) == (0, "")


def test_terminal(run_on_terminal, snapshot):
    """The answers are coloured, and no line is longer than the terminal is wide."""
    assert run_on_terminal("doctor", PID).out == snapshot


def test_the_machine(run, snapshot):
    """Without a pid it tells what can be moved here at all, and what bears on it."""
    answer = run("doctor")
    assert answer.out == snapshot
    assert answer.code == 0


def test_help(run, snapshot):
    """The help says that nothing is changed, and what it ends with."""
    assert run("doctor", "--help").out == snapshot


def test_what_stops_it(run, machine, snapshot):
    """Everything that stops it stands in the first line; it ends with the code of the first."""
    nodes = tuple(replace(node, has_memory=node.id == 0) for node in machine.nodes)
    machine.nodes = replace(machine.nodes, nodes=nodes)
    machine.mems_allowed = NodeSet([0])
    answer = run("doctor", PID)
    assert answer.out == snapshot
    assert answer.code == 5


@pytest.mark.parametrize(
    ("refusal", "code", "told"),
    [
        (errno.EPERM, 4, "it runs as another user (uid 1001, and you are uid 1000)"),
        (errno.ENOSYS, 5, "move_pages(2) is not to be had: this kernel has no NUMA"),
    ],
)
def test_exit_codes_of_refusals(run, machine, monkeypatch, refusal, code, told):
    """It ends with the code that a move would end with, and says why in the first line."""
    theirs = replace(machine.standing(1234), uids=(1001, 1001, 1001), same_user=False)
    monkeypatch.setattr(machine, "standing", lambda _pid: theirs)
    ask = machine.query_pages

    def query_pages(pid, addresses):
        machine.refusal = 0 if refusal == errno.EPERM and not pid else refusal
        return ask(pid, addresses)

    monkeypatch.setattr(machine, "query_pages", query_pages)
    answer = run("doctor", PID, "--json")
    said = json.loads(answer.out)
    assert (answer.code, said["can_move"]) == (code, False)
    assert told in said["verdict"]


@pytest.mark.parametrize(
    ("mems", "free", "code", "stops"),
    [([0, 1], [0, 0, 0, 0], 1, ["memory"]), ([1], [0, 8192, 0, 0], 4, ["cpuset"])],
)
def test_exit_codes_of_bounds(run, machine, mems, free, code, stops):
    """No free memory ends it as pages that were not moved, a cpuset as what is not permitted."""
    machine.mems_allowed = NodeSet(mems)
    nodes = tuple(replace(node, free_bytes=free[node.id]) for node in machine.nodes)
    machine.nodes = replace(machine.nodes, nodes=nodes)
    answer = run("doctor", PID, "--json")
    checks = json.loads(answer.out)["checks"]
    assert [check["name"] for check in checks if check["answer"] == "no"] == stops
    assert answer.code == code


def test_json_of_the_machine(run):
    """Without a process there is no pid and no name; the verdict is the same sentence."""
    said = json.loads(run("doctor", "--json").out)
    assert (said["pid"], said["command"], said["can_move"]) == (None, None, True)
    assert said["verdict"] == run("doctor").out.splitlines()[0]


def test_names_cannot_harm_a_terminal(run, machine, monkeypatch):
    """A process may call itself anything: control characters are written as escapes."""
    task = replace(machine.task(1234), command="a\x1b[2J\nb")
    monkeypatch.setattr(machine, "task", lambda _pid: task)
    first = run("doctor", PID).out.splitlines()[0]
    assert first == r"You can move pages of a\x1b[2J\nb (1234)"

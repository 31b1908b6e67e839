"""The JSON of `movepages file` and `movepages shm` is as docs/json.md lists it, and ends well."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

JSON = (Path(__file__).parents[2] / "docs/json.md").read_text(encoding="utf-8")
PAGE = 4096
TYPES = {
    "integer": int,
    "number": float,
    "string": str,
    "boolean": bool,
    "list of integers": list,
    "object by node": dict,
    "object by status": dict,
    "null": type(None),
}


@pytest.fixture
def segment():
    """Return a file of two pages in /dev/shm."""
    path = Path(f"/dev/shm/movepages-test-objects-{os.getpid()}")
    path.write_bytes(b"x" * 2 * PAGE)
    yield str(path)
    path.unlink()


def documented(command):
    """Return the fields that are documented for a command, each with its types."""
    section = JSON.split(f"\n## {command}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `([^`]+)` \| ([^|]+) \|", section, re.MULTILINE)
    return {name: {TYPES[word] for word in words.split(" or ")} for name, words in rows}


def said(document):
    """Yield the fields of a document by the names of the documentation, with their values."""
    for key, value in document.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            for element in value:
                yield from ((f"{key}[].{name}", member) for name, member in element.items())
        else:
            yield key, value


@pytest.mark.parametrize("command", ["file", "shm"])
def test_json_is_as_documented(run, machine, segment, command):
    """Every field is there, of its type, and no other; a node without room makes the warning."""
    known = documented(command)
    nodes = tuple(replace(node, free_bytes=0) for node in machine.nodes)
    machine.nodes = replace(machine.nodes, nodes=nodes)
    document = json.loads(run(command, segment, "--to", "1", "--force", "--json").out)
    found = dict(said(document))
    assert set(found) == set(known)
    for name, value in found.items():
        assert type(value) in known[name], name


@pytest.mark.parametrize("command", ["file", "shm"])
def test_json_of_a_look_has_the_same_fields(run, segment, command):
    """Without --to nothing is planned, warned of or begun, and no field is missing."""
    document = json.loads(run(command, segment, "--json").out)
    empty = {"plan", "warnings"}
    assert all(document[name] == [] for name in empty)
    kept = {name for name in documented(command) if name.split("[")[0] not in empty}
    assert {name for name, _ in said(document)} == kept | empty
    (thing,) = document["files" if command == "file" else "segments"]
    assert (thing["asked"], thing["ended"], document["dry_run"]) == (0, "not begun", True)


@pytest.mark.parametrize("command", ["file", "shm"])
@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--shared",), "--shared says how to move; say where to as well, with --to"),
        (("--limit-rate", "1G"), "--limit-rate says how to move; say where to as well"),
        (("--to", ""), "--to '' names no node"),
        (("--to", "4"), "node 4 in '4' does not exist"),
        (("--to", "3"), "--to: node 3 has no memory"),
        (("--to", "1", "--max-pages", "0"), "0 is not in the range"),
        (("--to", "1", "--ledger", "file"), "No such option '--ledger'"),
    ],
)
def test_bad_options(run, segment, command, options, told):
    """What makes no sense is refused in one line before anything moves."""
    answer = run(command, segment, *options)
    assert told in answer.err
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.count("\n") == 1


@pytest.mark.parametrize("line", ["file", "file --to 1", "shm --to 1"])
def test_names_are_needed(run, line):
    """Files have to be named, and segments to be moved."""
    answer = run(*line.split())
    assert (answer.code, answer.out) == (2, "")
    assert "Missing argument 'PATH...'" in answer.err or "name the segments to move" in answer.err


@pytest.mark.parametrize("command", ["file", "shm"])
def test_outside_the_cpuset(run, segment, command):
    """A node that the cpuset of the caller does not allow is refused: it is he that moves."""
    answer = run(command, segment, "--to", "2")
    assert (answer.code, answer.out) == (4, "")
    assert "node 2 lies outside the cpuset of process 4321" in answer.err


@pytest.mark.parametrize("command", ["file", "shm"])
def test_an_interrupt_ends_with_the_account(run, machine, segment, monkeypatch, command):
    """Ctrl-C during a call ends the work after it, with what moved, and exit code 130."""
    move = machine.move_pages

    def interrupted(*arguments):
        move(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(machine, "move_pages", interrupted)
    answer = run(command, segment, "--to", "1")
    assert answer.code == 130
    assert re.search(r"^moved +2  8K$", answer.out, re.MULTILINE)
    assert answer.err == "movepages: interrupted; the account of what moved is exact\n"


@pytest.mark.parametrize("command", ["file", "shm"])
def test_an_interrupt_at_the_last_look(run, machine, segment, monkeypatch, command):
    """Ctrl-C when all has moved still leaves the account, without where the pages are now."""
    looks = iter([False, False, True])
    locate = machine.locate

    def interrupted(*arguments):
        if next(looks):
            raise KeyboardInterrupt
        return locate(*arguments)

    monkeypatch.setattr(machine, "locate", interrupted)
    answer = run(command, segment, "--to", "1")
    assert answer.code == 130
    assert re.search(r"^moved +2  8K$", answer.out, re.MULTILINE)
    assert "AFTER" not in answer.out

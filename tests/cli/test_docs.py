"""docs/cli.md and docs/json.md say what `movepages` does: no more, no less."""

from __future__ import annotations

import errno
import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import click
import pytest

from movepages.cli.app import SUBCOMMANDS, movepages
from movepages.cli.exit_codes import MEANINGS
from movepages.values import ThreadInfo

DOCS = Path(__file__).parents[2] / "docs"
CLI = (DOCS / "cli.md").read_text(encoding="utf-8")
JSON = (DOCS / "json.md").read_text(encoding="utf-8")
HEAP = 0x7F12A4000000
PAGE = 4096

EXAMPLES = re.findall(r"^    \$ (movepages .*)\n((?:    .*\n|\n(?=    ))*)", CLI, re.MULTILINE)
_ELSEWHERE = ("movepages emulate", "movepages file", "movepages shm")
ASKED = [example for example in EXAMPLES if not example[0].startswith(_ELSEWHERE)]
"""Examples that ask the machine of the tests; the tests of the other commands have theirs."""

ARGUMENTS = {
    "nodes": ["nodes"],
    "show": ["show", "1234", "--by", "kind"],
    "show of several": ["show", "1234,77"],
    "query": ["query", "1234", "7f12a4000001-7f12a400a000"],
    "move": ["move", "1234", "--to", "1", "7f12a4000000+64K", "7f12a4009000"],
    "spread": ["spread", "1234", "--to", "0,1"],
    "pack": ["pack", "1234"],
    "follow": ["follow", "1234", "--over", "all"],
    "migrate": ["migrate", "1234", "--from", "0", "--to", "1"],
    "migrate --kernel": ["migrate", "1234", "--from", "0", "--to", "1", "--kernel"],
    "doctor": ["doctor", "1234"],
    "run --show": ["run", "--show"],
    "explain": ["explain"],
}
"""A command line for each command with --json, whose JSON has every field."""

TYPES = {
    "integer": int,
    "number": float,
    "string": str,
    "boolean": bool,
    "list of integers": list,
    "list of strings": list,
    "object": dict,
    "object by node": dict,
    "object by status": dict,
    "null": type(None),
}


@pytest.fixture
def documented(machine):
    """Return the machine in the state that the examples of the documentation show."""
    machine.pages[HEAP + 2 * PAGE] = 1
    machine.stuck = {HEAP + 3 * PAGE: -errno.EACCES}
    machine.mapped[1] = replace(machine.mapped[1], path="/dev/hugepages/cache")
    return machine


def follow_to_node_1(machine, line):
    """Let the threads run on node 1 alone where they are followed: then there is work to do."""
    if "follow" in line:
        machine.running = [ThreadInfo(1234, "python3", 5, 10**9)]


def section(text, title):
    """Return what stands below a heading."""
    return text.split(f"\n## {title}\n")[1].split("\n## ")[0]


def documented_fields(command):
    """Return the fields that docs/json.md lists for a command, each with its types in words."""
    text = section(JSON, command)
    if "The fields are those of [`move`](#move)" in text:
        text = section(JSON, "move")
    return dict(re.findall(r"^\| `([^`]+)` \| ([^|]+) \|", text, re.MULTILINE))


def fields_of(value, known, path=""):
    """Yield the fields of a JSON value as (path, type), as docs/json.md names them."""
    if isinstance(value, list) and path not in known:
        for element in value:
            yield from fields_of(element, known, f"{path}[]")
        return
    if path in known or not isinstance(value, dict):
        yield path, type(value)
    if isinstance(value, dict) and not known.get(path, "").startswith("object by"):
        for key, member in value.items():
            yield from fields_of(member, known, f"{path}.{key}".lstrip("."))


@pytest.mark.parametrize("command", SUBCOMMANDS)
def test_every_command_is_documented(command):
    """Each command has a section, which names all of its options."""
    text = section(CLI, f"movepages {command}")
    (run,) = [movepages.get_command(click.Context(movepages), command)]
    options = {name for param in run.params for name in param.opts if name.startswith("--")}
    assert options == set(re.findall(r"`(--[a-z-]+)", text.split("\nOptions: ")[1]))


@pytest.mark.parametrize("command", SUBCOMMANDS)
def test_every_command_has_help_with_an_example(run, command):
    """--help says what the command does, shows an example, and fits 80 columns."""
    lines = run(command, "--help").out.splitlines()
    assert lines[0].startswith(f"Usage: movepages {command} ")
    assert lines[lines.index("Example:") + 1].startswith(f"  movepages {command}")
    assert max(map(len, lines)) <= 80


def test_help_lists_all_commands_and_exit_codes(run):
    """`movepages --help` is where to begin: commands, exit codes, examples, in 80 columns."""
    answer = run("--help")
    assert answer.code == 0
    for name, said in SUBCOMMANDS.items():
        assert f"  {name:<7}  {said}\n" in answer.out
    for code, said in MEANINGS.items():
        assert f"  {code.value}  {said}\n" in answer.out
    assert max(map(len, answer.out.splitlines())) <= 80


def test_exit_codes_are_documented():
    """The table of exit codes is that of the program."""
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", section(CLI, "Exit codes"), re.MULTILINE)
    assert rows == [(str(code.value), said) for code, said in MEANINGS.items()]


@pytest.mark.parametrize(("line", "shown"), ASKED, ids=[line for line, _ in ASKED])
def test_examples_are_real(run, documented, line, shown):
    """Every example in docs/cli.md is what `movepages` prints."""
    follow_to_node_1(documented, line)
    answer = run(*shlex.split(line)[1:])
    assert [text[4:] for text in shown.rstrip().split("\n")] == answer.out.rstrip().split("\n")


def test_every_command_has_an_example():
    """No command is left without an example in docs/cli.md."""
    assert {line.split()[1] for line, _ in EXAMPLES} == set(SUBCOMMANDS)


@pytest.mark.parametrize("command", SUBCOMMANDS)
def test_every_command_stands_beside_what_it_replaces(command):
    """Who comes from numactl finds each command in the table, with arguments that it takes."""
    text = section(CLI, "Coming from numactl, migratepages, numastat")
    lines = [shlex.split(line)[1:] for line in re.findall(r"\| `(movepages .*?)` \|", text)]
    arguments = [line[1:] for line in lines if line[0] == command]
    assert arguments
    for line in arguments:
        movepages.get_command(click.Context(movepages), command).make_context(command, line)


@pytest.mark.parametrize("command", ARGUMENTS)
def test_json_is_as_documented(run, documented, command):
    """The fields of a command's JSON are those of docs/json.md, and of the types given there."""
    follow_to_node_1(documented, command)
    known = documented_fields(command)
    found: dict[str, set[type]] = {}
    document = json.loads(run(*ARGUMENTS[command], "--json").out)
    for name, kind in fields_of(document, known):
        found.setdefault(name, set()).add(kind)
    assert set(found) == set(known)
    for name, kinds in found.items():
        assert kinds <= {TYPES[word] for word in known[name].split(" or ")}, name

"""`--parallel`: the same pages move, by several calls at a time, with each command that moves."""

from __future__ import annotations

import json
import os

import click
import pytest

from movepages.cli.carrying import Carrying
from movepages.cli.parameters import WORKERS
from movepages.placement import execute
from movepages.values import ThreadInfo

HEAP = 0x7F12A4000000
PAGE = 4096
COMMANDS = [
    ("move 1234 --to 1 --all-mappings", {1: 8}),
    ("migrate 1234 --from 0 --to 1", {1: 8}),
    ("spread 1234 --to 0,1", {0: 4, 1: 4}),
    ("pack 1234 --prefer 1", {1: 8}),
    ("follow 1234 --over all", {1: 8}),
]


@pytest.mark.parametrize("workers", ["1", "3", "256", "auto"])
@pytest.mark.parametrize(("line", "nodes"), COMMANDS)
def test_the_same_pages_move(run, machine, line, nodes, workers):
    """However many calls there are at a time, each page comes to where the command brings it."""
    machine.running = [ThreadInfo(1234, "python3", 5, 10**9)]
    answer = run(*line.split(), "--parallel", workers, "--json")
    assert answer.code == 0
    there = list(machine.pages.values())
    assert {node: there.count(node) for node in set(there)} == nodes
    said = json.loads(answer.out)
    assert (said["moved"], said["failed"], said["not_tried"]) == (nodes[1], {}, 0)


def test_a_page_that_stays_is_told(run, machine):
    """The account of several workers is told as that of one: what failed, and by which status."""
    machine.stuck = {HEAP + PAGE: -13}
    answer = run("move", "1234", "--to", "1", "--all-mappings", "--parallel", "2", "--json")
    assert answer.code == 1
    said = json.loads(answer.out)
    assert (said["moved"], said["failed"]) == (7, {"EACCES": 1})


def test_files(run, machine, tmp_path):
    """The pages of a file move by several calls at a time, too."""
    file = tmp_path / "file"
    file.write_bytes(b"x" * 4 * PAGE)
    answer = run("file", str(file), "--to", "1", "--parallel", "2")
    assert answer.code == 0
    assert list(machine.own.values()) == [1] * 4


@pytest.mark.parametrize(
    "given", ["0", "-1", "257", "1.5", "two", "AUTO", "²", "1e1", " 1", "9" * 5000, ""]
)
def test_bad_input(run, machine, given):
    """What is no number of workers is refused in one line, and nothing moves."""
    answer = run("move", "1234", "--to", "1", "--all-mappings", f"--parallel={given}")
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
    assert f"{given!r} is not 1 to 256, nor auto" in answer.err
    assert set(machine.pages.values()) == {0}


def test_without_a_number(run):
    """The option needs one."""
    answer = run("move", "1234", "--to", "1", "--all-mappings", "--parallel")
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert "--parallel" in answer.err


def test_the_kernels_own_call_takes_no_workers(run):
    """`migrate --kernel` is one call: with --parallel it is refused."""
    answer = run(*["migrate", "1234", "--from", "0", "--to", "1", "--kernel", "--parallel", "2"])
    assert answer.code == 2
    assert "--parallel cannot be kept" in answer.err


def test_auto_is_up_to_the_cpus_of_this_process():
    """A measuring crew begins with one worker, and has at most the CPUs that we may run on."""
    context = click.Context(click.Command("move"))
    assert WORKERS.convert("auto", None, context) == (1, len(os.sched_getaffinity(0)))
    assert WORKERS.convert("4", None, context) == (4, 4)


@pytest.mark.parametrize("parallel", [None, (1, 1)])
def test_one_worker_is_the_plain_mover(parallel):
    """Without the option, and with one worker, no thread is started."""
    how = Carrying(*[None] * 8, parallel, None)
    assert how.mover() is execute

"""`movepages move --from-log`: a profiler's log says which pages move, and where to."""

from __future__ import annotations

import io
import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from movepages.cli import main
from movepages.kernel import SimulatedMachine
from movepages.placement.access_log import read_access_log
from movepages.report.output import Output

HEAP = 0x7F12A4000000
PAGE = 4096
LOG = f"""\
pid,address,node,count
1234,{HEAP:x},1,102
1234,{HEAP + 64:x},0,10
1234,{HEAP + PAGE:x},0,50
1234,{HEAP + PAGE:x},1,20
1234,{HEAP + 2 * PAGE:x},1,7
1234,{HEAP + 3 * PAGE:x},1,8
1234,{HEAP + 99 * PAGE:x},1,30
1234,{HEAP + 3 * PAGE:x},9,5
"""
"""Pages 0 and 3 are mostly used from node 1; page 2 is, too, but too seldom to be sure."""


@pytest.fixture
def log(tmp_path):
    """Return what writes a log, of one process where no text is given, and returns its name."""

    def written(text=LOG):
        file = tmp_path / "accesses.csv"
        file.write_text(text, encoding="utf-8")
        return str(file)

    return written


def test_pipe(run, machine, log, snapshot):
    """It says what the log has of the process, and ends with the pages by outcome."""
    answer = run("move", "--from-log", log())
    assert (answer.code, answer.out) == (0, snapshot)
    assert [page for page, node in enumerate(machine.pages.values()) if node == 1] == [0, 3]


def test_a_dry_run(run_on_terminal, machine, log, snapshot):
    """The plan has the reason for each page: by whom it is used, and how much."""
    assert run_on_terminal("move", "--from-log", log(), "--dry-run").out == snapshot
    assert set(machine.pages.values()) == {0}


@pytest.mark.parametrize(
    ("options", "moved"),
    [
        (["--min-samples", "7"], [0, 2, 3]),
        (["--min-samples", "9"], [0]),
        (["--min-share", "95%"], [3]),
        (["--min-share", "1"], [3]),
        (["--stack"], []),
    ],
)
def test_what_is_taken_from_a_log(run, machine, log, options, moved):
    """Fewer samples or a smaller share take more pages; a selection leaves some out."""
    assert run("move", "--from-log", log(), *options).code == 0
    assert [page for page, node in enumerate(machine.pages.values()) if node == 1] == moved


def test_json_lines_by_cpu(run, machine, log):
    """The other format; CPU 5 is one of node 1."""
    line = {"pid": 1234, "address": hex(HEAP), "cpu": 5, "count": 9}
    answer = run("move", "--from-log", log(json.dumps(line)), "--json")
    said = json.loads(answer.out)
    assert (said["moved"], said["to"], machine.pages[HEAP]) == (1, [1], 1)
    assert [move["reason"] for move in said["plan"]] == ["node 1: 100% of 9 accesses"]
    assert said["processes"][0]["remark"].startswith("The log has 9 accesses to 1 page, 1 of them")


def test_no_room(run, machine, log):
    """With room for one page, the one used most moves; the exit code tells of the other."""
    nodes = tuple(replace(node, free_bytes=PAGE) for node in machine.nodes)
    machine.nodes = replace(machine.nodes, nodes=nodes)
    answer = run("move", "--from-log", log(), "--json")
    said = json.loads(answer.out)
    assert (answer.code, said["moved"], said["no_room"]) == (1, 1, 1)
    assert machine.pages[HEAP] == 1


def test_it_is_undone(run, machine, log, tmp_path):
    """Its ledger puts the pages back."""
    file = str(tmp_path / "moved.json")
    assert run("move", "--from-log", log(), "--ledger", file).code == 0
    assert run("move", "--undo", file).code == 0
    assert set(machine.pages.values()) == {0}


def moved(machine, *arguments):
    """Run `movepages move ... --json`; return its exit code and what it said."""
    stream = io.StringIO()
    code = main(["move", *arguments, "--json"], machine=machine, output=Output(stream))
    return code, json.loads(stream.getvalue() or "null")


@pytest.fixture
def several(log):
    """Return a model with three processes on node 0, used from node 1, and the log of that."""
    machine = SimulatedMachine("2 x 8M")
    tasks, text = [], "pid,address,cpu,count\n"
    for _ in range(3):
        task = machine.spawn()
        first = task.mmap(4)
        task.write(first, 4)
        tasks.append(task)
        text += "".join(f"{task.pid},{first + page * PAGE:x},1,9\n" for page in range(4))
    return machine, tasks, log(text)


def test_several_processes(several):
    """Each process of a log has a plan of its own."""
    machine, tasks, file = several
    code, said = moved(machine, "--from-log", file)
    assert (code, said["moved"]) == (0, 12)
    assert [process["pid"] for process in said["processes"]] == [task.pid for task in tasks]
    machine.check()


def test_one_that_has_ended_is_reported(several):
    """What the log has of it is left alone, and the others are moved."""
    machine, tasks, file = several
    tasks[1].exit()
    code, said = moved(machine, "--from-log", file)
    assert (code, said["moved"], said["missing"]) == (1, 8, [str(tasks[1].pid)])


def test_all_have_ended(several, capsys):
    """Nothing is left to move: no such process."""
    machine, tasks, file = several
    for task in tasks:
        task.exit()
    assert moved(machine, "--from-log", file) == (3, None)
    pids = ", ".join(str(task.pid) for task in tasks)
    assert f"there is no process {pids}; it may have ended" in capsys.readouterr().err


def test_a_target_chooses_among_them(several):
    """Of the processes in a log only those that are named; of one that it lacks it says nothing."""
    machine, tasks, file = several
    assert moved(machine, str(tasks[2].pid), "--from-log", file)[1]["moved"] == 4
    assert moved(machine, f"{tasks[0].pid},1", "--from-log", file)[1]["moved"] == 4
    code, said = moved(machine, "1", "--from-log", file)
    assert (code, said["asked"]) == (0, 0)
    assert said["processes"][0]["remark"].startswith("The log has 0 accesses to 0 pages")


def test_a_log_without_accesses(run, log):
    """A header alone is not an error of the file, but there is nothing to do."""
    file = log("pid,address,node,count\n")
    answer = run("move", "--from-log", file)
    assert (answer.code, answer.out) == (2, "")
    assert f"--from-log: {file} has no accesses" in answer.err


def test_a_broken_log_moves_nothing(run, machine, log):
    """The last line has no count: it is named, and the pages of those before stay."""
    file = log(LOG + "1234,7f12a4000000,1\n")
    answer = run("move", "--from-log", file)
    assert (answer.code, answer.out) == (5, "")
    assert f"{file}, line 10: line: it has 3 fields, the header 4" in answer.err
    assert set(machine.pages.values()) == {0}


def test_the_example_of_the_documentation(run, machine, tmp_path, monkeypatch):
    """The log in docs/placement.md is planned as it is shown there; both formats are read."""
    page = (Path(__file__).parents[2] / "docs" / "placement.md").read_text(encoding="utf-8")
    part = page.split("## The profiler's log")[1].split("\n## ")[0]
    csv, lines, shown = re.findall(r"^```\w+\n(.*?)^```$", part, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    Path("accesses.csv").write_text(csv, encoding="utf-8")
    command, _, output = shown.partition("\n")
    assert run(*shlex.split(command)[2:]).out == output
    assert len(read_access_log(lines.encode())) == 2
    assert set(machine.pages.values()) == {0}

"""`movepages file`: real files in memory, on a machine of four nodes."""

from __future__ import annotations

import errno
import json
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
CLI = (DOCS / "cli.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^    \$ (movepages file .*)\n((?:    .*\n|\n(?=    ))*)", CLI, re.MULTILINE)
PAGE = 4096
KIB = 1024


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Return the directory that the command runs in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def data(here):
    """Return a file of eight pages, all in memory."""
    path = here / "data"
    path.write_bytes(b"x" * 8 * PAGE)
    return path


@pytest.mark.usefixtures("data")
def test_where_files_are(run, here, snapshot):
    """A line for each file; one that is empty has nothing in memory."""
    (here / "empty").touch()
    answer = run("file", "data", "empty", "data")
    assert answer.out == snapshot
    assert (answer.code, answer.err) == (0, "")


@pytest.mark.usefixtures("data")
def test_directories_among_files(run, here):
    """Of what a shell's * names, directories are left out and named; alone they are refused."""
    (here / "folder").mkdir()
    answer = run("file", "data", "folder")
    assert answer.code == 0
    assert [line.split()[0] for line in answer.out.splitlines()] == ["FILE", "data"]
    assert answer.err == "movepages: warning: folder is a directory and left out; name files\n"
    answer = run("file", "folder", "folder")
    assert (answer.code, answer.out) == (2, "")
    assert "folder is a directory; name regular files" in answer.err


def test_on_a_terminal(run_on_terminal, data, snapshot):
    """A long name is cut at its front, to fit 80 columns."""
    data.rename(name := "a-rather-long-name-" * 5)
    assert run_on_terminal("file", name).out == snapshot


def test_a_file_moves(run, machine, data, snapshot):
    """Nodes before and after and the pages by outcome are shown, and the bytes are as they were."""
    answer = run("file", "data", "--to", "1")
    assert answer.out == snapshot
    assert answer.code == 0
    assert set(machine.own.values()) == {1}
    assert data.read_bytes() == b"x" * 8 * PAGE


@pytest.mark.usefixtures("data")
def test_pages_that_stay_are_explained_once(run, machine, here, snapshot):
    """Pages that others map fail; cause and remedy stand once below all files, exit code 1."""
    (here / "other").write_bytes(b"y" * 3 * PAGE)
    machine.own_stuck = {1: -errno.EACCES}
    answer = run("file", "data", "other", "--to", "1")
    assert answer.out == snapshot
    assert answer.code == 1


@pytest.mark.usefixtures("data")
def test_shared_pages_move_for_all(run, machine):
    """--shared asks for MPOL_MF_MOVE_ALL."""
    machine.moves_shared = True
    assert run("file", "data", "--to", "1", "--shared").code == 0
    assert machine.flags == 4


@pytest.mark.usefixtures("data")
def test_a_dry_run(run, machine, snapshot):
    """It shows how many pages would go from where to where, by turns here; nothing moves."""
    answer = run("file", "data", "--to", "0,1", "--dry-run")
    assert answer.out == snapshot
    assert answer.code == 0
    assert set(machine.own.values()) == {0}


@pytest.mark.usefixtures("data")
def test_a_dry_run_needs_no_target(run):
    """Without --to nothing moves anyway."""
    assert run("file", "data", "--dry-run").out == run("file", "data").out


@pytest.mark.parametrize(("most", "moved"), [(7, 7), (8, 8), (9, 9), (10, 9)])
def test_max_pages_is_for_all_files(run, here, most, moved):
    """A limit of pages counts those of all files together."""
    for name, pages in (("one", 8), ("two", 1)):
        (here / name).write_bytes(b"x" * pages * PAGE)
    answer = run("file", "one", "two", "--to", "1", "--max-pages", str(most), "--json")
    assert json.loads(answer.out)["moved"] == moved
    assert answer.code == 0


@pytest.mark.usefixtures("data")
def test_a_full_node_is_refused_before(run, machine):
    """Where the node has no room nothing begins, unless --force says so."""
    nodes = tuple(replace(node, free_bytes=7 * PAGE) for node in machine.nodes)
    machine.nodes = replace(machine.nodes, nodes=nodes)
    answer = run("file", "data", "--to", "1")
    assert (answer.code, answer.out) == (1, "")
    assert "node 1 has 28K of free memory, and 32K are to come there" in answer.err
    assert run("file", "data", "--to", "1", "--force").code == 0


@pytest.mark.usefixtures("data")
def test_a_call_that_is_refused(run, machine):
    """What keeps pages from being tried is told after the account, with its exit code."""
    machine.refusal = errno.EPERM
    answer = run("file", "data", "--to", "1", "--shared")
    assert answer.code == 4
    assert "not tried" in answer.out
    assert answer.err.startswith("movepages: move_pages: ")


def test_what_is_no_file(run, here, data):
    """Each is refused in one line, and no other file is moved."""
    os.mkfifo(here / "pipe")
    for path, said in (
        ("absent", "absent cannot be opened: No such file or directory; name a file"),
        ("data/below", "data/below cannot be opened: Not a directory; name a file"),
        (".", ". is a directory; name regular files or block devices"),
        ("pipe", "pipe is no file with pages; name regular files or block devices"),
        ("/dev/null", "/dev/null is no file with pages; name regular files or block devices"),
    ):
        answer = run("file", str(data), path, "--to", "1")
        assert answer.err == f"movepages: {said}\n"
        assert (answer.code, answer.out) == (2, "")


@pytest.mark.parametrize(("line", "shown"), EXAMPLES, ids=[line for line, _ in EXAMPLES])
def test_examples_are_real(run, machine, here, line, shown):
    """The examples of docs/cli.md are what it prints."""
    (here / "index").write_bytes(b"x" * 64 * KIB)
    (here / "table").write_bytes(b"x" * 32 * KIB)
    machine.own_nodes, machine.own_stuck = (0, 0, 0, 1), {6: -errno.EACCES}
    answer = run(*line.split()[1:])
    assert [text[4:] for text in shown.rstrip().split("\n")] == answer.out.rstrip().split("\n")

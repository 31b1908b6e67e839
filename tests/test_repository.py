"""What must hold for the repository as a whole."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import movepages

ROOT = Path(__file__).resolve().parent.parent

TARGETS = ("setup", "demo", "test", "lab", "soak", "bench", "lint", "docs")
MODULE_LINES = 600

# A path in somebody's home, or in a folder for checkouts, from the root on.
MACHINE_PATH = re.compile(r"(?<![\w.~-])/(?:root|work|home|Users)/\w")
UNFINISHED = re.compile(r"\b(?:TODO|FIXME|XXX)\b")


def files_of_repository():
    """Return the files that are committed or may be: git's, or all there are in an archive."""
    listing = ("git", "ls-files", "--cached", "--others", "--exclude-standard", "-z")
    if shutil.which("git") and (ROOT / ".git").exists():
        done = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True)
        paths = [ROOT / name for name in done.stdout.split("\0") if name]
    else:
        skipped = {".venv", "build", "dist", "__pycache__"}
        paths = [p for p in ROOT.rglob("*") if not skipped & set(p.relative_to(ROOT).parts)]
    return [path for path in paths if path.is_file()]


FILES = files_of_repository()
MODULES = [path for path in FILES if path.suffix == ".py" and ROOT / "src" in path.parents]
TEST_MODULES = [
    path for path in FILES if path.match("test_*.py") and ROOT / "tests" in path.parents
]


def lines_matching(pattern, paths):
    """Return `file:line` of each line of text that the pattern is found in."""
    found = []
    for path in paths:
        text = path.read_bytes().decode(errors="replace")
        found += [
            f"{path.relative_to(ROOT)}:{number}"
            for number, line in enumerate(text.splitlines(), 1)
            if pattern.search(line)
        ]
    return found


def test_repository_is_not_empty():
    """The checks below look at something."""
    assert MODULES
    assert TEST_MODULES


def test_no_file_names_a_path_of_one_machine():
    """Nothing that is committed knows where somebody's checkout or home is."""
    assert lines_matching(MACHINE_PATH, FILES) == []


@pytest.mark.parametrize("folder", ["root", "work", "home", "Users"])
@pytest.mark.parametrize("before", ["", "cd ", '"', "=", "(", "file:"])
def test_machine_paths_are_recognised(before, folder):
    """The pattern of the check above finds what it is meant to find."""
    assert MACHINE_PATH.search(f"{before}/{folder}/x")


@pytest.mark.parametrize(
    "text", ["src/work/x", "/workdir/x", "https://example.org/home/x", "/root"]
)
def test_other_paths_are_left_alone(text):
    """The pattern of the check above does not find what is no path of a machine."""
    assert not MACHINE_PATH.search(text)


def test_no_module_is_unfinished():
    """The package has no notes about work left over."""
    assert lines_matching(UNFINISHED, MODULES) == []


def test_modules_are_short():
    """No module of the package has more than 600 lines."""
    counts = {str(p.relative_to(ROOT)): len(p.read_text().splitlines()) for p in MODULES}
    assert {name: count for name, count in counts.items() if count > MODULE_LINES} == {}


def test_every_module_says_what_it_is():
    """Every module of the package has a docstring."""
    assert [str(p) for p in MODULES if not ast.get_docstring(ast.parse(p.read_text()))] == []


def test_every_test_says_what_it_proves():
    """Every test function has a docstring."""
    silent = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in TEST_MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
        and node.name.startswith("test_")
        and not ast.get_docstring(node)
    ]
    assert silent == []


def test_changelog_has_the_current_version():
    """The version that the package says it has is described in the changelog."""
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert movepages.__version__ in headings


def test_bare_make_lists_the_targets():
    """`make` without a target prints every target with what it does."""
    done = subprocess.run(
        ["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    described = dict(re.findall(r"^  make (\w+) +(\S.*)$", done.stdout, re.MULTILINE))
    assert [target for target in TARGETS if target not in described] == []

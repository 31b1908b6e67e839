"""The pages for readers say what the code does: their Python runs, their tables are up to date."""

from __future__ import annotations

import doctest
import os
import re
from pathlib import Path

import pytest
import tables

from movepages import kernel
from movepages.abi import CALLS
from movepages.cli import emulate
from movepages.emulator.declared import equal_nodes
from movepages.emulator.filter import Precision
from movepages.emulator.overlay import MAX_NODES
from movepages.kernel import inject
from movepages.kernel.semantics import ALL_SEMANTICS
from movepages.topology import parse_topology

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = {page.name: page.read_text(encoding="utf-8") for page in PAGES}
SESSION = re.compile(r"^```pycon\n(.*?)^```$", re.MULTILINE | re.DOTALL)
WITH_SESSIONS = [name for name, text in TEXTS.items() if SESSION.search(text)]
KERNEL, CONFORMANCE, EMULATOR = (
    TEXTS[name] for name in ("kernel.md", "conformance.md", "emulator.md")
)


def sessions(text):
    """Return a page with only its Python sessions left, each on the lines where it stands."""
    kept, inside = [], False
    for line in text.splitlines():
        if line.startswith("```"):
            inside = line == "```pycon"
            kept.append("")
        else:
            kept.append(line if inside else "")
    return "\n".join(kept)


@pytest.mark.parametrize("name", WITH_SESSIONS)
def test_the_sessions_of_a_page_run(name):
    """All Python sessions of a page, in their order, print what the page says."""
    text = sessions(TEXTS[name])
    session = doctest.DocTestParser().get_doctest(text, {}, name, name, 0)
    said = []

    result = doctest.DocTestRunner(verbose=False).run(session, out=said.append)

    assert result.attempted > 0
    assert result.failed == 0, "".join(said)


def test_pages_with_sessions():
    """The page about the model and the README show it at work."""
    assert {"kernel.md", "README.md"} <= set(WITH_SESSIONS)


@pytest.mark.parametrize("name", TEXTS)
def test_no_session_is_left_out(name):
    """Whatever looks like a session is in a block that the test above runs."""
    assert ">>> " not in SESSION.sub("", TEXTS[name])


def test_a_session_keeps_its_line():
    """A failure names the line of the page."""
    page = "# Title\n\n```pycon\n>>> 1\n1\n```\ntext\n```pycon\n>>> 2\n2\n```\n"
    examples = doctest.DocTestParser().get_examples(sessions(page))
    assert [(example.source, example.want) for example in examples] == [
        ("1\n", "1\n"),
        ("2\n", "2\n"),
    ]
    assert [example.lineno + 1 for example in examples] == [4, 9]


def test_generated_tables_are_up_to_date():
    """Every generated table is what the code and the tests say now."""
    stale = [page.name for page in tables.stale_pages()]
    assert stale == [], f"run {tables.COMMAND}"


def test_every_table_is_shown_once():
    """No table is made for nothing, and every beginning has its end."""
    text = "".join(TEXTS.values())
    shown = re.findall(r"^<!-- table: (.+) -->$", text, re.MULTILINE)
    assert sorted(shown) == sorted(tables.TABLES)
    assert text.count("<!-- end of table -->") == len(shown)


def test_tables_name_the_four_kernels():
    """The names at the heads of the tables are those of the package, in its order."""
    assert tuple(getattr(kernel, name) for name in tables.NAMES) == ALL_SEMANTICS


def test_every_fault_is_in_the_table():
    """The table of faults has everything that `machine.inject` takes."""
    faults = {
        name
        for name, value in vars(inject).items()
        if isinstance(value, type) and value.__module__ == inject.__name__ and hasattr(value, "arm")
    }
    assert faults - {"Fault"} == set(tables.FAULTS)


@pytest.mark.parametrize("name", ["kernel.md", "conformance.md", "emulator.md", "CONTRIBUTING.md"])
def test_files_that_a_page_names_exist(name):
    """A page sends nobody to a file or folder that is not there."""
    named = re.findall(
        r"`((?:src|tests|tools|examples|lab|docs|kernel|emulator|suite)/[\w./-]*)`", TEXTS[name]
    )
    roots = (ROOT, ROOT / "src" / "movepages", ROOT / "tests" / "conformance")
    missing = [path for path in named if not any((root / path).exists() for root in roots)]
    assert named
    assert missing == []


def test_tests_that_a_page_names_exist():
    """What the page about moving says that we do right, a test of that name holds us to."""
    named = re.findall(r"^\| .* \| `([\w/]+\.py)::(\w+)` \|$", TEXTS["placement.md"], re.MULTILINE)
    assert len(named) == len(set(named)) == 25
    for file, name in named:
        assert f"\ndef {name}(" in (ROOT / "tests" / file).read_text(encoding="utf-8")


def test_modules_that_a_page_names_exist():
    """Each module in the list of counterparts is one of the package."""
    table = KERNEL.split("## Where to read on")[1]
    named = re.findall(
        r"`(\w+\.py|\w+/)`", "".join(re.findall(r"^\| (.+?) \|", table, re.MULTILINE))
    )
    assert len(named) > 10
    assert [path for path in named if not (Path(kernel.__file__).parent / path).exists()] == []


@pytest.mark.parametrize(
    "limit",
    ["Guard regions", "device-private", "tagged pointers", "inode number", "512 base pages"],
)
def test_limits_are_documented(limit):
    """What no scenario can express, and where the model is known to differ, is said."""
    assert limit in CONFORMANCE.split("## What the model does not do")[1]


@pytest.mark.parametrize("option", [one for given in emulate.run.params for one in given.opts])
def test_options_of_the_emulator_are_documented(option):
    """Every option of `movepages emulate` has a line in the table."""
    table = EMULATOR.split("## Options")[1].split("## Rights")[0]
    assert option == "command" or re.search(rf"^\|.*`{option}\b", table, re.MULTILINE)


def test_what_the_emulator_answers_is_documented():
    """Each call that is answered, and each level of precision, is in the tables."""
    emulated = EMULATOR.split("### What is not")[0]
    assert [call for call in (*CALLS, "getcpu") if f"`{call}`" not in emulated] == []
    levels = re.findall(r"^\| `(\w+)` \|", EMULATOR.split("### Precision")[1], re.MULTILINE)
    assert levels[:3] == [level.value for level in Precision]


def test_limits_of_the_emulator_are_documented():
    """How many nodes there can be, and how much memory those of --nodes have."""
    assert f"at most {MAX_NODES} nodes" in EMULATOR
    (memory,) = {node.memory_bytes for node in parse_topology(equal_nodes(4))}
    assert memory == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4 >> 20 << 20
    assert "N nodes that share the memory of the host evenly," in EMULATOR

"""Memory that a program holds, on four nodes: one program, all kinds of memory."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.emulator

PAGE = 4096
KINDS = (
    "array",
    "read-only",
    "Fortran",
    "mmap",
    "memoryview",
    "shared memory",
    "array.array",
    "bytes",
)


def test_memory_of_all_kinds(emulate):
    """It is where it was placed, bound and interleaved, now and when touched, with its bytes."""
    program = Path(__file__).parent / "held.py"
    done = emulate(sys.executable, program)
    assert done.stderr == ""
    said = json.loads(done.stdout)
    placed = [True, True, True]
    assert {name: said.pop(name) for name in KINDS} == dict.fromkeys(KINDS, placed)
    assert said == {
        "empty": [3],
        "empty by turns": {"1": 32 * PAGE, "3": 32 * PAGE},
        "touched later": [1],
        "interleave": {str(node): 16 * PAGE for node in range(4)},
        "weights": {"0": 48 * PAGE, "1": 16 * PAGE},
        "same bytes": True,
        "bind": [1],
        "preferred": [3],
        "bind again": [1],
        "interleaved": [0, 2],
        "no such node": "NoSuchNodeError",
    }


def test_the_example_of_the_documentation(emulate, tmp_path):
    """What docs/python.md shows of memory that is held is what it prints on four nodes."""
    page = (Path(__file__).parents[3] / "docs" / "python.md").read_text(encoding="utf-8")
    section = page.split("## Memory that you hold")[1]
    code, shown = re.findall(r"^```(?:python|text)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)[
        :2
    ]
    program = tmp_path / "held.py"
    program.write_text(code)
    assert emulate(sys.executable, program).stdout == shown

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

CAPTURED = sorted(Path(__file__).parent.glob("*.txt"), key=lambda path: path.stem)
capture = runpy.run_path(str(Path(__file__).parent / "capture.py"))


@pytest.mark.parametrize("path", CAPTURED, ids=lambda path: path.stem)
def test_captured_machine_survives_unfolding(path, tmp_path):
    """A captured machine, unfolded and captured again, gives the same text."""
    text = path.read_text(encoding="utf-8")
    comments = [line[2:] for line in text.splitlines() if line.startswith("# ")]
    capture["unfold"](text, tmp_path)
    assert capture["fold"](tmp_path, "\n".join(comments)) == text


@pytest.mark.host
def test_this_machine_is_captured_as_it_is(tmp_path):
    """This machine, captured and unfolded, has the same nodes, blocks and files."""
    capture["unfold"](capture["fold"](Path("/"), "this machine"), tmp_path)
    for name in ("online", "has_memory", "node0/distance", "node0/cpulist"):
        here = Path("/sys/devices/system/node", name)
        there = tmp_path / here.relative_to("/")
        assert there.read_text("ascii") == here.read_text("ascii")
    blocks = [path.name for path in Path("/sys/devices/system/memory").glob("memory[0-9]*")]
    unfolded = (tmp_path / "sys/devices/system/memory").glob("memory[0-9]*")
    assert sorted(path.name for path in unfolded) == sorted(blocks)

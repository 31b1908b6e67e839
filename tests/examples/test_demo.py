"""The demo where it cannot be shown; what it shows on several nodes is tested in the lab."""

from __future__ import annotations

import runpy
from pathlib import Path

from movepages.nodeset import NodeSet
from movepages.topology import Node, Topology

DEMO = Path(__file__).parents[2] / "examples" / "demo.py"


def test_one_node(capsys):
    """On a machine with one node it says what it needs, and how to get it."""
    machine = Topology((Node(0), Node(1, has_memory=False)), NodeSet([0, 1]))
    assert runpy.run_path(str(DEMO))["main"](machine) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "several NUMA nodes" in said.err
    assert "`make demo`" in said.err

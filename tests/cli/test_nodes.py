from __future__ import annotations

import json


def test_pipe(run, snapshot):
    """In a pipe, nodes are plain aligned text."""
    assert run("nodes").out == snapshot


def test_terminal(run_on_terminal, snapshot):
    """On a terminal of 80 columns, the same tables have styled titles and fit."""
    assert run_on_terminal("nodes").out == snapshot


def test_json_has_what_the_topology_has(run):
    """Every node is there with its CPUs, sizes in bytes, tier, and distances keyed by strings."""
    answer = json.loads(run("nodes", "--json").out)
    assert [node["id"] for node in answer["nodes"]] == [0, 1, 2, 3]
    assert answer["nodes"][1]["cpus"] == [4, 5, 6, 7]
    assert answer["nodes"][2]["memory_bytes"] == 256 << 30
    assert answer["nodes"][2]["tier"] == 22
    assert answer["nodes"][3]["has_memory"] is False
    assert answer["nodes"][0]["distances"] == {"0": 10, "1": 21, "2": 31, "3": 41}


def test_nodes_without_memory_or_cpus_are_said_to_be_so(run):
    """A person need not conclude from a 0 or a dash what a node is good for."""
    lines = run("nodes").out.splitlines()
    assert lines[3].endswith("memory only")
    assert lines[4].endswith("no memory: pages cannot be here")

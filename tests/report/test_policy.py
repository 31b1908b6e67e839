from __future__ import annotations

import pytest

from movepages.abi import Mode, ModeFlag
from movepages.nodeset import NodeSet
from movepages.report.policy import kernel_words
from movepages.values import Policy


@pytest.mark.parametrize(
    ("mode", "nodes", "words"),
    [
        (Mode.DEFAULT, [], "default"),
        (Mode.LOCAL, [], "local"),
        (Mode.PREFERRED, [1], "prefer:1"),
        (Mode.PREFERRED_MANY, [0, 2], "prefer (many):0,2"),
        (Mode.BIND, [0, 1], "bind:0-1"),
        (Mode.BIND | ModeFlag.STATIC_NODES, [3], "bind=static:3"),
        (
            Mode.BIND | ModeFlag.NUMA_BALANCING | ModeFlag.STATIC_NODES,
            [3],
            "bind=static|balancing:3",
        ),
        (Mode.INTERLEAVE | ModeFlag.RELATIVE_NODES, [0, 1], "interleave=relative:0-1"),
        (Mode.WEIGHTED_INTERLEAVE, [0, 1], "weighted interleave:0-1"),
    ],
)
def test_kernel_words(mode, nodes, words):
    """A policy is written as mpol_to_str of mm/mempolicy.c writes it into numa_maps."""
    assert kernel_words(Policy(mode, NodeSet(nodes))) == words

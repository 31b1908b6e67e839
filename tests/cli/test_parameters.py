from __future__ import annotations

from types import SimpleNamespace

import click
import pytest

from movepages.cli.parameters import SHARE, Span, target_nodes
from movepages.errors import NodeSetError, OutsideCpusetError
from movepages.nodeset import NodeSet
from movepages.topology import Node, Topology

PAGE = 4096
TOPOLOGY = Topology(tuple(Node(node, has_memory=node != 3) for node in range(4)), NodeSet(range(4)))
TASK = SimpleNamespace(pid=7, mems_allowed=NodeSet([0, 1]))


@pytest.mark.parametrize(
    ("start", "end", "pages"),
    [
        (0x1000, None, (0x1000, 0x2000)),
        (0x1FFF, None, (0x1000, 0x2000)),
        (0x1000, 0x2000, (0x1000, 0x2000)),
        (0x1000, 0x2001, (0x1000, 0x3000)),
        (0x1FFF, 0x2000, (0x1000, 0x2000)),
        ((1 << 64) - 1, None, ((1 << 64) - PAGE, 1 << 64)),
    ],
)
def test_span_covers_every_page_it_touches(start, end, pages):
    """A span's pages are those that have at least one byte of it."""
    span = Span("", start, end)
    assert span.pages(PAGE) == pages
    assert span.aligned(PAGE) == (pages == (start, end or start + PAGE))


@pytest.mark.parametrize(
    ("text", "nodes"),
    [("0", {0}), ("all", {0, 1}), ("!0", {1}), ("+1", {1}), ("!+1", {0}), ("0x1", {1})],
)
def test_targets_refer_to_the_cpuset(text, nodes):
    """`all`, `!` and `+` count within the nodes that the process may use."""
    assert target_nodes("--to", text, TOPOLOGY, TASK) == nodes


def test_target_outside_the_cpuset():
    """It is refused with the node and the process as attributes."""
    with pytest.raises(
        OutsideCpusetError, match=r"node 2 lies outside the cpuset of process 7 \(0-1\)"
    ) as caught:
        target_nodes("--to", "0-2", TOPOLOGY, TASK)
    assert (caught.value.node, caught.value.pid) == (2, 7)


def test_target_outside_the_cpuset_with_the_right_to_leave_it():
    """It is taken where the caller may leave the cpuset, but never a node without memory."""
    assert target_nodes("--to", "0-2", TOPOLOGY, TASK, lambda: True) == {0, 1, 2}
    with pytest.raises(NodeSetError, match="node 3 has no memory"):
        target_nodes("--to", "2-3", TOPOLOGY, TASK, lambda: True)


@pytest.mark.parametrize(
    ("text", "share"), [("60%", 0.6), ("0.6", 0.6), ("1", 1.0), ("100%", 1.0), ("0.5%", 0.005)]
)
def test_a_share(text, share):
    """In percent or as a part of one, up to all of it."""
    assert SHARE.convert(text, None, None) == share


@pytest.mark.parametrize(
    "text", ["0", "0%", "1.0001", "100.1%", "60", "-1", "60 %", "%", "", "nan", "1e-1", "\u0661"]
)
def test_no_share(text):
    """None at all, more than all, and what is no number is refused."""
    with pytest.raises(click.BadParameter):
        SHARE.convert(text, None, None)


def test_missing_node_comes_before_the_cpuset():
    """A node that does not exist is not said to lie outside the cpuset."""
    with pytest.raises(NodeSetError, match="node 4 in '2,4' does not exist"):
        target_nodes("--to", "2,4", TOPOLOGY, TASK)

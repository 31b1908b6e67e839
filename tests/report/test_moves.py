from __future__ import annotations

import errno
import io

from movepages.nodeset import NodeSet
from movepages.placement.mover import MoveReport
from movepages.report.moves import (
    MigrateSnapshot,
    MoveSnapshot,
    write_migrate_text,
    write_move_text,
)
from movepages.report.output import Output


def shown(**failed):
    """Return the lines for a move of 9 pages of which some failed, by name of errno."""
    by_status = {-getattr(errno, name, 999): pages for name, pages in failed.items()}
    report = MoveReport(9, 9 - sum(failed.values()), 0, by_status)
    snapshot = MoveSnapshot(7, "cat", NodeSet([0, 1]), report, span_bytes=0, present_bytes=0)
    stream = io.StringIO()
    write_move_text(snapshot, Output(stream))
    return stream.getvalue().splitlines()


def test_failures_come_most_frequent_first():
    """What fails most is read first, and equals in order of errno."""
    lines = shown(EBUSY=1, EACCES=2, ENOENT=1)
    failed = [line.split()[1] for line in lines if line.startswith("failed")]
    assert failed == ["EACCES", "ENOENT", "EBUSY"]
    assert [line for line in lines if line in failed] == failed


def test_status_that_nobody_knows():
    """A status that no kernel is known to give is counted, and no cause is made up for it."""
    assert shown(EWHAT=9)[-1] == (
        "failed: errno 999      9  no status that a page is known to have"
    )


def test_several_targets_are_named():
    """The first line has the process and all its target nodes."""
    assert shown()[0] == "cat (7): to nodes 0-1"


def test_migrate_lists_nodes_of_before_and_after():
    """A node that had nothing before, or has nothing after, is listed with 0."""
    snapshot = MigrateSnapshot(
        7, "cat", NodeSet([0]), NodeSet([1]), not_moved=0, before={0: 4096}, after={1: 4096}
    )
    stream = io.StringIO()
    write_migrate_text(snapshot, Output(stream))
    assert [line.split() for line in stream.getvalue().splitlines()[3:5]] == [
        ["0", "4K", "0"],
        ["1", "0", "4K"],
    ]

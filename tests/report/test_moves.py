from __future__ import annotations

import errno
import io
import json
from dataclasses import replace

import numpy as np
import pytest

from movepages.abi import UNWRITTEN
from movepages.errors import no_such_process
from movepages.nodeset import NodeSet
from movepages.placement.conditions import Concern
from movepages.report.moves import (
    MigrateSnapshot,
    MoveSnapshot,
    move_json,
    write_migrate_text,
    write_move_text,
)
from movepages.report.output import Output
from movepages.values import Ledger, Plan, TaskId

PAGE = 4096


def plan_of(pages, *, from_node=0, to_node=1, reasons=("asked for",), **facts):
    """Plan to move a run of pages of process 7."""
    return Plan(
        task=TaskId("boot", 7, 5000),
        start=np.array([PAGE], np.uint64),
        pages=np.array([pages]),
        page_size_bytes=np.array([PAGE]),
        from_node=np.array([from_node], np.int32),
        to_node=np.array([to_node], np.int32),
        reason=np.zeros(1, np.int32),
        reasons=reasons,
        **facts,
    )


def ledger_of(answers, *, now=None, tries=1, to=1, **facts):
    """Make the ledger of a plan to move pages from node 0 to node 1, one for each answer."""
    answer = np.array(answers, np.int32)
    return Ledger(
        plan=plan_of(len(answer)),
        to=np.full(len(answer), to, np.int32),
        answer=answer,
        now=answer if now is None else np.array(now, np.int32),
        tries=np.full(len(answer), tries, np.uint8),
        **facts,
    )


def written(*ledgers, **facts):
    """Return the lines for ledgers, one for each process."""
    asked = MoveSnapshot(("cat",) * len(ledgers), NodeSet([0, 1]), "everything", **facts)
    snapshot = asked.moved([ledger.plan for ledger in ledgers], ledgers, [])
    stream = io.StringIO()
    write_move_text(snapshot, Output(stream))
    return stream.getvalue().splitlines()


def shown(**failed):
    """Return the lines for a move of 9 pages of which some failed, by name of errno."""
    answers = [-getattr(errno, name, 999) for name, pages in failed.items() for _ in range(pages)]
    return written(ledger_of(answers + [1] * (9 - len(answers))))


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


def test_pages_that_nobody_tried_are_told_apart():
    """What was left when the time was up is neither moved nor failed."""
    early = ledger_of([UNWRITTEN] * 3, tries=0, ended="time limit")
    assert [line.split() for line in written(early)[3:]] == [
        ["asked", "3"],
        ["moved", "0"],
        ["already", "there", "0"],
        ["not", "tried", "3", "time", "limit"],
    ]


def test_pages_that_left_again_are_told():
    """Of the pages that moved, those found elsewhere are listed by where they are."""
    lines = written(ledger_of([1, 1, 1, 1], now=[1, 0, 0, -2], verified=True))
    assert [line.split(":")[1].split() for line in lines if line.startswith("of moved")] == [
        ["still", "there", "1", "asked", "for", "again", "at", "the", "end"],
        ["left", "again", "2", "now", "node", "0"],
        ["left", "again", "1", "now", "ENOENT"],
    ]


def test_pages_that_spilled_are_told():
    """Pages that came to another node than planned count as moved, and as spilled."""
    assert "of moved: spilled      2  to the nearest with room" in written(ledger_of([3, 3], to=3))


def test_each_failure_is_explained_once_for_all_processes():
    """Two processes with shared pages have a table each, and the remedy stands there once."""
    lines = written(*[ledger_of([1, -errno.EACCES])] * 2, missing=("name:gone\x1b",))
    assert len([line for line in lines if line == "EACCES"]) == 1
    assert len([line for line in lines if line.startswith("OUTCOME")]) == 2
    assert "name:gone\\x1b: it is not there, has ended, or is not yours to look at" in lines


def test_a_process_that_was_not_reached_is_told():
    """After an interrupt, the plans that were not begun are named as such."""
    asked = MoveSnapshot(("cat", "dog"), NodeSet([1]), "everything")
    snapshot = asked.moved([plan_of(1), plan_of(1)], [ledger_of([1])], [])
    stream = io.StringIO()
    write_move_text(snapshot, Output(stream))
    assert stream.getvalue().endswith("Nothing was tried: the work was interrupted before.\n")
    processes = move_json(snapshot)["processes"]
    assert [process["ended"] for process in processes] == ["done", "not begun"]
    assert processes[1]["not_tried"] == 1


def test_a_plan_without_pages_is_done():
    """A ledger of no pages is a ledger: the work was begun, and is done."""
    document = move_json(
        MoveSnapshot(("cat",), NodeSet([1]), "heap").moved(
            [ledger_of([]).plan], [ledger_of([], verified=True)], []
        )
    )
    (process,) = document["processes"]
    assert (process["ended"], process["verified"]) == ("done", True)
    assert document["dry_run"] is False


def test_a_dry_run_sums_the_plan_up():
    """Runs with the same source, target and reason share a line; unknown sources are a dash."""
    plan = replace(
        plan_of(
            1,
            from_node=-2,
            there_pages=1,
            there_bytes=PAGE,
            staying_bytes_by_node={1: PAGE},
        ),
        start=np.array([PAGE, 9 * PAGE, 20 * PAGE], np.uint64),
        pages=np.array([2, 1, 3]),
        page_size_bytes=np.array([PAGE, PAGE, PAGE]),
        from_node=np.array([0, -2, 0], np.int32),
        to_node=np.ones(3, np.int32),
        reason=np.zeros(3, np.int32),
    )
    stream = io.StringIO()
    asked = MoveSnapshot(("cat",), NodeSet([1]), "everything")
    write_move_text(asked.planned([plan], []), Output(stream))
    assert stream.getvalue().splitlines()[2:] == [
        "FROM  TO  PAGES  SIZE  WHY",
        "   0   1      5   20K  asked for",
        "   -   1      1    4K  asked for",
        "",
        "NODE  BEFORE  PLANNED",
        "   0     20K        0",
        "   1      4K      24K",
        "",
        "This is a dry run: 6 pages (24K) would be moved, 1 page (4K) is already there",
    ]


@pytest.mark.parametrize(
    ("answers", "there", "shown"),
    [([1, 1], 0, []), ([1, UNWRITTEN], 0, []), ([1, UNWRITTEN], 1, [["0", "8K", "4K"]])],
)
def test_memory_by_node_where_it_says_more_than_the_counts(answers, there, shown):
    """Of a move from one node to one the counts say it all; else nodes are listed, as they are."""
    ledger = ledger_of(answers, now=[max(answer, 0) for answer in answers])
    staying = {"there_pages": there, "there_bytes": there * PAGE}
    by_node = {1: there * PAGE} if there else {}
    plan = replace(ledger.plan, **staying, staying_bytes_by_node=by_node)
    lines = [line.split() for line in written(replace(ledger, plan=plan))]
    rows = [line for line in lines if line[:1] == ["0"]]
    assert rows == shown
    assert (["NODE", "BEFORE", "AFTER"] in lines) is bool(shown)


def test_a_process_that_has_ended_has_no_memory_by_node():
    """What was last heard of its pages is not true any more, and is not shown."""
    ledger = ledger_of([1, UNWRITTEN], error=no_such_process(7, "move_pages"), ended="error")
    facts = {"there_pages": 1, "there_bytes": PAGE, "staying_bytes_by_node": {1: PAGE}}
    lines = written(replace(ledger, plan=replace(ledger.plan, **facts)))
    assert not [line for line in lines if line.startswith("NODE")]


@pytest.mark.parametrize(
    ("answers", "refused"), [([UNWRITTEN], True), ([1], False), ([1, UNWRITTEN], False)]
)
def test_a_refusal_is_told_by_its_error_alone(answers, refused):
    """Where an error came before any page moved, a table of zeros would say less."""
    ledger = ledger_of(answers, error=no_such_process(7, "move_pages"), ended="error")
    snapshot = MoveSnapshot(("cat",), NodeSet([1]), "everything").moved([ledger.plan], [ledger], [])
    assert snapshot.refused is refused


def test_warnings_are_in_the_json():
    """A program reads of what will fight the move as a person does."""
    concern = Concern("policy", "says", "remedy")
    snapshot = MoveSnapshot(("cat",), NodeSet([1]), "heap").planned([plan_of(1)], [concern])
    document = json.loads(json.dumps(move_json(snapshot)))
    assert document["warnings"] == [{"name": "policy", "says": "says", "remedy": "remedy"}]
    assert (document["dry_run"], document["not_tried"]) == (True, 1)


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


def test_a_selection_of_nothing_is_said():
    """Where no page in memory is meant, zeros alone would look like work that was done."""
    stream = io.StringIO()
    done = MoveSnapshot(("cat",), NodeSet([1]), "hugetlb").moved(
        [ledger_of([]).plan], [ledger_of([])], []
    )
    write_move_text(done, Output(stream))
    assert stream.getvalue().splitlines()[:3] == [
        "cat (7): to node 1",
        "No page that is in memory is meant by: hugetlb",
        "",
    ]

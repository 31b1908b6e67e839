from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, strategies as st

from movepages.abi import UNWRITTEN, Errno
from movepages.errors import CallError, MalformedError, NoSuchNodeError, call_error
from movepages.placement.records import ledgers_json, plan_json, read_ledgers, read_plan
from movepages.values import Ledger, Plan, TaskId

PAGE, HUGE = 4096, 2 << 20
COLUMNS = ("start", "pages", "page_size_bytes", "from_node", "to_node", "reason")

runs = st.lists(
    st.tuples(
        st.integers(1, 5),
        st.sampled_from([PAGE, HUGE]),
        st.integers(-14, 3),
        st.integers(0, 3),
        st.integers(0, 1),
    ),
    max_size=6,
)


def plan_of(shapes):
    """Make a plan of runs of (pages, size, from, to, reason), far from each other."""
    pages, size, from_node, to_node, reason = zip(*shapes, strict=True) if shapes else [()] * 5
    return Plan(
        task=TaskId("0f1e-2d", 1234, 2**40),
        start=np.array([0xFFFF << 48 | number << 30 for number in range(len(pages))], np.uint64),
        pages=np.array(pages, np.int64),
        page_size_bytes=np.array(size, np.int64),
        from_node=np.array(from_node, np.int32),
        to_node=np.array(to_node, np.int32),
        reason=np.array(reason, np.int32),
        reasons=("mostly used on node 1", 'ünïcode "quoted"\n'),
        there_pages=3,
        there_bytes=3 * PAGE,
        crowded_pages=2,
        crowded_bytes=2 * PAGE,
        staying_bytes_by_node={0: 4 * PAGE, 3: PAGE},
    )


def same_plans(one, other):
    """Tell whether two plans are equal, types of their arrays included."""
    for column in COLUMNS:
        ours, theirs = getattr(one, column), getattr(other, column)
        assert ours.dtype == theirs.dtype, column
        assert ours.tolist() == theirs.tolist(), column
    facts = ("task", "reasons", "there_pages", "there_bytes", "crowded_pages", "crowded_bytes")
    facts += ("staying_bytes_by_node", "bytes_by_node")
    return all(getattr(one, fact) == getattr(other, fact) for fact in facts)


@given(runs)
def test_a_plan_reads_back(shapes):
    """What is written is read as the same plan."""
    plan = plan_of(shapes)
    assert same_plans(read_plan(plan_json(plan)), plan)


@given(runs, st.randoms(use_true_random=False), st.sampled_from(["done", "error"]))
def test_a_ledger_reads_back(shapes, chance, ended):
    """Page by page it is the same, though it is written as runs of pages alike."""
    plan = plan_of(shapes)
    count = plan.page_count
    outcomes = [
        (1, 1, 1, 1),
        (1, UNWRITTEN, 0, 5),
        (2, -Errno.EACCES, 0, 1),
        (1, UNWRITTEN, UNWRITTEN, 0),
    ]
    table = [chance.choice(outcomes) for _ in range(count)]
    to, answer, now, tries = zip(*table, strict=True) if table else [()] * 4
    error = call_error(-Errno.ENODEV, "move_pages", detail="node 9 is not there", node=9)
    ledger = Ledger(
        plan=plan,
        to=np.array(to, np.int32),
        answer=np.array(answer, np.int32),
        now=np.array(now, np.int32),
        tries=np.array(tries, np.uint8),
        calls=17,
        seconds=0.25,
        ended=ended,
        error=error if ended == "error" else None,
        verified=True,
    )
    first, second = read_ledgers(ledgers_json([ledger, ledger]))
    for read in (first, second):
        for column in ("to", "answer", "now", "tries"):
            assert getattr(read, column).dtype == getattr(ledger, column).dtype
            assert getattr(read, column).tolist() == getattr(ledger, column).tolist()
        assert read.plan.page_runs().addresses().tolist() == plan.page_runs().addresses().tolist()
        assert read.page_origins().tolist() == ledger.page_origins().tolist()
        assert (read.failed(), read.moved_bytes) == (ledger.failed(), ledger.moved_bytes)
        assert (read.calls, read.seconds, read.ended, read.verified) == (17, 0.25, ended, True)
        assert read.plan.task == plan.task
        if ended == "error":
            assert isinstance(read.error, NoSuchNodeError)
            assert (str(read.error), read.error.node) == (str(error), 9)
        else:
            assert read.error is None


def test_pages_alike_are_one_line():
    """A gigabyte that moved is one run, however many pages it has."""
    plan = plan_of([(1 << 18, PAGE, 0, 1, 0)])
    there = np.ones(1 << 18, np.int32)
    ledger = Ledger(plan, there, there, there, there.astype(np.uint8))
    assert len(ledgers_json([ledger])) < 1000


def written(**changes):
    """Return a ledger's file with some fields changed, in the file itself, a ledger or its run."""
    plan = plan_of([(2, PAGE, 0, 1, 0)])
    ones = np.ones(2, np.int32)
    document = json.loads(ledgers_json([Ledger(plan, ones, ones, ones, ones.astype(np.uint8))]))
    (ledger,) = document["ledgers"]
    for name, value in changes.items():
        for part in (document, ledger, ledger["runs"][0]):
            if name in part:
                part[name] = value
                break
        else:
            ledger[name] = value
    return json.dumps(document).encode()


def test_a_file_that_does_not_say_where_pages_stay():
    """One from before that was kept is read, and its bytes by node add up: on no known node."""
    document = json.loads(written())
    del document["ledgers"][0]["staying_bytes_by_node"]
    (ledger,) = read_ledgers(json.dumps(document).encode())
    assert ledger.plan.bytes_by_node == {-1: 5 * PAGE, 0: 2 * PAGE}
    assert ledger.bytes_by_node == {-1: 5 * PAGE, 1: 2 * PAGE}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"", "JSON"),
        (b"{}", "missing required field"),
        (b"\xff\xfe", "JSON"),
        (b"[" * 100_000, "JSON"),
        (ledgers_json([])[:-4], "JSON"),
        (written(format="movepages ledger 2"), "format"),
        (written(unknown=1), "unknown field"),
        (written(start="zz"), "'zz' is not an address"),
        (written(start="0x10000000000000000"), "is not an address"),
        (written(start="-1"), "is not an address"),
        (written(pages=0), "pages: it must be 1 or more"),
        (written(pages=-5), "pages: it must be 1 or more"),
        (written(pages=1 << 62), "they reach beyond the address space"),
        (written(page_size_bytes=0), "page_size_bytes: it must be 1 or more"),
        (written(pages=1 << 70), "pages: a number is too large"),
        (written(from_node=1 << 40), "from_node: a number is too large"),
        (written(tries=300), "tries: a number is too large"),
        (written(reason=2), "there is no such reason"),
        (written(reason=-1), "there is no such reason"),
        (written(staying_bytes_by_node={"0": PAGE}), "does not add up"),
        (written(staying_bytes_by_node={"zero": 5 * PAGE}), "JSON"),
        (written(task={"pid": 1}), "missing required field"),
        (written(calls="many"), "Expected `int`"),
    ],
)
def test_a_file_that_was_edited_is_refused(text, told):
    """It is told which file and what is wrong; nothing is half understood."""
    with pytest.raises(MalformedError) as refused:
        read_ledgers(text, "moved.json")
    assert str(refused.value).startswith("moved.json: ")
    assert told in str(refused.value)


def test_an_errno_that_nobody_knows_is_read():
    """A ledger of another kernel may have one."""
    error = {"errno": 999, "call": "move_pages", "message": "move_pages: odd"}
    (ledger,) = read_ledgers(written(error=error))
    assert type(ledger.error) is CallError
    assert (ledger.error.errno, str(ledger.error)) == (999, "move_pages: odd")

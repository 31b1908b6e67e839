from __future__ import annotations

import json

import pytest

from movepages.abi import CALL_ERRORS, PAGE_STATUSES


def test_a_status(run, snapshot):
    """What it means as the status of a page comes first, then call by call."""
    assert run("explain", "-2").out == snapshot


@pytest.mark.parametrize("code", ["ENOENT", "enoent"])
def test_a_status_by_name(run, code):
    """A name, in either case, and the negative number are the same status."""
    assert run("explain", code).out == run("explain", "-2").out


def test_a_positive_number_is_an_errno(run):
    """3 could be a node as well: it is read as an errno, and the other reading is told."""
    words = " ".join(run("explain", "3").out.split())
    assert words.startswith(
        "3 is read as an errno, ESRCH. As the status of a page it would say that the page is on "
        "node 3."
    )
    assert "ESRCH from migrate_pages" in words


def test_unwritten_by_name_and_by_number(run):
    """What our own sentinel means is explained, too."""
    answer = run("explain", "UNWRITTEN")
    assert answer.out == run("explain", "-2147483648").out
    assert "pinned" in answer.out


def test_overview(run, snapshot):
    """Without a code, all statuses and errors are listed."""
    assert run("explain").out == snapshot


@pytest.mark.parametrize("code", [*PAGE_STATUSES, *(error.code for error in CALL_ERRORS)])
def test_everything_known_is_explained(run, code):
    """Each status and each error of a call is explained with what to do about it."""
    answer = run("explain", str(code))
    assert answer.code == 0
    assert "What to do: " in answer.out


def test_json(run):
    """JSON has the meaning as the status of a page, and call by call."""
    (explained,) = json.loads(run("explain", "EACCES", "--json").out)["explanations"]
    assert explained["code"] == -13
    assert explained["page_status"]["meaning"] == PAGE_STATUSES[-13].meaning
    assert [error["call"] for error in explained["call_errors"]] == ["move_pages"]


def test_json_of_a_code_that_no_page_has(run):
    """An errno that only calls give has no page status."""
    (explained,) = json.loads(run("explain", "ENODEV", "--json").out)["explanations"]
    assert explained["page_status"] is None

from __future__ import annotations

import re

import pytest

from movepages.abi import (
    CALL_ERRORS,
    CALLS,
    MAX_NUMNODES,
    PAGE_STATUSES,
    UNWRITTEN,
    Errno,
    status_name,
)

PER_PAGE = {"ENOENT", "EACCES", "EPERM", "EBUSY", "EFAULT", "ENOMEM", "EIO", "EINVAL"}
"""Statuses that the 2006 patch and move_pages(2) list for a page."""


def test_unwritten_is_neither_a_node_nor_an_errno():
    """The sentinel cannot be what a kernel writes: it is no node, and no errno (1 to 4095)."""
    assert UNWRITTEN == -(2**31)
    assert not 0 <= UNWRITTEN < MAX_NUMNODES
    assert not -4095 <= UNWRITTEN < 0


def test_every_documented_status_is_described():
    """The statuses of move_pages(2), the undocumented EAGAIN and the sentinel are all there."""
    names = {status.name for status in PAGE_STATUSES.values()}
    assert names == PER_PAGE | {"EAGAIN", "UNWRITTEN"}


@pytest.mark.parametrize("code", list(PAGE_STATUSES))
def test_a_status_is_found_by_its_code_and_says_everything(code):
    """Each status has its name, and a meaning, a cause and a remedy to read."""
    status = PAGE_STATUSES[code]
    assert status.code == code
    assert status.name == status_name(code)
    for text in (status.meaning, status.cause, status.remedy):
        assert re.fullmatch(r"\S.{3,}[^ ]", text)
    assert not status.meaning.endswith(".")
    assert status.cause.endswith(".")
    assert status.remedy.endswith(".")


@pytest.mark.parametrize("error", CALL_ERRORS)
def test_a_call_error_names_calls_and_says_everything(error):
    """Each errno of a call belongs to calls that exist and can be read as one sentence."""
    assert set(error.call.split(", ")) <= set(CALLS)
    assert Errno[error.name] == -error.code
    for text in (error.meaning, error.remedy):
        assert re.fullmatch(r"\S.{3,}[^. ]", text)


def test_each_errno_of_a_call_is_described_once():
    """No call has two descriptions of one errno, of which the second would never be shown."""
    pairs = [(call, error.code) for error in CALL_ERRORS for call in error.call.split(", ")]
    assert len(set(pairs)) == len(pairs)


def test_the_errors_of_the_man_page_of_move_pages_are_described():
    """All errors of move_pages(2) are there, and ENOSYS."""
    names = {error.name for error in CALL_ERRORS if error.call == "move_pages"}
    assert names == {
        "E2BIG",
        "EACCES",
        "EFAULT",
        "EINVAL",
        "ENODEV",
        "ENOENT",
        "ENOMEM",
        "ENOSYS",
        "EPERM",
        "ESRCH",
    }


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (0, "node 0"),
        (1023, "node 1023"),
        (-1, "EPERM"),
        (-2, "ENOENT"),
        (-95, "EOPNOTSUPP"),
        (-96, "errno 96"),
        (-4095, "errno 4095"),
        (UNWRITTEN, "UNWRITTEN"),
        (UNWRITTEN + 1, f"errno {2**31 - 1}"),
    ],
)
def test_a_status_has_a_name(code, name):
    """Nodes, errnos known and unknown, and the sentinel can all be named."""
    assert status_name(code) == name

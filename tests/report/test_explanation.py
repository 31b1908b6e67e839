from __future__ import annotations

from movepages.abi import CALL_ERRORS, PAGE_STATUSES, UNWRITTEN
from movepages.report.explanation import explain, known_codes


def test_every_table_is_known():
    """All page statuses and all errnos of calls can be explained, UNWRITTEN last."""
    codes = known_codes()
    assert set(codes) == PAGE_STATUSES.keys() | {error.code for error in CALL_ERRORS}
    assert codes == sorted(codes, reverse=True)
    assert codes[-1] == UNWRITTEN


def test_both_meanings_of_an_errno():
    """EACCES says one thing of a page and another of a call."""
    both = explain(-13)
    assert both.page is PAGE_STATUSES[-13]
    assert {error.name for error in both.calls} == {"EACCES"}


def test_unknown_code():
    """Of a code that nobody gives, nothing is known."""
    nothing = explain(-999)
    assert (nothing.page, nothing.calls) == (None, ())

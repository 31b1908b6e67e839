from __future__ import annotations

import sys

import pytest

from movepages.cli.session import Session
from movepages.errors import UnsupportedError


def test_other_systems_are_refused(monkeypatch):
    """Where this is not Linux, the machine is refused in one sentence."""
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(UnsupportedError, match="only Linux has NUMA nodes to ask"):
        _ = Session().machine


def test_the_machine_is_made_once():
    """All that a command asks, it asks of the same machine."""
    session = Session()
    assert session.machine is session.machine

from __future__ import annotations

import os

import pytest

from movepages.errors import CallError
from movepages.linux.affinity import run_on

pytestmark = pytest.mark.host
NO_SUCH_CPU = 1 << 15


@pytest.fixture
def before():
    """Return the CPUs of this thread, and give them back."""
    cpus = os.sched_getaffinity(0)
    yield cpus
    os.sched_setaffinity(0, cpus)


def test_cpus_are_taken(before):
    """The thread runs on what was asked for, and is told so."""
    one = {min(before)}
    assert run_on(one) == one == os.sched_getaffinity(0)


def test_cpus_that_cannot_be_had_are_left_out(before):
    """Of several the kernel gives those that there are."""
    assert run_on({min(before), NO_SUCH_CPU}) == {min(before)}


def test_no_cpu_can_be_had(before):
    """Where none of them is there, nothing has changed, and that is told."""
    assert run_on({NO_SUCH_CPU}) == frozenset()
    assert os.sched_getaffinity(0) == before


def test_a_refusal_is_an_error(monkeypatch):
    """What forbids the call, such as a filter, is told with what to do."""

    def refused(_pid, _cpus):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setaffinity", refused)
    with pytest.raises(CallError, match="the CPUs cannot be chosen"):
        run_on({0})

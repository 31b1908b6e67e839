"""Who may look at whose memory."""

from __future__ import annotations

import pytest

from movepages.abi import Capability
from movepages.kernel.tasks import (
    ALL_CAPABILITIES,
    Cpuset,
    Credentials,
    TaskStruct,
    may_trace,
    shares_owner,
)
from movepages.nodeset import NodeSet


def task(uid=1000, *, euid=None, suid=None, capabilities=frozenset(), dumpable=True, pid=7):
    """Make a task of a user."""
    credentials = Credentials(
        uid, uid if euid is None else euid, uid if suid is None else suid, capabilities
    )
    return TaskStruct(pid, pid, credentials, Cpuset(NodeSet([0])), None, dumpable=dumpable)


def test_uid_0_has_all_capabilities():
    """Root has every capability, another user none."""
    assert Credentials.of_user(0).capabilities == ALL_CAPABILITIES
    assert Credentials.of_user(1).capabilities == frozenset()


@pytest.mark.parametrize(
    ("target", "allowed"),
    [
        (task(pid=8), True),
        (task(2000, pid=8), False),
        (task(dumpable=False, pid=8), False),
        (task(euid=0, pid=8), False),
        (task(suid=0, pid=8), False),
        (task(capabilities=frozenset({Capability.SYS_NICE}), pid=8), False),
    ],
)
def test_todays_rule(target, allowed):
    """READ_REALCREDS: same ids throughout, dumpable, and no more rights than the caller."""
    assert may_trace(task(), target) is allowed


def test_ptrace_rights_and_ones_own_threads_always_pass():
    """CAP_SYS_PTRACE overrides all; a thread may look at its own process, dumpable or not."""
    tracer = task(capabilities=frozenset({Capability.SYS_PTRACE}))
    assert may_trace(tracer, task(2000, dumpable=False, pid=8))
    own = task(dumpable=False, pid=8)
    own.tgid = 7
    assert may_trace(task(), own)


@pytest.mark.parametrize(
    ("caller", "target", "allowed"),
    [
        (task(1), task(1), True),
        (task(1), task(2), False),
        (task(2, euid=1), task(1, euid=5, suid=5), True),
        (task(2, euid=1), task(5, suid=1), True),
        (task(1), task(5, euid=1, suid=5), False),
        (task(1, euid=5, suid=2), task(2, euid=2, suid=2), False),
    ],
)
def test_the_rule_of_2006(caller, target, allowed):
    """Uid or euid of the caller is uid or suid of the target; the target's euid says nothing."""
    assert shares_owner(caller, target) is allowed

"""A child with a real seccomp filter, as containers have, against plain refusals of the kernel."""

from __future__ import annotations

import ctypes
import os
import struct

import numpy as np
import pytest

from movepages import api
from movepages.abi import CALLS, Errno, Mode, MoveFlag, numbers_for
from movepages.errors import FilteredError, InvalidCallError, NoSuchCallError, NotPermittedError
from movepages.linux import filters, mempolicy

# include/uapi/linux/prctl.h, seccomp.h, bpf_common.h
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 22, 38
SECCOMP_MODE_FILTER = 2
SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO = 0x7FFF0000, 0x00050000
BPF_LD_W_ABS, BPF_JMP_JEQ_K, BPF_RET_K = 0x20, 0x15, 0x06

USES = {
    "move_pages": lambda: api.query_pages(0, [0]),
    "migrate_pages": lambda: api.migrate_pages(0, [0], [0]),
    "mbind": lambda: mempolicy.mbind(0, 0, Mode.DEFAULT, [], 0),
    "set_mempolicy": lambda: mempolicy.set_mempolicy(Mode.DEFAULT, []),
    "get_mempolicy": mempolicy.get_mempolicy,
    "set_mempolicy_home_node": lambda: mempolicy.set_home_node(0, 0, 0),
}
"""A use of each call that works where nothing refuses it."""


def install_filter(call: str, errno: int) -> None:
    """Make one system call fail from now on, in this process and its children."""
    number = numbers_for(os.uname().machine)[call]
    program = b"".join(
        struct.pack("=HBBI", *instruction)
        for instruction in (
            (BPF_LD_W_ABS, 0, 0, 0),  # seccomp_data.nr
            (BPF_JMP_JEQ_K, 0, 1, number),
            (BPF_RET_K, 0, 0, SECCOMP_RET_ERRNO | errno),
            (BPF_RET_K, 0, 0, SECCOMP_RET_ALLOW),
        )
    )
    code = ctypes.create_string_buffer(program, len(program))
    fprog = struct.pack("@HP", len(program) // 8, ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    assert libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, fprog, 0, 0) == 0


def caught(function):
    """Return the error that a function raises, or what it returns."""
    try:
        return function()
    except OSError as error:
        return error


@pytest.fixture
def filtered(fork):
    """Return what filters a call in a child, runs functions there and returns their outcomes."""

    def run(call, errno, *functions):
        def body():
            install_filter(call, errno)
            yield [caught(function) for function in functions]

        return fork(body).step()

    return run


@pytest.mark.host
@pytest.mark.parametrize("call", CALLS)
def test_a_filter_that_answers_eperm_is_recognised(filtered, call):
    """EPERM from a filter is no missing right of the caller, and the sentence says whose it is."""
    refused, used = filtered(call, Errno.EPERM, lambda: filters.refusal(call), USES[call])
    assert type(refused) is FilteredError
    assert refused.errno == Errno.EPERM
    assert refused.call == call
    assert str(refused).startswith(f"{call}: a system call filter (seccomp) refuses it")
    assert "allow the call in the seccomp profile" in str(refused)
    assert (type(used), str(used)) == (FilteredError, str(refused))


@pytest.mark.host
@pytest.mark.parametrize("call", CALLS)
def test_a_filter_that_answers_enosys_is_recognised(filtered, call):
    """ENOSYS on a kernel that shows NUMA nodes comes from a filter that hides the call."""
    refused, used = filtered(call, Errno.ENOSYS, lambda: filters.refusal(call), USES[call])
    assert type(refused) is NoSuchCallError
    assert (refused.errno, refused.call) == (Errno.ENOSYS, call)
    hidden = "5.17 or later" if call == "set_mempolicy_home_node" else "(seccomp) hides it"
    assert hidden in str(refused)
    assert (type(used), str(used)) == (NoSuchCallError, str(refused))


@pytest.mark.host
@pytest.mark.parametrize("call", CALLS)
def test_a_filter_of_one_call_leaves_the_others_alone(filtered, call):
    """The probes blame the call that is filtered, and no other."""
    probes = [lambda other=other: filters.refusal(other) for other in CALLS if other != call]
    outcomes = filtered(call, Errno.EPERM, *probes)
    assert not [outcome for outcome in outcomes if isinstance(outcome, FilteredError)]


@pytest.mark.host
def test_a_kernel_without_numa_is_told_from_a_filter(filtered, tmp_path):
    """Where no nodes are shown, ENOSYS means that the kernel was built without the call."""
    (refused,) = filtered(
        "move_pages", Errno.ENOSYS, lambda: filters.refusal("move_pages", tmp_path)
    )
    assert "this kernel does not have it; use one built with CONFIG_NUMA" in str(refused)


@pytest.mark.host
@pytest.mark.parametrize("call", [c for c in CALLS if c != "set_mempolicy_home_node"])
def test_nothing_is_refused_here(call):
    """Without a filter every probe gets through, and changes nothing."""
    before = mempolicy.get_mempolicy()
    assert filters.refusal(call) is None
    assert mempolicy.get_mempolicy() == before


@pytest.mark.host
def test_nothing_is_refused_to_an_ordinary_user(unprivileged):
    """The probes need no rights: a caller without any is not told of a filter."""
    outcomes = unprivileged(lambda: [filters.refusal(call) for call in CALLS[:-1]])
    assert outcomes == [None] * 5


@pytest.mark.host
def test_a_plain_refusal_is_not_mistaken_for_a_filter(memory, unprivileged):
    """MOVE_ALL without CAP_SYS_NICE is the caller's missing right, and the sentence says so."""
    pages = memory.private(1).touch()
    refused = unprivileged(
        lambda: caught(lambda: api.move_pages(0, pages.addresses, 0, MoveFlag.MOVE_ALL))
    )
    assert type(refused) is NotPermittedError
    assert "needs CAP_SYS_NICE" in str(refused)


@pytest.mark.host
def test_a_plain_refusal_under_a_filter_of_another_call(filtered, memory):
    """A filter of mbind does not change what move_pages says of its own flags."""
    pages = memory.private(1).touch()
    (refused,) = filtered(
        "mbind", Errno.EPERM, lambda: api.move_pages(0, pages.addresses, 0, MoveFlag.STRICT)
    )
    assert type(refused) is InvalidCallError


@pytest.mark.host
def test_a_filtered_call_keeps_its_facts(filtered):
    """The error of a filtered move_pages has the pid and the statuses, none of them written."""
    (refused,) = filtered("move_pages", Errno.EPERM, lambda: api.query_pages(0, [0, 4096]))
    assert refused.pid == 0
    assert refused.result.ret == -Errno.EPERM
    assert not refused.result.written.any()
    assert refused.result.status.dtype == np.int32

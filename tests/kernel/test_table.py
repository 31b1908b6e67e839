"""The table of system calls: names, numbers, what a kernel has, the documentation's table."""

from __future__ import annotations

import pytest

from movepages.abi import CALLS, SYSCALL_NUMBERS, Errno
from movepages.errors import ArgumentError
from movepages.kernel.machine import SimulatedMachine
from movepages.kernel.semantics import (
    ALL_SEMANTICS,
    DOCUMENTED_2006,
    LINUX_2_6_18,
    LINUX_6_12,
    PATCH_2006,
)
from movepages.kernel.syscalls.table import CALL_TABLE, Support, name_of, render_calls

ARGUMENTS = {
    "move_pages": (0, 0, 0, 0, 0, 0),
    "migrate_pages": (0, 1, 0, 0),
    "mbind": (0, 0, 0, 0, 1, 0),
    "set_mempolicy": (0, 0, 1),
    "get_mempolicy": (0, 0, 0, 0, 0),
    "set_mempolicy_home_node": (0, 0, 0, 0),
}
"""For each call arguments that ask for nothing."""


def by_name(value):
    """Name a semantics in the id of a test."""
    return getattr(value, "name", None)


def calls_of(machine):
    """Return the calls as root's shell makes them."""
    return machine.calls_of(machine.shell.struct)


def test_every_call_of_the_contract_is_in_the_table():
    """The table has each call that has a number, and no other."""
    assert set(CALL_TABLE) == set(CALLS) == set(ARGUMENTS)


@pytest.mark.parametrize("name", CALLS)
def test_every_call_answers(name):
    """On today's kernel no call is -ENOSYS."""
    assert calls_of(SimulatedMachine("2")).make(name, *ARGUMENTS[name]) != -Errno.ENOSYS


@pytest.mark.parametrize("name", CALLS)
def test_a_kernel_built_without_a_call(name):
    """A call that the machine was built without is -ENOSYS; the others are there."""
    calls = calls_of(SimulatedMachine("2", without=frozenset({name})))
    answers = {other: calls.make(other, *ARGUMENTS[other]) for other in CALLS}
    assert [other for other in CALLS if answers[other] == -Errno.ENOSYS] == [name]


@pytest.mark.parametrize("semantics", ALL_SEMANTICS, ids=by_name)
def test_calls_by_kernel(semantics):
    """Only set_mempolicy_home_node is new since 2006."""
    calls = calls_of(SimulatedMachine("2", semantics=semantics))
    missing = [name for name in CALLS if calls.make(name, *ARGUMENTS[name]) == -Errno.ENOSYS]
    assert missing == ([] if semantics is LINUX_6_12 else ["set_mempolicy_home_node"])


def test_a_call_that_is_not_ours():
    """Any other name is -ENOSYS."""
    assert calls_of(SimulatedMachine("1")).make("open", 0, 0) == -Errno.ENOSYS


@pytest.mark.parametrize(
    ("architecture", "number", "name"),
    [
        ("x86_64", 279, "move_pages"),
        ("x86_64", 256, "migrate_pages"),
        ("i386", 317, "move_pages"),
        ("ia64", 1276, "move_pages"),
        ("aarch64", 235, "mbind"),
        ("x86_64", 450, "set_mempolicy_home_node"),
        ("x86_64", 0, None),
    ],
)
def test_names_by_number(architecture, number, name):
    """Numbers mean what the kernel's tables say, on each architecture."""
    assert name_of(architecture, number) == name


def test_calls_by_number():
    """A number makes the same call as its name; any other is -ENOSYS."""
    calls = calls_of(SimulatedMachine("2"))
    assert calls.make_number("x86_64", 239, *ARGUMENTS["get_mempolicy"]) == 0
    assert calls.make_number("aarch64", 236, *ARGUMENTS["get_mempolicy"]) == 0
    assert calls.make_number("x86_64", 1, 1, 0, 0) == -Errno.ENOSYS


@pytest.mark.parametrize(
    ("semantics", "architectures"),
    [
        (PATCH_2006, {"ia64"}),
        (DOCUMENTED_2006, {"ia64"}),
        (LINUX_2_6_18, {"ia64", "i386", "x86_64"}),
        (LINUX_6_12, set(SYSCALL_NUMBERS) - {"ia64"}),
    ],
    ids=by_name,
)
def test_where_move_pages_has_a_number(semantics, architectures):
    """The patch gave ia64 one, the release x86 as well; ia64 left Linux with 6.7."""
    calls = calls_of(SimulatedMachine("2", semantics=semantics))
    found = {
        architecture
        for architecture, numbers in SYSCALL_NUMBERS.items()
        if calls.make_number(architecture, numbers["move_pages"], 0, 0, 0, 0, 0, 0) != -Errno.ENOSYS
    }
    assert found == architectures


def test_an_architecture_nobody_knows():
    """It is an error of the caller, and says which are known."""
    with pytest.raises(ArgumentError, match="'vax', only for x86_64, aarch64"):
        calls_of(SimulatedMachine("1")).make_number("vax", 279)


def test_partial_support_says_what_is_missing():
    """A partial call names what it lacks, a full one nothing."""
    for call in CALL_TABLE.values():
        assert bool(call.missing) == (call.support is Support.PARTIAL)


def test_the_documentations_table():
    """There is a row for each call, with its number in the column of each architecture."""
    head, rule, *rows = (line.split(" | ") for line in render_calls().splitlines())
    assert [cell.strip("| ") for cell in head[1:8]] == list(SYSCALL_NUMBERS)
    assert len(rule) == len(head)
    assert [row[0].strip("| `") for row in rows] == list(CALL_TABLE)
    for row in rows:
        name = row[0].strip("| `")
        assert row[1:8] == [str(numbers[name]) for numbers in SYSCALL_NUMBERS.values()]

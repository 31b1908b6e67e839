"""Which calls of the program the supervisor is told of. What it is not told of costs nothing.

Three groups: the calls that are answered; those that change which pages an address means, for
without them a page that is mapped anew would be taken for the one before; and those that open
files, for some files tell of nodes.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from movepages.abi import CALLS, SYSCALL_NUMBERS
from movepages.abi.seccomp import AUDIT_ARCH
from movepages.abi.task_calls import TASK_CALL_NUMBERS
from movepages.errors import UnsupportedError
from movepages.linux.seccomp import Condition, Filter, Rule, Test

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class Precision(StrEnum):
    """How exactly the emulator knows who touched which page."""

    LAZY = "lazy"
    """Looks when it is asked. A page that is mapped anew may be taken for the one before."""
    EXACT = "exact"
    """Is told of each change of the map as well."""
    FAULTS = "faults"
    """Has a log of page faults as well, so that it knows which thread touched a page first."""


class Files(StrEnum):
    """Which opens the emulator looks at, to fake the files that tell of nodes."""

    ALL = "all"
    RDONLY = "rdonly"
    """Those that only read: 40 us less for an open that writes."""
    NONE = "none"


_MAP_FIXED = 0x10
_DROPPING_ADVICE = (4, 8, 9, 24)
"""MADV_DONTNEED, MADV_FREE, MADV_REMOVE, MADV_DONTNEED_LOCKED."""
_ANY = 0xFFFF_FFFF
"""Of an address: brk(0) only asks."""
_O_CREAT = 0o100
_WRITE_BITS = 0o3 | _O_CREAT | 0o1000 | 0o2000
"""O_WRONLY, O_RDWR, O_CREAT, O_TRUNC, O_APPEND; alike on the three machines."""

# Frequent calls with conditions first: the kernel does not remember about them, see Filter.
_MAP_CHANGES: dict[str, tuple[Condition, ...]] = {
    "mmap": (Condition(3, Test.ANY_BIT, _MAP_FIXED),),
    "madvise": tuple(Condition(2, Test.EQUAL, advice) for advice in _DROPPING_ADVICE),
    "brk": (Condition(0, Test.ANY_BIT, _ANY),),
    "munmap": (),
    "mremap": (),
    "shmdt": (),
    "execve": (),
    "execveat": (),
}
_OPENS = {"openat": 2, "open": 1}
"""Calls that open a file, with the place of the flags among their arguments."""


def watched_calls(
    precision: Precision, files: Files, also: Iterable[str] = ()
) -> dict[str, tuple[Condition, ...]]:
    """Return the calls to be told of, in the order of the filter, with what restricts each.

    `also` names further calls, as in `abi.task_calls`.
    """
    calls: dict[str, tuple[Condition, ...]] = {}
    if precision is not Precision.LAZY:
        calls |= _MAP_CHANGES
    if files is not Files.NONE:
        only_reading = files is Files.RDONLY
        for call, place in _OPENS.items():
            calls[call] = (Condition(place, Test.NO_BIT, _WRITE_BITS),) if only_reading else ()
        calls["openat2"] = ()  # its flags are in memory, where a filter cannot look
    return calls | dict.fromkeys((*also, *CALLS, "getcpu"), ())


def call_numbers(machine: str) -> Mapping[str, int]:
    """Return the numbers of all calls that can be watched. Raises UnsupportedError."""
    if machine not in AUDIT_ARCH:
        raise UnsupportedError(
            f"the emulator does not know the system calls of {machine}; "
            f"use one of {', '.join(AUDIT_ARCH)}"
        )
    return SYSCALL_NUMBERS[machine] | TASK_CALL_NUMBERS[machine]


def build_filter(
    machine: str, precision: Precision, files: Files, also: Iterable[str] = ()
) -> Filter:
    """Return the filter for a machine, as `uname -m` names it.

    A call that the machine does not have (open on aarch64) is left out. Raises UnsupportedError.
    """
    numbers = call_numbers(machine)
    watched = watched_calls(precision, files, also)
    return Filter.assemble(
        (Rule(numbers[call], when) for call, when in watched.items() if call in numbers), machine
    )

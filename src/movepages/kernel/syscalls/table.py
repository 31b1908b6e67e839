"""The system calls of the model, each in one line: its name, how far it goes, and who answers it.

The documentation's table is made from this one, so that what it promises is what there is.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from movepages.abi import SYSCALL_NUMBERS, Errno
from movepages.errors import ArgumentError
from movepages.kernel.policies import SimulatedPolicies
from movepages.kernel.syscalls.mempolicy import MempolicyCalls
from movepages.kernel.syscalls.migrate_pages import MigratePages
from movepages.kernel.syscalls.move_pages import MovePages

if TYPE_CHECKING:
    from collections.abc import Callable

    from movepages.kernel.machine import SimulatedMachine
    from movepages.kernel.task_table import SimulatedTaskTable
    from movepages.kernel.tasks import TaskStruct

    Handler = Callable[..., int]
    """Takes the arguments of the call, all integers, and returns what the kernel returns."""

_CALLERS = "32-bit callers are answered as 64-bit ones"
_BALANCING = "MPOL_F_NUMA_BALANCING is kept and changes nothing, for nothing is balanced"


class Support(Enum):
    """How much of a call the model has."""

    FULL = "full"
    PARTIAL = "partial"


class CallTable:
    """The calls as one task makes them."""

    def __init__(
        self, machine: SimulatedMachine, caller: TaskStruct, tasks: SimulatedTaskTable
    ) -> None:
        """Bind the calls to a caller."""
        self._machine = machine
        self._caller = caller
        self._tasks = tasks

    def make(self, name: str, *arguments: int) -> int:
        """Make a call by name; -ENOSYS if this kernel does not have it."""
        machine = self._machine
        call = CALL_TABLE.get(name)
        if call is None or name in machine.without or name not in machine.semantics.calls:
            return -Errno.ENOSYS
        return call.handler(self)(*arguments)

    def make_number(self, architecture: str, number: int, *arguments: int) -> int:
        """Make a call by its number on an architecture; -ENOSYS for one without a call.

        Raises ArgumentError for an architecture whose numbers are not known.
        """
        name = name_of(architecture, number)
        if name == "move_pages":
            there = architecture in self._machine.semantics.move_pages_architectures
            return self.make(name, *arguments) if there else -Errno.ENOSYS
        return self.make(name, *arguments) if name else -Errno.ENOSYS

    # -- who answers --------------------------------------------------------------------------

    def move_pages(self) -> Handler:
        """Return the handler of move_pages."""
        machine = self._machine
        return MovePages(
            machine.user,
            machine.memory,
            self._tasks,
            machine.semantics,
            machine.vmalloc_limit_bytes,
            machine.crashes,
        )

    def migrate_pages(self) -> Handler:
        """Return the handler of migrate_pages."""
        machine = self._machine
        return MigratePages(
            machine.user,
            self._tasks,
            machine.semantics,
            machine.page_size_bytes,
            SimulatedPolicies(machine, self._caller).migrate,
        )

    def policy_calls(self) -> MempolicyCalls:
        """Return the handlers of the calls on policies."""
        machine = self._machine
        return MempolicyCalls(
            machine.user,
            self._tasks,
            machine.semantics,
            machine.page_size_bytes,
            SimulatedPolicies(machine, self._caller),
        )


@dataclass(frozen=True, slots=True)
class SystemCall:
    """A call of the table: `missing` says what a partial one lacks."""

    name: str
    support: Support
    missing: str
    handler: Callable[[CallTable], Handler]

    @property
    def numbers(self) -> dict[str, int]:
        """Its number, by architecture."""
        return {arch: numbers[self.name] for arch, numbers in SYSCALL_NUMBERS.items()}


def _partial(name: str, handler: Callable[[CallTable], Handler], *missing: str) -> SystemCall:
    return SystemCall(name, Support.PARTIAL, "; ".join(missing), handler)


def _full(name: str, handler: Callable[[CallTable], Handler]) -> SystemCall:
    return SystemCall(name, Support.FULL, "", handler)


CALL_TABLE = {
    call.name: call
    for call in (
        _partial("move_pages", CallTable.move_pages, _CALLERS),
        _partial("migrate_pages", CallTable.migrate_pages, _CALLERS),
        _partial("mbind", lambda calls: calls.policy_calls().mbind, _CALLERS, _BALANCING),
        _partial(
            "set_mempolicy",
            lambda calls: calls.policy_calls().set_mempolicy,
            _CALLERS,
            _BALANCING,
        ),
        _partial("get_mempolicy", lambda calls: calls.policy_calls().get_mempolicy, _CALLERS),
        _full(
            "set_mempolicy_home_node",
            lambda calls: calls.policy_calls().set_mempolicy_home_node,
        ),
    )
}
"""Every call by name."""


def name_of(architecture: str, number: int) -> str | None:
    """Return the name of a call by its number, None for a number of another call.

    Raises ArgumentError for an architecture whose numbers are not known.
    """
    if architecture not in SYSCALL_NUMBERS:
        known = ", ".join(SYSCALL_NUMBERS)
        raise ArgumentError(f"no call numbers are known for {architecture!r}, only for {known}")
    for name, known_number in SYSCALL_NUMBERS[architecture].items():
        if known_number == number:
            return name
    return None


def render_calls() -> str:
    """Return the table as Markdown: a row for each call, a column for each architecture."""
    architectures = list(SYSCALL_NUMBERS)
    head = ["Call", *architectures, "Support", "What is missing"]
    rows = [
        [
            f"`{call.name}`",
            *(str(call.numbers[arch]) for arch in architectures),
            call.support.value,
            call.missing or "nothing",
        ]
        for call in CALL_TABLE.values()
    ]
    rule = ["---", *["---:"] * len(architectures), "---", "---"]
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, rule, *rows))

"""Handlers of the NUMA system calls: each builds the ports around its caller and asks `kernel/`.

The kernel's own code decides what a call returns. Registers hold 64 bits; arguments that are C ints
are cut to 32 bits and have a sign.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from movepages.abi import Errno
from movepages.emulator.policies import LivePolicies
from movepages.emulator.replies import Value
from movepages.emulator.tasks import LiveTaskTable
from movepages.emulator.user_memory import LiveUserMemory
from movepages.kernel.syscalls.mempolicy import MempolicyCalls
from movepages.kernel.syscalls.migrate_pages import MigratePages
from movepages.kernel.syscalls.move_pages import MovePages

if TYPE_CHECKING:
    from collections.abc import Callable

    from movepages.emulator.machine import EmulatedMachine
    from movepages.emulator.processes import LiveTask
    from movepages.emulator.replies import Handler, Reply
    from movepages.linux.seccomp import Notification

    Call = Callable[[LiveTask, tuple[int, ...]], int]
    """Carries out a call of a task with these arguments; returns what the kernel would."""

VMALLOC_LIMIT_BYTES = 1 << 45
"""Room for the control array of 2006: more than any caller's own arrays can take."""


@dataclass(slots=True, eq=False)
class NumaCalls:
    """The calls of an emulated machine, by name."""

    machine: EmulatedMachine
    _last: tuple[LiveTask, MempolicyCalls] | None = None
    """Who made a call about policies last, and the ports around it: it may make more."""

    def handlers(self) -> dict[str, Handler]:
        """Return the handler of each call; one that the semantics lack is -ENOSYS."""
        processes = self.machine.processes
        calls: dict[str, Call] = {
            "move_pages": self._move_pages,
            "migrate_pages": self._migrate_pages,
            "mbind": self._mbind,
            "set_mempolicy": self._set_mempolicy,
            "set_mempolicy_home_node": self._set_mempolicy_home_node,
        }
        there = self.machine.semantics.calls
        handlers = {
            name: self._handler(call, processes.caller) if name in there else _no_such_call
            for name, call in calls.items()
        }
        # What asks for nothing but the thread's own policy needs no look at its memory.
        at_address = self._handler(self._get_mempolicy, processes.caller)
        of_thread = self._handler(self._get_mempolicy, processes.known)

        def get_mempolicy(notification: Notification) -> Reply:
            return (at_address if notification.args[4] else of_thread)(notification)

        handlers["get_mempolicy"] = get_mempolicy
        handlers["getcpu"] = self._handler(self._getcpu, processes.known)
        return handlers

    def _handler(self, call: Call, find: Callable[[int], LiveTask]) -> Handler:
        def handle(notification: Notification) -> Reply:
            self.machine.attributes.take_written()
            caller = find(notification.tid)
            try:
                return Value(call(caller, notification.args))
            except ProcessLookupError:
                return Value(-Errno.ESRCH)
            except PermissionError:  # what the host does not let the supervisor look at
                return Value(-Errno.EPERM)

        return handle

    def _move_pages(self, caller: LiveTask, args: tuple[int, ...]) -> int:
        pid, nr_pages, pages, nodes, status, flags = args
        machine = self.machine
        if nodes:
            machine.before_move(caller, _int(pid))
        call = MovePages(
            LiveUserMemory(caller),
            machine.frames,
            LiveTaskTable(machine, caller),
            machine.semantics,
            VMALLOC_LIMIT_BYTES,
        )
        return call(_int(pid), nr_pages, pages, nodes, status, _int(flags))

    def _migrate_pages(self, caller: LiveTask, args: tuple[int, ...]) -> int:
        pid, maxnode, old, new = args[:4]
        call = MigratePages(
            LiveUserMemory(caller),
            LiveTaskTable(self.machine, caller),
            self.machine.semantics,
            self.machine.page_size_bytes,
            LivePolicies(self.machine, caller).migrate,
        )
        return call(_int(pid), maxnode, old, new)

    def _mbind(self, caller: LiveTask, args: tuple[int, ...]) -> int:
        start, length, mode, nmask, maxnode, flags = args
        return self._policy_calls(caller).mbind(
            start, length, _unsigned_int(mode), nmask, maxnode, _unsigned_int(flags)
        )

    def _set_mempolicy(self, caller: LiveTask, args: tuple[int, ...]) -> int:
        mode, nmask, maxnode = args[:3]
        return self._policy_calls(caller).set_mempolicy(_int(mode), nmask, maxnode)

    def _get_mempolicy(self, caller: LiveTask, args: tuple[int, ...]) -> int:
        mode, nmask, maxnode, address, flags = args[:5]
        return self._policy_calls(caller).get_mempolicy(mode, nmask, maxnode, address, flags)

    def _set_mempolicy_home_node(self, caller: LiveTask, args: tuple[int, ...]) -> int:
        return self._policy_calls(caller).set_mempolicy_home_node(*args[:4])

    def _getcpu(self, caller: LiveTask, args: tuple[int, ...]) -> int:
        cpu = caller.stat().cpu
        user = LiveUserMemory(caller)
        answers = (cpu, self.machine.node_of_cpu(cpu))
        for pointer, value in zip(args[:2], answers, strict=True):
            if pointer and user.write(pointer, np.array([value], dtype=np.uint32)) < 1:
                return -Errno.EFAULT
        return 0

    def _policy_calls(self, caller: LiveTask) -> MempolicyCalls:
        if self._last is None or self._last[0] is not caller:
            calls = MempolicyCalls(
                LiveUserMemory(caller),
                LiveTaskTable(self.machine, caller),
                self.machine.semantics,
                self.machine.page_size_bytes,
                LivePolicies(self.machine, caller),
            )
            self._last = caller, calls
        return self._last[1]


def _no_such_call(_notification: Notification) -> Reply:
    return Value(-Errno.ENOSYS)


def _int(register: int) -> int:
    low = register & 0xFFFF_FFFF
    return low - (1 << 32) if low >> 31 else low


def _unsigned_int(register: int) -> int:
    return register & 0xFFFF_FFFF

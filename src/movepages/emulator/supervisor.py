"""Receives the calls of the program one by one and has a handler reply to each.

Whatever a handler does, the thread that called gets an answer: a handler that raises is counted,
and its call gets a plausible error (a NUMA call) or is carried out by the kernel (all others).
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from movepages.abi import CALLS, Errno
from movepages.emulator.replies import Continue, Descriptor, Reply, Value

if TYPE_CHECKING:
    from collections.abc import Mapping

    from movepages.emulator.replies import Handler
    from movepages.linux.seccomp import Listener, Notification

_NUMA_CALLS = frozenset(CALLS)
_OTHER = ("other", None)
_PLAUSIBLE = -Errno.ENOMEM
"""What any of the NUMA calls may answer on a day when the kernel is out of luck."""


@dataclass(slots=True)
class Tally:
    """How many calls were served, by name, and which errors of ours were papered over.

    `defects` counts (call, what was raised); `first_defect` is the first exception, for a
    traceback.
    """

    served: Counter[str] = field(default_factory=Counter)
    defects: Counter[tuple[str, str]] = field(default_factory=Counter)
    first_defect: Exception | None = None

    def complaint(self) -> str:
        """Return a line for the user about calls that were answered by guess; "" if none was."""
        if not self.defects:
            return ""
        (call, problem), _ = self.defects.most_common(1)[0]
        count = self.defects.total()
        calls = "1 call was" if count == 1 else f"{count} calls were"
        return (
            f"{calls} answered by guess, for the emulator failed ({call}: {problem}); this is a "
            "defect, please report it (MOVEPAGES_DEBUG=1 shows where it happened)"
        )


class Supervisor:
    """Serves a listener until no task under its filter is left."""

    def __init__(
        self, listener: Listener, handlers: Mapping[str, Handler], numbers: Mapping[str, int]
    ) -> None:
        """Take handlers by name of call, and the numbers of calls on this machine."""
        self.tally = Tally()
        self._listener = listener
        self._calls = {number: (call, handlers.get(call)) for call, number in numbers.items()}

    def serve(self) -> Tally:
        """Answer calls until all tasks are gone; return what was done."""
        listener, served = self._listener, self.tally.served
        while (notification := listener.receive()) is not None:
            call, handler = self._calls.get(notification.nr, _OTHER)
            served[call] += 1
            if handler is None:
                listener.let_through(notification.id)
                continue
            try:
                self._carry_out(notification, handler(notification))
            except Exception as problem:  # noqa: BLE001 - the program must have its answer
                self._guess(notification, call, problem)
        return self.tally

    def _carry_out(self, notification: Notification, reply: Reply) -> None:
        if isinstance(reply, Value):
            self._listener.answer(notification.id, reply.ret)
        elif isinstance(reply, Continue):
            self._listener.let_through(notification.id)
        elif isinstance(reply, Descriptor):
            try:
                self._listener.give(notification.id, reply.fd, cloexec=reply.cloexec)
            finally:
                os.close(reply.fd)
        else:
            raise TypeError(f"{reply!r} is no reply")

    def _guess(self, notification: Notification, call: str, problem: Exception) -> None:
        """Answer in place of a handler that raised, if the caller still waits."""
        if self._listener.is_valid(notification.id):
            self._note(call, problem)
            if call in _NUMA_CALLS:
                self._listener.answer(notification.id, _PLAUSIBLE)
            else:
                self._listener.let_through(notification.id)

    def _note(self, call: str, problem: Exception) -> None:
        self.tally.defects[call, f"{type(problem).__name__}: {problem}"] += 1
        self.tally.first_defect = self.tally.first_defect or problem

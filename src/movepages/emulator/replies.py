"""What a handler answers to a call of the program."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from movepages.linux.seccomp import Notification


class Value(NamedTuple):
    """The call returns this: 0 or more, or a negative errno."""

    ret: int


@dataclass(frozen=True, slots=True)
class Continue:
    """The kernel carries the call out, as if nobody had looked."""


class Descriptor(NamedTuple):
    """The call returns a new descriptor of the program's: a copy of `fd`.

    The handler gives `fd` away: it is closed once it is copied.
    """

    fd: int
    cloexec: bool


Reply = Value | Continue | Descriptor
Handler = Callable[[Notification], Reply]
"""Makes the reply to a call while its thread waits. May raise: then a plausible reply is made."""

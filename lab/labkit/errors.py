"""How a run of the lab can end, other than with the command's own exit code.

    LabError
    ├── UnavailableError   126   something is missing here: say what, and how to get it
    ├── GuestDiedError     125   the guest panicked or went away
    ├── GuestHungError     124   the boot or the agent stopped answering
    └── SignalledError   128+n  signal n ended the launcher

A command that overran its time-out (137, as if killed by SIGKILL) is not an error of the lab:
the guest lives on.
"""

from __future__ import annotations

import signal

USAGE = 2
HUNG = 124
DIED = 125
UNAVAILABLE = 126
TIMED_OUT = 128 + signal.SIGKILL


class LabError(Exception):
    """The lab could not do what it was asked to do; `code` is the launcher's exit code."""

    code = UNAVAILABLE


class UnavailableError(LabError):
    """The lab cannot run here. The message is one line: what is missing, how to get it."""

    code = UNAVAILABLE


class GuestDiedError(LabError):
    """The guest ended before it was told to: a panic, or a command that powered it off."""

    code = DIED


class GuestHungError(LabError):
    """The guest did not boot, or stopped answering, within its time."""

    code = HUNG


class SignalledError(LabError):
    """A signal ended the launcher."""

    def __init__(self, signum: int) -> None:
        """Remember which signal it was."""
        super().__init__(f"ended by {signal.Signals(signum).name}")
        self.code = 128 + signum

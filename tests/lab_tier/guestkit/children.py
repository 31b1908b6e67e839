"""Forked children that go on step by step, in turn with the test that forked them."""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import traceback
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Body = Callable[[], Iterator[Any]]

_PR_SET_DUMPABLE = 4


class Child:
    """A forked child that runs a generator: each `step` lets it go on to its next `yield`.

    A fork costs the guest milliseconds, a new interpreter seconds; and it shares its memory with
    the test, as a fork does.
    """

    def __init__(self, body: Body) -> None:
        """Fork; nothing of the body runs before the first step."""
        go, self._go = os.pipe()
        answers, answer = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            _live(body, go, answer)
        os.close(go)
        os.close(answer)
        self._answers = os.fdopen(answers, "rb")

    def step(self) -> Any:
        """Return what the child yields next; an error in the child fails the test."""
        os.write(self._go, b"!")
        worked, value = pickle.load(self._answers)  # noqa: S301 - from a child of this very process
        if not worked:
            pytest.fail(f"in the child:\n{value}", pytrace=False)
        return value

    def kill(self) -> None:
        """Kill the child and wait until it has ended: a zombie until it is reaped."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)

    def end(self) -> None:
        """Kill the child and reap it."""
        self.kill()
        os.waitpid(self.pid, 0)
        self._answers.close()
        os.close(self._go)


def become(uid: int) -> None:
    """Give up root for good, and stay a process that its own user may look at."""
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    set_dumpable(1)


def set_dumpable(value: int) -> None:
    """Let other processes of this user look at this one, or not: prctl(PR_SET_DUMPABLE)."""
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, value, 0, 0, 0)


def _live(body: Body, go: int, answer: int) -> None:
    """Be the child to its end: it never returns into the test that forked it."""
    try:
        with os.fdopen(answer, "wb") as answers:
            steps = iter(body())
            while os.read(go, 1):
                pickle.dump(_next(steps), answers)
                answers.flush()
    finally:
        os._exit(0)


def _next(steps: Iterator[Any]) -> tuple[bool, Any]:
    try:
        return True, next(steps)
    except BaseException:  # noqa: BLE001 - whatever it is, the test must hear of it
        return False, traceback.format_exc()

"""A guest that panics before it is up has one more try."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from labkit import launch
from labkit.errors import GuestDiedError


@dataclass
class Starting:
    """A guest that comes up, or dies on the way."""

    dies: bool

    def wait_until_ready(self):
        """Come up, or not."""
        if self.dies:
            raise GuestDiedError("the guest panicked\nOops: int3")


@pytest.fixture
def starts(monkeypatch):
    """Return a function that says how the next guests start."""

    def say(*dying):
        guests = iter([Starting(dies) for dies in dying])
        monkeypatch.setattr(launch, "_start", lambda *_: next(guests))

    return say


def test_a_panic_while_booting_is_tried_once_more(starts, capsys):
    """The second guest is the one that is used, and the first is spoken of."""
    starts(True, False)
    with launch.boot(None, None, None) as guest:
        assert not guest.dies
    assert capsys.readouterr().err == "lab: the guest panicked while it booted: once more\n"


def test_a_second_panic_while_booting_is_the_answer(starts):
    """Two in a row are no accident: the caller is told."""
    starts(True, True)
    with pytest.raises(GuestDiedError, match="int3"), launch.boot(None, None, None):
        pass

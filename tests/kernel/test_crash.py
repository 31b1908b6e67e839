"""What crashed or leaked in 2006, as errors with names."""

from __future__ import annotations

import pytest

from movepages.errors import MovePagesError
from movepages.kernel import (
    DOCUMENTED_2006,
    LINUX_2_6_18,
    LINUX_6_12,
    PATCH_2006,
    SimulatedMachine,
)
from movepages.kernel.crash import KernelBugError, StaleMemoryError


@pytest.mark.parametrize(
    ("semantics", "crashes"),
    [(DOCUMENTED_2006, False), (PATCH_2006, True), (LINUX_2_6_18, True), (LINUX_6_12, False)],
    ids=lambda value: str(getattr(value, "name", value)),
)
def test_only_the_code_of_2006_crashes(semantics, crashes):
    """The code of 2006 has these errors; its text, where undefined, is as today's kernel."""
    machine = SimulatedMachine("2 x 16M", semantics=semantics)
    machine.resize_pool(0, 1)
    p = machine.spawn()
    a = p.mmap(512, huge=True)
    p.write(a)
    if crashes:
        with pytest.raises(KernelBugError, match="FOLL_GET"):
            p.move_pages(0, [a], [1], 2)
    else:
        assert p.move_pages(0, [a], [1], 2)[1].tolist() == [1]
    machine.check()


def test_a_refused_call_does_not_crash():
    """Checks of the arguments come before any page is looked up."""
    machine = SimulatedMachine("2 x 16M", semantics=PATCH_2006)
    machine.resize_pool(0, 1)
    p = machine.spawn()
    a = p.mmap(512, huge=True)
    p.write(a)
    assert p.move_pages(0, [a], [9], 2)[0] == -19


def test_they_are_errors_of_ours():
    """Both can be caught as MovePagesError; a crash is no OSError, for no call returned."""
    for error in (KernelBugError, StaleMemoryError):
        assert issubclass(error, MovePagesError)
        assert not issubclass(error, OSError)

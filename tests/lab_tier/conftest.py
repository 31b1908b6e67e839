"""The fixtures of the lab's tests; each puts back what it changes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from guestkit.children import Child
from guestkit.memory import Memory
from guestkit.settings import Cpuset, HugePools

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from guestkit.children import Body


@pytest.fixture(autouse=True)
def _as_found() -> Iterator[None]:
    """Allocate on node 0, by running on CPU 0; see that a test leaves no child and no pool."""
    cpus = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {0})
    found = HugePools().counts(), _children()
    yield
    os.sched_setaffinity(0, cpus)
    assert (HugePools().counts(), _children()) == found


def _children() -> str:
    """Return the pids of this process's children, zombies included."""
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii")


@pytest.fixture
def memory() -> Iterator[Memory]:
    """Memory to map, unmapped again at the end."""
    mapped = Memory()
    yield mapped
    mapped.close()


@pytest.fixture
def cpuset() -> Iterator[Cpuset]:
    """A cgroup with a cpuset, still without limit or members."""
    made = Cpuset("lab_tier")
    yield made
    made.remove()


@pytest.fixture
def pools() -> Iterator[HugePools]:
    """The pools of huge pages, to be set at will; asked for before `memory`, which gives back."""
    found = HugePools()
    yield found
    found.restore()


@pytest.fixture
def fork() -> Iterator[Callable[..., Child]]:
    """Forks a child that runs a generator step by step, or just lives; it ends with the test."""
    children: list[Child] = []

    def start(body: Body = lambda: iter(())) -> Child:
        children.append(Child(body))
        return children[-1]

    yield start
    for child in children:
        child.end()

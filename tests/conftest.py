"""What holds for every test: where it may run, and that the lab leaves nothing out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from guestkit.children import Child
    from guestkit.memory import Memory
    from guestkit.settings import HugePools

LAB = os.environ.get("MOVEPAGES_LAB", "")
"""The topology of the lab that this runs in; "" on the host."""

TOPOLOGY_MARKERS = ("hotplug", "hmat", "tiny")


def pytest_configure(config: pytest.Config) -> None:
    """Make hypothesis repeatable in CI; guests run without its plugin, and need no profile."""
    if not config.pluginmanager.hasplugin("hypothesispytest"):
        return
    from hypothesis import settings

    settings.register_profile("local", deadline=None, print_blob=True)
    settings.register_profile("ci", settings.get_profile("local"), derandomize=True, database=None)
    settings.load_profile("ci" if os.environ.get("CI") else "local")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Count the tests for a topology of their own among the lab's."""
    for item in items:
        if any(item.get_closest_marker(name) for name in TOPOLOGY_MARKERS):
            item.add_marker("lab")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test that needs more nodes than this machine has."""
    marker = item.get_closest_marker("needs_nodes")
    wanted = marker.args[0] if marker else 2 if item.get_closest_marker("lab") else 0
    there = nodes_with_memory() if wanted > 1 else 1
    if wanted > there:
        pytest.skip(f"needs {wanted} nodes with memory, and here is {there}: try `make lab`")


def nodes_with_memory() -> int:
    """Count the nodes with memory; a kernel without NUMA has one."""
    path = Path("/sys/devices/system/node/has_memory")
    if not path.exists():
        return 1
    ranges = (part.split("-") for part in path.read_text().strip().split(","))
    return sum(int(ends[-1]) - int(ends[0]) + 1 for ends in ranges)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    """Make a skip in the lab a failure: there, everything that a test needs is there."""
    return _no_skip((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report():
    """Make the skip of a whole file in the lab a failure."""
    return _no_skip((yield))


def _no_skip(report):
    expected_to_fail = hasattr(report, "wasxfail")
    if LAB and report.skipped and not expected_to_fail:
        report.outcome = "failed"
        report.longrepr = f"skipped in the lab: {report.longrepr}"
    return report


@pytest.fixture
def memory() -> Iterator[Memory]:
    """Memory to map between guard pages, unmapped again at the end."""
    from guestkit.memory import Memory

    mapped = Memory()
    yield mapped
    mapped.close()


@pytest.fixture
def fork() -> Iterator[Callable[..., Child]]:
    """Forks a child that runs a generator step by step, or just lives; it ends with the test."""
    from guestkit.children import Child

    children: list[Child] = []

    def start(body: Callable[[], Iterator[object]] = lambda: iter(())) -> Child:
        children.append(Child(body))
        return children[-1]

    yield start
    for child in children:
        child.end()


@pytest.fixture
def unprivileged(fork: Callable[..., Child]) -> Callable[[Callable[[], object]], object]:
    """Calls a function in a forked child without root's rights, and returns what it returns."""
    from guestkit.children import become

    def called(function: Callable[[], object]) -> object:
        def body() -> Iterator[object]:
            if os.geteuid() == 0:
                become(1000)
            yield function()

        return fork(body).step()

    return called


@pytest.fixture
def root() -> None:
    """Leaves the test out for all but root, whose rights it needs."""
    if os.geteuid() != 0:
        pytest.skip("needs root")


@pytest.fixture
def pools(root: None) -> Iterator[HugePools]:  # noqa: ARG001 - a condition
    """The pools of huge pages, as large as they were found at the end."""
    from guestkit.settings import HugePools

    found = HugePools()
    yield found
    found.restore()


@pytest.fixture
def huge_pages(root: None) -> Iterator[None]:  # noqa: ARG001 - a condition
    """Lets processes of this machine map up to 32 huge pages, whatever its pools have."""
    from guestkit.settings import huge_pages_on_demand

    with huge_pages_on_demand(32):
        yield

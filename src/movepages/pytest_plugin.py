"""A pytest plugin: `@pytest.mark.numa_nodes(4)` runs a test on NUMA nodes that are not there.

The call phase of such a test runs in a forked child under the emulator, all hooks of pytest
included, so that its report is made where things happen; the report is then taken for that of
pytest's own call phase, which has nothing to do. Fixtures are set up and torn down by pytest
itself, outside. Nothing of ours is imported until a test with the marker has been collected.
"""

from __future__ import annotations

import re
import signal
import sys
import warnings
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from movepages.emulator.forked import Ended, Forked
    from movepages.emulator.run import World
    from movepages.topology import Topology

MARKER = "numa_nodes"
UNAVAILABLE = "numa_nodes_unavailable"
_SIGNATURE = f"{MARKER}(nodes=None, *, topology=None, semantics='6.12', precision=None)"
_OF_PYTEST = "/_pytest/"
"""In the traceback of a crash, the frames from here on have nothing to do with the test."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    """The machine that a marker asks for; `precision` "" is the best that works here."""

    topology: Topology
    semantics: str
    precision: str


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What to report: what the child has reported, or why there is no child."""

    report: pytest.TestReport | None = None
    unavailable: str = ""


_wanted = pytest.StashKey[_Wanted]()
_recorded = pytest.StashKey[list[warnings.WarningMessage]]()
_outcome = pytest.StashKey[_Outcome]()
_inside = pytest.StashKey[bool]()
_not_answered = pytest.StashKey[str]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare what to do where the emulator cannot work."""
    parser.addini(
        UNAVAILABLE,
        f"What becomes of tests with the marker {MARKER} where movepages cannot emulate nodes: "
        "fail or skip.",
        default="fail",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line(
        "markers",
        f"{_SIGNATURE}: run the test on so many emulated NUMA nodes, or on the machine declared, "
        "such as '2x(2cpu,1G) + 1x(0cpu,4G)'",
    )
    if (chosen := config.getini(UNAVAILABLE)) not in {"fail", "skip"}:
        raise pytest.UsageError(f"{UNAVAILABLE} = {chosen}: write fail or skip")


# -- what a marker asks for ---------------------------------------------------------------------


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Read the markers of all tests that will run, before any does. Raises UsageError."""
    problems = []
    for item in items:
        if marker := item.get_closest_marker(MARKER):
            try:
                item.stash[_wanted] = _read(*marker.args, **marker.kwargs)
            except (TypeError, ValueError) as error:
                problems.append(f"{item.nodeid}: {_without_name(error)}")
    if problems:
        raise pytest.UsageError(*problems)


def _read(
    nodes: object = None,
    *,
    topology: object = None,
    semantics: object = "6.12",
    precision: object = None,
) -> _Wanted:
    """Read what a marker says. Raises TypeError and ValueError, TopologyError among them."""
    from movepages.emulator.declared import MOST_NODES, PRECISIONS, SEMANTICS, equal_nodes
    from movepages.topology import Topology, parse_topology

    if (nodes is None) == (topology is None):
        raise ValueError(f"{MARKER} takes a number of nodes, as in {MARKER}(4), or topology=")
    if nodes is not None:
        if type(nodes) is not int or not 1 <= nodes <= MOST_NODES:
            raise ValueError(
                f"{MARKER}({nodes!r}): the number of nodes is a whole number from 1 to "
                f"{MOST_NODES}; a machine of another kind is declared with topology="
            )
        topology = equal_nodes(nodes) if sys.platform == "linux" else str(nodes)
    if isinstance(topology, str):
        topology = parse_topology(topology)
    if not isinstance(topology, Topology):
        raise TypeError(
            f"{MARKER}(topology={topology!r}): topology is a text such as "
            "'2x(2cpu,1G) + 1x(0cpu,4G)', or a movepages.topology.Topology"
        )
    _choose("semantics", semantics, tuple(SEMANTICS))
    _choose("precision", precision, (*PRECISIONS, None))
    return _Wanted(topology, str(semantics), str(precision or ""))


def _choose(name: str, chosen: object, among: tuple[object, ...]) -> None:
    if chosen not in among:
        *most, last = map(repr, among)
        raise ValueError(f"{MARKER}({name}={chosen!r}): {name} is {', '.join(most)} or {last}")


def _without_name(error: Exception) -> str:
    """Say what is wrong, in a sentence that names the marker."""
    message = str(error)
    if message.startswith(MARKER):
        return message
    if message.startswith("_read()"):
        return f"{message.replace('_read()', f'{MARKER}()')}; write {_SIGNATURE}"
    return f"{MARKER}: {message}"


# -- outside: in pytest's own process -----------------------------------------------------------


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Keep a list of warnings, to which those of the child can be added."""
    if _wanted not in item.stash:
        return (yield)
    recorded: list[warnings.WarningMessage] = []
    try:
        with warnings.catch_warnings(record=True) as recorded:
            item.stash[_recorded] = recorded
            return (yield)
    finally:
        for one in recorded:
            warnings.showwarning(one.message, one.category, one.filename, one.lineno)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Run the test elsewhere, and let pytest go through the motions here."""
    if _wanted not in item.stash or _inside in item.stash:
        return (yield)
    item.runtest = _run_elsewhere(item)  # type: ignore[method-assign]
    try:
        return (yield)
    finally:
        del item.runtest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Put what the child has reported in the place of the report on those motions."""
    made = yield
    if call.when != "call" or _outcome not in item.stash:
        return made
    outcome = item.stash[_outcome]
    del item.stash[_outcome]
    if outcome.unavailable:
        _report_unavailable(item, made, outcome.unavailable)
    return outcome.report or made


def _report_unavailable(item: pytest.Item, report: pytest.TestReport, reason: str) -> None:
    """Never let it pass for the failure that a test with xfail expects."""
    vars(report).pop("wasxfail", None)
    if item.config.getini(UNAVAILABLE) == "skip":
        path, line, _ = item.reportinfo()
        report.outcome, report.longrepr = "skipped", (str(path), (line or 0) + 1, reason)
    else:
        report.outcome = "failed"
        report.longrepr = f"{reason}; or let such tests be skipped with {UNAVAILABLE} = skip"


def _run_elsewhere(item: pytest.Item) -> Callable[[], None]:
    """Run the call phase in a child; return what to do here in place of the test."""
    __tracebackhide__ = True
    wanted = item.stash[_wanted]
    if problem := _why_not(item.config, wanted):
        item.stash[_outcome] = _Outcome(unavailable=problem)
        return _do_nothing
    forked = _start(item, wanted)
    try:
        return _take_over(item, forked.wait())
    except KeyboardInterrupt:
        forked.interrupt()
        raise
    except pytest.fail.Exception as failure:  # an alarm that the child did not heed
        return partial(pytest.fail, str(failure), pytrace=False)
    finally:
        forked.end()


def _why_not(config: pytest.Config, wanted: _Wanted) -> str:
    """Return why the emulator cannot work here, and what to do; "" if it can."""
    if sys.platform != "linux":
        return f"{MARKER} needs Linux, whose system calls it answers"
    from movepages.emulator.check import notification_problem, perf_problem

    if _not_answered not in config.stash:
        config.stash[_not_answered] = notification_problem()
    problem = config.stash[_not_answered]
    if not problem and wanted.precision == "faults":
        problem = perf_problem()
    return problem and f"{MARKER} cannot emulate nodes here: {problem}"


def _start(item: pytest.Item, wanted: _Wanted) -> Forked:
    # Imported here, once, with NumPy and all that the emulator needs: no child has to.
    from movepages.emulator import machine  # noqa: F401
    from movepages.emulator.check import best_precision
    from movepages.emulator.deferred import defer_machine
    from movepages.emulator.filter import Precision
    from movepages.emulator.forked import Forked, Function
    from movepages.emulator.pytest_child import call_phase, flush
    from movepages.emulator.run import Settings

    precision = Precision(wanted.precision) if wanted.precision else best_precision()

    def make_world() -> World:
        world = defer_machine(wanted.topology, wanted.semantics, precision)
        world.notice = ""  # which CPUs the host lacks would be said for every test
        return world

    def body(begin: Callable[[], None]) -> bytes:
        item.stash[_inside] = True
        return call_phase(item, item.stash[_recorded], begin)

    flush(item.config)
    return Forked(Function(item.nodeid, body), make_world, Settings(precision))


def _take_over(item: pytest.Item, ended: Ended) -> Callable[[], None]:
    """Make what has happened to the child happen here; return what to do in place of the test."""
    from movepages.emulator.pytest_child import Told

    if ended.answer is None:
        item.add_report_section("call", "emulator", ended.said)
        return partial(pytest.fail, ended.failure or _died(ended), pytrace=False)
    told = Told.unpack(ended.answer)
    item.stash[_recorded] += [warnings.WarningMessage(*one) for one in told.warnings]
    reports = [
        item.config.hook.pytest_report_from_serializable(config=item.config, data=data)
        for data in (*told.earlier, told.report)
        if data
    ]
    for earlier in reports[: len(told.earlier)]:
        item.ihook.pytest_runtest_logreport(report=earlier)
    if told.broken:
        return partial(pytest.fail, told.broken, pytrace=False)
    if told.interrupted:
        raise KeyboardInterrupt
    if told.exit:
        raise pytest.exit.Exception(*told.exit)
    _adopt(item, reports[-1], ended.said)
    return _do_nothing


def _adopt(item: pytest.Item, report: pytest.TestReport, said: str) -> None:
    """Make a report of the child that of the test, and let the item know what is in it."""
    for title, content in report.sections:
        if match := re.fullmatch(r"Captured (\w+) call", title):
            item.add_report_section("call", match[1], content)
    if said:
        report.sections.append(("Captured emulator call", said))
    item.user_properties[:] = report.user_properties
    item.stash[_outcome] = _Outcome(report)


def _died(ended: Ended) -> str:
    """Say how a child has ended that has not reported, with Python's traceback of a crash."""
    if ended.code >= 0:
        return (
            f"the test ended its process with exit code {ended.code} instead of returning, "
            "as os._exit does"
        )
    lines = takewhile(lambda line: _OF_PYTEST not in line, ended.crash.splitlines())
    name = signal.Signals(-ended.code).name
    return "\n".join([f"the test was killed by {name}", *lines])


def _do_nothing() -> None:
    """Be the test, which has run elsewhere."""

"""What becomes of a test in the child that runs it under the emulator, and how that is told.

The child does all that pytest does in the call phase of a test, hooks included, and sends the
report as pytest-xdist does, together with what pytest gathers elsewhere: warnings, and reports that
are logged meanwhile (subtests).
"""

from __future__ import annotations

import pickle
import sys
import traceback
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from warnings import WarningMessage


@dataclass(frozen=True, slots=True)
class Told:
    """What the child tells: its report, or what is to end the session."""

    report: dict[str, Any] = field(default_factory=dict)
    """As pytest_report_to_serializable makes it; empty if there is none."""
    broken: str = ""
    """The traceback of a hook of pytest's that raised."""
    interrupted: bool = False
    exit: tuple[str, int | None] | None = None
    """What pytest.exit was called with: reason and exit code."""
    earlier: list[dict[str, Any]] = field(default_factory=list)
    """Reports that were logged before."""
    warnings: list[tuple[Warning | str, type[Warning], str, int]] = field(default_factory=list)
    """Message, category, file name, line."""

    @classmethod
    def unpack(cls, data: bytes) -> Told:
        """Read what `call_phase` has returned."""
        told: Told = pickle.loads(data)  # noqa: S301 - from our own child
        return told


def call_phase(
    item: pytest.Item, recorded: list[WarningMessage], begin: Callable[[], None]
) -> bytes:
    """Run the call phase of a test; return what is to be told of it, a `Told`.

    Warnings are appended to `recorded` by whoever records them; `begin` lets signals arrive.
    """
    known = len(recorded)
    earlier: list[dict[str, Any]] = []
    item.config.pluginmanager.register(_Earlier(item.config, earlier))
    told = _told(item, begin, earlier)
    told.warnings.extend(_portable_warning(one) for one in recorded[known:])
    flush(item.config)
    return pickle.dumps(told)


def flush(config: pytest.Config) -> None:
    """Write what is left in buffers, which a fork would double and an exit lose."""
    for stream in (sys.stdout, sys.stderr, config.get_terminal_writer()):
        stream.flush()


def _told(item: pytest.Item, begin: Callable[[], None], earlier: list[dict[str, Any]]) -> Told:
    try:
        return Told(_portable(_report_on(item, begin), item.config), earlier=earlier)
    except KeyboardInterrupt:
        return Told(interrupted=True, earlier=earlier)
    except pytest.exit.Exception as error:
        return Told(exit=(error.msg or "", error.returncode), earlier=earlier)
    except Exception:  # noqa: BLE001 - whatever a plugin raises
        return Told(broken=traceback.format_exc(), earlier=earlier)


def _report_on(item: pytest.Item, begin: Callable[[], None]) -> pytest.TestReport:
    """Do as `runtestprotocol` of pytest."""
    ends_session: tuple[type[BaseException], ...] = (pytest.exit.Exception, KeyboardInterrupt)

    def run() -> None:
        begin()
        item.ihook.pytest_runtest_call(item=item)

    call = pytest.CallInfo.from_call(run, "call", reraise=ends_session)
    report: pytest.TestReport = item.ihook.pytest_runtest_makereport(item=item, call=call)
    failed = report.failed and not hasattr(report, "wasxfail")
    if failed and item.config.getoption("usepdb", default=False):
        item.ihook.pytest_exception_interact(node=item, call=call, report=report)
    # Here, pytest 9 makes a test fail for its subtests, which it counts in this process.
    item.ihook.pytest_report_teststatus(report=report, config=item.config)
    return report


class _Earlier:
    """Keeps reports that are logged in the child for pytest's own process, which will show them."""

    def __init__(self, config: pytest.Config, reports: list[dict[str, Any]]) -> None:
        self._config, self._reports = config, reports

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> Generator[None, None, None]:
        """Keep a report, and keep the terminal from showing it."""
        self._reports.append(_portable(report, self._config))
        with _silent(self._config.get_terminal_writer()):
            yield


@contextmanager
def _silent(writer: Any) -> Iterator[None]:
    file = writer._file  # noqa: SLF001 - a writer cannot be told to be silent
    with Path("/dev/null").open("w", encoding="utf-8") as nowhere:
        writer._file = nowhere  # noqa: SLF001
        try:
            yield
        finally:
            writer._file = file  # noqa: SLF001


def _portable(report: pytest.TestReport, config: pytest.Config) -> dict[str, Any]:
    """Return a report as data, in which what cannot be pickled is described."""
    report.user_properties = [
        (name, value if _can_travel(value) else repr(value))
        for name, value in report.user_properties
    ]
    data = config.hook.pytest_report_to_serializable(config=config, report=report)
    return {name: value if _can_travel(value) else repr(value) for name, value in data.items()}


def _portable_warning(one: WarningMessage) -> tuple[Warning | str, type[Warning], str, int]:
    if _can_travel((one.message, one.category)):
        return one.message, one.category, one.filename, one.lineno
    return f"{one.category.__name__}: {one.message}", UserWarning, one.filename, one.lineno


def _can_travel(value: object) -> bool:
    try:
        pickle.loads(pickle.dumps(value))  # noqa: S301 - as pytest's own process will
    except Exception:  # noqa: BLE001 - whatever its class raises
        return False
    return True

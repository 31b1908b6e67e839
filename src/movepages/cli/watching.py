"""Showing a thing again and again: in place on a terminal, one after the other in a pipe."""

from __future__ import annotations

import io
from dataclasses import replace
from shutil import get_terminal_size
from typing import TYPE_CHECKING

from movepages.placement.clock import wait

if TYPE_CHECKING:
    from collections.abc import Callable

    from movepages.placement.clock import Clock
    from movepages.report.output import Output

_HOME = "\x1b[H"
_CLEAR_LINE = "\x1b[K"
_CLEAR_BELOW = "\x1b[J"
_CLEAR = "\x1b[H\x1b[2J"


def watch(
    show: Callable[[Output], None],
    output: Output,
    every_s: float,
    clock: Clock,
    stop: Callable[[], bool],
) -> None:
    """Show something at once and then every so many seconds, until it is time to stop.

    A time that is missed, because showing took longer, is left out. What `show` raises ends it.
    """
    begin, times = clock.now(), 0
    if output.terminal:
        output.stream.write(_CLEAR)
    while not stop():
        if output.terminal:
            _show_in_place(show, output)
        else:
            show(output)
        output.stream.flush()
        times = max(times + 1, int((clock.now() - begin) / every_s) + 1)
        wait(clock, begin + times * every_s - clock.now(), stop)


def _show_in_place(show: Callable[[Output], None], output: Output) -> None:
    """Show it over what was there; all of it is written at once, so that it does not flicker."""
    text = io.StringIO()
    show(replace(output, stream=text))
    lines = text.getvalue().splitlines()[: get_terminal_size().lines - 1]
    in_place = "".join(f"{line}{_CLEAR_LINE}\n" for line in lines)
    output.stream.write(f"{_HOME}{in_place}{_CLEAR_BELOW}")

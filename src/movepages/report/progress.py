"""How far a move has come: one line on a terminal that is written over, and nothing elsewhere."""

from __future__ import annotations

from shutil import get_terminal_size
from typing import TYPE_CHECKING, TextIO

from movepages.report.fields import count
from movepages.units import format_size

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from movepages.placement import Progress

_BAR_WIDTH = 20
_EVERY_S = 0.1
_CLEAR = "\r\x1b[K"


class ProgressBar:
    """Shows progress on a stream, if that is a terminal. A context manager: it clears its line."""

    def __init__(self, stream: TextIO) -> None:
        """Show nothing yet."""
        self._stream = stream
        self._terminal = stream.isatty()
        self._shown_at = 0.0
        self._shown = False

    def __enter__(self) -> Self:
        """Begin a block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Clear the line."""
        if self._shown:
            self._stream.write(_CLEAR)
            self._stream.flush()

    def show(self, progress: Progress) -> None:
        """Show how far the work has come, ten times a second at most."""
        if not self._terminal or 0 <= progress.seconds - self._shown_at < _EVERY_S:
            return
        self._shown_at = progress.seconds
        self._shown = True
        line = described(progress)[: get_terminal_size().columns - 1]
        self._stream.write(f"{_CLEAR}{line}")
        self._stream.flush()


def described(progress: Progress) -> str:
    """Describe progress: a bar, pages, the rate of what moved, and how long the rest will take."""
    share = progress.size_bytes / progress.total_bytes if progress.total_bytes else 1.0
    filled = int(share * _BAR_WIDTH)
    rate = progress.moved_bytes / progress.seconds if progress.seconds > 0 else 0.0
    left = progress.seconds * (1 - share) / share if share else 0.0
    return (
        f"[{'#' * filled}{'.' * (_BAR_WIDTH - filled)}] {int(share * 100)}%  "
        f"{count(progress.pages)} of {count(progress.total_pages)} pages  "
        f"{format_size(rate)}/s  {_duration(left)} left"
    )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02}"

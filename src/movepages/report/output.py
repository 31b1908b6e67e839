"""Where a report goes: a terminal, with rich's styles, or a pipe, as plain aligned text."""

from __future__ import annotations

import os
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

from movepages.report import layout

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rich.console import Console

    from movepages.report.fields import Field

_PARAGRAPH_WIDTH = 80


@dataclass(frozen=True, slots=True)
class Output:
    """A stream and what it can show. `width` is in characters, None where lines may be any length.

    rich is imported only for a terminal, at the first styled piece.
    """

    stream: TextIO
    terminal: bool = False
    width: int | None = None
    colour: bool = False

    @classmethod
    def to(cls, stream: TextIO, environment: Mapping[str, str] = os.environ) -> Output:
        """Return an output for a stream, with styles only where it is a terminal that has UTF-8.

        NO_COLOR (no-color.org) and TERM=dumb switch the colours off.
        """
        if not stream.isatty() or stream.encoding.lower() != "utf-8":
            return cls(stream)
        from shutil import get_terminal_size

        plain = environment.get("NO_COLOR") or environment.get("TERM", "dumb") == "dumb"
        return cls(
            stream,
            terminal=True,
            width=get_terminal_size().columns,
            colour=not plain,
        )

    def line(self, text: str = "") -> None:
        """Write a line as it is."""
        self.stream.write(f"{text}\n")

    def styled(self, *pieces: tuple[str, str]) -> None:
        """Write a line of pieces, each a text and its style in rich's words."""
        if not self.terminal:
            self.line("".join(text for text, _ in pieces).rstrip())
            return
        from rich.text import Text

        self._console().print(Text.assemble(*pieces), soft_wrap=True)

    def heading(self, text: str) -> None:
        """Write a line that heads what follows."""
        self.styled((text, "bold"))

    def sentence(self, text: str, indent: int = 0) -> None:
        """Write a sentence: on one line; on a terminal on more, so that no word is cut.

        All lines but the first begin with `indent` blanks.
        """
        if self.width is not None and len(text) > self.width:
            text = textwrap.fill(
                text,
                self.width,
                subsequent_indent=" " * indent,
                break_long_words=False,
                break_on_hyphens=False,
            )
        self.line(text)

    def paragraph(self, text: str) -> None:
        """Write a text as lines that fit, a little to the right of what stands above."""
        for text_line in textwrap.wrap(text, (self.width or _PARAGRAPH_WIDTH) - 2):
            self.line(f"  {text_line}")

    def table(self, columns: Sequence[Field], rows: Iterable[Any]) -> None:
        """Write a table of values: each column is read from the attribute of its name."""
        body = layout.fit(columns, [layout.cells(columns, row) for row in rows], self.width)
        if not self.terminal:
            for text in layout.lines(columns, body):
                self.line(text)
            return
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, padding=(0, len(layout.GAP), 0, 0))
        for column in columns:
            table.add_column(
                Text(column.title), justify="right" if column.right else "left", no_wrap=True
            )
        for row in body:
            table.add_row(
                *(
                    Text.assemble(*column.pieces(cell)) if column.pieces else Text(cell)
                    for column, cell in zip(columns, row, strict=True)
                )
            )
        self._console().print(table)

    def stream_table(self, columns: Sequence[Field], rows: Iterable[Any]) -> None:
        """Write a table of any length row by row, plain on a terminal too."""
        bodies = (layout.cells(columns, row) for row in rows)
        for text in layout.stream(columns, bodies, self.width):
            self.line(text)

    def _console(self) -> Console:
        from rich.console import Console

        return Console(
            file=self.stream,
            width=self.width,
            force_terminal=True,
            color_system="standard" if self.colour else None,
            highlight=False,
        )

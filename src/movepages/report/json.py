r"""Write JSON. Imported only for `--json`.

Names from the kernel may hold bytes that are not UTF-8: they become lone surrogates (`\udcff`), as
Python's surrogateescape has them, so that nothing is lost.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from movepages.report.output import Output


def write_document(output: Output, document: Mapping[str, Any]) -> None:
    """Write an object with a line for each member, and for each element of a list of objects.

    An iterator is of objects that are encoded already: they are written while they come.
    """
    separator = "{"
    for key, value in document.items():
        output.stream.write(f"{separator}\n  {json.dumps(key)}: ")
        if isinstance(value, Iterator):
            _write_rows(output, value)
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            _write_rows(output, map(json.dumps, value))
        else:
            output.stream.write(json.dumps(value))
        separator = ","
    output.line("\n}")


def write_line(output: Output, document: Mapping[str, Any]) -> None:
    """Write an object on one line, as one of a stream of them."""
    text = io.StringIO()
    write_document(replace(output, stream=text), document)
    output.line("".join(line.strip() for line in text.getvalue().split("\n")))


def encoded(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Encode objects one by one, for a member that may be long."""
    return map(json.dumps, rows)


def _write_rows(output: Output, rows: Iterable[str]) -> None:
    separator = "["
    for row in rows:
        output.stream.write(f"{separator}\n    {row}")
        separator = ","
    output.stream.write("[]" if separator == "[" else "\n  ]")

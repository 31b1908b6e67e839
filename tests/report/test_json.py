from __future__ import annotations

import io
import json

import pytest

from movepages.report.json import encoded, write_document
from movepages.report.output import Output


def written(document):
    """Return a document as it is written."""
    stream = io.StringIO()
    write_document(Output(stream), document)
    return stream.getvalue()


@pytest.mark.parametrize(
    "document",
    [
        {"a": 1, "b": None, "c": [1, 2], "d": {"0": 1}},
        {"rows": [{"a": 1}, {"a": 2}]},
        {"rows": []},
        {"name": '"\\\n\x1b\udcff'},
    ],
)
def test_what_is_written_reads_back(document):
    """Any reader of JSON gets what was written, bytes that are not UTF-8 included."""
    assert json.loads(written(document)) == document


def test_lines():
    """Members and elements of lists of objects have a line each; everything else is compact."""
    assert written({"pid": 7, "nodes": [0, 1], "rows": [{"a": 1}, {"a": 2}]}).splitlines() == [
        "{",
        '  "pid": 7,',
        '  "nodes": [0, 1],',
        '  "rows": [',
        '    {"a": 1},',
        '    {"a": 2}',
        "  ]",
        "}",
    ]


@pytest.mark.parametrize("rows", [[], [{"a": 1}], [{"a": 1}, {"a": 2}]])
def test_rows_that_come_one_by_one(rows):
    """An iterator of encoded objects is written as their list."""
    assert json.loads(written({"rows": encoded(rows), "end": 1})) == {"rows": rows, "end": 1}

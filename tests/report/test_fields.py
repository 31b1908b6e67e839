from __future__ import annotations

import dataclasses
import re

import pytest
from hypothesis import given, strategies as st

from movepages.report import by_node, nodes, pages, process
from movepages.report.fields import (
    FIELDS,
    count,
    counted,
    node_sizes,
    number_ranges,
    printable,
    shorten_list,
    shorten_middle,
    shorten_path,
)
from movepages.topology import Access, HugePool
from movepages.values import Mapping

UNITS = {"bytes": "bytes", "nanoseconds": "ns", "MiB per second": "mib_per_s"}


@pytest.mark.parametrize("field", FIELDS.values(), ids=lambda field: field.name)
def test_unit_stands_in_the_name(field):
    """A field in bytes, nanoseconds or MiB/s says so in its name, and only such a field does."""
    suffix = UNITS.get(field.unit)
    ends = [end for end in UNITS.values() if re.search(rf"_{end}$", field.name)]
    assert ends == ([suffix] if suffix else [])


@pytest.mark.parametrize(
    ("columns", "kind"),
    [
        (nodes.NODE, nodes.NodeRow),
        (nodes.ACCESS, Access),
        (nodes.HUGE_POOL, HugePool),
        (process.MAPPING, Mapping),
        (pages.RUN, pages.PageRun),
        (by_node.BEFORE_AFTER, by_node.BeforeAfter),
        (by_node.BEFORE_PLANNED, by_node.BeforeAfter),
    ],
)
def test_fields_are_attributes(columns, kind):
    """Each field of a table is an attribute of the value that the table shows."""
    names = {field.name for field in dataclasses.fields(kind)} | set(dir(kind))
    assert {column.name for column in columns} <= names


@pytest.mark.parametrize(
    ("by_node", "text"),
    [
        ({}, "-"),
        ({3: 4096}, "3"),
        ({0: 4096, 1: 2 << 30}, "1:2G 0:4K"),
        ({1: 4096, 0: 4096}, "0:4K 1:4K"),
    ],
)
def test_node_sizes(by_node, text):
    """One node is named; several come with their sizes, most first, equals in order of node."""
    assert node_sizes(by_node) == text


@pytest.mark.parametrize(
    ("numbers", "text"), [((), "-"), ((0,), "0"), ((0, 1, 2, 8), "0-2,8"), ((5, 1), "1,5")]
)
def test_number_ranges(numbers, text):
    """Numbers are written as the kernel writes lists, none as a dash."""
    assert number_ranges(numbers) == text


def test_counts():
    """Large numbers have their thousands apart, and one of a thing is not several."""
    assert count(1234567) == "1,234,567"
    assert [counted(number, "page") for number in (0, 1, 2)] == ["0 pages", "1 page", "2 pages"]


@pytest.mark.parametrize(
    ("text", "width", "shown"),
    [
        ("/usr/bin/python3", 16, "/usr/bin/python3"),
        ("/usr/bin/python3", 15, "/usr/…n/python3"),
        ("/usr/bin/python3", 3, "/…3"),
        ("/usr/bin/python3", 2, "n3"),
        ("/usr/bin/python3", 0, ""),
    ],
)
def test_shorten_middle(text, width, shown):
    """A text that fits stays whole; one character less, and its middle gives way."""
    assert shorten_middle(text, width) == shown


@given(st.text(max_size=40), st.integers(min_value=0, max_value=50))
def test_shorten_middle_fits(text, width):
    """Whatever the text and the width, it fits, and a text that fits is not touched."""
    shown = shorten_middle(text, width)
    assert len(shown) <= width
    assert (shown == text) is (len(text) <= width)


@pytest.mark.parametrize(
    ("width", "shown"),
    [(16, "/usr/bin/python3"), (15, "…sr/bin/python3"), (2, "…3"), (1, "3"), (0, "")],
)
def test_shorten_path(width, shown):
    """A path keeps its end, which is the name of the file."""
    assert shorten_path("/usr/bin/python3", width) == shown


@given(st.text(max_size=40), st.integers(min_value=0, max_value=50))
def test_shorten_path_fits(text, width):
    """Whatever the path and the width, it fits, and a path that fits is not touched."""
    shown = shorten_path(text, width)
    assert len(shown) <= width
    assert (shown == text) is (len(text) <= width)


@pytest.mark.parametrize(
    ("text", "width", "shown"),
    [
        ("0:1G 1:1G 2:1G", 14, "0:1G 1:1G 2:1G"),
        ("0:1G 1:1G 2:1G", 13, "0:1G 1:1G +1"),
        ("0:1G 1:1G 2:1G", 11, "0:1G +2"),
        ("0:1G 1:1G 2:1G", 2, "0:1G +2"),
        ("interleave", 3, "interleave"),
    ],
)
def test_shorten_list(text, width, shown):
    """Words go from the end, and how many went is said; the first word always stays."""
    assert shorten_list(text, width) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/usr/lib/a b", "/usr/lib/a b"),
        ("naïve-日本", "naïve-日本"),
        ("a\nb\tc", r"a\nb\tc"),
        ("\x1b[31m", r"\x1b[31m"),
        ("\udcff\udc80", r"\xff\x80"),
        ("\u202egnp", r"\u202egnp"),
    ],
)
def test_printable(text, shown):
    """What could move a terminal's cursor, colour or direction is written as an escape."""
    assert printable(text) == shown


@given(st.text())
def test_printable_is_printable(text):
    """Whatever a process is called, its name is shown as printable characters only."""
    assert printable(text).isprintable()

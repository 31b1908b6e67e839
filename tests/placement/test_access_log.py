"""A profiler's log is read as it is written, and what makes no sense is named by line and field."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, strategies as st

from movepages.errors import MalformedError
from movepages.placement import access_log
from movepages.placement.access_log import read_access_log
from movepages.values import NO_NODE

HEADER = "pid,address,node,count\n"


def rows(log):
    """Return a log as tuples of (pid, address, node, cpu, count)."""
    columns = (log.pid, log.address, log.node, log.cpu, log.count)
    return list(zip(*(column.tolist() for column in columns), strict=True))


ROW = st.tuples(
    st.integers(1, 2**31 - 1),
    st.integers(0, 2**64 - 1),
    st.integers(0, 65535),
    st.booleans(),
    st.integers(0, 2**40),
)


@given(st.lists(ROW, max_size=8), st.booleans(), st.sampled_from(["\n", "\r\n"]))
def test_csv_is_read_as_written(lines, by_cpu, newline):
    """Each line is a row, its address with 0x or without; blank lines do not count."""
    text = f"pid,address,{'cpu' if by_cpu else 'node'},count{newline}{newline}"
    for pid, address, where, prefix, count in lines:
        text += f"{pid},{'0x' if prefix else ''}{address:x},{where},{count}{newline}"
    log = read_access_log(text.encode())
    known = [(NO_NODE, where) if by_cpu else (where, NO_NODE) for _, _, where, _, _ in lines]
    assert rows(log) == [
        (pid, address, *there, count)
        for (pid, address, _, _, count), there in zip(lines, known, strict=True)
    ]
    dtypes = [each.dtype for each in (log.pid, log.address, log.node, log.cpu, log.count)]
    assert dtypes == [np.int32, np.uint64, np.int32, np.int32, np.int64]


@given(st.lists(st.tuples(ROW, st.booleans(), st.booleans()), min_size=1, max_size=8))
def test_json_lines_are_read_as_written(lines):
    """An address is a text in hexadecimal or a number; each line has a node or a CPU."""
    text, expected = "", []
    for (pid, address, where, as_text, count), by_cpu, blank in lines:
        record = {"pid": pid, "address": f"{address:#x}" if as_text else address, "count": count}
        record["cpu" if by_cpu else "node"] = where
        text += json.dumps(record) + ("\n\n" if blank else "\n")
        expected.append((pid, address, *((NO_NODE, where) if by_cpu else (where, NO_NODE)), count))
    assert rows(read_access_log(text.encode())) == expected


def test_columns_in_any_order_and_others():
    """What stands in other columns is no business of ours; names may be written large."""
    text = "time, Count ,COMM,Address,PID,cpu\n1.5,3,a b,1F,7,2\n1.6, 4 ,c\x1b, 20 , 8, 0\n"
    assert rows(read_access_log(text.encode())) == [(7, 31, -1, 2, 3), (8, 32, -1, 0, 4)]


def test_a_byte_order_mark():
    """Spreadsheets write one; it is not part of the first name."""
    assert rows(read_access_log(("\ufeff" + HEADER + "7,1f,0,1").encode())) == [(7, 31, 0, -1, 1)]


@pytest.mark.parametrize("text", [HEADER, HEADER.strip(), HEADER + "\n\r\n"])
def test_no_accesses(text):
    """A header alone is a log without rows."""
    assert len(read_access_log(text.encode())) == 0


@pytest.mark.parametrize(
    ("header", "told"),
    [
        ("", "there is no column pid"),
        ("pid,addr,node,count", "there is no column address"),
        ("pid,address,node", "there is no column count"),
        ("pid,address,count", "it names neither node nor cpu"),
        ("pid,address,node,cpu,count", "it names both node and cpu"),
        ("pid,address,node,count,count", "it names count twice"),
        ("pid,node,address,node,count", "it names node twice"),
    ],
)
def test_a_header_that_does_not_do(header, told):
    """It is said which column is missing, or is there too often."""
    with pytest.raises(MalformedError, match=f"f.csv, line 1: header: {told}"):
        read_access_log(f"{header}\n1,2,3,4\n".encode(), "f.csv")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("1,2,3", "line: it has 3 fields, the header 4"),
        ("1,2,3,4,", "line: it has 5 fields, the header 4"),
        (",1f,0,1", "pid: '' is not a number"),
        ("x,1f,0,1", "pid: 'x' is not a number"),
        ("1_0,1f,0,1", "pid: '1_0' is not a number"),
        ("+1,1f,0,1", r"pid: '\+1' is not a number"),
        ("\u0661,1f,0,1", "pid: '\u0661' is not a number"),
        ("1 2,1f,0,1", "pid: '1 2' is not a number"),
        ('"1",1f,0,1', "pid: '\"1\"' is not a number"),
        ("0,1f,0,1", "pid: 0 is not within 1 to 2147483647"),
        ("2147483648,1f,0,1", "pid: 2147483648 is not within"),
        ("1,,0,1", "address: '' is not an address in hexadecimal"),
        ("1,0x,0,1", "address: '0x' is not an address"),
        ("1,0x1x,0,1", "address: '0x1x' is not an address"),
        ("1,1g,0,1", "address: '1g' is not an address"),
        ("1,-1f,0,1", "address: '-1f' is not an address"),
        ("1,10000000000000000,0,1", "address: 10000000000000000 is not within"),
        ("1,1f,-1,1", "node: '-1' is not a number"),
        ("1,1f,65536,1", "node: 65536 is not within 0 to 65535"),
        ("1,1f,0,-1", "count: '-1' is not a number"),
        ("1,1f,0,1.5", "count: '1.5' is not a number"),
        ("1,1f,0,1099511627777", "count: 1099511627777 is not within"),
        ("1,1f,0,99999999999999999999999", "count: 9+ is not within"),
    ],
)
def test_a_line_that_makes_no_sense(line, told):
    """It is told by number and field, blank lines counted, wherever in the file it stands."""
    text = HEADER + "7,1f,0,1\n\n" + line + "\n8,1f,0,1\n"
    with pytest.raises(MalformedError, match=f"f.csv, line 4: {told}"):
        read_access_log(text.encode(), "f.csv")


def test_fields_that_are_missing_here_and_too_many_there():
    """Lines are not read on in the next one: the first that is too long is named."""
    text = HEADER + "1,2,3,4\n1,2,3,4,5\n1,2,3\n"
    with pytest.raises(MalformedError, match="line 3: line: it has 5 fields"):
        read_access_log(text.encode())


def test_long_logs_are_read_in_parts(monkeypatch):
    """Rows keep their order over parts of three lines, and a bad line its number."""
    monkeypatch.setattr(access_log, "_CHUNK_LINES", 3)
    lines = [f"{pid},{pid:x},0,{pid}" for pid in range(1, 9)]
    log = read_access_log((HEADER + "\n".join(lines)).encode())
    assert log.pid.tolist() == log.count.tolist() == list(range(1, 9))
    lines[6] = "7,7,x,7"
    with pytest.raises(MalformedError, match="line 8: node: 'x'"):
        read_access_log((HEADER + "\n".join(lines)).encode())


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"pid": 1', "JSON: "),
        ("1,2,3,4", "line: Expected `object`"),
        ("[1]", "line: Expected `object`, got `array`"),
        ('{"pid": 1, "address": "1f", "count": 1}', "line: it has neither node nor cpu"),
        (
            '{"pid": 1, "address": "1f", "count": 1, "node": 0, "cpu": 0}',
            "line: it has both node and cpu",
        ),
        ('{"address": "1f", "count": 1, "node": 0}', "line: .*`pid`"),
        ('{"pid": "1", "address": "1f", "count": 1, "node": 0}', "pid: Expected `int`"),
        ('{"pid": 0, "address": "1f", "count": 1, "node": 0}', "pid: 0 is not within"),
        ('{"pid": 1, "address": "", "count": 1, "node": 0}', "address: '' is not an address"),
        ('{"pid": 1, "address": "-1", "count": 1, "node": 0}', "address: '-1' is not"),
        ('{"pid": 1, "address": -1, "count": 1, "node": 0}', "address: -1 is not within"),
        ('{"pid": 1, "address": 1.5, "count": 1, "node": 0}', "address: Expected"),
        (f'{{"pid": 1, "address": {2**64}, "count": 1, "node": 0}}', "address: .* is not within"),
        ('{"pid": 1, "address": 1, "count": -1, "node": 0}', "count: -1 is not within"),
        ('{"pid": 1, "address": 1, "count": 1, "node": -1}', "node: -1 is not within"),
        ('{"pid": 1, "address": 1, "count": 1, "cpu": 65536}', "cpu: 65536 is not within"),
    ],
)
def test_a_line_of_json_that_makes_no_sense(line, told):
    """It is told by number and field."""
    good = '{"pid": 7, "address": "1f", "node": 0, "count": 1}\n'
    with pytest.raises(MalformedError, match=f"f.jsonl, line 3: {told}"):
        read_access_log(f"{good}\n{line}\n{good}".encode(), "f.jsonl")


def test_not_text():
    """A file of another kind is refused at the line where that shows."""
    with pytest.raises(MalformedError, match="line 2: text: it is not UTF-8"):
        read_access_log(HEADER.encode() + b"1,\xff,0,1\n")

"""What a person and a program see of the results."""

from __future__ import annotations

import json
import re

import pytest
import results
from harness import LeftOut, Measure, Row, Timing

C = Timing(100e-6, 99e-6, 101e-6, 7)
ROWS = [
    Row("query", Timing(104e-6, 103e-6, 110e-6, 7), Measure.RATIO, 1.05, "C", C),
    Row("locate", Timing(50e-6, 49e-6, 51e-6, 7), Measure.SPEEDUP, 4.0, "plain", C),
    Row("raw", Timing(102e-6, 99e-6, 103e-6, 7), Measure.RATIO, None, "C", C),
    Row("start-up", Timing(0.1, 0.09, 0.11, 7), Measure.OWN, 150),
    Row("move", Timing(0.2, 0.19, 0.21, 7), Measure.PER_PAGE, 250, pages=1_000_000),
    Row("reads", 2, Measure.COUNT, 1),
]
LEFT_OUT = [LeftOut("hugetlb", "needs root")]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (1.5e-9, "1.50 ns"),
        (999e-9, "999 ns"),
        (1e-6, "1.00 us"),
        (12.34e-6, "12.3 us"),
        (5e-3, "5.00 ms"),
        (2.0, "2.00 s"),
        (345.6, "346 s"),
        (0.0, "0.00 ns"),
    ],
)
def test_durations_have_three_digits_and_a_unit(seconds, text):
    """A time is written in the unit that keeps it short."""
    assert results.duration(seconds) == text


def test_table_has_a_line_for_each_row():
    """Each line says what was measured, the noise, the bar and whether it is met."""
    heading, *lines = results.table(ROWS).splitlines()
    assert heading.split() == ["benchmark", "ours", "peer", "value", "bar", "met"]
    column = heading.index("value")
    assert [line[column:].split() for line in lines] == [
        ["1.040", "x", "<=", "1.050", "x", "met"],
        ["2.00", "x", "faster", ">=", "4.00", "x", "faster", "MISSED"],
        ["1.020", "x"],
        ["100", "ms", "<=", "150", "ms", "met"],
        ["200.0", "ns/page", "<=", "250.0", "ns/page", "met"],
        ["2", "<=", "1", "MISSED"],
    ]
    name, ours, peer, *_ = re.split(" {2,}", lines[0])
    assert name == "query"
    assert ours == "104 us (103 us - 110 us)"
    assert peer == "100 us (99.0 us - 101 us) C"


def test_summary_names_what_is_missed_and_left_out():
    """A bar that is missed and a benchmark that did not run are named, the latter with why."""
    assert results.summary(ROWS, LEFT_OUT).splitlines() == [
        "3 of 5 bars met",
        "missed: locate",
        "missed: reads",
        "left out: hugetlb: needs root",
    ]


def test_json_has_the_units_in_its_names():
    """Times are seconds by name; value, bar and whether it is met stand side by side."""
    document = json.loads(results.as_json(ROWS, LEFT_OUT))
    assert document["rows"][0] == {
        "name": "query",
        "ours_median_s": 104e-6,
        "ours_lower_quartile_s": 103e-6,
        "ours_upper_quartile_s": 110e-6,
        "ours_samples": 7,
        "peer": "C",
        "peer_median_s": 100e-6,
        "peer_lower_quartile_s": 99e-6,
        "peer_upper_quartile_s": 101e-6,
        "peer_samples": 7,
        "measure": "ratio_to_peer",
        "value": pytest.approx(1.04),
        "bar": 1.05,
        "met": True,
    }
    assert document["rows"][-1] == {
        "name": "reads",
        "measure": "count",
        "value": 2,
        "bar": 1,
        "met": False,
    }
    assert document["rows"][2]["met"] is None
    assert document["rows"][-2]["pages"] == 1_000_000
    assert document["left_out"] == [{"name": "hugetlb", "reason": "needs root"}]
    assert set(document["machine"]) == {"architecture", "cpus", "kernel", "python"}

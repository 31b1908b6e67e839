"""Parsing records as the kernel lays them out in include/uapi/linux/perf_event.h."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from movepages.errors import MalformedError
from movepages.linux.perf_records import Exec, Exit, Fork, parse_records

KERNEL, USER = 1, 2  # PERF_RECORD_MISC_CPUMODE
NOBODY = 0xFFFFFFFF
"""What the kernel writes for a task that is gone: -1."""


def words(*records):
    """Lay records side by side, as in a ring."""
    return np.frombuffer(b"".join(records), dtype=np.uint64)


def record(kind, body, misc=USER):
    """Put struct perf_event_header before a body."""
    return struct.pack("=IHH", kind, misc, 8 + len(body)) + body


def sample(time=1, address=0x1000, pid=7, tid=8, cpu=3, misc=USER):
    """Lay out a PERF_RECORD_SAMPLE of TID, TIME, ADDR and CPU."""
    return record(9, struct.pack("=IIQQII", pid, tid, time, address, cpu, 0), misc)


def task(kind, pid, ppid, tid, ptid, time):
    """Lay out a PERF_RECORD_FORK (7) or PERF_RECORD_EXIT (4)."""
    return record(kind, struct.pack("=IIIIQ", pid, ppid, tid, ptid, time) + sample_id(time))


def name(time, misc, text=b"sh"):
    """Lay out a PERF_RECORD_COMM; the name is padded to words."""
    padded = text + b"\0" * (8 - len(text) % 8)
    return record(3, struct.pack("=II", 7, 8) + padded + sample_id(time), misc)


def sample_id(time):
    """Lay out struct sample_id of TID, TIME and CPU."""
    return struct.pack("=IIQII", 7, 8, time, 3, 0)


def lost(count):
    """Lay out a PERF_RECORD_LOST."""
    return record(2, struct.pack("=QQ", 99, count) + sample_id(5), misc=0)


@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 319, 320, 321, 5000])
@pytest.mark.parametrize("after", [(), (lost(4),), (lost(4), sample(time=9999, address=5))])
def test_runs_of_samples_are_taken_whole(count, after):
    """Around the lengths at which the search looks further ahead, no sample is lost or made up."""
    run = [sample(time=i, address=i << 12) for i in range(count)]
    faults = parse_records([words(*run, *after)])
    expected = [i << 12 for i in range(count)] + [5] * (len(after) == 2)
    assert faults.address.tolist() == expected
    assert len(faults) == len(expected)
    assert faults.lost == 4 * bool(after)


def test_a_sample_has_all_its_fields():
    """Each field is read from its place, in the dtype that is promised."""
    faults = parse_records([words(sample(1 << 63, (1 << 63) + 5, 70, 71, 300))])
    columns = (faults.time_ns, faults.address, faults.pid, faults.tid, faults.cpu)
    assert [column.tolist() for column in columns] == [
        [1 << 63],
        [(1 << 63) + 5],
        [70],
        [71],
        [300],
    ]
    assert [column.dtype.name for column in columns] == ["uint64", "uint64"] + ["int32"] * 3


def test_faults_in_the_kernel_are_samples_as_well():
    """The mode in a header's misc field makes no other kind of record."""
    faults = parse_records([words(sample(1), sample(2, misc=KERNEL), sample(3, misc=1 << 14))])
    assert faults.time_ns.tolist() == [1, 2, 3]


def test_rings_are_put_into_the_order_of_time():
    """Faults on two CPUs come out by time, those of one instant in the order of the rings."""
    one = words(sample(1, cpu=0), sample(5, cpu=0), sample(6, cpu=0))
    other = words(sample(2, cpu=1), sample(5, cpu=1), sample(9, cpu=1))
    faults = parse_records([one, other])
    assert faults.time_ns.tolist() == [1, 2, 5, 5, 6, 9]
    assert faults.cpu.tolist() == [0, 1, 0, 1, 0, 1]


def test_tasks_that_begin_and_end_are_told_by_time():
    """Forks, exits and execs stand beside the faults, each in order."""
    faults = parse_records(
        [
            words(task(7, 20, 7, 21, 8, 6), sample(7), task(4, 20, 20, 21, 21, 9)),
            words(task(7, 10, 7, 11, 8, 2), name(4, 1 << 13), task(4, 10, 10, 11, 11, 3)),
        ]
    )
    assert faults.forks == (Fork(2, 10, 11, 7, 8), Fork(6, 20, 21, 7, 8))
    assert faults.exits == (Exit(3, 10, 11), Exit(9, 20, 21))
    assert faults.execs == (Exec(4, 7, 8),)
    assert len(faults) == 1


@pytest.mark.parametrize("text", [b"", b"a", b"1234567", b"12345678", b"123456789012345"])
def test_names_of_any_length_end_in_their_time(text):
    """A name is padded, and the time stands behind it."""
    assert parse_records([words(name(44, 1 << 13, text))]).execs == (Exec(44, 7, 8),)


def test_a_name_that_changes_otherwise_is_no_exec():
    """prctl(PR_SET_NAME) writes the same record without the bit."""
    assert parse_records([words(name(4, 0))]).execs == ()


def test_a_task_that_is_gone_is_minus_one():
    """The kernel's -1 for a pid it cannot name stays -1."""
    faults = parse_records(
        [words(task(7, NOBODY, 5, 6, NOBODY, 1), sample(pid=NOBODY, tid=NOBODY))]
    )
    assert faults.forks == (Fork(1, -1, 6, 5, -1),)
    assert (faults.pid.tolist(), faults.tid.tolist()) == ([-1], [-1])


def test_losses_add_up():
    """What was dropped is counted over all rings."""
    assert parse_records([words(lost(3), sample(), lost(4)), words(lost(5))]).lost == 12


def test_other_records_are_passed_over():
    """A record of a kind that nobody asked for hides none behind it."""
    mapped = record(10, bytes(64))
    assert parse_records([words(mapped, sample(4), mapped)]).time_ns.tolist() == [4]


def test_nothing_is_no_fault():
    """Empty rings, and no rings, give empty arrays."""
    for rings in ([], [words()], [words(), words()]):
        faults = parse_records(rings)
        assert (len(faults), faults.lost, faults.forks, faults.exits, faults.execs) == (
            0,
            0,
            (),
            (),
            (),
        )


@pytest.mark.parametrize(
    "broken",
    [
        struct.pack("=IHH", 7, 0, 0),
        struct.pack("=IHH", 7, 0, 7) + bytes(8),
        struct.pack("=IHH", 10, 0, 24) + bytes(8),
    ],
    ids=["no size", "less than its header", "longer than the ring"],
)
def test_a_record_that_cannot_be_is_refused(broken):
    """A size that leads nowhere, or beyond what was written, is an error and no endless loop."""
    with pytest.raises(MalformedError, match="size"):
        parse_records([words(sample(), broken)])

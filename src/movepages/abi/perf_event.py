"""perf_event_open(2) as numbers and layouts, as far as a log of page faults needs them.

Sources: include/uapi/linux/perf_event.h; the system call tables of the architectures.
"""

from enum import IntEnum, IntFlag
from struct import Struct

PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241, "riscv64": 241}
"""The call's number by architecture, as `uname -m` says it."""

PERF_TYPE_SOFTWARE = 1
PERF_COUNT_SW_PAGE_FAULTS = 2
PERF_FLAG_FD_CLOEXEC = 8


class SampleType(IntFlag):
    """PERF_SAMPLE_*: what a sample holds. The fields stand in this order, not in that of bits."""

    TID = 1 << 1
    TIME = 1 << 2
    ADDR = 1 << 3
    CPU = 1 << 7


SAMPLE_TYPE = SampleType.TID | SampleType.TIME | SampleType.ADDR | SampleType.CPU
"""What we ask samples to hold, and as far as they can the other records as well."""


class AttrFlag(IntFlag):
    """The bit field of struct perf_event_attr."""

    INHERIT = 1 << 1
    EXCLUDE_KERNEL = 1 << 5
    EXCLUDE_HV = 1 << 6
    COMM = 1 << 9
    TASK = 1 << 13
    WATERMARK = 1 << 14
    SAMPLE_ID_ALL = 1 << 18
    COMM_EXEC = 1 << 24
    USE_CLOCKID = 1 << 25


PERF_EVENT_ATTR = Struct("=2I5QI40xi")
"""struct perf_event_attr of 96 bytes (PERF_ATTR_SIZE_VER3): type, size, config, sample_period,
sample_type, read_format, flags, wakeup_watermark; clockid. What lies between is left at 0."""


class RecordType(IntEnum):
    """PERF_RECORD_*: the kinds of records that are looked at; others are passed over."""

    LOST = 2
    COMM = 3
    EXIT = 4
    FORK = 7
    SAMPLE = 9


MISC_COMM_EXEC = 1 << 13
"""PERF_RECORD_MISC_COMM_EXEC: the name changed because of execve(2)."""

DATA_HEAD_OFFSET, DATA_TAIL_OFFSET = 1024, 1032
"""Where the positions of writer and reader stand in struct perf_event_mmap_page, u64 each."""

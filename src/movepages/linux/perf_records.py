"""The records of perf_event_open(2) about page faults, and about tasks that begin and end.

Samples have one size and come in long runs, which are taken as arrays; all other records are looked
at one by one. Source: enum perf_event_type in include/uapi/linux/perf_event.h.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

from movepages.abi.perf_event import MISC_COMM_EXEC, RecordType
from movepages.errors import MalformedError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    Words = NDArray[np.uint64]

_WORD_BYTES = 8
_SAMPLE_WORDS = 5  # header; pid and tid; time; address; CPU
_SAMPLE_HEADER = _SAMPLE_WORDS * _WORD_BYTES << 48 | RecordType.SAMPLE
_WITHOUT_MISC = 0xFFFF0000FFFFFFFF  # a header's `misc` says user or kernel mode
_FIRST_LOOK_SAMPLES = 64


class Fork(NamedTuple):
    """A task was made: a process if `pid` is not its parent's, else a thread."""

    time_ns: int
    pid: int
    tid: int
    parent_pid: int
    parent_tid: int


class Exit(NamedTuple):
    """A task has ended; its process may have other threads still."""

    time_ns: int
    pid: int
    tid: int


class Exec(NamedTuple):
    """A process has started another program: its memory is new, and it has one thread."""

    time_ns: int
    pid: int
    tid: int


Event: TypeAlias = Fork | Exit | Exec


@dataclass(frozen=True, slots=True, eq=False)
class Faults:
    """Page faults in the order of time across CPUs, an array for each fact.

    `time_ns` is CLOCK_MONOTONIC, as time.monotonic_ns() has it. `pid` and `tid` are as seen from
    the pid namespace of whoever opened the log. `lost` counts records that the kernel dropped.
    """

    time_ns: NDArray[np.uint64]
    address: NDArray[np.uint64]
    pid: NDArray[np.int32]
    tid: NDArray[np.int32]
    cpu: NDArray[np.int32]
    lost: int
    forks: tuple[Fork, ...]
    exits: tuple[Exit, ...]
    execs: tuple[Exec, ...]

    def __len__(self) -> int:
        """Count the faults."""
        return len(self.address)


def parse_records(rings: Iterable[Words]) -> Faults:
    """Return what the records of some rings say, each ring whole records as 64-bit words.

    Raises MalformedError.
    """
    runs = [np.empty((0, _SAMPLE_WORDS), dtype=np.uint64)]
    forks: list[Fork] = []
    exits: list[Exit] = []
    execs: list[Exec] = []
    lost = 0
    for words in rings:
        position = 0
        while position < len(words):
            header = int(words[position])
            if header & _WITHOUT_MISC == _SAMPLE_HEADER:
                count = _count_samples(words[position:])
                end = position + count * _SAMPLE_WORDS
                runs.append(words[position:end].reshape(count, _SAMPLE_WORDS))
                position = end
                continue
            end = position + (header >> 48) // _WORD_BYTES
            if not position < end <= len(words):
                raise MalformedError("perf ring", 0, "size", f"a record has header {header:#x}")
            record = words[position:end].tolist()
            match header & 0xFFFFFFFF:
                case RecordType.FORK:
                    (pid, parent), (tid, parent_tid) = _halves(record[1]), _halves(record[2])
                    forks.append(Fork(record[3], pid, tid, parent, parent_tid))
                case RecordType.EXIT:
                    exits.append(Exit(record[3], _halves(record[1])[0], _halves(record[2])[0]))
                case RecordType.COMM if header >> 32 & MISC_COMM_EXEC:
                    execs.append(Exec(record[-2], *_halves(record[1])))
                case RecordType.LOST:
                    lost += record[2]
            position = end
    samples = np.concatenate(runs)
    samples = samples[np.argsort(samples[:, 2], kind="stable")]
    halves = samples.view(np.int32)
    return Faults(
        time_ns=samples[:, 2].copy(),
        address=samples[:, 3].copy(),
        pid=halves[:, 2].copy(),
        tid=halves[:, 3].copy(),
        cpu=halves[:, 8].copy(),
        lost=lost,
        forks=tuple(sorted(forks)),
        exits=tuple(sorted(exits)),
        execs=tuple(sorted(execs)),
    )


def _count_samples(words: Words) -> int:
    """Count the samples that follow each other from here on, looking ever further ahead."""
    looked = _FIRST_LOOK_SAMPLES
    while True:
        headers = words[: looked * _SAMPLE_WORDS : _SAMPLE_WORDS] & np.uint64(_WITHOUT_MISC)
        others = headers != _SAMPLE_HEADER
        if others.any():
            return int(others.argmax())
        if len(headers) < looked:
            return len(headers)
        looked *= 4


def _halves(word: int) -> tuple[int, int]:
    """Return the lower and the upper 32 bits of a word as signed numbers: -1 is a pid, too."""
    low, high = word & 0xFFFFFFFF, word >> 32
    return low - (low >> 31 << 32), high - (high >> 31 << 32)


NO_FAULTS = parse_records([])
"""What nothing says."""

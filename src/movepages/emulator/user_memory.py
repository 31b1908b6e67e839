"""Memory of a calling task behind the `UserMemory` port, with its own protections."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from movepages.abi.limits import ULONG_MAX
from movepages.abi.procmap import VmaFlag
from movepages.linux.process_memory import read_into, write_memory

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

    from movepages.emulator.processes import LiveTask

_READ_BYTES = 8 << 20
"""Read at a time: a caller may name more elements than there is memory for."""


@dataclass(frozen=True, slots=True, eq=False)
class LiveUserMemory:
    """What system calls of a task read their arguments from and write results to."""

    task: LiveTask

    def read(self, pointer: int, dtype: DTypeLike, count: int) -> NDArray[Any]:
        """Return the elements from a pointer on that can be read, at most `count`."""
        size = np.dtype(dtype).itemsize
        pieces: list[NDArray[Any]] = []
        done = 0
        while done < count or not pieces:
            piece = np.empty(min(count - done, _READ_BYTES // size), dtype=dtype)
            found = read_into(self.task.tid, pointer + done * size & ULONG_MAX, piece) // size
            pieces.append(piece if found == len(piece) else piece[:found])
            done += found
            if found < len(piece):
                break
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def write(self, pointer: int, values: NDArray[Any]) -> int:
        """Write elements from a pointer on; return how many could be written."""
        data = values if values.flags.c_contiguous else np.ascontiguousarray(values)
        return write_memory(self.task.tid, pointer & ULONG_MAX, data) // data.itemsize

    def writable(self, pointer: int, dtype: DTypeLike, count: int) -> int:
        """Return how many elements from a pointer on can be written, at most `count`."""
        size = np.dtype(dtype).itemsize
        reached, end = pointer, pointer + count * size
        mm = self.task.mm
        while mm is not None and reached < end:
            area = mm.areas.find(reached)
            if area is None or area.start > reached or not area.flags & VmaFlag.WRITABLE:
                break
            reached = area.end
        return min(reached - pointer, count * size) // size

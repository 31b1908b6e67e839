"""Memory of a calling process that system calls read their arguments from and write results to.

The model gives arrays a place in a range of addresses of their own, above user space proper, so
that pointers are plain numbers. An array may be unreadable or unwritable from some element on, as
one that runs into an unmapped page.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

_FIRST_POINTER = 1 << 56
_GUARD_BYTES = 1 << 12


@dataclass(slots=True, eq=False)
class UserArray:
    """An array at a pointer, of which the first so many elements can be read, or written."""

    pointer: int
    data: NDArray[Any]
    readable: int
    writable: int

    @property
    def end(self) -> int:
        """The first address behind it."""
        return self.pointer + self.data.nbytes


class SimulatedUserMemory:
    """All arrays that processes of a machine have given pointers to."""

    def __init__(self) -> None:
        """Begin with none."""
        self._arrays: list[UserArray] = []
        self._pointers: list[int] = []
        self._next = _FIRST_POINTER

    def place(
        self, data: NDArray[Any], *, readable: int | None = None, writable: int | None = None
    ) -> UserArray:
        """Give an array a pointer; it is not copied, so what is written shows in it."""
        count = len(data)
        array = UserArray(
            self._next,
            data,
            count if readable is None else min(readable, count),
            count if writable is None else min(writable, count),
        )
        self._arrays.append(array)
        self._pointers.append(array.pointer)
        pages = -(-data.nbytes // _GUARD_BYTES) + 1
        self._next += pages * _GUARD_BYTES
        return array

    def forget(self, array: UserArray) -> None:
        """Take an array's pointer away."""
        index = self._arrays.index(array)
        del self._arrays[index], self._pointers[index]

    def read(self, pointer: int, dtype: DTypeLike, count: int) -> NDArray[Any]:
        """Return the elements from a pointer on that can be read, at most `count`."""
        found = self._find(pointer)
        if found is None:
            return np.empty(0, dtype=dtype)
        array, first = found
        return array.data[first : min(first + count, array.readable)].astype(dtype, copy=False)

    def write(self, pointer: int, values: NDArray[Any]) -> int:
        """Write elements from a pointer on; return how many could be written."""
        count = self.writable(pointer, values.dtype, len(values))
        if count:
            array, first = self._find(pointer) or (None, 0)
            assert array is not None  # noqa: S101 - some of it can be written
            array.data[first : first + count] = values[:count]
        return count

    def writable(self, pointer: int, dtype: DTypeLike, count: int) -> int:
        """Return how many elements from a pointer on can be written, at most `count`."""
        found = self._find(pointer)
        if found is None or np.dtype(dtype).itemsize != found[0].data.itemsize:
            return 0
        array, first = found
        return max(0, min(count, array.writable - first))

    def _find(self, pointer: int) -> tuple[UserArray, int] | None:
        """Return the array that a pointer points into, and the index of the element there."""
        index = bisect_right(self._pointers, pointer) - 1
        if index < 0:
            return None
        array = self._arrays[index]
        offset, misplaced = divmod(pointer - array.pointer, array.data.itemsize)
        return None if misplaced or offset > len(array.data) else (array, offset)

"""Where the memory of an object is: its addresses, without a copy and without touching a page.

Three protocols say so, and one of them will do: NumPy's array interface, torch's `data_ptr()`, and
the buffer protocol of Python. `__array__` and DLPack may hand out a copy, and so are not asked: who
places a copy has placed nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from movepages.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True, eq=False)
class Buffer:
    """Addresses from `start` to `end`, the end excluded, all of which belong to one object.

    While it lives the memory stays where it is: `owner` keeps it from being freed or resized.
    """

    start: int
    end: int
    owner: Any

    def __len__(self) -> int:
        """Count the bytes."""
        return self.end - self.start

    def pages(self, page_size_bytes: int) -> tuple[int, int]:
        """Return start and end of the pages that have a byte of it."""
        first = self.start // page_size_bytes * page_size_bytes
        return first, -(-self.end // page_size_bytes) * page_size_bytes

    def fills_a_page(self, page_size_bytes: int) -> bool:
        """Tell whether one page at least is all its own."""
        first = -(-self.start // page_size_bytes) * page_size_bytes
        return first + page_size_bytes <= self.end


def memory_of(array: Any) -> Buffer:
    """Return where the memory of an object is. It may be read-only, and in C or Fortran order.

    Raises ArgumentError for what is empty, has gaps between its elements, holds references to
    objects that are elsewhere, or has no memory to ask for.
    """
    buf = getattr(array, "buf", None)
    if isinstance(buf, memoryview):  # multiprocessing's SharedMemory
        array = buf
    if isinstance(array, np.ndarray):
        return _of_array(array)
    if callable(getattr(array, "data_ptr", None)):
        return _of_tensor(array)
    interface = getattr(array, "__array_interface__", None)
    if isinstance(interface, dict) and isinstance(interface.get("data"), tuple):
        return _of_array(np.asarray(array))
    try:
        view = memoryview(array)
    except TypeError:
        raise ArgumentError(
            f"{_named(array)} does not say where its memory is; give a NumPy array, a tensor in "
            "the memory of the CPU, or anything with the buffer protocol"
        ) from None
    except ValueError as error:  # closed, or released
        raise ArgumentError(f"{_named(array)} has no memory any more: {error}") from None
    if not view.nbytes:
        raise _empty(array)
    # As bytes, for NumPy does not know every format; with gaps it has to be asked as it is.
    return _of_array(np.frombuffer(view, np.uint8) if view.c_contiguous else np.asarray(view))


def _of_array(array: np.ndarray[Any, Any]) -> Buffer:
    if array.dtype.hasobject:
        raise ArgumentError(
            "the array holds references, and its objects are elsewhere in memory; "
            "give an array of numbers or records"
        )
    return _dense(array, array.ctypes.data, array.shape, array.strides, array.itemsize)


def _of_tensor(tensor: Any) -> Buffer:
    """Ask as torch documents it: Tensor.data_ptr, .stride, .element_size, .device."""
    device = getattr(getattr(tensor, "device", None), "type", "cpu")
    if device != "cpu":
        raise ArgumentError(
            f"the tensor is on device {device!r}, in memory without nodes; give one on the CPU"
        )
    try:
        pointer, size = int(tensor.data_ptr()), int(tensor.element_size())
        strides = [size * int(stride) for stride in tensor.stride()]
    except RuntimeError as error:  # torch's word for a tensor without storage, as sparse ones are
        raise ArgumentError(f"the tensor has no memory of its own: {error}") from None
    return _dense(tensor, pointer, tuple(tensor.shape), strides, size)


def _dense(
    array: Any, pointer: int, shape: Sequence[int], strides: Sequence[int], itemsize: int
) -> Buffer:
    """Return the bytes from the lowest element to the highest. Raises ArgumentError for gaps."""
    size_bytes = itemsize
    for length in shape:
        size_bytes *= length
    if not size_bytes:
        raise _empty(array)
    steps = [(length - 1) * stride for length, stride in zip(shape, strides, strict=True)]
    start = pointer + sum(step for step in steps if step < 0)
    end = pointer + sum(step for step in steps if step > 0) + itemsize
    if end - start != size_bytes:
        raise ArgumentError(
            f"the elements of the array do not lie side by side: {size_bytes:,} bytes of them "
            f"are spread over {end - start:,}; give the array that it is a view of, or a copy"
        )
    return Buffer(start, end, array)


def _empty(array: Any) -> ArgumentError:
    return ArgumentError(f"{_named(array)} without elements has no memory that could be anywhere")


def _named(value: Any) -> str:
    return f"an object of type {type(value).__name__}"

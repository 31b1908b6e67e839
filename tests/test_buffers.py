"""Where objects say that their memory is, and what is refused."""

from __future__ import annotations

import array
import ctypes
import mmap
from multiprocessing.shared_memory import SharedMemory
from types import SimpleNamespace

import numpy as np
import pytest

from movepages.buffers import Buffer, memory_of
from movepages.errors import ArgumentError

try:
    from torch import from_numpy
except ImportError:

    class Tensor:
        """What torch documents of a tensor on the CPU, over the memory of an array."""

        device = SimpleNamespace(type="cpu")

        def __init__(self, of):
            """Take the array; nothing is copied."""
            self._of, self.shape = of, of.shape

        def data_ptr(self):
            """Return the address of the first element."""
            return self._of.ctypes.data

        def stride(self):
            """Return the steps between elements, counted in elements."""
            return tuple(step // self._of.itemsize for step in self._of.strides)

        def element_size(self):
            """Return the size of an element in bytes."""
            return self._of.itemsize

    from_numpy = Tensor

PAGE = 4096


def base():
    """Return an array of three dimensions, each of its bytes somewhere else."""
    return np.arange(24, dtype=np.int32).reshape(2, 3, 4)


DENSE = {
    "as made": lambda a: a,
    "Fortran order": lambda a: a.T,
    "axes exchanged": lambda a: a.transpose(1, 0, 2),
    "reversed": lambda a: a[::-1, :, ::-1],
    "read-only": lambda a: np.frombuffer(memoryview(a).toreadonly(), np.int32),
    "another type": lambda a: a.view("i2,i2"),
    "a subclass": lambda a: a.view(np.ma.MaskedArray),
    "a memoryview": memoryview,
    "a read-only memoryview": lambda a: memoryview(a).toreadonly(),
    "a memoryview in Fortran order": lambda a: memoryview(a.T),
    "a tensor": from_numpy,
    "a tensor with axes exchanged": lambda a: from_numpy(a.transpose(2, 0, 1)),
    "the array interface": lambda a: SimpleNamespace(__array_interface__=a.__array_interface__),
}


@pytest.mark.parametrize("form", DENSE)
def test_every_dense_form_is_where_the_array_is(form):
    """However its axes run and whoever asks, it is the same 96 bytes."""
    made = base()
    memory = memory_of(DENSE[form](made))
    assert (memory.start, memory.end) == (made.ctypes.data, made.ctypes.data + 96)
    assert len(memory) == 96


def test_a_part_is_where_it_is():
    """A row is 16 bytes, 32 behind the beginning; a single element has its own size."""
    made = base()
    row, one = memory_of(made[0, 2]), memory_of(made[1, 0, :1])
    assert (row.start - made.ctypes.data, len(row)) == (32, 16)
    assert (one.start - made.ctypes.data, len(one)) == (48, 4)


def address_of(writable):
    """Ask ctypes where a writable buffer is."""
    return ctypes.addressof(ctypes.c_char.from_buffer(writable))


def test_buffers_of_the_standard_library():
    """bytearray, array.array, mmap and ctypes say where they are, and how long."""
    with mmap.mmap(-1, 3 * PAGE) as mapped:
        held = [bytearray(1000), array.array("d", range(100)), (ctypes.c_long * 7)(), mapped]
        for made, size in zip(held, (1000, 800, 56, 3 * PAGE), strict=True):
            memory = memory_of(made)
            assert (memory.start, len(memory)) == (address_of(made), size)
            del memory


def test_bytes_are_where_ctypes_says():
    """Bytes are read-only, and have an address all the same."""
    text = b"x" * 5000
    pointer = ctypes.cast(ctypes.c_char_p(text), ctypes.c_void_p).value
    assert memory_of(text).start == pointer


def test_shared_memory():
    """A segment of multiprocessing is its buffer."""
    segment = SharedMemory(create=True, size=2 * PAGE)
    try:
        assert memory_of(segment).start == address_of(segment.buf)
        assert len(memory_of(segment)) == segment.buf.nbytes
    finally:
        segment.close()
        segment.unlink()


def test_memory_stays_while_it_is_looked_at():
    """A mapping cannot be closed meanwhile: the kernel would be asked about strangers' memory."""
    mapped = mmap.mmap(-1, PAGE)
    memory = memory_of(mapped)
    with pytest.raises(BufferError):
        mapped.close()
    del memory
    mapped.close()


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (base()[:, ::2], "64 bytes of them are spread over 96"),
        (base()[..., 0], "24 bytes of them are spread over 84"),
        (np.broadcast_to(np.int32(1), 5), "20 bytes of them are spread over 4"),
        (memoryview(base().ravel())[::2], "48 bytes of them are spread over 92"),
        (from_numpy(base()[:, ::2]), "64 bytes of them are spread over 96"),
        (np.empty((3, 0, 2)), "type ndarray without elements"),
        (np.empty(4, dtype="V0"), "type ndarray without elements"),
        (b"", "type bytes without elements"),
        (from_numpy(np.empty(0)), "type Tensor without elements"),
        (np.array([{}, None]), "the array holds references"),
        ([1, 2], "type list does not say where its memory is"),
        ("text", "type str does not say where its memory is"),
        (5, "type int does not say where its memory is"),
        (None, "type NoneType does not say where its memory is"),
        (SimpleNamespace(__array__=base), "does not say where its memory is"),
    ],
)
def test_what_is_refused(made, told):
    """Gaps, nothing, references, and what has no memory to ask for: a sentence for each."""
    with pytest.raises(ArgumentError, match=told):
        memory_of(made)


def test_a_released_view():
    """What has given its memory back is refused as such."""
    view = memoryview(bytearray(10))
    view.release()
    with pytest.raises(ArgumentError, match="type memoryview has no memory any more"):
        memory_of(view)


def test_a_tensor_on_another_device():
    """Memory of a GPU is on none of Linux's nodes."""
    tensor = SimpleNamespace(data_ptr=lambda: 4096, device=SimpleNamespace(type="cuda"))
    with pytest.raises(ArgumentError, match="on device 'cuda'"):
        memory_of(tensor)


def test_a_tensor_without_storage():
    """A sparse tensor has no address: torch raises, and its words are passed on."""

    def data_ptr():
        raise RuntimeError("Cannot access data pointer of Tensor that doesn't have storage")

    with pytest.raises(ArgumentError, match="no memory of its own: Cannot access data pointer"):
        memory_of(SimpleNamespace(data_ptr=data_ptr))


@pytest.mark.parametrize(
    ("start", "end", "pages", "fills"),
    [
        (PAGE, 2 * PAGE, (1, 2), True),
        (PAGE, 2 * PAGE - 1, (1, 2), False),
        (PAGE + 1, 3 * PAGE - 1, (1, 3), False),
        (PAGE + 1, 3 * PAGE, (1, 3), True),
        (PAGE - 1, 2 * PAGE, (0, 2), True),
        (PAGE - 1, 2 * PAGE - 1, (0, 2), False),
        (PAGE, PAGE + 1, (1, 2), False),
    ],
)
def test_rounding_to_pages(start, end, pages, fills):
    """Pages are those that have a byte of it; one is its own only with all of its bytes."""
    memory = Buffer(start, end, None)
    assert memory.pages(PAGE) == (pages[0] * PAGE, pages[1] * PAGE)
    assert memory.fills_a_page(PAGE) is fills

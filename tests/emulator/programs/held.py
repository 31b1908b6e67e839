"""Holds memory of many kinds, has it placed, and prints where it is; some of its bytes are checked.

One line of JSON: by name, the nodes that have at least a tenth of it, or the kind of an error.
"""

from __future__ import annotations

import array
import json
import mmap
import sys
from multiprocessing.shared_memory import SharedMemory

import numpy as np

import movepages
from movepages.errors import MovePagesError

PAGE = mmap.PAGESIZE
SIZE = 64 * PAGE
BYTES = np.arange(SIZE, dtype=np.uint32).astype(np.uint8)
said: dict[str, object] = {}


def where(held):
    """Return the nodes of some memory: all that has it, whatever shares its first and last page."""
    sizes = movepages.locate(held).bytes_by_node
    return [node for node, size in sizes.items() if size >= sum(sizes.values()) / 10]


def all_of(held, node):
    """Tell whether every page that has a byte of it is on a node."""
    return movepages.locate(held).bytes_by_node.keys() == {node}


def place_each():
    """Place memory of each kind on node 2; none of its bytes may change."""
    segment = SharedMemory(create=True, size=SIZE)
    segment.buf[:SIZE] = BYTES.tobytes()
    frozen = BYTES.copy()
    frozen.flags.writeable = False
    mapped = mmap.mmap(-1, SIZE)
    mapped.write(BYTES.tobytes())
    kinds = {
        "array": BYTES.copy(),
        "read-only": frozen,
        "Fortran": np.asfortranarray(BYTES.reshape(256, -1)),
        "mmap": mapped,
        "memoryview": memoryview(bytearray(BYTES.tobytes())),
        "shared memory": segment,
        "array.array": array.array("B", BYTES.tobytes()),
        "bytes": BYTES.tobytes(),
    }
    for name, held in kinds.items():
        ledger = movepages.place(held, 2)
        buffer = held.buf[:SIZE] if isinstance(held, SharedMemory) else held
        same = np.array_equal(np.asarray(memoryview(buffer)).reshape(-1).view(np.uint8), BYTES)
        said[name] = [ledger.complete, all_of(held, 2), same]
        del buffer
    del held
    segment.close()
    segment.unlink()


def new_memory():
    """Touch memory that was given a node, or several, before."""
    on_three = movepages.empty(SIZE, np.uint8, node=3)
    by_turns = movepages.empty((64, PAGE), np.uint8, interleave=[1, 3])
    untouched = np.empty(SIZE * 16, np.uint8)
    movepages.place(untouched, 1)
    for made in (on_three, by_turns, untouched):
        made[:] = 7
    said["empty"] = where(on_three)
    said["empty by turns"] = movepages.locate(by_turns).bytes_by_node
    said["touched later"] = where(untouched)


def by_turns():
    """Interleave what is there, evenly and by weights."""
    made = movepages.empty(SIZE, np.uint8, node=0)
    made[:] = BYTES
    movepages.interleave(made, [0, 1, 2, 3])
    said["interleave"] = movepages.locate(made).bytes_by_node
    movepages.interleave(made, {0, 1}, {0: 3, 1: 1})
    said["weights"] = movepages.locate(made).bytes_by_node
    said["same bytes"] = bool((made == BYTES).all())


def in_blocks():
    """Touch memory in blocks, nested ones, and one that fails."""

    def touched():
        made = mmap.mmap(-1, 16 * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        made.write(bytes(16 * PAGE))
        return where(made)

    with movepages.mempolicy(bind={1}):
        said["bind"] = touched()
        with movepages.mempolicy(preferred=3):
            said["preferred"] = touched()
        said["bind again"] = touched()
        with movepages.mempolicy(interleave=[0, 2]):
            said["interleaved"] = touched()
    try:
        with movepages.mempolicy(bind={9}):
            pass
    except MovePagesError as error:
        said["no such node"] = type(error).__name__


def main():
    """Say it all."""
    place_each()
    new_memory()
    by_turns()
    in_blocks()
    json.dump(said, sys.stdout)


if __name__ == "__main__":
    main()

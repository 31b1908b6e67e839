"""The walk of Linux 6.12 over a list: which error a call ends with."""

from __future__ import annotations

import numpy as np
import pytest

from movepages.abi import UNWRITTEN, Errno, MoveFlag
from movepages.kernel import SimulatedMachine

PAGE = 4096
PAGES, FREE = 5, 4


@pytest.mark.parametrize(
    ("writable", "ret"),
    [(PAGES, -Errno.EFAULT), (PAGES + 1, -Errno.ENOMEM)],
    ids=["not stored", "stored"],
)
def test_an_error_of_the_batch_does_not_replace_that_of_the_entry_that_ended_it(writable, ret):
    """A status that cannot be stored is -EFAULT, though the batch finds no memory (out_flush)."""
    machine = SimulatedMachine("2 x 4M")
    p = machine.spawn()
    a = p.mmap(PAGES + 1)
    p.write(a, PAGES)  # the last entry is absent: its status ends the batch
    memory = machine.memory.frames
    memory.references[memory.allocate(1, memory.nodes[1].available_pages - FREE)] = 1
    pages, nodes = p.addresses(a, PAGES + 1), np.ones(PAGES + 1, dtype=np.int32)
    arrays = [p.user_array(pages), p.user_array(nodes)]
    status = p.user_array(np.full(PAGES + 1, UNWRITTEN, dtype=np.int32), writable=writable)
    pointers = [array.pointer for array in (*arrays, status)]
    assert p.syscall("move_pages", 0, PAGES + 1, *pointers, int(MoveFlag.MOVE)) == ret
    assert (status.data[:PAGES] == UNWRITTEN).all()

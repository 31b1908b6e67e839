"""The reverse mapping: from folios to the slots that map them."""

from __future__ import annotations

import numpy as np
import pytest

from movepages.kernel import SimulatedMachine
from movepages.kernel.page_tables import PteFlag, is_migration

PAGE = 4096


@pytest.fixture
def machine():
    """Return a machine of two nodes."""
    machine = SimulatedMachine("2 x 16M")
    yield machine
    machine.check()


def slots_by_search(machine, frame):
    """Find the slots that map a frame by looking at every page table."""
    entry = machine.memory.tables.entry[: machine.memory.tables.used_slots]
    return np.flatnonzero(entry == frame).tolist()


def test_the_walk_finds_each_mapping_of_a_shared_page(machine):
    """Through fork, and twice in one process: all slots, each owned by its folio."""
    file = machine.file("/f", 2)
    p = machine.spawn()
    a, b = p.mmap(2, file=file, shared=True), p.mmap(2, file=file, shared=True)
    p.write(a, 2)
    p.read(b, 2)
    child = p.fork()
    child.read(a, 2)
    child.read(b, 2)
    frames = p.frames(a, 2)
    mapped = machine.memory.rmap.walk(frames)
    for position, frame in enumerate(frames.tolist()):
        found = np.sort(mapped.slot[mapped.owner == position]).tolist()
        assert found == slots_by_search(machine, frame)
        assert len(found) == 4


def test_a_stale_hint_is_not_believed(machine):
    """When the slot that a frame remembers maps something else, the walk goes by the areas."""
    p = machine.spawn()
    a = p.mmap(1)
    p.write(a)
    child = p.fork()
    p.exit()
    frame = child.frames(a, 1)
    mapped = machine.memory.rmap.walk(frame)
    assert mapped.slot.tolist() == slots_by_search(machine, int(frame[0]))


def test_processes_are_counted_not_mappings(machine):
    """Two mappings in one process are one process; a child makes two."""
    file = machine.file("/f", 1)
    p = machine.spawn()
    a, b = p.mmap(1, file=file, shared=True), p.mmap(1, file=file, shared=True)
    p.write(a)
    p.read(b)
    frame = p.frames(a, 1)
    assert machine.memory.mapcount(frame).tolist() == [2]
    assert machine.memory.processes(frame).tolist() == [1]
    child = p.fork()
    child.read(a)
    assert machine.memory.processes(frame).tolist() == [2]
    child.exit()
    assert machine.memory.processes(frame).tolist() == [1]


def test_unmapping_leaves_migration_entries_and_mapping_removes_them(machine):
    """try_to_unmap takes every mapping away, remove_migration_ptes restores all but youth."""
    p = machine.spawn()
    a = p.mmap(1)
    p.poke(a, [5])
    child = p.fork()
    memory = machine.memory
    frame = p.frames(a, 1)
    references = int(memory.frames.references[frame][0])
    mapped = memory.rmap.try_to_unmap(frame)
    assert is_migration(memory.tables.entry[mapped.slot]).all()
    assert len(mapped.slot) == 2
    assert memory.frames.mapcount[frame].tolist() == [0]
    assert p.frames(a, 1).tolist() == [-1]
    memory.rmap.remove_migration_ptes(mapped, frame, frame)
    assert p.frames(a, 1).tolist() == child.frames(a, 1).tolist() == frame.tolist()
    assert memory.frames.references[frame].tolist() == [references]
    assert not (memory.tables.flags[mapped.slot] & np.uint8(PteFlag.YOUNG)).any()


def test_a_thp_is_mapped_once_by_all_its_slots(machine):
    """The walk of a THP finds 512 slots, and mapping them again counts one mapping."""
    p = machine.spawn()
    a = p.mmap(512)
    p.madvise(a, 512, "hugepage")
    p.write(a)
    memory, head = machine.memory, p.frames(a, 1)
    mapped = memory.rmap.try_to_unmap(head)
    assert len(mapped.slot) == 512
    memory.rmap.remove_migration_ptes(mapped, head, head)
    assert memory.frames.mapcount[head].tolist() == [1]


def test_a_lock_of_any_mapper_counts(machine):
    """A page is mlocked if one of the areas that map it is."""
    p = machine.spawn()
    a = p.mmap(2, shared=True)
    p.write(a, 2)
    child = p.fork()
    child.read(a, 2)
    child.mlock(a, 1)
    assert machine.memory.rmap.is_locked(p.frames(a, 2)).tolist() == [True, False]

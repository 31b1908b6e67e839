"""The recount finds whatever is wrong: each kind of damage is done, and must be named."""

from __future__ import annotations

import numpy as np
import pytest

from movepages.errors import MovePagesError
from movepages.kernel import SimulatedMachine
from movepages.kernel.check import ModelError
from movepages.kernel.frames import PageFlag
from movepages.kernel.page_tables import PteFlag, migration_entry

PAGE = 4096


@pytest.fixture
def machine():
    """Return a machine with one of everything, in which all is well."""
    machine = SimulatedMachine("2 x 32M", swap_bytes=1 << 20)
    p = machine.spawn()
    machine.anon = p.mmap(4)
    p.poke(machine.anon, [1, 2, 3, 3])
    machine.memory.lru.drain_all()
    machine.shared = p.mmap(2, file=machine.file("/f", 4), shared=True)
    p.write(machine.shared, 2)
    machine.thp = p.mmap(512)
    p.madvise(machine.thp, 512, "hugepage")
    p.write(machine.thp)
    machine.resize_pool(0, 2)
    machine.huge = p.mmap(512, huge=True)
    p.write(machine.huge)
    machine.process = p
    machine.check()
    return machine


def frame(machine, address):
    """Return the frame at an address of the process."""
    return int(machine.process.frames(address, 1)[0])


def slot(machine, address):
    """Return the page-table slot of an address of the process."""
    mm = machine.process.struct.mm
    where = np.array([address], dtype=np.uint64)
    return int(mm.slots(mm.find_vma(where), where)[0])


def damage_counts(machine):
    """Spoil it: counts."""
    machine.memory.frames.mapcount[frame(machine, machine.anon)] += 1


def damage_references(machine):
    """Spoil it: references."""
    machine.memory.frames.references[frame(machine, machine.shared)] += 1


def damage_huge_mapcount(machine):
    """Spoil it: huge mapcount."""
    machine.memory.frames.mapcount[frame(machine, machine.thp)] = 512


def damage_huge_entry(machine):
    """Spoil it: huge entry."""
    machine.memory.tables.flags[slot(machine, machine.thp) + 3] &= ~np.uint8(PteFlag.HUGE)


def damage_exclusive(machine):
    """Spoil it: what two processes share is the own of one."""
    machine.process.fork()
    machine.memory.tables.flags[slot(machine, machine.anon)] |= np.uint8(PteFlag.EXCLUSIVE)


def damage_part_of_hugetlb(machine):
    """Spoil it: a hugetlb page is mapped page by page."""
    first = slot(machine, machine.huge)
    flags = machine.memory.tables.flags[first : first + 512]
    flags &= ~np.uint8(PteFlag.HUGE)
    machine.memory.frames.mapcount[frame(machine, machine.huge)] = 512
    machine.memory.frames.references[frame(machine, machine.huge)] += 511


def damage_order(machine):
    """Spoil it: order."""
    machine.memory.frames.order[frame(machine, machine.thp) + 5] = 3


def damage_tail(machine):
    """Spoil it: tail."""
    machine.memory.frames.set(np.array([frame(machine, machine.huge) + 1]), PageFlag.DIRTY)


def damage_entry(machine):
    """Spoil it: entry."""
    machine.memory.tables.entry[slot(machine, machine.anon)] += 1


def damage_by_double_mapping(machine):
    """Spoil it: double mapping."""
    entry = machine.memory.tables.entry
    entry[slot(machine, machine.anon)] = entry[slot(machine, machine.anon) + 1]


def damage_by_migration_entry(machine):
    """Spoil it: migration entry."""
    at = slot(machine, machine.anon)
    pfn = np.array([frame(machine, machine.anon)])
    machine.memory.tables.entry[at] = migration_entry(pfn)[0]


def damage_beyond_the_end(machine):
    """Spoil it: beyond the end."""
    machine.memory.tables.entry[slot(machine, machine.anon)] = len(machine.memory.frames)


def damage_free_list(machine):
    """Spoil it: free list."""
    machine.memory.frames.free[frame(machine, machine.anon)] = True


def damage_free_count(machine):
    """Spoil it: free count."""
    machine.memory.frames.nodes[1].free_pages -= 1


def damage_lowest_free(machine):
    """Spoil it: lowest free."""
    machine.memory.frames.nodes[1].lowest_free += 10


def damage_by_loss(machine):
    """Spoil it: loss."""
    machine.memory.frames.references[machine.memory.frames.allocate(1, 1)] = 0


def damage_by_leak(machine):
    """Spoil it: leak."""
    machine.memory.frames.allocate(1, 1)


def damage_lru(machine):
    """Spoil it: lru."""
    machine.memory.frames.clear(np.array([frame(machine, machine.anon)]), PageFlag.LRU)


def damage_isolation(machine):
    """Spoil it: isolation."""
    pfn = np.array([frame(machine, machine.anon)])
    machine.memory.frames.clear(pfn, PageFlag.LRU)
    machine.memory.frames.set(pfn, PageFlag.ISOLATED)


def damage_batch(machine):
    """Spoil it: batch."""
    pfn = np.array([frame(machine, machine.anon)])
    machine.memory.lru.add(pfn, 0)


def damage_reverse_map(machine):
    """Spoil it: reverse map."""
    pfn = frame(machine, machine.shared)
    machine.memory.mappings[int(machine.memory.frames.mapping[pfn])].areas.clear()


def damage_index(machine):
    """Spoil it: index."""
    machine.memory.frames.index[frame(machine, machine.shared)] += 1


def damage_anon_index(machine):
    """Spoil it: anon index."""
    pfns = machine.process.frames(machine.anon, 2)
    machine.memory.frames.index[pfns] += 1
    machine.memory.frames.slot[pfns] = -1


def damage_page_cache(machine):
    """Spoil it: page cache."""
    machine.memory.frames.clear(np.array([frame(machine, machine.shared)]), PageFlag.PAGE_CACHE)


def damage_swap(machine):
    """Spoil it: swap."""
    machine.memory.swap.users[3] = 1


def damage_pool(machine):
    """Spoil it: pool."""
    machine.memory.pools.pool(0, 9).total += 1


def damage_pool_twice(machine):
    """Spoil it: pool twice."""
    free = machine.memory.pools.pool(0, 9).free
    free.append(free[0])


def damage_slots(machine):
    """Spoil it: slots."""
    machine.process.struct.mm.areas[0].slot += 1


def damage_lock(machine):
    """Spoil it: lock."""
    machine.memory.tables.flags[slot(machine, machine.anon)] |= np.uint8(PteFlag.LOCKED)


def damage_zero_page(machine):
    """Spoil it: zero page."""
    machine.memory.frames.content[0] = 1


def damage_merged(machine):
    """Spoil it: merged."""
    machine.process.madvise(machine.anon, 4, "mergeable")
    machine.merge()
    machine.check()
    machine.memory.mappings.ksm_node().mappers.clear()


def damage_areas(machine):
    """Spoil it: areas."""
    areas = machine.process.struct.mm.areas
    areas[0].end = areas[1].start + 1


def damage_owner(machine):
    """Spoil it: an area of another address space."""
    machine.process.struct.mm.areas[0].mm = machine.shell.struct.mm


def damage_by_lost_slots(machine):
    """Spoil it: slots that no area has."""
    machine.memory.tables.allocate(3)


def damage_pins(machine):
    """Spoil it: pins."""
    machine.memory.pins[frame(machine, machine.anon)] += 1


def damage_merged_mapper(machine):
    """Spoil it: merged mapper."""
    machine.process.madvise(machine.anon, 4, "mergeable")
    machine.merge()
    mappers = machine.memory.mappings.ksm_node().mappers
    (pfn,) = mappers
    machine.memory.frames.slot[pfn] = -1
    mappers[pfn][0] = (machine.shell.struct.mm, mappers[pfn][0][1])


DAMAGES = [value for name, value in sorted(globals().items()) if name.startswith("damage_")]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damage_is_found(machine, damage):
    """Whatever is wrong with frames, tables, lists or pools, the recount raises."""
    damage(machine)
    with pytest.raises(ModelError):
        machine.check()


@pytest.mark.parametrize("damage", [damage_counts, damage_references, damage_lru])
def test_the_error_names_the_frame(machine, damage):
    """The message says which frame it is about."""
    address = machine.shared if damage is damage_references else machine.anon
    pfn = frame(machine, address)
    damage(machine)
    with pytest.raises(ModelError, match=rf"frame {pfn}\b"):
        machine.check()


def test_a_model_error_is_an_assertion():
    """It can be caught as AssertionError and as any error of ours."""
    assert issubclass(ModelError, AssertionError)
    assert issubclass(ModelError, MovePagesError)


def test_an_untouched_machine_is_right():
    """A machine that nothing was done to counts rightly, also at 64 KiB."""
    SimulatedMachine("4 x 8M", page_size_bytes=1 << 16).check()

"""What backs a page, and who knows of it."""

from __future__ import annotations

import pytest

from movepages.kernel import SimulatedMachine
from movepages.kernel.mappings import NOT_CACHED, Backing, Mappings


def test_every_mapping_has_an_id_of_its_own():
    """Ids begin at 1, for 0 is none, and lead back to the mapping."""
    mappings = Mappings()
    made = [mappings.new_anon(5), mappings.new_file("/f", 3, Backing.SHMEM), mappings.ksm_node()]
    assert [mapping.id for mapping in made] == [1, 2, 3]
    assert [mappings[mapping.id] for mapping in made] == made == list(mappings)
    assert mappings.files() == made[1:2]


def test_merged_pages_have_one_mapping():
    """There is one KSM mapping, however often it is asked for."""
    mappings = Mappings()
    assert mappings.ksm_node() is mappings.ksm_node()


def test_a_new_file_has_nothing_in_the_page_cache():
    """All pages of a new file are NOT_CACHED."""
    file = Mappings().new_file("/f", 3, Backing.BUFFERS)
    assert file.cache.tolist() == [NOT_CACHED] * 3


@pytest.mark.parametrize("shared", [False, True])
def test_a_file_knows_the_areas_that_map_it(shared):
    """Mapping, forking and unmapping keep the list of areas, which is the reverse mapping."""
    machine = SimulatedMachine("2 x 8M")
    file = machine.file("/f", 4)
    p = machine.spawn()
    a = p.mmap(4, file=file, shared=shared)
    child = p.fork()
    assert {vma.mm for vma in file.areas} == {p.struct.mm, child.struct.mm}
    child.munmap(a + 4096, 1)
    assert sorted((vma.offset, vma.pages) for vma in file.areas) == [(0, 1), (0, 4), (2, 2)]
    child.exit()
    p.munmap(a, 4)
    assert file.areas == []
    machine.check()

"""The in-kernel recipe of the patch's documentation: isolate, a new_page_t, migrate_pages.

Documentation/vm/page_migration, section A: pages are taken off the LRU, a function of type
new_page_t says where each is to go, and migrate_pages() moves them or puts them back.
"""

from __future__ import annotations

import numpy as np
import pytest

from movepages.abi import Errno
from movepages.kernel import LINUX_2_6_18, LINUX_6_12, PATCH_2006, SimulatedMachine
from movepages.kernel.frames import PageFlag
from movepages.kernel.inject import Pin
from movepages.kernel.migrate import migrate_pages, per_page
from movepages.kernel.ports import NONE

PAGES = 8
KERNELS = [
    pytest.param(semantics, id=semantics.name)
    for semantics in (PATCH_2006, LINUX_2_6_18, LINUX_6_12)
]


def process_with_pages(semantics, topology="2 x 1M"):
    """Return a machine, a process with eight tagged pages on node 0, and their address."""
    machine = SimulatedMachine(topology, semantics=semantics)
    process = machine.spawn()
    address = process.mmap(PAGES)
    process.poke(address, range(100, 100 + PAGES))
    return machine, process, address


def isolated_pages(machine, process, address):
    """Step 1: lru_add_drain_all() by migrate_prep(), then isolate_lru_page() for each."""
    pages = process.frames(address, PAGES)
    machine.memory.drain()
    assert machine.memory.isolate(pages).all()
    return pages


def to_node(machine, node):
    """Step 2: a new_page_t as in C, that names a result slot: the page's place in `private`."""

    def new_page(page, private):
        new = machine.memory.allocate(np.array([page]), np.array([node], np.int32), exact=True)
        return int(new[0]), private.index(page)

    return per_page(new_page)


@pytest.mark.parametrize("semantics", KERNELS)
def test_the_recipe_moves_pages_with_their_contents(semantics):
    """Isolated pages are moved by migrate_pages(), with contents and results where asked for."""
    machine, process, address = process_with_pages(semantics)
    pages = isolated_pages(machine, process, address)
    result = np.full(PAGES, 99, dtype=np.int32)

    rc = migrate_pages(machine.memory, pages, to_node(machine, 1), pages.tolist(), result)

    assert rc == 0
    assert result.tolist() == [1] * PAGES
    assert process.nodes(address, PAGES).tolist() == [1] * PAGES
    assert process.peek(address, PAGES).tolist() == list(range(100, 100 + PAGES))
    machine.check()


@pytest.mark.parametrize("semantics", KERNELS)
def test_an_isolated_page_is_off_the_lru_until_it_is_put_back(semantics):
    """Nobody else can isolate a page in between; putback makes it what it was."""
    machine, process, address = process_with_pages(semantics)
    pages = isolated_pages(machine, process, address)

    assert not machine.memory.isolate(pages).any()
    machine.memory.putback(pages)

    assert machine.memory.on_lru(pages).all()
    assert process.frames(address, PAGES).tolist() == pages.tolist()
    machine.check()


@pytest.mark.parametrize("semantics", KERNELS)
def test_what_does_not_move_is_put_back_and_counted(semantics):
    """A pinned page stays, mapped and on the LRU; migrate_pages returns how many did."""
    machine, process, address = process_with_pages(semantics)
    machine.inject(Pin(process, address, pages=2))
    pages = isolated_pages(machine, process, address)
    result = np.full(PAGES, 99, dtype=np.int32)

    rc = migrate_pages(machine.memory, pages, to_node(machine, 1), pages.tolist(), result)

    assert rc == 2
    assert result.tolist() == [-Errno.EAGAIN] * 2 + [1] * (PAGES - 2)
    assert process.nodes(address, PAGES).tolist() == [0, 0] + [1] * (PAGES - 2)
    assert not machine.memory.frames.has(pages[:2], PageFlag.ISOLATED).any()
    machine.check()


@pytest.mark.parametrize("semantics", KERNELS)
def test_a_new_page_t_without_memory_stops_the_list(semantics):
    """NULL from the new_page_t is -ENOMEM at once; what moved has moved, the rest is put back."""
    machine, process, address = process_with_pages(semantics)
    pages = isolated_pages(machine, process, address)
    given = iter(range(3))

    def new_page(page, _):
        if next(given, None) is None:
            return NONE, NONE
        new = machine.memory.allocate(np.array([page]), np.array([1], np.int32), exact=True)
        return int(new[0]), NONE

    result = np.full(PAGES, 99, dtype=np.int32)
    rc = migrate_pages(machine.memory, pages, per_page(new_page), None, result)

    assert rc == -Errno.ENOMEM
    assert result.tolist() == [99] * PAGES
    assert process.nodes(address, PAGES).tolist() == [1] * 3 + [0] * (PAGES - 3)
    machine.check()


def test_pages_faulted_after_the_drain_cannot_be_isolated():
    """As the comment on migrate_prep says: it has to come before the list is compiled."""
    machine, process, address = process_with_pages(PATCH_2006)
    machine.memory.drain()
    later = process.mmap(1)
    process.write(later)

    assert machine.memory.isolate(process.frames(address, PAGES)).all()
    assert not machine.memory.isolate(process.frames(later, 1)).any()


@pytest.mark.parametrize("semantics", KERNELS)
def test_a_page_that_was_freed_meanwhile_counts_as_moved(semantics):
    """With only the reference of isolation left (page_count 1) there is nothing to move (D16)."""
    machine, process, address = process_with_pages(semantics)
    pages = isolated_pages(machine, process, address)
    process.munmap(address, PAGES)
    result = np.full(PAGES, 99, dtype=np.int32)

    rc = migrate_pages(machine.memory, pages, to_node(machine, 1), pages.tolist(), result)

    assert rc == 0
    assert result.tolist() == [1] * PAGES  # the node of the unused new page
    machine.check()

"""What pages belong to, and the handles that name them."""

from __future__ import annotations

import numpy as np
import pytest

from movepages.emulator.objects import (
    NEW_PAGES,
    PAGE_BITS,
    ZERO_PAGE,
    Objects,
    object_numbers,
    page_numbers,
)

LAST_PAGE = (1 << PAGE_BITS) - 1
FILE = {"movable": True, "vanishes": False}


def test_handles_name_one_page_of_one_object():
    """Object and page come back out of a handle, for the first page and for the last."""
    objects = Objects()
    pages = np.array([0, 1, LAST_PAGE])
    seen = set()
    for thing in (objects.anonymous(), objects.anonymous(), objects.file((1, 2, 0), **FILE)):
        handles = thing.handles(pages)
        assert object_numbers(handles).tolist() == [thing.id] * 3
        assert page_numbers(handles).tolist() == pages.tolist()
        assert objects[thing.id] is thing
        seen.update(handles.tolist())
    assert len(seen) == 9


def test_no_object_has_the_handles_of_special_pages():
    """Page 0 of the first object is neither the zero page nor one that is not mapped yet."""
    first = Objects().anonymous().handles(np.array([0]))[0]
    assert first != ZERO_PAGE
    assert object_numbers(np.array([first]))[0] > NEW_PAGES


def test_file_is_known_by_device_inode_and_generation():
    """The same key is the same object; another device, inode or generation is another."""
    objects = Objects()
    file = objects.file((1, 2, 3), **FILE)
    assert objects.file((1, 2, 3), **FILE) is file
    others = [objects.file(key, **FILE) for key in ((9, 2, 3), (1, 9, 3), (1, 2, 9))]
    assert len({file.id, *(other.id for other in others)}) == 4


def test_what_is_said_last_of_a_file_holds():
    """A file that is unlinked while it is mapped vanishes from then on."""
    objects = Objects()
    file = objects.file((1, 2, 0), **FILE)
    assert not file.vanishes
    objects.file((1, 2, 0), movable=False, vanishes=True)
    assert file.vanishes
    assert not file.movable


def test_only_what_nobody_can_find_again_vanishes():
    """A file goes when it has neither a name nor a mapping; its key is then free for another."""
    objects = Objects()
    named = objects.file((1, 1, 0), **FILE)
    mapped = objects.file((1, 2, 0), movable=True, vanishes=True)
    gone = objects.file((1, 3, 0), movable=True, vanishes=True)
    assert objects.drop_vanished({(1, 2, 0)}) == [gone]
    assert objects.drop_vanished({(1, 2, 0)}) == []
    with pytest.raises(KeyError):
        objects[gone.id]
    assert (objects[named.id], objects[mapped.id]) == (named, mapped)
    assert objects.file((1, 3, 0), **FILE).id not in {named.id, mapped.id, gone.id}


def test_dropped_object_is_gone_and_its_number_is_not_used_again():
    """No handle of a dropped object names a page of another."""
    objects = Objects()
    thing = objects.anonymous()
    objects.drop(thing)
    with pytest.raises(KeyError):
        objects[thing.id]
    assert objects.anonymous().id != thing.id

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


def test_handles_name_one_page_of_one_object():
    """Object and page come back out of a handle, for the first page and for the last."""
    objects = Objects()
    pages = np.array([0, 1, LAST_PAGE])
    seen = set()
    for thing in (objects.anonymous(), objects.anonymous(), objects.file(movable=True)):
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


def test_object_may_refuse_to_move():
    """A file is movable or not, as it is said to be; anonymous memory is."""
    objects = Objects()
    things = (objects.anonymous(), objects.file(movable=True), objects.file(movable=False))
    assert [thing.movable for thing in things] == [True, True, False]


def test_dropped_object_is_gone_and_its_number_is_not_used_again():
    """No handle of a dropped object names a page of another."""
    objects = Objects()
    thing = objects.anonymous()
    objects.drop(thing)
    with pytest.raises(KeyError):
        objects[thing.id]
    assert objects.anonymous().id != thing.id

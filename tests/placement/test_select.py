from __future__ import annotations

import pytest
from guestkit.pages import PAGE_BYTES

from movepages.linux.machine import LinuxMachine
from movepages.placement.select import pages_of

pytestmark = pytest.mark.host


def test_the_present_pages_of_ranges_are_meant(memory):
    """Pages of the ranges are chosen, those that are not present are not."""
    pages = memory.private(8)
    pages[2:6].touch()
    part = (pages.start, pages.start + 4 * PAGE_BYTES)
    runs = pages_of(LinuxMachine(), 0, [part])
    assert runs.addresses().tolist() == pages.addresses[2:4].tolist()


def test_without_ranges_all_mappings_are_meant(memory):
    """All of a process is chosen where nothing else is said."""
    pages = memory.private(4).touch()
    chosen = set(pages_of(LinuxMachine(), 0).addresses().tolist())
    assert chosen >= set(pages.addresses.tolist())

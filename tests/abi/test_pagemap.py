from __future__ import annotations

import re
from pathlib import Path

import pytest

from movepages.abi import pagemap
from movepages.abi.pagemap import PageFlag, PagemapBit, PageRegion

PAGE_FLAGS = Path("/usr/include/linux/kernel-page-flags.h")

_IOC_WRITE, _IOC_READ = 1, 2


def ioc(direction: int, letter: str, number: int, size_bytes: int) -> int:
    """Compose an ioctl request as _IOC() of include/uapi/asm-generic/ioctl.h does."""
    return direction << 30 | size_bytes << 16 | ord(letter) << 8 | number


def test_pagemap_scan_is_the_request_of_its_definition():
    """PAGEMAP_SCAN is _IOWR('f', 16, struct pm_scan_arg)."""
    size_bytes = pagemap.PM_SCAN_ARG.size
    assert ioc(_IOC_READ | _IOC_WRITE, "f", 16, size_bytes) == pagemap.PAGEMAP_SCAN


def test_structures_have_the_sizes_of_the_kernel():
    """The kernel wants a pm_scan_arg of 96 bytes, a page_region of 24, an entry of 8."""
    assert pagemap.PM_SCAN_ARG.size == 96
    assert pagemap.PAGE_REGION.size == 24
    assert pagemap.PAGEMAP_ENTRY_BYTES == 8


def test_the_frame_ends_where_the_flags_begin():
    """Bits 0 to 54 of an entry are the frame; bit 55 is the first flag."""
    assert sum(1 << bit for bit in range(55)) == pagemap.PAGEMAP_PFN_MASK
    assert min(PagemapBit) == 55


@pytest.mark.parametrize(
    ("name", "bit"),
    [
        ("SOFT_DIRTY", 55),
        ("EXCLUSIVE", 56),
        ("UFFD_WP", 57),
        ("GUARD", 58),
        ("FILE_OR_SHARED", 61),
        ("SWAPPED", 62),
        ("PRESENT", 63),
    ],
)
def test_entry_bits_are_those_of_the_documentation(name, bit):
    """The bits are those of Documentation/admin-guide/mm/pagemap.rst."""
    assert PagemapBit[name] == bit


def test_categories_are_those_of_fs_h():
    """PAGE_IS_* are bits 0 to 8 in the order of include/uapi/linux/fs.h."""
    names = "WPALLOWED WRITTEN FILE PRESENT SWAPPED PFNZERO HUGE SOFT_DIRTY GUARD"
    assert " ".join(str(region.name) for region in sorted(PageRegion)) == names
    assert [int(region) for region in sorted(PageRegion)] == [1 << bit for bit in range(9)]


@pytest.mark.parametrize(
    ("name", "bit"),
    [
        ("LRU", 5),
        ("COMPOUND_HEAD", 15),
        ("HUGE", 17),
        ("NOPAGE", 20),
        ("THP", 22),
        ("ZERO_PAGE", 24),
    ],
)
def test_frame_flags_are_those_of_the_documentation(name, bit):
    """The flags that matter have the bits of Documentation/admin-guide/mm/pagemap.rst."""
    assert PageFlag[name] == bit


@pytest.mark.host
def test_frame_flags_are_those_of_the_c_headers_of_this_machine():
    """Where the C headers are installed they give the same bits."""
    text = PAGE_FLAGS.read_text(encoding="ascii") if PAGE_FLAGS.exists() else ""
    for name, bit in re.findall(r"#define KPF_(\w+)\s+(\d+)", text):
        assert PageFlag.__members__.get(name, int(bit)) == int(bit)
